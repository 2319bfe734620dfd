"""The destination as a real process on the strict lake: what it writes, prints and refuses."""

from __future__ import annotations

import json

import pytest

from integration_tests.harness import FINAL, House, Message, catalog, complete, record, state

TAGS = {"type": "array", "items": {"type": "string"}}
OVERWRITE = {"mode": "overwrite", "sync_mode": "full_refresh"}


def test_rows_arrive_with_their_types_and_meta_columns(house: House):
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "Amount": {"type": "number"},
            "at": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "ok": {"type": "boolean"},
            "where": {"type": "object", "properties": {"x": {"type": "number"}, "tags": TAGS}},
            "anything": {"type": "object"},
        },
    }  # fmt: skip
    row = {
        "id": 9223372036854775807,
        "Amount": 1.5,
        "at": "2026-01-02T03:04:05.678901+02:00",
        "day": "2026-01-02",
        "ok": True,
        "where": {"x": 1, "tags": ["a", "b"]},
        "anything": {"n": 1},
        "undeclared": [1, 2],
    }
    message = {"type": "RECORD", "record": {"stream": "orders", "emitted_at": 1_700_000_000_123, "data": row}}
    result = house.write([message, state({"c": 1})], catalog(schema=schema))
    assert result.exit_code == 0, result.stdout
    assert house.columns() == {
        "id": "bigint",
        "amount": "double",
        "at": "timestamp",
        "day": "date",
        "ok": "boolean",
        "where": "struct<x:double,tags:array<string>>",
        "anything": "string",
        "_airbyte_raw_id": "string",
        "_airbyte_extracted_at": "timestamp",
        "_airbyte_generation_id": "bigint",
        "_airbyte_meta": "struct<sync_id:bigint,changes:array<struct<field:string,change:string,reason:string>>>",
        "_airbyte_extra": "string",
    }
    (stored,) = house.rows()
    assert stored["id"] == 9223372036854775807
    assert (stored["amount"], stored["ok"], str(stored["day"])) == (1.5, True, "2026-01-02")
    assert stored["at"].isoformat() == "2026-01-02T01:04:05.678901+00:00"
    assert stored["_airbyte_extracted_at"].isoformat() == "2023-11-14T22:13:20.123000+00:00"
    assert stored["where"] == {"x": 1.0, "tags": ["a", "b"]}
    assert (stored["anything"], stored["_airbyte_extra"]) == ('{"n":1}', '{"undeclared":[1,2]}')
    assert stored["_airbyte_meta"] == {"sync_id": 0, "changes": []}


def test_one_commit_is_one_file_and_states_are_echoed_with_counts(house: House):
    result = house.write([record(1), record(2), state({"c": 2}), record(3), state({"c": 3})])
    assert result.exit_code == 0
    assert result.states == [{"c": 2}, {"c": 3}]
    assert [s["state"]["destinationStats"]["recordCount"] for s in result.of("STATE")] == [2.0, 1.0]
    assert len(house.live_keys()) == 1
    assert house.ids() == [1, 2, 3]
    assert house.uploads() == []
    assert house.keys("lake/_airbyte/writers/") == []


def test_a_second_sync_appends(house: House):
    house.write([record(1), state({"c": 1})])
    result = house.write([state({"c": 1}), record(2), state({"c": 2})])
    assert result.states == [{"c": 1}, {"c": 2}]
    assert house.ids() == [1, 2]


def test_overwrite_replaces_and_only_the_last_state_leaves(house: House):
    house.write([record(1), record(2), state(FINAL)], catalog(**OVERWRITE))
    before = house.table()["StorageDescriptor"]["Location"]
    result = house.write([record(3), state({"c": 3}), record(4), state({**FINAL, "run_id": "2"})], catalog(**OVERWRITE))
    assert result.exit_code == 0
    assert result.states == [{**FINAL, "run_id": "2"}]
    assert result.of("STATE")[0]["state"]["destinationStats"]["recordCount"] == 2.0
    assert house.ids() == [3, 4]
    assert house.table()["StorageDescriptor"]["Location"] != before


