"""Merge, join and compaction as rewrites; tables of others adopted; logs rebuilt."""

from __future__ import annotations

import io
import random
import signal
import subprocess
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from destination_s3_datalake.config import Config
from destination_s3_datalake.lake import s3
from destination_s3_datalake.lake.session import connect

from integration_tests.acceptance_cases import GONE, dedup, point, row, stream
from integration_tests.harness import DESTINATION, FINAL, House, Message, Result, catalog, record, state
from integration_tests.test_crashes import killer
from integration_tests.test_schedules import at, ended, next_entry

UPSERT: Message = {"streams": [stream(**dedup())]}
CDC: Message = {
    "streams": [stream(fields={"id": "integer", "c": "integer", "_ab_cdc_deleted_at": "string"}, **dedup())]
}


def seen(house: House, table: str = "s") -> list[tuple[Any, Any]]:
    return sorted((found["id"], found["c"]) for found in house.rows(table))


def repair(house: House, configured: Message) -> Result:
    files = house.save(config=house.config(), catalog=configured)
    command = [str(DESTINATION), "repair", "--config", files["config"], "--catalog", files["catalog"]]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return Result(done.returncode, done.stdout, done.stderr)


def test_files_that_no_key_touches_are_copied_server_side(house: House):
    ended(house, [row(id=n, c=1) for n in range(100)] + [point(1)], UPSERT)
    ended(house, [point(1), *(row(id=n, c=1) for n in range(100, 200)), point(2)], UPSERT)
    before = len(house.lake.requests())
    ended(house, [point(2), row(id=150, c=2), point(3)], UPSERT)
    assert seen(house) == sorted([(n, 1) for n in range(200) if n != 150] + [(150, 2)])
    copies = [r for r in house.lake.requests()[before:] if r["action"] == "s3:PutObject" and "/s/" in r["on"]]
    assert len([r for r in copies if "_airbyte" not in r["on"]]) == 1


def test_many_upserts_merge_along_the_way_and_the_table_has_one_row_per_key_all_the_time(house: House):
    config = house.config(merge_every_mb=1, target_file_mb=1, max_commit_interval_s=1)
    text = "".join(str(n) for n in range(60_000))
    messages = []
    for number in range(1, 13):
        messages += [row(id=number % 5, c=number, name=f"{number}{text[number:]}"), point(number)]
    result = ended(house, messages, UPSERT, config=config)
    assert len(result.of("STATE")) == 12
    assert seen(house) == [(0, 10), (1, 11), (2, 12), (3, 8), (4, 9)]


def test_a_table_beyond_the_merge_limit_is_refused_before_anything_is_acknowledged(house: House):
    noise = random.Random(1)
    ended(house, [row(id=n, c=1, name=noise.randbytes(2000).hex()) for n in range(1000)] + [point(1)], UPSERT)
    result = house.write([point(1), row(id=1, c=2), point(2)], UPSERT, config=house.config(merge_limit_mb=1))
    assert (result.exit_code, result.states) == (1, [])
    assert result.errors[0]["failure_type"] == "config_error"
    assert "merge_limit_mb" in result.errors[0]["message"]


def test_soft_deletes_stay_with_their_mark(house: House):
    config = house.config(cdc_deletes="soft")
    ended(house, [row(id=1, c=1), row(id=2, c=1), row(id=1, c=2, **GONE), point(1)], CDC, config=config)
    assert [(r["id"], r["_ab_cdc_deleted_at"]) for r in sorted(house.rows("s"), key=lambda r: r["id"])] == [
        (1, "2026-01-01"),
        (2, None),
    ]


def test_a_tombstone_outlives_merges_that_do_not_touch_it(house: House):
    ended(house, [row(id=1, c=5), row(id=1, c=6, **GONE), point(1)], CDC)
    for number in (2, 3):
        ended(house, [point(number - 1), row(id=number, c=1), point(number)], CDC)
    ended(house, [point(3), row(id=1, c=4), point(4)], CDC)
    assert seen(house) == [(2, 1), (3, 1)]
    ended(house, [point(4), row(id=1, c=7), point(5)], CDC)
    assert seen(house) == [(1, 7), (2, 1), (3, 1)]


@pytest.mark.parametrize("key", ["missing", ""])
def test_dedup_without_a_usable_key_is_refused_and_nothing_is_made(house: House, key: str):
    configured: Message = {"streams": [stream(**dedup([[key]] if key else []))]}
    result = house.write([row(id=1), point(1)], configured)
    assert result.errors[0]["failure_type"] == "config_error"
    assert "primary key" in result.errors[0]["message"]
    assert house.log_entries() == []


