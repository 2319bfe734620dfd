"""What stays in the bucket after refreshes, deaths and denied deletes."""

from __future__ import annotations

import signal

import pytest

from integration_tests.harness import FINAL, House, catalog, record, state
from integration_tests.test_crashes import OVERWRITE, killer

NO_GRACE = {"retain_replaced_hours": 0}


def refresh(house: House, run: int, *, config=None, on_start=lambda pid: None):
    rows = [record(number) for number in range(run * 10, run * 10 + 5)]
    done = state({**FINAL, "run_id": str(run)})
    return house.write([*rows, done], catalog(**OVERWRITE), config=config or house.config(), on_start=on_start)


def data_keys(house: House) -> list[str]:
    return [key for key in house.keys("lake/") if not key.startswith("lake/_airbyte/")]


def test_a_replaced_folder_is_there_for_running_queries_and_older_ones_go(house: House):
    for run in range(6):
        assert refresh(house, run).exit_code == 0
    # the live one, three kept copies of those replaced before this run's open, and the one that this run replaced
    assert len(data_keys(house)) == 5
    assert house.ids() == [50, 51, 52, 53, 54]


def test_without_grace_only_the_table_and_what_this_run_replaced_are_left(house: House):
    for run in range(4):
        assert refresh(house, run, config=house.config(**NO_GRACE)).exit_code == 0
    assert len(data_keys(house)) == 2
    house.write([record(99), state({"c": 1})], config=house.config(**NO_GRACE))
    assert sorted(data_keys(house)) == sorted(house.live_keys())
    hashes = [key for key in house.keys("lake/_airbyte/") if "/replay/" in key]
    assert len(hashes) == 1  # of the append; the refresh before it ended well


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("step", "match"),
    [("s3:PutObject", "/log/00000000000000000017"), ("s3:DeleteObjects", "")],
    ids=["entry", "delete"],
)
def test_a_death_while_cleaning_harms_nothing_and_the_next_run_goes_on(house: House, step: str, match: str, when: str):
    config = house.config(**NO_GRACE)
    for run in range(3):
        assert refresh(house, run, config=config).exit_code == 0
    last = sorted(house.log_entries())[-1]
    expected = f"/log/{int(last[-25:-5]) + 2:020d}" if match else ""
    killed = refresh(house, 3, config=config, on_start=killer(house, step, expected, when))
    house.lake.faults(at=None)
    assert killed.exit_code == -signal.SIGKILL, "the step was not reached"
    assert house.ids() == [20, 21, 22, 23, 24]
    assert refresh(house, 3, config=config).exit_code == 0
    assert house.ids() == [30, 31, 32, 33, 34]
    assert len(data_keys(house)) == 2
    assert house.uploads() == []


def test_a_denied_delete_is_a_warning_and_not_a_failed_sync(house: House):
    config = house.config(**NO_GRACE)
    for run in range(2):
        assert refresh(house, run, config=config).exit_code == 0
    house.lake.faults(deny=["s3:DeleteObject"])
    result = refresh(house, 2, config=config)
    house.lake.faults(deny=[])
    assert result.exit_code == 0
    warnings = [m["log"]["message"] for m in result.of("LOG") if m["log"]["level"] == "WARN"]
    assert any("could not be deleted" in text and "s3:DeleteObject" in text for text in warnings)
    assert house.ids() == [20, 21, 22, 23, 24]


def test_objects_that_are_not_ours_are_never_deleted(house: House):
    assert refresh(house, 0, config=house.config(**NO_GRACE)).exit_code == 0
    folder = house.live_keys()[0].rpartition("/")[0].rpartition("/")[0]
    strange = [f"{folder}/backup/file.parquet", f"{folder}/notes.txt"]
    for key in strange:
        house.s3.put_object(Bucket=house.bucket, Key=key, Body=b"mine")
    for run in range(1, 4):
        assert refresh(house, run, config=house.config(**NO_GRACE)).exit_code == 0
    assert set(strange) <= set(data_keys(house))
