"""SIGTERM, a reader of stdout that goes away, an input that pauses, a lake without faults of its own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import pytest

from integration_tests.harness import (
    DESTINATION,
    KEY_ID,
    SECRET,
    House,
    as_lines,
    catalog,
    plain_environment,
    record,
    state,
)


def start(house: House, *through: str, **config: Any) -> subprocess.Popen[bytes]:
    """Start ``write``, perhaps by a command that runs it under a limit."""
    files = house.save(config=house.config(**config), catalog=catalog())
    command = [*through, str(DESTINATION), "write", "--config", files["config"], "--catalog", files["catalog"]]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=plain_environment())


def send(process: subprocess.Popen[bytes], body: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(body)
    process.stdin.flush()


def first_state(process: subprocess.Popen[bytes]) -> Any:
    """The next STATE printed, while the input stays open."""
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if message["type"] == "STATE":
            return message["state"]["stream"]["stream_state"]
    raise AssertionError("stdout ended without a STATE")


def test_a_commit_comes_by_itself_while_the_input_pauses(house: House):
    with start(house, max_commit_interval_s=1) as process:
        send(process, as_lines([record(1), state({"c": 1}), record(2)]))
        assert first_state(process) == {"c": 1}
        assert house.ids() == [1]
        out, _ = process.communicate(as_lines([state({"c": 2})]), timeout=60)
    assert process.returncode == 0
    assert b'"c":2' in out.replace(b" ", b"")
    assert house.ids() == [1, 2]


def test_sigterm_commits_up_to_the_last_state_and_exits_143(house: House):
    with start(house) as process:
        send(process, as_lines([record(1), state({"c": 1}), record(2)]))
        wait_until_open(house)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert [json.loads(line)["state"]["stream"]["stream_state"] for line in out.splitlines() if b'"STATE"' in line] == [
        {"c": 1}
    ]
    assert house.ids() == [1]
    assert house.write([state({"c": 1}), record(2), state({"c": 2})]).exit_code == 0
    assert house.ids() == [1, 2]


def test_when_nobody_reads_stdout_any_more_the_sync_ends_and_loses_nothing(house: House):
    with start(house) as process:
        assert process.stdout is not None
        process.stdout.close()
        send(process, as_lines([record(1), state({"c": 1})]))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 1
    assert house.write([record(1), state({"c": 1}), record(2), state({"c": 2})]).exit_code == 0
    assert house.ids() == [1, 2]


def wait_until_open(house: House) -> None:
    import time

    for _ in range(400):
        if house.has_table():
            time.sleep(0.5)  # the rest of what was sent is read within this
            return
        time.sleep(0.05)
    raise AssertionError("the table was not opened")


def test_the_lake_refuses_what_aws_refuses(house: House):
    with pytest.raises(house.s3.exceptions.ClientError, match="NoSuchUpload"):
        house.s3.complete_multipart_upload(
            Bucket=house.bucket, Key="k", UploadId="gone", MultipartUpload={"Parts": [{"ETag": "e", "PartNumber": 1}]}
        )
    house.s3.put_object(Bucket=house.bucket, Key="k", Body=b"1", IfNoneMatch="*")
    with pytest.raises(house.s3.exceptions.ClientError, match="PreconditionFailed"):
        house.s3.put_object(Bucket=house.bucket, Key="k", Body=b"2", IfNoneMatch="*")
    house.glue.create_database(DatabaseInput={"Name": house.database})
    table = {"Name": "t", "StorageDescriptor": {"Columns": []}, "PartitionKeys": []}
    house.glue.create_table(DatabaseName=house.database, TableInput=table)
    stale = house.table("t")["VersionId"]
    house.glue.update_table(DatabaseName=house.database, TableInput=table, VersionId=stale)
    with pytest.raises(house.glue.exceptions.ConcurrentModificationException):
        house.glue.update_table(DatabaseName=house.database, TableInput=table, VersionId=stale)


def test_a_lost_answer_is_an_error_of_something_that_was_done(house: House):
    house.lake.faults(at={"step": "s3:PutObject", "match": "lost", "do": "lose"})
    house.s3.put_object(Bucket=house.bucket, Key="lost", Body=b"1")  # boto3 repeats it
    assert [request["action"] for request in house.lake.requests() if request["on"] == "lost"] == ["s3:PutObject"] * 2


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ("s3:PutObject", "/log/00000000000000000000"),
        ("s3:PutObject", "/log/00000000000000000003"),
        ("s3:PutObject", "/writers/"),
        ("s3:PutObject", "/replay/"),
        ("s3:CreateMultipartUpload", ""),
        ("s3:UploadPart", ""),
        ("s3:CompleteMultipartUpload", ""),
        ("glue:CreateDatabase", ""),
        ("glue:CreateTable", ""),
        ("glue:UpdateTable", ""),
        ("s3:DeleteObject", "/writers/"),
    ],
)
@pytest.mark.parametrize("do", ["lose", "reject"])
def test_one_lost_or_rejected_request_of_each_kind_changes_nothing(house: House, step: str, match: str, do: str):
    house.lake.faults(at={"step": step, "match": match, "do": do})
    overwrite = catalog(mode="overwrite", sync_mode="full_refresh")
    final = {"__ab_full_refresh_sync_complete": True, "run_id": "r"}
    result = house.write([record(1), record(2), state(final)], overwrite)
    assert house.lake.faults()["at"] is None, "the step was not reached"
    assert (result.exit_code, result.states) == (0, [final])
    assert house.ids() == [1, 2]
    house.lake.faults(at=None)
    assert house.write([state(final), record(3), state({"c": 3})]).exit_code == 0
    assert house.ids() == [1, 2, 3]
    assert house.uploads() == []


def test_a_full_disk_ends_the_sync_and_what_was_acknowledged_is_there(house: House):
    """The size of a file is limited instead: to the process it is the same refusal of a write."""
    limit = 'ulimit -f 1000; exec "$0" "$@"'  # blocks of 1024 bytes
    with start(house, "bash", "-c", limit, max_commit_interval_s=1) as process:
        send(process, as_lines([record(1), state({"c": 1})]))
        assert first_state(process) == {"c": 1}
        with suppress(BrokenPipeError):
            send(process, as_lines([record(number, text="x" * 2000) for number in range(2, 2000)]))
        assert process.stdout is not None
        printed = process.stdout.read()
        assert process.wait(timeout=60) == 1
    assert b"spool_directory" in printed
    assert b"transient_error" in printed
    assert house.ids() == [1]


@pytest.mark.parametrize(
    ("step", "status", "code", "kind", "says"),
    [
        ("s3:UploadPart", "400 Bad Request", "ExpiredToken", "transient_error", "use a role, which refreshes itself"),
        ("s3:PutObject", "400 Bad Request", "RequestExpired", "transient_error", "credentials expired"),
        ("s3:CreateMultipartUpload", "400 Bad Request", "KMS.DisabledException", "config_error", "kms:GenerateDataKey"),
        ("s3:CompleteMultipartUpload", "403 Forbidden", "AccessDenied", "config_error", "denied s3:PutObject"),
        ("glue:CreateTable", "400 Bad Request", "GlueEncryptionException", "config_error", "KMS key"),
        ("glue:CreateTable", "400 Bad Request", "ResourceNumberLimitExceededException", "config_error", "glue:Create"),
    ],
)
def test_what_aws_refuses_is_said_and_nothing_is_lost_by_it(
    house: House, step: str, status: str, code: str, kind: str, says: str
):
    messages = [record(1), state({"c": 1})]
    house.lake.faults(at={"step": step, "do": "refuse", "status": status, "code": code})
    refused = house.write(messages)
    assert refused.exit_code == 1
    assert refused.states == []
    (error,) = refused.errors
    assert (error["failure_type"], says in error["message"]) == (kind, True), error
    assert house.write(messages).exit_code == 0
    assert house.ids() == [1]


@pytest.mark.parametrize(("seconds", "sessions"), [(None, [1]), (300, range(3, 100))], ids=["an hour", "five minutes"])
def test_a_role_gets_a_new_session_before_its_old_one_ends(
    house: House, seconds: int | None, sessions: Collection[int]
):
    before = sum(request["action"] == "sts:AssumeRole" for request in house.lake.requests())
    house.lake.faults(role_session_seconds=seconds)
    role = {"auth_type": "assume_role", "role_arn": "arn:aws:iam::123456789012:role/writer", "external_id": "ours",
            "access_key_id": KEY_ID, "secret_access_key": SECRET}  # fmt: skip
    command = ("env", f"AWS_ENDPOINT_URL_STS={house.lake.url}", str(DESTINATION))
    result = house.write([record(1), state({"c": 1})], config=house.config(credentials=role), command=command)
    house.lake.faults(role_session_seconds=None)
    assert result.exit_code == 0, result.stdout
    assert house.ids() == [1]
    assert sum(request["action"] == "sts:AssumeRole" for request in house.lake.requests()) - before in sessions
