"""Every field of the specification of destination-aws-datalake 0.1.58 is read, or said to be without effect."""

from __future__ import annotations

from typing import Any

import pytest
from destination_s3_datalake.config import Config, secrets_of
from destination_s3_datalake.migration import translated

MINIMAL: dict[str, Any] = {
    "region": "eu-west-1",
    "credentials": {"credentials_title": "IAM Role", "role_arn": "arn:aws:iam::123456789012:role/airbyte"},
    "bucket_name": "my-lake",
    "lakeformation_database_name": "analytics",
}


def parsed(**more: Any) -> Config:
    return Config.parse(translated({**MINIMAL, **more})[0])


def test_the_smallest_form_of_theirs_is_a_whole_form_of_ours():
    found = parsed()
    assert (found.s3_bucket_name, found.s3_bucket_path, found.s3_bucket_region) == ("my-lake", "lake", "eu-west-1")
    assert (found.glue_database, found.credentials.auth_type) == ("analytics", "assume_role")


@pytest.mark.parametrize(("prefix", "path"), [("", "lake"), ("a/b", "a/b/lake"), ("/a/", "a/lake"), (None, "lake")])
def test_new_folders_are_below_the_prefix_and_beside_the_tables(prefix: Any, path: str):
    assert parsed(bucket_prefix=prefix).s3_bucket_path == path


@pytest.mark.parametrize(
    ("form", "kind", "compression"),
    [
        ({"format_type": "JSONL", "compression_codec": "UNCOMPRESSED"}, "jsonl", "none"),
        ({"format_type": "JSONL", "compression_codec": "GZIP"}, "jsonl", "gzip"),
        ({"format_type": "Parquet", "compression_codec": "SNAPPY"}, "parquet", "snappy"),
        ({"format_type": "Parquet", "compression_codec": "ZSTD"}, "parquet", "zstd"),
        ({"format_type": "Parquet", "compression_codec": "GZIP"}, "parquet", "gzip"),
        ({"format_type": "Parquet"}, "parquet", "snappy"),
    ],
)
def test_formats_and_codecs(form: dict[str, Any], kind: str, compression: str):
    found = parsed(format=form).format
    assert (found.format_type, found.compression) == (kind, compression)


def test_floats_as_decimals_are_our_decimals():
    assert parsed(glue_catalog_float_as_decimal=True).types.number == "decimal"
    assert parsed().types.number == "double"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lakeformation_database_default_tag_key", "pii"),
        ("lakeformation_governed_tables", True),
        ("partitioning", "YEAR/MONTH"),
    ],
)
def test_what_is_not_done_any_more_is_warned_of_by_name(setting: str, value: Any):
    _, notes = translated({**MINIMAL, setting: value})
    assert [setting in note.text and str(value) not in note.text for note in notes if note.level == "WARN"] == [True]


def test_a_setting_of_ours_may_be_added_and_a_form_of_ours_is_left_alone():
    assert parsed(existing_table="adopt", merge_limit_mb=7).merge_limit_mb == 7
    ours = {"s3_bucket_name": "b", "bucket_name": "x", "lakeformation_database_name": "y"}
    assert translated(ours) == (ours, ())


def test_their_secrets_are_known_as_secrets():
    key = {"credentials_title": "IAM User", "aws_access_key_id": "AKIA123456", "aws_secret_access_key": "s3cr3t-key"}
    found, _ = translated({**MINIMAL, "credentials": key})
    assert set(secrets_of(found)) == {"AKIA123456", "s3cr3t-key"}
    broken, _ = translated({**MINIMAL, "credentials": {"aws_secret_access_key": "s3cr3t-key"}})
    assert "s3cr3t-key" not in str(broken.get("credentials"))
