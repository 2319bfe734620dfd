"""Settings that no other test is about: encryption, accounts, credentials, limits, what is kept."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from destination_s3_datalake.config import Config
from destination_s3_datalake.lake.session import connect

from integration_tests.harness import (
    DESTINATION,
    FINAL,
    KEY_ID,
    SECRET,
    House,
    Message,
    Result,
    Watcher,
    as_lines,
    catalog,
    complete,
    peak_of,
    record,
    state,
)
from integration_tests.in_process import write_in_process

OTHER_ACCOUNT = "999988887777"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/of-the-lake"
OVERWRITE = catalog(mode="overwrite", sync_mode="full_refresh")
LEAST_MEMORY: dict[str, Any] = {"memory_limit_mb": 128, "max_record_mb": 10}


def write(house: House, messages: list[Message] | bytes, configured: Message | None = None, **config: Any) -> Result:
    """``write`` in this process, which is to succeed."""
    body = messages if isinstance(messages, bytes) else as_lines(messages)
    result = write_in_process(house.config(**config), configured or catalog(), body)
    assert result.exit_code == 0, result.errors
    return result


@pytest.mark.parametrize(
    ("encryption", "sent"),
    [
        ({"encryption_type": "sse_s3"}, ["AES256", None, None]),
        ({"encryption_type": "sse_kms", "kms_key_arn": KEY_ARN}, ["aws:kms", KEY_ARN, "true"]),
        ({"encryption_type": "sse_kms", "bucket_key": False}, ["aws:kms", None, "false"]),
        ({"encryption_type": "dsse_kms", "kms_key_arn": KEY_ARN}, ["aws:kms:dsse", KEY_ARN, None]),
    ],
    ids=["SSE-S3", "SSE-KMS", "SSE-KMS without a bucket key", "DSSE-KMS"],
)
def test_everything_that_is_written_is_encrypted_as_configured(
    house: House, encryption: dict[str, Any], sent: list[str | None]
):
    before = len(house.lake.requests())
    for number, value in ((1, "a"), (2, "b"), (2, "c")):  # a file, a copy of it beside a new one, a merge
        messages = [record(number, text=value), complete()]
        write(house, messages, catalog(mode="append_dedup", primary_key=[["id"]]), encryption=encryption)
    writes = [r for r in house.lake.requests()[before:] if r["action"] in ("s3:PutObject", "s3:CreateMultipartUpload")]
    assert {request["on"].split("/")[0] for request in writes} == {"lake"}
    assert len(writes) > 20
    assert [request for request in writes if request.get("encryption") != sent] == []
    for key in house.keys("lake/"):
        assert house.s3.head_object(Bucket=house.bucket, Key=key)["ServerSideEncryption"] == sent[0]


def test_a_bucket_of_another_owner_is_not_written(house: House):
    write(house, [record(1), state({"c": 1})], expected_bucket_owner="123456789012")
    before = house.keys()
    (status,) = house.check(house.config(expected_bucket_owner=OTHER_ACCOUNT)).of("CONNECTION_STATUS")
    assert status["connectionStatus"]["status"] == "FAILED"
    refused = write_in_process(
        house.config(expected_bucket_owner=OTHER_ACCOUNT), catalog(), as_lines([record(2), state({"c": 2})])
    )
    assert (refused.exit_code, refused.states, refused.errors[0]["failure_type"]) == (1, [], "config_error")
    assert house.keys() == before


def test_every_call_to_glue_names_the_catalogs_account(house: House):
    key = [{"stream": "orders", "field": "id", "transform": "bucket[2]", "name": "b"}]
    before = len(house.lake.requests())
    for run in range(2):
        messages = [*(record(number) for number in range(4)), state({**FINAL, "run_id": str(run)})]
        write(house, messages, OVERWRITE, glue_catalog_id=OTHER_ACCOUNT, partitioning=key)
    calls = [request for request in house.lake.requests()[before:] if request["action"].startswith("glue:")]
    assert {"GetDatabase", "CreateDatabase", "GetTable", "CreateTable", "UpdateTable", "GetPartitions",
            "BatchCreatePartition", "BatchUpdatePartition"} <= {call["action"][5:] for call in calls}  # fmt: skip
    assert [call for call in calls if call.get("catalog") != OTHER_ACCOUNT] == []


def test_namespaces_may_be_prefixes_of_tables_in_one_database(house: House):
    messages = [record(1), complete(), record(2), complete()]
    configured = catalog("orders", "orders")
    for number in (2, 3):
        part: Any = messages[number]
        place = part["record"] if number == 2 else part["trace"]["stream_status"]["stream_descriptor"]
        place["namespace"] = "shop"
    configured["streams"][1]["stream"]["namespace"] = "shop"
    write(house, messages, configured, namespace_handling="table_prefix")
    assert (house.ids("orders"), house.ids("shop__orders")) == ([1], [2])


def test_without_credentials_in_the_form_those_of_the_machine_are_used(house: House):
    """By the environment, the first link of the default chain."""
    own = ("env", f"AWS_ACCESS_KEY_ID={KEY_ID}", f"AWS_SECRET_ACCESS_KEY={SECRET}", str(DESTINATION))
    config = house.config(credentials={"auth_type": "default_chain"})
    assert house.write([record(1), state({"c": 1})], config=config, command=own).exit_code == 0
    assert house.ids() == [1]
    none = ("env", "AWS_EC2_METADATA_DISABLED=true", f"HOME={house.folder}", str(DESTINATION))
    refused = house.write([record(2), state({"c": 2})], config=config, command=none)
    assert (refused.exit_code, refused.errors[0]["failure_type"]) == (1, "config_error")
    assert "credentials" in refused.errors[0]["message"]


def test_a_session_token_goes_along(house: House):
    temporary = {"auth_type": "access_key", "access_key_id": KEY_ID, "secret_access_key": SECRET,
                 "session_token": "a-token-for-an-hour"}  # fmt: skip
    clients = connect(Config.parse(house.config(credentials=temporary)))
    signed = clients.s3.generate_presigned_url("get_object", Params={"Bucket": house.bucket, "Key": "k"})
    assert parse_qs(urlsplit(signed).query)["x-amz-security-token"] == ["a-token-for-an-hour"]


def test_no_replay_window_keeps_no_hashes(house: House):
    write(house, [record(1), state({"c": 1})], replay_window_mb=0)
    assert [key for key in house.keys("lake/_airbyte/") if "/replay/" in key] == []
    write(house, [record(2), state({"c": 2})])
    assert [key for key in house.keys("lake/_airbyte/") if "/replay/" in key] != []


def test_no_more_replaced_copies_are_kept_than_configured(house: House):
    for run in range(4):
        last = state({**FINAL, "run_id": str(run)})
        write(house, [record(run), last], OVERWRITE, retain_replaced_copies=1)
    data = [key for key in house.keys("lake/") if not key.startswith("lake/_airbyte/")]
    assert len(data) == 3  # the table, what this run replaced, and one copy of before


def long_rows(megabytes: int) -> bytes:
    """Lines of 1 kB with a STATE at their end."""
    line = as_lines([record(1, text="%")]).replace(b"%", b"x" * 900)
    return line * ((megabytes << 20) // len(line)) + as_lines([state({"c": 1})])


def test_the_spool_stays_below_its_limit(house: House, tmp_path: Path):
    largest = [0]

    def look() -> None:
        files = [*tmp_path.glob("*/*.jsonl")]
        largest[0] = max(largest[0], sum(os.stat(path).st_size for path in files if path.exists()))

    with Watcher(look, pause=0.01):
        write(house, long_rows(100), spool_limit_mb=64, spool_directory=str(tmp_path), **LEAST_MEMORY)
    assert 16 << 20 < largest[0] <= 64 << 20
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_what_comes(house: House):
    """The same process, two hundred times the rows: what it held at most, above what it needs for a few."""

    def peak_mb(megabytes: int) -> int:
        seen = [0]

        def watched(pid: int) -> None:
            watcher = Watcher(lambda: seen.append(peak_of(pid)), pause=0.02)
            watching.enter_context(watcher)

        with ExitStack() as watching:
            config = house.config(target_file_mb=64, **LEAST_MEMORY)
            result = house.write(long_rows(megabytes), config=config, on_start=watched)
        assert result.exit_code == 0, result.errors
        return max(seen)

    few = peak_mb(1)
    time.sleep(1)  # S3 stamps whole seconds, and two processes must not have started in the same one
    assert 0 < few < peak_mb(200) < few + LEAST_MEMORY["memory_limit_mb"]
