"""Leaving destination-aws-datalake: its configuration as it is, and its tables, written by the library that it used."""

from __future__ import annotations

import os
from typing import Any

import awswrangler
import boto3
import pandas  # type: ignore[import-untyped]  # its stubs are not among our tools
import pytest

from integration_tests.acceptance_cases import OVERWRITE, point, row, stream
from integration_tests.harness import FINAL, KEY_ID, SECRET, House, complete, state

FIELDS = {"id": "integer", "name": "string", "price": "number", "tags": "string", "new": "boolean"}


def theirs(house: House, kind: str, **more: Any) -> dict[str, Any]:
    """Their form as their specification has it, and what the test's store needs."""
    return {
        "aws_account_id": "123456789012",
        "region": "us-east-1",
        "credentials": {
            "credentials_title": "IAM User",
            "aws_access_key_id": KEY_ID,
            "aws_secret_access_key": SECRET,
        },
        "bucket_name": house.bucket,
        "bucket_prefix": "old",
        "lakeformation_database_name": house.database,
        "lakeformation_database_default_tag_key": "pii_level",
        "lakeformation_database_default_tag_values": "private,public",
        "lakeformation_governed_tables": False,
        "format": {"format_type": kind, "compression_codec": "UNCOMPRESSED"},
        "partitioning": "NO PARTITIONING",
        "glue_catalog_float_as_decimal": False,
        "existing_table": "adopt",
        **{name: value for name, value in house.config().items() if name.endswith(("_endpoint", "_addressing"))},
        "takeover_after_seconds": 0,
        **more,
    }


def said(result: Any, level: str) -> str:
    return " ".join(m["log"]["message"] for m in result.of("LOG") if m["log"]["level"] == level)


@pytest.fixture
def wrangler(house: House, monkeypatch: pytest.MonkeyPatch) -> Any:
    """awswrangler, pointed at the test's store."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    awswrangler.config.s3_endpoint_url = awswrangler.config.glue_endpoint_url = house.lake.url
    house.glue.create_database(DatabaseInput={"Name": house.database})
    session = boto3.Session(KEY_ID, SECRET, region_name="us-east-1")
    where = {
        "path": f"s3://{house.bucket}/old/{house.database}/s/",
        "database": house.database,
        "table": "s",
        "dataset": True,
        "boto3_session": session,
        "index": False,
    }
    yield where
    awswrangler.config.reset()


FRAME = pandas.DataFrame({"id": [1, 2], "name": ["a", None], "price": [0.5, 2.0], "tags": ["[1]", "[]"]})


def test_their_parquet_table_goes_on(house: House, wrangler: Any):
    narrow = {"id": "int", "price": "float"}
    awswrangler.s3.to_parquet(FRAME, **wrangler, mode="append", dtype=narrow)
    old_files = house.live_keys("s")
    lines = [row(id=3, name="b", price=0.25, new=True), point(0), complete("s")]
    result = house.write(lines, {"streams": [stream(fields=FIELDS)]}, config=theirs(house, "Parquet"))
    assert result.exit_code == 0, result.errors
    columns = house.columns("s")
    assert (columns["id"], columns["price"], columns["new"]) == ("bigint", "double", "boolean")
    found = sorted((r["id"], r["name"], r["price"], r["tags"], r["new"]) for r in house.rows("s"))
    assert found == [(1, "a", 0.5, "[1]", None), (2, None, 2.0, "[]", None), (3, "b", 0.25, None, True)]
    assert set(old_files) <= set(house.keys())
    assert "bucket_name is s3_bucket_name" in said(result, "INFO")
    assert "lakeformation_database_default_tag_key" in said(result, "WARN")
    assert "pii_level" not in said(result, "WARN")
    assert SECRET.encode() not in result.stdout + result.stderr
    replaced = [row(id=9), state(FINAL, "s")]
    again = house.write(replaced, {"streams": [stream(fields=FIELDS, **OVERWRITE)]}, config=theirs(house, "Parquet"))
    assert (again.exit_code, [r["id"] for r in house.rows("s")]) == (0, [9])


def test_their_json_table_goes_on(house: House, wrangler: Any):
    awswrangler.s3.to_json(FRAME, **wrangler, mode="append", orient="records", lines=True)
    assert house.table("s")["Parameters"]["classification"] == "json"
    before = {key: house.s3.get_object(Bucket=house.bucket, Key=key)["Body"].read() for key in house.live_keys("s")}
    lines = [row(id=3, name="b", price=0.25, new=True), point(0), complete("s")]
    result = house.write(lines, {"streams": [stream(fields=FIELDS)]}, config=theirs(house, "JSONL"))
    assert result.exit_code == 0, result.errors
    now = {key: house.s3.get_object(Bucket=house.bucket, Key=key)["Body"].read() for key in house.live_keys("s")}
    assert before.items() <= now.items()
    [new] = [body for key, body in now.items() if key not in before]
    assert b'"id":3' in new
    assert house.columns("s")["new"] == "boolean"


def test_check_takes_their_form_and_says_what_is_wrong_without_a_value(house: House):
    result = house.check(theirs(house, "Parquet"))
    [status] = result.of("CONNECTION_STATUS")
    assert status["connectionStatus"]["status"] == "SUCCEEDED"
    wrong = theirs(house, "Parquet", credentials={"credentials_title": SECRET, "aws_access_key_id": KEY_ID})
    result = house.check(wrong)
    [status] = result.of("CONNECTION_STATUS")
    assert status["connectionStatus"]["status"] == "FAILED"
    assert "credentials" in status["connectionStatus"]["message"]
    assert SECRET.encode() not in result.stdout
