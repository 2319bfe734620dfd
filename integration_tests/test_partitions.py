"""Partitioned tables through the real process: where rows lie, what Glue shows, and who may change what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import duckdb
import pytest

from integration_tests.acceptance_cases import GONE, INCOMPLETE, dedup, generation, point, row, stream
from integration_tests.harness import DESTINATION, FINAL, KEY_ID, SECRET, House, Message, complete, state
from integration_tests.test_crashes import killer
from integration_tests.test_rewrite import foreign_table
from integration_tests.test_schedules import ended, next_entry, zombie

NULL = "__HIVE_DEFAULT_PARTITION__"
HOSTILE = ["a/b=c%d", "é€ \t\n", "..", 'it\'s "x" {[?#*:^]}\\', "%2F", "", None, NULL, "null", " "]
FIELDS = {"id": "integer", "name": "string", "c": "integer"}


def partitioned(house: House, *keys: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    wanted = [{"stream": "s", "field": field, "transform": kind, "name": name} for field, kind, name in keys]
    return house.config(partitioning=wanted, **more)


def by_name(house: House, **more: Any) -> dict[str, Any]:
    return partitioned(house, ("name", "identity", "key"), **more)


def of(house: House, *columns: str) -> list[tuple[Any, ...]]:
    return sorted((tuple(found[name] for name in columns) for found in house.rows("s")), key=str)


def plain(*fields: str, **more: Any) -> Message:
    return {"streams": [stream(fields={**FIELDS, **dict.fromkeys(fields, "string")}, **more)]}


def test_every_value_has_its_partition_raw_in_glue_and_escaped_in_the_path(house: House):
    config = by_name(house)
    rows = [row(id=number, name=text) for number, text in enumerate(HOSTILE)]
    ended(house, [*rows, point(1)], plain(), config=config)
    keys = {text: text or NULL for text in HOSTILE}
    expected = [(n, text, None if keys[text] == NULL else text) for n, text in enumerate(HOSTILE)]
    assert of(house, "id", "name", "key") == sorted(expected, key=str)
    assert sorted(p["Values"][0] for p in house.partitions("s")) == sorted({*keys.values()})
    table = house.table("s")
    assert table["PartitionKeys"] == [{"Name": "key", "Type": "string"}]
    root = table["StorageDescriptor"]["Location"]
    folders = {p["Values"][0]: p["StorageDescriptor"]["Location"].removeprefix(root) for p in house.partitions("s")}
    assert folders["a/b=c%d"] == "key=a%2Fb%3Dc%25d/"
    assert folders[NULL] == f"key={NULL}/"
    assert all(folder.count("/") == 1 and folder.count("=") == 1 for folder in folders.values())
    assert "key" not in {column["Name"] for column in table["StorageDescriptor"]["Columns"]}
    ended(house, [point(1), row(id=90, name="a/b=c%d"), row(id=91, name="new"), point(2)], plain(), config=config)
    assert [found for found in of(house, "id", "key") if found[0] >= 90] == [(90, "a/b=c%d"), (91, "new")]


TIMES: Message = {
    "streams": [
        {
            **stream(),
            "stream": {
                "name": "s",
                "json_schema": {
                    "properties": {
                        "id": {"type": "integer"},
                        "moment": {"type": "string", "format": "date-time"},
                        "day": {"type": "string", "format": "date"},
                        "amount": {"type": "string", "airbyte_type": "big_number"},
                    }
                },
            },
        }
    ]
}


def test_transforms_are_in_utc_and_several_keys_stand_in_their_order(house: House):
    config = partitioned(
        house, ("moment", "hour", "hour"), ("day", "month", "month"), ("id", "truncate[10]", "tens"),
        ("id", "bucket[4]", "bucket"), ("moment", "year", "year"), ("amount", "identity", "price"),
    )  # fmt: skip
    data: list[dict[str, Any]] = [
        {"id": -1, "moment": "2026-01-01T00:30:00+02:00", "day": "0001-02-03", "amount": "1.50"},
        {"id": 19, "moment": "9999-12-31T23:59:59.999999Z", "day": None, "amount": None},
        {"id": -(2**63), "moment": None, "day": "2026-02-28"},
    ]
    ended(house, [*(row(**each) for each in data), point(1)], TIMES, config=config)
    found = of(house, "id", "hour", "month", "tens", "year", "price")
    assert found == sorted([
        (-1, "2025-12-31-22", "0001-02", "-10", "2025", "1.500000000"),
        (19, "9999-12-31-23", None, "10", "9999", None),
        (-(2**63), None, "2026-02", "-9223372036854775810", None, None),
    ], key=str)  # fmt: skip
    assert {each[0] for each in of(house, "bucket")} <= {"0", "1", "2", "3"}
    names = [key["Name"] for key in house.table("s")["PartitionKeys"]]
    assert names == ["hour", "month", "tens", "bucket", "year", "price"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([("nothing", "identity", "key")], "no field nothing"),
        ([("name", "identity", "id")], "taken"),
        ([("name", "sideways", "key")], "partitioning.0.transform"),
    ],
    ids=["no field", "a column's name", "no transform"],
)
def test_keys_that_cannot_be_are_refused_before_anything_is_made(house: House, keys: Any, says: str):
    result = house.write([row(id=1), point(1)], plain(), config=partitioned(house, *keys))
    assert result.errors[0]["failure_type"] == "config_error"
    assert says in result.errors[0]["message"]
    assert house.log_entries() == []


def test_check_names_a_denied_call_on_partitions(house: House):
    for action in ("glue:BatchCreatePartition", "glue:BatchUpdatePartition", "glue:BatchDeletePartition"):
        house.lake.faults(deny=[action])
        result = house.check(by_name(house))
        assert action in result.of("CONNECTION_STATUS")[0]["connectionStatus"]["message"]


def test_an_adopted_table_is_not_partitioned(house: House):
    foreign_table(house, "s")
    result = house.write([row(id=1), point(1)], plain(), config=by_name(house, existing_table="adopt"))
    assert result.errors[0]["failure_type"] == "config_error"
    assert "adopted tables have no partitions" in result.errors[0]["message"]
    assert house.log_entries() == []


def test_the_keys_of_a_table_stay_and_a_value_that_is_no_path_is_named_by_its_field(house: House):
    ended(house, [row(id=1, name="x"), point(1)], plain(), config=by_name(house))
    for config in (house.config(), partitioned(house, ("name", "truncate[3]", "key"))):
        result = house.write([point(1), row(id=2), point(2)], plain(), config=config)
        assert result.errors[0]["failure_type"] == "config_error"
        assert "identity(name)" in result.errors[0]["message"]
    canary = "canary" * 200
    result = house.write([point(1), row(id=3, name=canary), point(3)], plain(), config=by_name(house))
    assert result.errors[0]["failure_type"] == "config_error"
    assert "truncate" in result.errors[0]["message"]
    assert b"canary" not in result.stdout + result.stderr
    assert of(house, "id", "key") == [(1, "x")]


def test_a_field_that_comes_later_does_not_take_the_name_of_a_key(house: House):
    ended(house, [row(id=1, name="x"), point(1)], plain(), config=by_name(house))
    ended(house, [point(1), row(id=2, name="x", key="theirs"), point(2)], plain("key"), config=by_name(house))
    ended(house, [point(2), row(id=3, key="more"), point(3)],
          {"streams": [stream(fields={"id": "integer", "key": "string"})]}, config=by_name(house))  # fmt: skip
    (other,) = [name for name in house.columns("s") if name.startswith("key_")]
    assert of(house, "id", "key", other) == [(1, "x", None), (2, "x", "theirs"), (3, None, "more")]
    columns = {c["Name"] for p in house.partitions("s") for c in p["StorageDescriptor"]["Columns"]}
    assert other in columns
    assert all(other in {c["Name"] for c in p["StorageDescriptor"]["Columns"]} for p in house.partitions("s"))


def test_a_new_column_reaches_every_partition_also_behind_a_death(house: House):
    config, rest = by_name(house), [row(id=3, name="y", added="1"), point(2)]
    ended(house, [row(id=1, name="x"), row(id=2, name="y"), point(1)], plain(), config=config)
    died = house.write([point(1), *rest], plain("added"), config=config,
                       on_start=killer(house, "glue:UpdateTable", "", "after"))  # fmt: skip
    house.lake.faults(at=None)
    assert died.exit_code == -signal.SIGKILL
    ended(house, [point(1), *rest], plain("added"), config=config)
    assert of(house, "id", "added") == [(1, None), (2, None), (3, "1")]
    assert all("added" in {c["Name"] for c in p["StorageDescriptor"]["Columns"]} for p in house.partitions("s"))


def test_an_overwrite_moves_every_partition_and_drops_those_that_are_gone(house: House):
    replace = plain(sync_mode="full_refresh", destination_sync_mode="overwrite")
    for number, ids in enumerate([range(230), range(100, 330)]):
        last = state({**FINAL, "run_id": str(number)}, "s")
        ended(house, [*(row(id=n, name=f"n{n}") for n in ids), last], replace, config=by_name(house))
        assert of(house, "id", "key") == sorted(((n, f"n{n}") for n in ids), key=str)
        root = house.table("s")["StorageDescriptor"]["Location"]
        assert all(p["StorageDescriptor"]["Location"].startswith(root) for p in house.partitions("s"))
    ended(house, [state({**FINAL, "run_id": "empty"}, "s"), complete("s")], replace, config=by_name(house))
    assert (of(house, "id"), house.partitions("s")) == ([], [])


def test_a_refresh_in_several_tries_and_one_that_is_cancelled_keep_their_partitions(house: House):
    config = by_name(house)
    g1, g2 = plain(**generation(1)), plain(**generation(2, minimum=2, sync=2))
    ended(house, [row(id=1, name="a"), row(id=2, name="b"), point(1), complete("s")], g1, config=config)
    first = [row(id=3, name="b"), row(id=4, name="c"), point(2), INCOMPLETE]
    assert house.write(first, g2, config=config).exit_code == 1
    assert of(house, "id", "key") == [(1, "a"), (2, "b")]
    ended(house, [point(2), row(id=5, name="c"), row(id=6, name="d"), point(3), complete("s")], g2, config=config)
    assert of(house, "id", "key") == [(3, "b"), (4, "c"), (5, "c"), (6, "d")]
    g3 = plain(**generation(3, minimum=3, sync=3))
    assert house.write([point(3), row(id=7, name="e"), point(4), INCOMPLETE], g3, config=config).exit_code == 1
    ended(house, [point(4), row(id=8, name="b"), point(5)], plain(**generation(4, sync=4)), config=config)
    assert of(house, "id", "key") == [(3, "b"), (4, "c"), (5, "c"), (6, "d"), (7, "e"), (8, "b")]


def test_a_merge_moves_a_row_whose_partition_changed(house: House):
    config, cdc = by_name(house), plain("_ab_cdc_deleted_at", **dedup())
    ended(house, [row(id=n, c=1, name="ab"[n % 2]) for n in range(6)] + [point(1)], cdc, config=config)
    assert of(house, "id", "key") == [(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "a"), (5, "b")]
    changed = [row(id=0, c=2, name="new"), row(id=1, c=2, name="a"), row(id=2, c=2, name="a", **GONE)]
    ended(house, [point(1), *changed, point(2)], cdc, config=config)
    assert of(house, "id", "key") == [(0, "new"), (1, "a"), (3, "b"), (4, "a"), (5, "b")]
    ended(house, [point(2), row(id=0, c=3, name="a"), point(3)], cdc, config=config)
    assert of(house, "id", "key") == [(0, "a"), (1, "a"), (3, "b"), (4, "a"), (5, "b")]
    assert {p["Values"][0] for p in house.partitions("s")} == {"a", "b"}
    refresh = plain("_ab_cdc_deleted_at", **dedup(), **generation(9, minimum=9, sync=2))
    ended(house, [row(id=7, c=1, name="z"), row(id=7, c=2, name="y"), point(4), complete("s")], refresh, config=config)
    assert of(house, "id", "key") == [(7, "y")]


def test_compaction_joins_small_files_inside_their_partitions_and_leaves_single_ones(house: House):
    configured, config = plain(), by_name(house, compact_files_over=2)
    for number in range(4):
        lines = [row(id=10 * number, name="a"), row(id=10 * number + 1, name=f"only {number}"), point(number + 1)]
        ended(house, [*([point(number)] if number else []), *lines], configured, config=config)
    ended(house, [point(4)], configured, config=config)
    files = {p["Values"][0]: house.visible_keys(p["StorageDescriptor"]["Location"]) for p in house.partitions("s")}
    assert {name: len(keys) for name, keys in files.items()} == {"a": 1, **{f"only {n}": 1 for n in range(4)}}
    assert sorted(found[0] for found in of(house, "id")) == sorted([*range(0, 40, 10), *range(1, 41, 10)])
    folder = house.table("s")["StorageDescriptor"]["Location"]
    ended(house, [point(4)], configured, config=config)
    assert house.table("s")["StorageDescriptor"]["Location"] == folder


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_text_tables_are_partitioned_too(house: House, form: str):
    config = by_name(house, format={"format_type": form, "compression": "gzip"}, compact_files_over=2)
    for number in range(3):
        lines = [row(id=10 * number + n, name=text) for n, text in enumerate(HOSTILE[:4])]
        ended(house, [*([point(number)] if number else []), *lines, point(number + 1)], plain(), config=config)
    ended(house, [point(3)], plain(), config=config)
    assert len(house.partitions("s")) == 4
    assert sorted((int(n), key) for n, key in of(house, "id", "key")) == [
        (10 * number + n, text) for number in range(3) for n, text in enumerate(HOSTILE[:4])
    ]
    files = [house.visible_keys(p["StorageDescriptor"]["Location"]) for p in house.partitions("s")]
    assert [len(keys) for keys in files] == [1, 1, 1, 1]


def taken(partition: dict[str, Any]) -> dict[str, Any]:
    return {name: partition[name] for name in ("Values", "StorageDescriptor", "Parameters") if name in partition}


def test_an_open_puts_partitions_back_and_keeps_those_of_others(house: House):
    config = by_name(house)
    ended(house, [*(row(id=n, name=f"n{n}") for n in range(4)), point(1)], plain(), config=config)
    found = {p["Values"][0]: taken(p) for p in house.partitions("s")}
    scope = {"DatabaseName": house.database, "TableName": "s"}
    house.glue.batch_delete_partition(**scope, PartitionsToDelete=[{"Values": ["n0"]}])
    moved = json.loads(json.dumps(found["n1"]))
    moved["StorageDescriptor"]["Location"] = "s3://elsewhere/"
    moved["Parameters"] = {"theirs": "1"}
    house.glue.update_partition(**scope, PartitionValueList=["n1"], PartitionInput=moved)
    stale = json.loads(json.dumps(found["n2"])) | {"Values": ["stale"]}
    other = json.loads(json.dumps(found["n2"])) | {"Values": ["other"]}
    other["StorageDescriptor"]["Location"] = "s3://elsewhere/other/"
    house.glue.batch_create_partition(**scope, PartitionInputList=[stale, other])
    result = ended(house, [point(1)], plain(), config=config)
    said = [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN"]
    assert any("1 were created, 1 set right, 1 dropped" in text for text in said), said
    after = {p["Values"][0]: taken(p) for p in house.partitions("s")}
    assert after == found | {"other": other, "n1": {**found["n1"], "Parameters": {"theirs": "1"}}}
    again = ended(house, [point(1)], plain(), config=config)
    assert not [log for log in again.of("LOG") if "Partitions of" in log["log"]["message"]]


def test_a_new_partition_that_somebody_registered_before_us_gets_our_location(house: House):
    config = by_name(house)
    ended(house, [row(id=1, name="a"), point(1)], plain(), config=config)
    (mine,) = house.partitions("s")
    theirs = {**taken(mine), "Values": ["b"], "Parameters": {"theirs": "1"}}
    theirs["StorageDescriptor"] = {**theirs["StorageDescriptor"], "Location": "s3://elsewhere/b/"}
    house.glue.create_partition(DatabaseName=house.database, TableName="s", PartitionInput=theirs)
    ended(house, [point(1), row(id=2, name="b"), point(2)], plain(), config=config)
    assert of(house, "id", "key") == [(1, "a"), (2, "b")]
    assert {p["Values"][0]: p["Parameters"] for p in house.partitions("s")}["b"] == {"theirs": "1"}


def test_a_paused_writer_that_wakes_at_a_batch_of_partitions_moves_none(house: House):
    config, replace = by_name(house), plain(sync_mode="full_refresh", destination_sync_mode="overwrite")
    plain_house = House.__new__(House)
    plain_house.__dict__.update(house.__dict__)
    plain_house.config = lambda **changes: {**config, **changes}  # type: ignore[method-assign]
    ended(house, [row(id=1, name="a"), state(FINAL, "s")], replace, config=config)
    # the entries to come: open, garbage, commit, swap; before partitions move it looks whether another one stands there
    fence = next_entry(house, 4)
    late = [row(id=2, name="a"), state({**FINAL, "run_id": "2"}, "s")]
    with zombie(plain_house, "s3:HeadObject", fence, late, replace) as results:
        time.sleep(1.1)  # S3 stamps whole seconds
        newer = [row(id=3, name="a"), row(id=4, name="b"), state({**FINAL, "run_id": "3"}, "s")]
        ended(house, newer, replace, config=config)
    ids = [(found["id"], found["key"]) for found in house.rows("s")]
    assert sorted(ids) == [(3, "a"), (4, "b")]
    assert results[0].errors[0]["failure_type"] == "transient_error"


def test_a_table_that_was_dropped_comes_back_with_its_partitions_also_behind_a_death(house: House):
    config = by_name(house)
    ended(house, [row(id=1, name="a"), point(1)], plain(), config=config)
    died = house.write([point(1), row(id=2, name="b"), point(2)], plain(), config=config,
                       on_start=killer(house, "glue:BatchCreatePartition", "", "before"))  # fmt: skip
    house.lake.faults(at=None)
    assert died.exit_code == -signal.SIGKILL
    assert of(house, "id") == [(1,)]
    house.glue.delete_table(DatabaseName=house.database, Name="s")
    ended(house, [point(2)], plain(), config=config)
    assert of(house, "id", "key") == [(1, "a"), (2, "b")]


def test_a_commit_that_is_void_leaves_no_partition(house: House):
    config = by_name(house)
    ended(house, [row(id=1, name="a"), point(1)], plain(), config=config)
    died = house.write([point(1), row(id=2, name="b"), row(id=3, name="a"), point(2)], plain(), config=config,
                       on_start=killer(house, "s3:CompleteMultipartUpload", "", "before"))  # fmt: skip
    house.lake.faults(at=None)
    assert died.exit_code == -signal.SIGKILL
    house.abort_uploads()
    ended(house, [point(1)], plain(), config=config)
    assert (of(house, "id", "key"), len(house.partitions("s"))) == ([(1, "a")], 1)
    ended(house, [point(1), row(id=2, name="b"), row(id=3, name="a"), point(2)], plain(), config=config)
    assert of(house, "id", "key") == [(1, "a"), (2, "b"), (3, "a")]


def test_a_log_that_was_lost_is_rebuilt_with_its_partitions(house: House):
    config = by_name(house)
    ended(house, [*(row(id=n, name=text) for n, text in enumerate(HOSTILE[:3])), point(1)], plain(), config=config)
    for key in house.keys("lake/_airbyte/"):
        if "/log/" in key:
            house.s3.delete_object(Bucket=house.bucket, Key=key)
    files = house.save(config=config, catalog=plain())
    command = [str(DESTINATION), "repair", "--config", files["config"], "--catalog", files["catalog"]]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    ended(house, [row(id=3, name=HOSTILE[0]), row(id=4, name="z"), point(2)], plain(), config=config)
    assert of(house, "id", "key") == [(0, HOSTILE[0]), (1, HOSTILE[1]), (2, HOSTILE[2]), (3, HOSTILE[0]), (4, "z")]


def test_partitioning_of_a_stream_that_is_not_there_is_said(house: House):
    config = house.config(partitioning=[{"stream": "S", "field": "id", "transform": "identity", "name": "key"}])
    result = ended(house, [row(id=1), point(1)], plain(), config=config)
    warnings = [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN"]
    assert any("partitioning" in text and "S" in text for text in warnings)


# In a process of its own: awswrangler takes its endpoints from the environment and patches pandas.
WRANGLER = """
import awswrangler as wr, json, sys
table = wr.s3.read_parquet_table(database=sys.argv[1], table="s")
print(table.sort_values("id")[["id", "name"]].to_json(orient="records"))
print(json.dumps(sorted(wr.catalog.get_partitions(database=sys.argv[1], table="s").values())))
lines = wr.s3.read_json(wr.catalog.get_table_location(database=sys.argv[1], table="j"), lines=True)
print(lines.sort_values("id")[["id", "name"]].to_json(orient="records"))
"""


def test_awswrangler_and_duckdb_read_a_partitioned_table_and_a_jsonl_table(house: House, tmp_path: Any):
    names = ["x/y", "ä", "z"]
    ended(house, [*(row(id=n, name=name) for n, name in enumerate(names)), point(1)], plain(), config=by_name(house))
    lines = [*(row("j", id=n, name=name) for n, name in enumerate(names)), state(1, "j")]
    as_json = house.config(format={"format_type": "jsonl", "compression": "gzip"})
    ended(house, lines, {"streams": [stream("j", fields=FIELDS)]}, config=as_json)
    environment = {
        **os.environ, "AWS_ENDPOINT_URL": house.lake.url, "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WRANGLER, house.database],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, partitions, from_json = (json.loads(line) for line in done.stdout.splitlines())
    assert rows == from_json == [{"id": n, "name": name} for n, name in enumerate(names)]
    assert partitions == sorted([name] for name in names)
    root = house.table("s")["StorageDescriptor"]["Location"].removeprefix(f"s3://{house.bucket}/")
    for key in house.keys(root):
        (tmp_path / key.removeprefix(root)).parent.mkdir(exist_ok=True)
        house.s3.download_file(house.bucket, key, str(tmp_path / key.removeprefix(root)))
    with duckdb.connect() as database:
        source = f"read_parquet('{tmp_path}/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
        assert database.execute(f"SELECT id, key FROM {source} ORDER BY id").fetchall() == list(enumerate(names))
