"""The configuration of destination-aws-datalake as one of ours, before it is validated. Pure.

People who leave that connector point this one at the same form; what was made of it, and what is not done any more, is
said in the log. Its tables go on with ``existing_table: adopt``, which may be added to the same form, as any of our own
settings may: a setting of ours always wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

THEIRS = frozenset({"bucket_name", "lakeformation_database_name"})
CODECS = {"UNCOMPRESSED": "none", "GZIP": "gzip", "SNAPPY": "snappy", "ZSTD": "zstd"}
FORMATS = {"JSONL": "jsonl", "PARQUET": "parquet"}
TAGS = ("lakeformation_database_default_tag_key", "lakeformation_database_default_tag_values")
FOLDER = "lake"  # new folders must not lie below the Location of a table that is adopted


@dataclass(frozen=True, slots=True)
class Note:
    """What the user should know of the translation. Names of settings, never their values."""

    level: Literal["INFO", "WARN"]
    text: str


def translated(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Note, ...]]:
    """The configuration as our form has it, and notes; as it came, without notes, if it is not of that connector."""
    if not raw.keys() >= THEIRS or "s3_bucket_name" in raw:
        return raw, ()
    found = {
        "s3_bucket_name": raw["bucket_name"],
        "s3_bucket_path": _path(raw.get("bucket_prefix")),
        "s3_bucket_region": raw.get("region"),
        "glue_database": raw["lakeformation_database_name"],
        "credentials": _credentials(raw.get("credentials")),
        **_format(raw.get("format")),
        **({"types": {"number": "decimal"}} if raw.get("glue_catalog_float_as_decimal") else {}),
    }
    return {**found, **{name: value for name, value in raw.items() if name not in OLD}}, _notes(raw)


OLD = frozenset(
    {
        "aws_account_id",
        "region",
        "bucket_name",
        "bucket_prefix",
        "lakeformation_database_name",
        "lakeformation_governed_tables",
        "partitioning",
        "glue_catalog_float_as_decimal",
        "credentials",
        "format",
        *TAGS,
    }
)


def _path(prefix: Any) -> Any:
    if not isinstance(prefix, str | None):
        return prefix
    return "/".join([*(part for part in (prefix or "").split("/") if part), FOLDER])


def _credentials(theirs: Any) -> Any:
    match theirs:
        case {"role_arn": role}:
            return {"auth_type": "assume_role", "role_arn": role}
        case {"aws_access_key_id": key, "aws_secret_access_key": secret}:
            return {"auth_type": "access_key", "access_key_id": key, "secret_access_key": secret}
        case _:
            return {}  # not whole: the form says what is missing


def _format(theirs: Any) -> dict[str, Any]:
    match theirs:
        case {"format_type": str() as kind} if kind.upper() in FORMATS:
            codec = theirs.get("compression_codec") or ("SNAPPY" if kind.upper() == "PARQUET" else "UNCOMPRESSED")
            return {"format": {"format_type": FORMATS[kind.upper()], "compression": CODECS.get(codec, codec)}}
        case None:
            return {}
        case _:
            return {"format": theirs}


def _notes(raw: Mapping[str, Any]) -> tuple[Note, ...]:
    notes = [
        Note(
            "INFO",
            "This is a configuration of destination-aws-datalake; it is read as: bucket_name is s3_bucket_name; "
            f"bucket_prefix, and {FOLDER} in it, is s3_bucket_path; region is s3_bucket_region; "
            "lakeformation_database_name is glue_database; credentials, format and glue_catalog_float_as_decimal are "
            "those of the same meaning. aws_account_id is not needed.",
        )
    ]
    if any(raw.get(name) for name in TAGS):
        notes.append(Note("WARN", f"Lake Formation tags are not set: {' and '.join(TAGS)} have no effect."))
    if raw.get("lakeformation_governed_tables"):
        notes.append(Note("WARN", "AWS has given up governed tables: lakeformation_governed_tables has no effect."))
    if raw.get("partitioning") not in (None, "", "NO PARTITIONING"):
        notes.append(
            Note(
                "WARN", "The setting partitioning has no effect: a list of stream, field, transform and name is needed."
            )
        )
    if raw.get("existing_table") != "adopt":
        notes.append(
            Note(
                "INFO", "Tables that destination-aws-datalake made are left alone: add existing_table: adopt to go on."
            )
        )
    return tuple(notes)
