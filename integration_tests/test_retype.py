"""Types that change while something else goes on: refreshes that died, keys, partitions, edits by others, limits."""

from __future__ import annotations

import random
import signal
from typing import Any

from integration_tests.acceptance_cases import INCOMPLETE, OVERWRITE, dedup, generation, point, row, stream
from integration_tests.harness import FINAL, House, Message, Result, complete, state
from integration_tests.test_crashes import killer

WAS: dict[str, Any] = {"fields": {"id": "integer", "v": "integer"}}
IS: dict[str, Any] = {"fields": {"id": "integer", "v": "string"}}


def write(house: House, lines: list[Message], entry: Message, **config: Any) -> Result:
    return house.write(lines, {"streams": [entry]}, config=house.config(**config))


def seen(house: House) -> list[tuple[Any, Any]]:
    return sorted((row["id"], row["v"]) for row in house.rows("s"))


def test_a_refresh_goes_on_when_a_type_changed_since_its_first_try(house: House):
    assert write(house, [row(id=0, v=0), point(0), complete("s")], stream(**WAS, **generation(1))).exit_code == 0
    refresh = generation(2, minimum=2, sync=2)
    assert write(house, [row(id=1, v=42), point(1), INCOMPLETE], stream(**WAS, **refresh)).exit_code == 1
    assert seen(house) == [(0, 0)]
    retried = write(house, [point(1), row(id=2, v="x"), point(2), complete("s")], stream(**IS, **refresh))
    assert (retried.exit_code, seen(house), house.columns("s")["v"]) == (0, [(1, "42"), (2, "x")], "string")


def test_the_rows_of_a_cancelled_refresh_join_a_table_of_other_types(house: House):
    assert write(house, [row(id=0, v=7), point(0), complete("s")], stream(**WAS, **generation(1))).exit_code == 0
    refresh = generation(2, minimum=2, sync=2)
    assert write(house, [row(id=1, v="x"), point(1), INCOMPLETE], stream(**IS, **refresh)).exit_code == 1
    after = write(house, [row(id=2, v=9), point(2), complete("s")], stream(**WAS, **generation(3, sync=3)))
    assert (after.exit_code, seen(house)) == (0, [(0, "7"), (1, "x"), (2, "9")])
    assert house.columns("s")["v"] == "string"


def test_staged_rows_of_a_merge_that_died_are_merged_with_their_new_type(house: House):
    keyed = {**dedup(), **generation(1)}
    assert write(house, [row(id=1, v=1), row(id=2, v=2), point(0), complete("s")], entry(WAS, keyed)).exit_code == 0
    refresh = {**dedup(), **generation(2, minimum=2, sync=2)}
    assert write(house, [row(id=2, v=20, c=1), point(1), INCOMPLETE], entry(WAS, refresh)).exit_code == 1
    after = {**dedup(), **generation(3, sync=3)}
    assert write(house, [row(id=3, v="x", c=1), point(2), complete("s")], entry(IS, after)).exit_code == 0
    assert seen(house) == [(1, "1"), (2, "20"), (3, "x")]


def entry(kind: dict[str, Any], more: dict[str, Any]) -> Message:
    return stream(fields={**kind["fields"], "c": "integer", "_ab_cdc_deleted_at": "string"}, **more)


def test_a_key_of_a_new_type_still_finds_its_rows_and_its_deletes(house: House):
    keyed = dedup("v")
    first = [row(id=1, v=1, c=5), row(id=2, v=2, c=5, _ab_cdc_deleted_at="2026"), point(0), complete("s")]
    assert write(house, first, entry(WAS, keyed)).exit_code == 0
    assert seen(house) == [(1, 1)]
    then = [row(id=10, v="1", c=6), row(id=20, v="2", c=4), row(id=30, v="x", c=1), point(1), complete("s")]
    assert write(house, then, entry(IS, keyed)).exit_code == 0
    assert seen(house) == [(10, "1"), (30, "x")]


def test_what_others_edited_in_glue_survives_a_rewrite_and_a_new_column(house: House):
    write(house, [row(id=1, v=1), point(0), complete("s")], stream(**WAS))
    table = house.table("s")
    keys = ("Name", "StorageDescriptor", "Parameters", "PartitionKeys", "TableType")
    edited = {key: table[key] for key in keys} | {"Description": "hello", "Owner": "somebody"}
    edited["Parameters"]["team"] = "x"
    for column in edited["StorageDescriptor"]["Columns"]:
        if column["Name"] == "v":
            column |= {"Comment": "the value", "Parameters": {"classified": "yes"}}
    edited["StorageDescriptor"]["Columns"].append({"Name": "theirs", "Type": "double", "Comment": "added by hand"})
    house.glue.update_table(DatabaseName=house.database, TableInput=edited)
    both: dict[str, Any] = {"fields": {**IS["fields"], "new": "object", "theirs": "string"}}
    assert write(house, [row(id=2, v="x", theirs="ours"), point(1), complete("s")], stream(**both)).exit_code == 0
    after = house.table("s")
    columns = {column["Name"]: column for column in after["StorageDescriptor"]["Columns"]}
    assert (after["Description"], after["Owner"], after["Parameters"]["team"]) == ("hello", "somebody", "x")
    assert (columns["v"]["Type"], columns["v"]["Comment"]) == ("string", "the value")
    assert columns["v"]["Parameters"]["classified"] == "yes"
    assert columns["theirs"] == {"Name": "theirs", "Type": "double", "Comment": "added by hand"}
    [ours] = [name for name in columns if name.startswith("theirs_")]
    assert sorted((row["v"], row["theirs"], row[ours]) for row in house.rows("s")) == [
        ("1", None, None),
        ("x", None, "ours"),
    ]