def test_small_files_become_full_ones_and_every_row_stays(house: House):
    config = house.config(compact_files_over=4)
    for number in range(1, 6):
        ended(house, [*([at(number - 1)] if number > 1 else []), record(number), at(number)], config=config)
    assert len(house.live_keys()) == 5
    ended(house, [at(5), record(6), at(6)], config=config)
    assert len(house.live_keys()) == 2
    assert house.ids() == [1, 2, 3, 4, 5, 6]
    retry = [at(4), record(5), at(5), record(6), at(6), record(7), at(7)]  # the platform kept less: nothing comes twice
    ended(house, retry, config=config)
    assert house.ids() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("step", "behind"),
    [("s3:CreateMultipartUpload", None), ("s3:PutObject", 3), ("glue:UpdateTable", None), ("s3:PutObject", 4)],
    ids=["half a folder", "swap entry", "update table", "published"],
)
def test_a_merge_that_dies_shows_the_old_or_the_new_table(house: House, step: str, behind: int | None, when: str):
    ended(house, [row(id=1, c=1), row(id=2, c=1), point(1)], UPSERT)
    # the entries to come: open, garbage (what the first merge left), commit, swap, published, close
    shot: dict[str, Any] = {"step": step, "match": "/log/" if behind is not None else "", "when": when, "do": "kill"}
    if behind is not None:
        shot["match"] = next_entry(house, behind)
    elif step.startswith("s3"):
        shot |= {"skip": 1}  # the staged file is the first

    def arm(pid: int) -> None:
        house.lake.faults(at={**shot, "pid": pid})

    died = house.write([point(1), row(id=1, c=2), point(2)], UPSERT, on_start=arm)
    house.lake.faults(at=None)
    assert died.exit_code == -signal.SIGKILL, "the step was not reached"
    assert [s["cursor"] for s in died.states] == [1, 2]
    assert seen(house) in ([(1, 1), (2, 1)], [(1, 2), (2, 1)])
    ended(house, [point(2)], UPSERT)
    assert seen(house) == [(1, 2), (2, 1)]
    assert house.uploads() == []


def foreign_table(house: House, name: str = "orders", *, location: str = "elsewhere/orders", **more: Any) -> None:
    """A Parquet table that something else made."""
    body = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([90, 91]), "text": ["x", "y"], "theirs": ["p", "q"]}), body)
    house.s3.put_object(Bucket=house.bucket, Key=f"{location}/part-0.parquet", Body=body.getvalue())
    house.s3.put_object(Bucket=house.bucket, Key=f"{location}/_SUCCESS", Body=b"")
    house.glue.create_database(DatabaseInput={"Name": house.database})
    types = {"id": "bigint", "text": "string", "theirs": "string"}
    columns = [{"Name": column, "Type": kind} for column, kind in types.items()]
    serde = {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"}
    table = {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "StorageDescriptor": {
            "Columns": columns,
            "Location": f"s3://{house.bucket}/{location}",
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "SerdeInfo": serde,
        },
        "PartitionKeys": [],
        "Parameters": {"made_by": "somebody", "classification": "parquet"},
        **more,
    }
    house.glue.create_table(DatabaseName=house.database, TableInput=table)


ADOPT = {"existing_table": "adopt"}


def test_a_table_of_others_is_refused_with_both_ways_out(house: House):
    foreign_table(house)
    result = house.write([record(1), at(1)])
    assert result.errors[0]["failure_type"] == "config_error"
    assert "existing_table" in result.errors[0]["message"]
    assert house.keys("lake/_airbyte/db") == []


def test_an_adopted_table_keeps_its_files_and_rows_through_appends_merges_and_refreshes(house: House):
    foreign_table(house)
    ended(house, [record(1), at(1)], config=house.config(**ADOPT))
    assert [key for key in house.live_keys() if "_SUCCESS" not in key][-1].startswith("elsewhere/orders/")
    assert house.table()["Parameters"]["made_by"] == "somebody"
    ended(house, [at(1), record(2), at(2)])  # the option is back at refuse
    merged = catalog(mode="append_dedup", primary_key=[["id"]])
    ended(house, [at(2), record(90), at(3)], merged)  # F14: a merge knows the adopted files
    no_grace = house.config(retain_replaced_hours=0)
    found = {r["id"]: (r["text"], r["theirs"]) for r in house.rows()}
    assert found == {1: ("row 1", None), 2: ("row 2", None), 90: ("row 90", None), 91: ("y", "q")}
    for number in range(3):
        last = state({**FINAL, "run_id": str(number)})
        ended(house, [record(5), last], catalog(mode="overwrite", sync_mode="full_refresh"), config=no_grace)
    assert house.ids() == [5]
    assert house.keys("elsewhere/orders/part-0.parquet")  # never garbage


def test_an_adoption_that_dies_before_glue_is_finished_whatever_the_option_says_then(house: House):
    foreign_table(house)
    died = house.write([record(1), at(1)], config=house.config(**ADOPT),
                       on_start=killer(house, "glue:UpdateTable", "", "before"))  # fmt: skip
    house.lake.faults(at=None)
    assert died.exit_code == -signal.SIGKILL
    ended(house, [record(1), at(1)])
    assert [r for r in house.ids() if r < 90] == [1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"more": {"PartitionKeys": [{"Name": "day", "Type": "string"}]}}, "partitioned"),
        ({"location": "lake"}, "below its Location"),
    ],
    ids=["partitioned", "above the lake"],
)
def test_a_table_that_cannot_be_adopted_is_left_alone(house: House, changes: dict[str, Any], reason: str):
    foreign_table(house, location=changes.get("location", "elsewhere"), **changes.get("more", {}))
    before = house.keys()
    result = house.write([record(1), at(1)], config=house.config(**ADOPT))
    assert result.errors[0]["failure_type"] == "config_error"
    assert reason in result.errors[0]["message"]
    assert house.keys() == before