def test_an_overwrite_that_does_not_end_changes_nothing(house: House):
    house.write([record(1), record(2), record(3), state(FINAL)], catalog(**OVERWRITE))
    result = house.write([record(4), state({"c": 4})], catalog(**OVERWRITE))
    assert house.ids() == [1, 2, 3]
    assert (result.exit_code, result.states) == (1, [])
    assert "publish_without_completion" in result.errors[0]["message"]
    assert house.uploads() == []


def test_an_overwrite_that_ends_with_any_state_and_half_the_rows_is_published(house: House):
    """Sources of the platform's custom connectors say nothing at their end; a table must not shrink by a death."""
    house.write([record(1), record(2), record(3), record(4), state(FINAL)], catalog(**OVERWRITE))
    result = house.write([record(5), record(6), state({"c": 6})], catalog(**OVERWRITE))
    assert (result.exit_code, result.states) == (0, [{"c": 6}])
    assert house.ids() == [5, 6]


def test_an_overwrite_without_a_final_state_is_published_if_the_user_says_so(house: House):
    config = house.config(publish_without_completion="always")
    assert house.write([record(2), state({"c": 2})], catalog(**OVERWRITE), config=config).exit_code == 0
    assert house.ids() == [2]


def test_a_completed_stream_needs_no_state(house: House):
    assert house.write([record(1), complete()], catalog(**OVERWRITE)).exit_code == 0
    assert house.write([record(2), complete()]).exit_code == 0
    assert house.ids() == [1, 2]


def test_clear_empties_the_table(house: House):
    house.write([record(1), state(FINAL)], catalog(**OVERWRITE))
    result = house.write([state(None)], catalog(**OVERWRITE))
    assert (result.exit_code, result.states) == (0, [None])
    assert house.rows() == []


def test_a_resumed_overwrite_that_had_nothing_left_changes_nothing(house: House):
    house.write([record(1), state(FINAL)], catalog(**OVERWRITE))
    result = house.write([state(FINAL)], catalog(**OVERWRITE))
    assert (result.exit_code, result.states) == (0, [FINAL])
    assert house.ids() == [1]


def test_an_overwrite_takes_new_types_and_drops_old_columns(house: House):
    house.write([record(1, text="a"), state(FINAL)], catalog(**OVERWRITE))
    schema = {"type": "object", "properties": {"id": {"type": "string"}, "new": {"type": "boolean"}}}
    message = {"type": "RECORD", "record": {"stream": "orders", "emitted_at": 1, "data": {"id": "x", "new": True}}}
    assert house.write([message, state({**FINAL, "run_id": "2"})], catalog(schema=schema, **OVERWRITE)).exit_code == 0
    assert [name for name in house.columns() if not name.startswith("_airbyte")] == ["id", "new"]
    assert [(row["id"], row["new"]) for row in house.rows()] == [("x", True)]


def test_a_new_column_is_added_and_foreign_edits_survive(house: House):
    house.write([record(1), state({"c": 1})])
    table = house.table()
    descriptor = table["StorageDescriptor"]
    descriptor["Columns"][0]["Comment"] = "the key"
    descriptor["Columns"].append({"Name": "by_somebody", "Type": "string", "Comment": "theirs"})
    foreign = {"Name": "orders", "StorageDescriptor": descriptor, "PartitionKeys": [], "Description": "hello",
               "TableType": "EXTERNAL_TABLE", "Parameters": {**table["Parameters"], "owner_team": "x"}}  # fmt: skip
    house.glue.update_table(DatabaseName=house.database, TableInput=foreign)
    schema = {"type": "object", "properties": {"id": {"type": "integer"}, "more": {"type": "number"}}}
    message = {"type": "RECORD", "record": {"stream": "orders", "emitted_at": 1, "data": {"id": 2, "more": 0.5}}}
    assert house.write([message, state({"c": 2})], catalog(schema=schema)).exit_code == 0
    assert {"text", "more", "by_somebody"} <= set(house.columns())
    after = house.table()
    assert after["Description"] == "hello"
    assert after["Parameters"]["owner_team"] == "x"
    assert after["StorageDescriptor"]["Columns"][0]["Comment"] == "the key"
    assert [(row["id"], row["text"], row["more"]) for row in house.rows()] == [(1, "row 1", None), (2, None, 0.5)]