def test_a_column_of_a_partitioned_table_is_rewritten_in_its_partitions(house: House):
    partitioning = [{"stream": "s", "field": "id", "transform": "identity", "name": "part"}]
    lines = [row(id=1, v=1), row(id=2, v=2), point(0), complete("s")]
    assert write(house, lines, stream(**WAS), partitioning=partitioning).exit_code == 0
    after = write(house, [row(id=2, v="x"), point(1), complete("s")], stream(**IS), partitioning=partitioning)
    assert after.exit_code == 0, after.errors
    assert seen(house) == [(1, "1"), (2, "2"), (2, "x")]
    assert {key.rpartition("/")[0].rpartition("/")[2] for key in house.live_keys("s")} == {"part=1", "part=2"}


def test_a_table_too_large_to_rewrite_is_said_before_anything_is_done(house: House):
    noise = random.Random(1).randbytes(1_200_000).hex()
    fields: dict[str, Any] = {"fields": {**WAS["fields"], "noise": "string"}}
    assert write(house, [row(id=1, v=1, noise=noise), point(0), complete("s")], stream(**fields)).exit_code == 0
    before = house.keys()
    then: dict[str, Any] = {"fields": {**IS["fields"], "noise": "string"}}
    refused = write(house, [row(id=2, v="x"), point(1), complete("s")], stream(**then), merge_limit_mb=1)
    assert (refused.exit_code, refused.errors[0]["failure_type"]) == (1, "config_error")
    for named in ("v (bigint to string)", "merge_limit_mb", "refresh the stream", "another name"):
        assert named in refused.errors[0]["message"]
    assert (refused.states, house.keys(), seen(house)) == ([], before, [(1, 1)])
    replaced = write(house, [row(id=2, v="x"), state(FINAL, "s")], stream(**then, **OVERWRITE), merge_limit_mb=1)
    assert (replaced.exit_code, seen(house)) == (0, [(2, "x")])


def test_text_files_are_not_rewritten(house: House):
    jsonl = {"format_type": "jsonl", "compression": "none"}
    assert write(house, [row(id=1, v=1), point(0), complete("s")], stream(**WAS), format=jsonl).exit_code == 0
    refused = write(house, [row(id=2, v="x"), point(1), complete("s")], stream(**IS), format=jsonl)
    assert (refused.exit_code, refused.errors[0]["failure_type"]) == (1, "config_error")
    assert "Only Parquet files are rewritten" in refused.errors[0]["message"]


def test_a_table_that_is_the_same_again_is_not_rewritten(house: House):
    write(house, [row(id=1, v=1), point(0), complete("s")], stream(**WAS))
    write(house, [row(id=2, v="x"), point(1), complete("s")], stream(**IS))
    location = house.table("s")["StorageDescriptor"]["Location"]
    write(house, [row(id=3, v=3), point(2), complete("s")], stream(**WAS))
    write(house, [row(id=4, v="y"), point(3), complete("s")], stream(**IS))
    assert house.table("s")["StorageDescriptor"]["Location"] == location
    assert seen(house) == [(1, "1"), (2, "x"), (3, "3"), (4, "y")]


def test_a_rewrite_that_dies_shows_the_table_of_before_and_the_next_sync_goes_on(house: House):
    write(house, [row(id=1, v=1), point(0), complete("s")], stream(**WAS))
    lines = [row(id=2, v="x"), point(1), complete("s")]
    died = house.write(lines, {"streams": [stream(**IS)]}, on_start=killer(house, "glue:UpdateTable", "", "before"))
    house.lake.faults(at=None)
    assert (died.exit_code, died.states) == (-signal.SIGKILL, [])
    assert (seen(house), house.columns("s")["v"]) == ([(1, 1)], "bigint")
    assert write(house, lines, stream(**IS)).exit_code == 0
    assert (seen(house), house.columns("s")["v"]) == ([(1, "1"), (2, "x")], "string")


def test_an_overwrite_has_the_types_of_its_schema_and_is_stable_then(house: House):
    """testOverwriteSchemaEvolution: narrowed too, since no value of before is left."""
    schemas: list[dict[str, Any]] = [
        {"fields": {"id": "integer", "v": "string", "gone": "string"}},
        {"fields": {"id": "integer", "v": "integer", "new": "object"}},
    ]
    for number, (fields, value) in enumerate(((schemas[0], "x"), (schemas[1], 42), (schemas[1], 43))):
        lines = [row(id=1, v=value), state({**FINAL, "run_id": str(number)}, "s")]
        result = write(house, lines, stream(**fields, **OVERWRITE))
        assert result.exit_code == 0, result.errors
        assert seen(house) == [(1, value)]
    columns = house.columns("s")
    assert (columns["v"], columns["new"], "gone" in columns) == ("bigint", "string", False)
