"""Schedules of crash and concurrency that broke earlier versions of the commit protocol, each by its name.

Through the real process on the strict lake. A kill is at a named request, a zombie is a process that was stopped there
and wakes when its successor is done, and "the platform keeps {3}" is what the next run's first STATE says.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration_tests.harness import FINAL, House, Message, Result, catalog, complete, record, state
from integration_tests.test_crashes import OVERWRITE, killer

FULL: dict[str, Any] = {"sync_mode": "full_refresh"}
LOG = "/log/0"


def at(number: object) -> Message:
    return state({"c": number})


def generation(number: int, minimum: int, sync: int = 1) -> dict[str, Any]:
    return {"generation_id": number, "minimum_generation_id": minimum, "sync_id": 100 + sync}


def ended(house: House, messages: list[Message], configured: Message | None = None, **more: Any) -> Result:
    """A run that must end well."""
    result = house.write(messages, configured, **more)
    assert result.exit_code == 0, result.stdout
    return result


def killed_at(house: House, step: str, match: str, when: str, messages: list[Message], configured: Message) -> Result:
    """A run that dies before or after a request."""
    result = house.write(messages, configured, on_start=killer(house, step, match, when))
    house.lake.faults(at=None)
    assert result.exit_code == -signal.SIGKILL, "the step was not reached"
    return result


def next_entry(house: House, behind: int) -> str:
    """The key of the log entry ``behind`` places after the next."""
    last = sorted(house.log_entries())[-1]
    return f"/log/{int(last[-25:-5]) + 1 + behind:020d}"


@contextmanager
def zombie(house: House, step: str, match: str, messages: list[Message], configured: Message) -> Iterator[list[Result]]:
    """A process that stops before a request and wakes when the block ends; its result is there after it."""
    results: list[Result] = []
    pids: list[int] = []

    def arm(pid: int) -> None:
        pids.append(pid)
        house.lake.faults(at={"step": step, "match": match, "when": "before", "do": "stop", "pid": pid})

    own = House.__new__(House)
    own.__dict__.update(house.__dict__)
    own.folder = Path(f"{house.folder}-zombie")
    own.folder.mkdir(exist_ok=True)
    thread = threading.Thread(target=lambda: results.append(own.write(messages, configured, on_start=arm)))
    thread.start()
    deadline = time.monotonic() + 30
    while not pids or _state_of(pids[0]) != "T":
        assert time.monotonic() < deadline, "the step was not reached"
        time.sleep(0.02)
    try:
        yield results
    finally:
        os.kill(pids[0], signal.SIGCONT)
        thread.join()


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_f1_pyairbytes_ones_append_whatever_the_log_says(house: House):
    ones: dict[str, Any] = {"generation_id": 1, "minimum_generation_id": 1, "sync_id": 1}
    ended(house, [record(1), record(2), at(2), complete()], catalog(**generation(7, 0)))
    ended(house, [record(3), state(FINAL)], catalog(**FULL, **ones))
    ended(house, [record(3), state(FINAL)], catalog(**FULL, **ones))
    assert house.ids() == [1, 2, 3, 3]


@pytest.mark.parametrize("kept", [[], [at(4)]], ids=["no STATE", "its last STATE"])
def test_f2_of_a_replace_without_a_number_only_the_last_state_leaves_and_its_retry_continues(
    house: House, kept: list[Message]
):
    overwrite = catalog(**OVERWRITE)
    ended(house, [record(1), at(1), complete()], overwrite)
    first = ended(house, [record(3), at(3), record(4), at(4), complete()], overwrite)
    assert first.states == [{"c": 4}]
    retry = [*kept, *([] if kept else [record(3), at(3), record(4)]), record(5), at(5), complete()]
    ended(house, retry, overwrite)
    assert house.ids() == [3, 4, 5]


@pytest.mark.parametrize("after", [(42, 0), (43, 0), (None, None)], ids=["same", "higher", "null"])
def test_f3_a_cancelled_truncate_is_joined_by_any_later_append(house: House, after: tuple[int | None, int | None]):
    ended(house, [record(1), record(2), at(2), complete()], catalog(**generation(41, 0)))
    died = house.write([record(3), at(3), record(4)], catalog(**generation(42, 42, sync=2)))
    assert (died.exit_code, house.ids()) == (1, [1, 2])
    number, minimum = after
    more: dict[str, Any] = {} if number is None or minimum is None else generation(number, minimum, sync=3)
    ended(house, [at(3), record(4), record(5), at(5), complete()], catalog(**more))
    assert house.ids() == [1, 2, 3, 4, 5]


def test_f4_a_truncate_whose_retry_has_nothing_left_is_published_and_not_cleared(house: House):
    ended(house, [record(1), at(1), complete()], catalog(**generation(4, 0)))
    truncate = catalog(**generation(5, 5, sync=2))
    killed_at(house, "s3:PutObject", next_entry(house, 2), "before", [record(3), at(3), record(4), at(4), complete()],
              truncate)  # fmt: skip
    assert house.ids() == [1]
    ended(house, [at(4), complete()], truncate)
    assert house.ids() == [3, 4]
    ended(house, [state(None), complete()], catalog(**generation(6, 6, sync=3)))
    assert house.ids() == []


@pytest.mark.parametrize("first", [[], [state(None)]], ids=["no state", "null"])
def test_f5_no_state_is_no_resume_point_and_a_snapshot_of_another_sync_is_new(house: House, first: list[Message]):
    rows = [record(1), record(2), state(FINAL), complete()]
    ended(house, [*first, *rows], catalog(**FULL, **generation(3, 0)))
    ended(house, [*first, *rows], catalog(**FULL, **generation(4, 0, sync=2)))
    assert house.ids() == [1, 1, 2, 2]


def test_f6_the_segments_of_a_run_hang_on_its_own_resume_point(house: House):
    configured = catalog(**generation(1, 0))
    house.write([record(2), at(2), record(1)], configured)  # nothing of it was kept
    second = house.write([record(1), at(1), record(2)], configured)
    assert second.states == [{"c": 1}]
    ended(house, [at(1), record(2), at(12), complete()], configured)
    assert house.ids() == [1, 2]


def test_f7_a_state_without_rows_is_in_the_log_before_it_leaves(house: House):
    configured = catalog()
    ended(house, [record(1), at(1), at("1-"), record(2), at(2)], configured)
    ended(house, [at("1-"), record(2), at(2), record(3), at(3)], configured)
    assert house.ids() == [1, 2, 3]


@pytest.mark.parametrize("step", ["s3:CreateMultipartUpload", "s3:CompleteMultipartUpload"])
def test_f8_a_paused_writer_that_shares_the_folder_of_a_refresh_puts_nothing_into_it(house: House, step: str):
    truncate = catalog(**generation(5, 5))
    house.write([record(3), at(3), record(4)], truncate)
    rest = [at(3), record(4), at(4), complete()]
    with zombie(house, step, "", rest, truncate) as results:
        ended(house, rest, truncate)
        assert house.ids() == [3, 4]
    assert house.ids() == [3, 4]
    assert results[0].exit_code == 1
    ended(house, [at(4), complete()], catalog(**generation(5, 0, sync=2)))
    assert house.ids() == [3, 4]


@pytest.mark.parametrize(
    ("step", "match"),
    [("s3:PutObject", LOG), ("s3:AbortMultipartUpload", ""), ("s3:DeleteObject", ""), ("s3:DeleteObject", "/replay/")],
    ids=["its entry", "its abort", "its file", "its hashes"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_f9_a_void_that_dies_at_any_of_its_steps_is_finished_by_the_next(
    house: House, step: str, match: str, when: str
):
    ended(house, [record(1), at(1)])
    killed_at(house, "s3:CompleteMultipartUpload", "", "before", [at(1), record(2), at(2)], catalog())
    assert house.uploads() != []
    house.abort_uploads()
    where = next_entry(house, 1) if match == LOG else match
    again = [at(1), record(2), at(2), record(3), at(3)]
    killed_at(house, step, where, when, again, catalog())
    ended(house, again)
    assert house.ids() == [1, 2, 3]
    assert house.uploads() == []


def test_f10_a_late_starter_that_slept_through_its_successor_stops(house: House):
    overwrite = catalog(**OVERWRITE)
    ended(house, [record(1), state(FINAL)], overwrite)
    with zombie(house, "glue:GetDatabase", "", [record(3), record(4), state(FINAL)], overwrite) as results:
        time.sleep(1.1)  # S3 stamps whole seconds
        ended(house, [record(5), state({**FINAL, "run_id": "2"})], overwrite)
    assert house.ids() == [5]
    assert results[0].exit_code == 1
    assert results[0].errors[0]["failure_type"] == "transient_error"


def test_f11_a_generation_below_the_published_one_replaces_with_a_warning(house: House):
    ended(house, [record(1), at(1), complete()], catalog(**generation(5, 5)))
    result = ended(house, [record(2), at(1), complete()], catalog(**generation(4, 4, sync=2)))
    assert any("counts anew" in log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN")
    assert house.ids() == [2]


def test_f12_a_log_that_is_lost_while_a_writer_lives_is_refused(house: House):
    ended(house, [record(1), at(1)])
    with zombie(house, "s3:PutObject", next_entry(house, 1), [record(2), at(2)], catalog()):
        for key in house.keys("lake/_airbyte/"):
            if "/log/" in key:
                house.s3.delete_object(Bucket=house.bucket, Key=key)
    # Its last act was a checkpoint, which says all that the log said. Without that the head is missing.
    (checkpoint,) = [key for key in house.keys("lake/_airbyte/") if "/log/checkpoint-" in key]
    body = house.s3.get_object(Bucket=house.bucket, Key=checkpoint)["Body"].read()
    house.s3.delete_object(Bucket=house.bucket, Key=checkpoint)
    result = house.write([record(3), at(3)])
    assert result.exit_code == 1
    assert "repair" in result.errors[0]["message"]
    house.s3.put_object(Bucket=house.bucket, Key=checkpoint, Body=body)
    ended(house, [record(3), at(3)])
    assert house.ids() == [1, 2, 3]


def test_f15_only_hashes_on_the_path_to_a_proved_resume_point_go(house: House):
    configured = catalog(**generation(1, 0))
    house.write([record(1), at(1), record(2), at(2), record(9)], configured)
    # {1} was kept: the second attempt proves it and dies at once; the third resumes there again.
    killed_at(house, "s3:CreateMultipartUpload", "", "before", [at(1), record(2), at(2), record(9), at(9)], configured)
    ended(house, [at(1), record(2), at(2), record(9), at(9), complete()], configured)
    assert house.ids() == [1, 2, 9]


def test_f16_with_a_known_resume_point_equal_rows_are_exact(house: House):
    house.write([record(1), at("first x"), record(1)])
    ended(house, [at("first x"), record(1), at("second x")])
    assert house.ids() == [1, 1]


def test_attempts_of_one_generation_share_one_folder(house: House):
    truncate = catalog(**generation(5, 5))
    for number in (1, 2):
        first = [at(number - 1)] if number > 1 else []
        assert house.write([*first, record(number), at(number), record(9)], truncate).exit_code == 1
    ended(house, [at(2), record(3), at(3), complete()], truncate)
    assert house.ids() == [1, 2, 3]
    assert len({key.rpartition("/")[0] for key in house.live_keys()}) == 1


def test_a_first_state_that_ended_an_empty_slice_does_not_make_an_overwrite_a_retry(house: House):
    overwrite = catalog(**OVERWRITE)
    ended(house, [at("slice 1 is empty"), record(9), at(9), complete()])  # that STATE is in the log
    for rows in ([1, 2], [3, 4]):
        ended(house, [at("slice 1 is empty"), *map(record, rows), at("end"), complete()], overwrite)
        assert house.ids() == rows


def test_a_resumed_complete_run_with_a_new_run_id_does_not_empty_the_table(house: House):
    """It does not say where it resumed; what it ends with is its input STATE, which left with the replace."""
    overwrite = catalog(**OVERWRITE)
    last = state({**FINAL, "run_id": "1"})
    ended(house, [record(1), last, complete()], overwrite)
    ended(house, [last, complete()], overwrite)
    assert house.ids() == [1]


def test_a_refresh_and_retain_with_an_empty_first_slice_keeps_the_new_copy(house: House):
    first = [at("empty slice"), record(1), record(2), at(2), complete()]
    ended(house, first, catalog(**generation(1, 0)))
    ended(house, first, catalog(**generation(2, 0, sync=2)))
    assert house.ids() == [1, 1, 2, 2]


def test_an_unknown_resume_point_walks_back_over_every_run_that_did_not_close(house: House):
    configured = catalog(**generation(1, 0))
    assert house.write([record(1), at(1), record(9)], configured).exit_code == 1
    assert house.write([record(1), at(1), record(2), at(2), record(9)], configured).exit_code == 1
    ended(house, [record(2), record(1), at(1), record(3), at(3), complete()], configured)
    assert house.ids() == [1, 2, 3]


def test_rows_of_an_append_that_died_do_not_drop_those_of_a_truncate(house: House):
    assert house.write([record(1), at(1), record(2)], catalog(**generation(1, 0))).exit_code == 1
    ended(house, [record(1), record(2), at(2), complete()], catalog(**generation(2, 2)))
    assert house.ids() == [1, 2]


def test_generations_that_come_down_and_up_again_store_nothing_twice(house: House):
    for number in (2, 1, 2):
        ended(house, [record(number), at(number), complete()], catalog(**generation(number, number, sync=number)))
        assert house.ids() == [number]


def test_the_commits_of_a_dead_replace_without_a_number_are_never_joined(house: House):
    ended(house, [record(1), at(1), complete()], catalog(**OVERWRITE))
    killed_at(house, "s3:PutObject", next_entry(house, 2), "before", [record(2), at(2), complete()],
              catalog(**OVERWRITE))  # fmt: skip
    ended(house, [record(3), at(3)])
    assert house.ids() == [1, 3]


def test_a_second_connection_of_one_stream_name_is_warned_of(house: House):
    ended(house, [record(1), at("of connection one"), complete()], catalog(**generation(1, 0, sync=1)))
    result = ended(house, [at("of connection two"), record(2), at(2), complete()], catalog(**generation(1, 0, sync=8)))
    (warning,) = [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN"]
    assert "sync 101" in warning
    assert "sync 108" in warning
    assert f"{house.database}.orders" in warning
    assert "namespace_handling" in warning


def test_f9_rows_of_a_commit_whose_uploads_were_aborted_come_again(house: House):
    ended(house, [record(1), at(1)])
    killed_at(house, "s3:CompleteMultipartUpload", "", "before", [at(1), record(2), at(2)], catalog())
    assert house.uploads() != []
    house.abort_uploads()
    house.write([at(1), record(2), at(2), record(3), at(3)])
    assert house.ids() == [1, 2, 3]


def test_a_paused_writer_that_wakes_at_its_swap_does_not_move_the_table_back(house: House):
    overwrite = catalog(**OVERWRITE)
    ended(house, [record(1), state(FINAL)], overwrite)
    with zombie(house, "glue:UpdateTable", "", [record(3), record(4), state(FINAL)], overwrite) as results:
        time.sleep(1.1)
        ended(house, [record(5), state({**FINAL, "run_id": "2"})], overwrite)
    assert house.ids() == [5]
    assert results[0].exit_code == 1


def test_commits_that_a_later_swap_includes_are_not_completed_again(house: House):
    config = house.config(compact_files_over=2, retain_replaced_hours=0)
    for number in range(1, 4):
        ended(house, [*([at(number - 1)] if number > 1 else []), record(number), at(number)], config=house.config())
    retry = [at(3), record(4), at(4)]
    deaths = [
        ("s3:CompleteMultipartUpload", "", house.config()),  # of the commit
        ("s3:PutObject", next_entry(house, 4), config),  # the swap of a compaction, behind open and garbage
        ("s3:DeleteObjects", "", config),  # what it replaced
    ]
    for step, match, settings in deaths:
        died = house.write(retry, config=settings, on_start=killer(house, step, match, "after"))
        house.lake.faults(at=None)
        assert died.exit_code == -signal.SIGKILL, "the step was not reached"
    ended(house, retry, config=config)
    assert house.ids() == [1, 2, 3, 4]


def test_a_paused_cleaner_deletes_nothing_of_its_successor(house: House):
    overwrite = catalog(**OVERWRITE)
    config = house.config(retain_replaced_hours=0)
    for number in (1, 2):
        ended(house, [record(number), state({**FINAL, "run_id": str(number)})], overwrite, config=config)
    with zombie(house, "s3:ListObjects", "delimiter", [record(3), state(FINAL)], overwrite):
        time.sleep(1.1)
        ended(house, [record(5), state({**FINAL, "run_id": "3"})], overwrite)
    assert house.ids() == [5]


def test_hashes_of_another_version_drop_nothing_and_are_said_to(house: House):
    killed_at(house, "s3:CompleteMultipartUpload", "", "after", [record(1), at(1)], catalog())
    (key,) = [key for key in house.keys("lake/_airbyte/") if "/replay/" in key]
    body = house.s3.get_object(Bucket=house.bucket, Key=key)["Body"].read()
    house.s3.put_object(Bucket=house.bucket, Key=key, Body=bytes(8) + body[8:])
    again = ended(house, [record(1), at(1)])
    assert house.ids() == [1, 1]
    assert any("hashed by another version" in entry["log"]["message"] for entry in again.of("LOG"))