@pytest.mark.parametrize("lost", ["everything", "the head"])
def test_f13_a_repaired_log_goes_on_above_every_number_and_readers_see_what_comes(house: House, lost: str):
    overwrite = catalog(mode="overwrite", sync_mode="full_refresh")
    for number in (1, 2):
        ended(house, [record(number), state({**FINAL, "run_id": str(number)})], overwrite)
    ended(house, [record(3), at(3)])
    log = [key for key in house.keys("lake/_airbyte/") if "/log/" in key]
    checkpoints = [key for key in log if "checkpoint" in key]
    for key in log if lost == "everything" else {*sorted(log)[:1], *checkpoints}:
        house.s3.delete_object(Bucket=house.bucket, Key=key)
    assert house.write([record(9), at(9)]).exit_code == 1
    before = {*house.keys("lake/")}
    repaired = repair(house, catalog())
    assert repaired.exit_code == 0, repaired.stdout
    assert any("a new log begins at entry" in log["log"]["message"] for log in repaired.of("LOG"))
    assert house.ids() == [2, 3]
    again = repair(house, catalog())
    assert any("the log is whole" in log["log"]["message"] for log in again.of("LOG"))
    ended(house, [record(4), at(4)])
    assert house.ids() == [2, 3, 4]
    ended(house, [record(5), state({**FINAL, "run_id": "5"})], overwrite)
    assert house.ids() == [5]
    assert not {*house.live_keys()} & before


def test_repair_says_that_there_is_nothing_to_repair(house: House):
    result = repair(house, catalog())
    assert result.exit_code == 1
    assert "No stream of the catalog" in result.errors[0]["message"]


def test_a_tombstone_outlives_a_compaction_and_a_join(house: House):
    config = house.config(compact_files_over=2)
    ended(house, [row(id=1, c=5), row(id=1, c=6, **GONE), point(1)], CDC)
    append: Message = {"streams": [stream()]}
    for number in (2, 3, 4):
        ended(house, [point(number - 1), row(id=number, c=1), point(number)], append)
    assert len(house.live_keys("s")) == 3
    ended(house, [point(4)], append, config=config)
    assert len(house.live_keys("s")) == 1
    house.write([point(4), row(id=5, c=1), point(5)], CDC, on_start=killer(house, "s3:GetObject", "/stage/", "before"))
    house.lake.faults(at=None)
    ended(house, [point(5)], append)  # joins what waits for a merge that does not come
    ended(house, [point(5), row(id=1, c=4), point(6)], CDC)
    assert seen(house) == [(2, 1), (3, 1), (4, 1), (5, 1)]


def test_tombstones_of_another_key_or_cursor_bury_nothing(house: House):
    fields = {"id": "integer", "c": "integer", "name": "string", "_ab_cdc_deleted_at": "string"}
    by_name: Message = {"streams": [stream(fields=fields, **dedup("name"))]}
    by_id: Message = {"streams": [stream(fields=fields, **dedup(cursor="name"))]}
    ended(house, [row(id=1, c=9, name="x", **GONE), point(1)], by_name)
    ended(house, [point(1), row(id=1, c=1, name="x"), row(id=2, c=1, name="y", **GONE), point(2)], by_id)
    assert seen(house) == [(1, 1)]
    ended(house, [point(2), row(id=2, c=1, name="y"), point(3)], by_name)
    assert seen(house) == [(1, 1), (2, 1)]


def test_a_file_above_the_largest_single_copy_is_copied_in_parts(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3, "MOST_COPIED", 5 << 20)  # of the 5 GiB that S3 copies in one request
    config = Config.parse(house.config())
    bucket = s3.Bucket(connect(config).s3, house.bucket, config.encryption)
    body = random.Random(5).randbytes((12 << 20) + 7)
    house.s3.put_object(Bucket=house.bucket, Key="lake/large", Body=body)
    before = len(house.lake.requests())
    bucket.copy("lake/large", "lake/copied", size=len(body))
    assert [request["action"] for request in house.lake.requests()[before:]].count("s3:UploadPart") == 3
    assert house.s3.get_object(Bucket=house.bucket, Key="lake/copied")["Body"].read() == body