def test_a_full_refresh_in_append_mode_is_one_commit_at_the_end(house: House):
    full = catalog(sync_mode="full_refresh")
    house.write([record(1), state(FINAL)], full)
    failed = house.write([record(1), state({"c": 1}), record(2)], full)
    assert (failed.exit_code, failed.states, house.ids()) == (1, [], [1])
    again = house.write([record(1), state({"c": 1}), record(2), state({**FINAL, "run_id": "2"})], full)
    assert (again.exit_code, len(again.states), house.ids()) == (0, 1, [1, 1, 2])


def test_a_global_state_leaves_when_all_streams_are_committed(house: House):
    body = {
        "shared_state": {"lsn": 123456789012345678901234567890},
        "stream_states": [
            {"stream_descriptor": {"name": "a"}, "stream_state": {"c": 1}},
            {"stream_descriptor": {"name": "not in the catalog"}, "stream_state": {"c": 1}},
        ],
    }
    message = {"type": "STATE", "state": {"type": "GLOBAL", "global": body, "id": 7}}
    result = house.write([record(1, "a"), record(2, "b"), record(3, "b"), message], catalog("a", "b", "c"))
    assert result.exit_code == 0
    (echoed,) = result.of("STATE")
    assert echoed["state"]["global"] == body
    assert echoed["state"]["id"] == 7
    assert b"123456789012345678901234567890" in result.stdout
    assert echoed["state"]["destinationStats"]["recordCount"] == 3.0
    assert (house.ids("a"), house.ids("b"), house.ids("c")) == ([1], [2, 3], [])
    assert [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN"] == []


def test_a_global_state_before_any_record_is_where_every_stream_resumed(house: House):
    def global_state(number: int) -> Message:
        return {"type": "STATE", "state": {"type": "GLOBAL", "global": {"shared_state": {"lsn": number}}}}

    first = [record(1, "a"), record(2, "b"), global_state(1), record(3, "b"), global_state(2)]
    assert house.write(first, catalog("a", "b")).exit_code == 0
    # The platform kept the first STATE only: row 3 comes again, and is stored already.
    retry = house.write([global_state(1), record(3, "b"), record(4, "a"), global_state(3)], catalog("a", "b"))
    assert retry.exit_code == 0
    assert (house.ids("a"), house.ids("b")) == ([1, 4], [2, 3])
    assert sum(s["state"]["destinationStats"]["recordCount"] for s in retry.of("STATE")) == 2.0


def test_a_source_that_resumes_on_a_new_table_is_warned_of(house: House):
    result = house.write([state({"c": 5}), record(6), state({"c": 6})])
    (warning,) = [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN"]
    assert "refresh" in warning


def test_streams_of_one_table_name_get_tables_of_their_own(house: House):
    messages = [record(1, "Orders!"), record(2, "orders_"), state({"c": 1}, "Orders!"), state({"c": 1}, "orders_")]
    for turn in (messages, [messages[1], messages[0], *messages[2:]]):
        assert house.write(turn, catalog("Orders!", "orders_")).exit_code == 0
    tables = [table["Name"] for table in house.glue.get_tables(DatabaseName=house.database)["TableList"]]
    assert len(tables) == 2
    assert sorted(house.ids(table)[0] for table in tables) == [1, 2]
    assert all(len(set(house.ids(table))) == 1 for table in tables)


def test_namespaces_are_databases(house: House):
    namespace = f"{house.database}_other"
    message, status, configured = record(1), complete(), catalog()
    message["record"]["namespace"] = namespace
    status["trace"]["stream_status"]["stream_descriptor"]["namespace"] = namespace
    configured["streams"][0]["stream"]["namespace"] = namespace
    assert house.write([message, status], configured).exit_code == 0
    found = house.glue.get_table(DatabaseName=f"{house.database}_other", Name="orders")["Table"]
    assert found["StorageDescriptor"]["Location"].startswith(f"s3://{house.bucket}/lake/{house.database}_other/orders/")


def test_a_table_dropped_in_glue_comes_back_from_its_log(house: House):
    house.write([record(1), state({"c": 1})])
    house.glue.delete_table(DatabaseName=house.database, Name="orders")
    result = house.write([record(2), state({"c": 2})])
    assert result.exit_code == 0
    assert any(log["log"]["level"] == "WARN" and "dropped" in log["log"]["message"] for log in result.of("LOG"))
    assert house.ids() == [1, 2]


def test_a_location_changed_in_glue_is_set_back(house: House):
    house.write([record(1), state({"c": 1})])
    table = house.table()
    table["StorageDescriptor"]["Location"] = f"s3://{house.bucket}/elsewhere/"
    keys = ("Name", "StorageDescriptor", "Parameters", "PartitionKeys", "TableType")
    house.glue.update_table(DatabaseName=house.database, TableInput={key: table[key] for key in keys})
    result = house.write([record(2), state({"c": 2})])
    assert any(log["log"]["level"] == "WARN" and "Location" in log["log"]["message"] for log in result.of("LOG"))
    assert house.ids() == [1, 2]


@pytest.mark.parametrize("lost", ["everything", "the first entry", "an entry in the middle"])
def test_a_log_that_is_not_whole_is_refused_and_nothing_is_touched(house: House, lost: str):
    house.write([record(1), state({"c": 1})])
    house.write([record(2), state({"c": 2})])
    log = house.keys("lake/_airbyte/")
    entries = [key for key in log if "/log/0" in key]
    checkpoints = [key for key in log if "/log/checkpoint-" in key]
    gone = {"everything": log, "the first entry": entries[:1], "an entry in the middle": entries[3:4]}[lost]
    for key in {*gone, *checkpoints}:
        house.s3.delete_object(Bucket=house.bucket, Key=key)
    before = house.keys()
    result = house.write([record(3), state({"c": 3})])
    assert (result.exit_code, result.states) == (1, [])
    assert result.errors[0]["failure_type"] == "config_error"
    assert "repair" in result.errors[0]["message"]
    assert house.keys() == before
    assert house.ids() == [1, 2]


def test_entries_before_a_checkpoint_may_be_gone(house: House):
    """As after a lifecycle rule that expires old objects: the checkpoint holds all that they said."""
    house.write([record(1), state({"c": 1})])
    house.write([record(2), state({"c": 2})])
    for key in house.log_entries():
        house.s3.delete_object(Bucket=house.bucket, Key=key)
    result = house.write([state({"c": 1}), record(2), state({"c": 2}), record(3), state({"c": 3})])
    assert (result.exit_code, result.states) == (0, [{"c": 1}, {"c": 2}, {"c": 3}])
    assert house.ids() == [1, 2, 3]


def test_secrets_and_records_stay_out_of_what_is_printed(house: House):
    canary = "a-value-nobody-may-see"
    broken = json.dumps(record(2, text=canary))[:-2].encode()
    result = house.write(json.dumps(record(1, text=canary)).encode() + b"\n" + broken)
    assert result.exit_code == 1
    for text in (canary, house.config()["credentials"]["secret_access_key"]):
        assert text.encode() not in result.stdout + result.stderr
    assert result.stderr == b""
