"""Everything that can be wrong from the start: one clear message, no secret, no traceback, and nothing written."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from integration_tests.harness import DESTINATION, SECRET, House, Result, as_lines, catalog, record, state


def status(result: Result) -> tuple[str, str]:
    """The one message that ``check`` printed."""
    (message,) = result.messages
    assert (result.exit_code, result.stderr) == (0, b"")
    assert SECRET.encode() not in result.stdout
    found = message["connectionStatus"]
    return found["status"], found.get("message", "")


def error(result: Result) -> dict[str, Any]:
    """The one TRACE error that ``write`` printed."""
    assert (result.exit_code, result.stderr) == (1, b"")
    assert SECRET.encode() not in result.stdout
    (found,) = result.errors
    assert "Traceback" not in found["message"]
    return found


def test_check_of_a_good_configuration_leaves_nothing_behind(house: House):
    key = {"stream": "orders", "field": "id", "transform": "identity", "name": "key"}
    for config in (house.config(), house.config(partitioning=[key])):
        assert status(house.check(config)) == ("SUCCEEDED", "")
    assert house.keys() == []
    assert house.uploads() == []
    assert house.glue.get_tables(DatabaseName=house.database)["TableList"] == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"s3_bucket_name": "no-such-bucket-here"}, "does not exist"),
        ({"s3_endpoint": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"glue_endpoint": "http://127.0.0.1:9"}, "cannot be reached"),
        ({"s3_bucket_name": None}, "s3_bucket_name"),
        ({"s3_bucket_path": "/abs"}, "s3_bucket_path"),
        ({"s3_bucket_path": "a/_hidden"}, "s3_bucket_path"),
        ({"credentials": {"auth_type": "access_key", "access_key_id": SECRET}}, "secret_access_key"),
        ({"credentials": {"auth_type": SECRET}}, "credentials"),
        ({"credentials": SECRET}, "credentials"),
        ({"s3_endpoint": "http://s3.example.com"}, "allow_insecure_endpoint"),
        ({"s3_endpoint": f"https://user:{SECRET}@s3.example.com"}, "without user"),
        ({"max_record_mb": 100}, "memory_limit_mb"),
        ({"create_databases": False}, "create_databases"),
        ({"spool_directory": "/dev/shm"}, "in memory"),
        ({"spool_directory": "/no/such/folder"}, "spool_directory"),
    ],
)
def test_check_says_what_to_change(house: House, changes: dict[str, Any], says: str):
    outcome, message = status(house.check(house.config(**changes)))
    assert outcome == "FAILED"
    assert says in message


def test_check_finds_a_store_without_conditional_writes(house: House):
    house.lake.faults(unconditional=True)
    (status,) = house.check(house.config()).of("CONNECTION_STATUS")
    house.lake.faults(unconditional=False)
    assert status["connectionStatus"]["status"] == "FAILED"
    assert "If-None-Match" in status["connectionStatus"]["message"]


@pytest.mark.parametrize(
    ("action", "named"),
    [
        ("s3:PutObject", "s3:PutObject"),
        ("s3:GetObject", "s3:GetObject"),
        ("s3:ListBucket", "s3:ListBucket"),
        ("s3:DeleteObject", "s3:DeleteObject"),
        ("s3:ListBucketMultipartUploads", "s3:ListBucketMultipartUploads"),
        ("glue:GetDatabase", "glue:GetDatabase"),
        ("glue:CreateDatabase", "glue:CreateDatabase"),
        ("glue:CreateTable", "glue:CreateTable"),
        ("glue:GetTable", "glue:GetTable"),
        ("glue:UpdateTable", "glue:UpdateTable"),
        ("glue:DeleteTable", "glue:DeleteTable"),
    ],
)
def test_check_names_a_denied_action(house: House, action: str, named: str):
    house.lake.faults(deny=[action])
    outcome, message = status(house.check(house.config()))
    assert outcome == "FAILED"
    assert named in message


@pytest.mark.parametrize("document", ["{not json " + SECRET, "[1]", '"text"'])
def test_a_configuration_file_that_is_no_object_is_said_to_be(house: House, document: str):
    assert status(house.check(document))[0] == "FAILED"


def test_write_with_a_denied_action_names_it(house: House):
    house.lake.faults(deny=["glue:CreateTable"])
    found = error(house.write([record(1), state({"c": 1})]))
    assert (found["failure_type"], "glue:CreateTable" in found["message"]) == ("config_error", True)


def test_write_with_an_invalid_configuration_or_catalog(house: House):
    assert error(house.write([], config={}))["failure_type"] == "config_error"
    assert "append_dedup" in error(house.write([], catalog(mode="append_dedup")))["message"]
    assert house.keys() == []


def test_a_table_of_somebody_else_is_not_touched(house: House):
    house.glue.create_database(DatabaseInput={"Name": house.database})
    theirs = {"Name": "orders", "StorageDescriptor": {"Location": "s3://theirs/", "Columns": []}, "PartitionKeys": []}
    house.glue.create_table(DatabaseName=house.database, TableInput=theirs)
    found = error(house.write([record(1), state({"c": 1})]))
    assert (found["failure_type"], "not made by this destination" in found["message"]) == ("config_error", True)
    assert house.table()["StorageDescriptor"]["Location"] == "s3://theirs/"
    assert house.log_entries() == []


def test_a_second_writer_waits_for_a_living_one_and_gives_up(house: House):
    """The first writer is alive: its heartbeat is fresh and its run is open."""
    patient = house.config(takeover_after_seconds=2)
    house.write([record(1), state({"c": 1})])
    files = house.save(config=patient, catalog=catalog())
    command = [str(DESTINATION), "write", "--config", files["config"], "--catalog", files["catalog"]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdin is not None
        first.stdin.write(json.dumps(record(2)).encode() + b"\n")
        first.stdin.flush()
        opened = len(house.log_entries())
        for _ in range(400):
            if len(house.log_entries()) > opened:
                break
            time.sleep(0.05)
        second = error(house.write([record(3), state({"c": 3})], config=patient))
        stdout, _ = first.communicate(json.dumps(state({"c": 2})).encode() + b"\n", timeout=60)
    assert second["failure_type"] == "transient_error"
    assert "Another sync has been writing" in second["message"]
    assert first.returncode == 0
    assert b'"c":2' in stdout.replace(b" ", b"")
    assert house.ids() == [1, 2]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b'{"type":"RECORD","record":{"stream":"orders","emitted_at":1,"data":{"id":SECRET-VALUE}}}', "it is not JSON"),
        (b'{"type":"RECORD","record":{"stream":"orders","emitted_at":1,"data":[1]}}', "is no object"),
        (
            b'{"type":"RECORD","record":{"stream":"orders","emitted_at":1,"data":{},"stream":"x"}}',
            "goes on as something",
        ),
        (b'{"type":"RECORD","record":{"stream":"orders","emitted_at":1,"data":{"id":1}}} SECRET-VALUE', "not JSON"),
        (b'{"type":"RECORD","record":{"stream":"orders","emitted_at":1,"data":{"text":"SECRET-VALUE\xff"}}}', "UTF-8"),
        (b'{"type":"RECORD","record":{"stream":"orders","emitted_at":1e17,"data":{"id":1}}}', "emitted_at"),
        (b'{"type":"RECORD","record":{"stream":"orders","emitted_at":"1","data":{"id":1}}}', "emitted_at"),
    ],
)
def test_a_bad_line_among_many_good_ones_is_named_and_what_has_a_state_before_it_is_stored(
    house: House, bad: bytes, says: str
):
    good = as_lines(map(record, range(30))).replace(b": ", b":").replace(b", ", b",")
    lines = [good, as_lines([state({"c": 1})]), good, bad, b"\n", good, as_lines([state({"c": 2})])]
    result = house.write(b"".join(lines))
    assert result.exit_code == 1
    assert result.states == [{"c": 1}]
    assert house.ids() == list(range(30))
    (error,) = result.errors
    assert "Line 62 of the input" in error["message"]
    assert says in error["message"]
    assert b"SECRET-VALUE" not in result.stdout + result.stderr
