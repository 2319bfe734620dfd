"""Partition keys: text derived from a field, a column of their own in Glue and not in the files. Pure.

NULL, and the empty text, which Glue does not take as a value, are ``__HIVE_DEFAULT_PARTITION__``. In paths values are
escaped as Hive does it (``FileUtils.escapePathName``), in Glue they stand raw. ``bucket`` is the lower half of the MD5
of the value's text modulo the number of buckets; it must never change, as rows of one bucket would be in two places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import assert_never

from pydantic import BaseModel, ConfigDict

from destination_s3_datalake.config import Partition
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.records import names
from destination_s3_datalake.records.schema import (
    Array,
    BigInt,
    Boolean,
    Column,
    ColumnType,
    Date,
    Decimal,
    Double,
    Json,
    Struct,
    Text,
    Timestamp,
)

NULL = "__HIVE_DEFAULT_PARTITION__"
MOST_PATH_BYTES = 600  # of 1024 in a key
ESCAPED = re.compile(r"""[\x00-\x1f\x7f"#%'*/:=?\\{}\[\]^]""")
DIGITS = {"year": 4, "month": 7, "day": 10, "hour": 13}  # of 2026-01-31 23:59:59
ZONED = "TIMESTAMP WITH TIME ZONE"
Values = tuple[str, ...]


class PartitionKey(BaseModel):
    """One key of a partitioned table: its name, the column it comes from, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    column: str
    transform: str


def partition_keys(
    wanted: Sequence[Partition],
    columns: Sequence[Column],
    *,
    known_names: Mapping[str, str],
    exists: bool,
    stream: str,
) -> tuple[PartitionKey, ...]:
    """The keys of a stream's table.

    Args:
        wanted: what the configuration says of this stream.
        columns: what is taken from the records.
        known_names: field -> column, every one that the table ever had: a key may outlive its field.
        exists: whether the table does, with keys whose names no column can have taken since.

    Raises:
        ConfigError: a field does not exist, its type has no such transform, or a name is taken.
    """
    found = {column.field: column for column in columns}
    keys: list[PartitionKey] = []
    for each in wanted:
        column = found.get(each.field)
        if column is None and each.field not in known_names:
            raise ConfigError(
                f"partitioning: stream {stream} has no field {each.field}. Name a top-level field of its schema.",
                stream=stream,
            )
        if column is not None and not _fits(each.transform, column.type):
            raise ConfigError(
                f"partitioning: {each.transform} cannot be used for the field {each.field} of stream {stream}. "
                "year, month and day need a date or a time, hour a time, truncate a text or a whole number, identity "
                "and bucket a value that is neither nested nor a float. For a date in a text use truncate[10].",
                stream=stream,
            )
        name = column.name if column is not None else known_names[each.field]
        keys.append(PartitionKey(name=each.name, column=name, transform=each.transform))
    taken = set() if exists else {*(column.name for column in columns), *names.META_COLUMNS}
    for key in keys:
        if key.name in taken:
            raise ConfigError(
                f"partitioning: the name {key.name} is taken by a column or another key of stream {stream}. "
                "Give the key another name.",
                stream=stream,
            )
        taken.add(key.name)
    return tuple(keys)


def path_of(keys: Sequence[PartitionKey], values: Values) -> str:
    """The folder of a partition below the table's, without slashes around it.

    Raises:
        ConfigError: it is longer than S3 takes.
    """
    parts = [f"{key.name}={escaped(value)}" for key, value in zip(keys, values, strict=True)]
    path = "/".join(parts)
    if len(path.encode()) > MOST_PATH_BYTES:
        raise ConfigError(
            f"partitioning: a value of {', '.join(key.column for key in keys)} is too long for a path in S3 "
            f"({MOST_PATH_BYTES} bytes). Use truncate[...] or bucket[...] for that field, with another table name, as "
            "the keys of a table cannot change."
        )
    return path


def values_of(path: str) -> Values:
    """The values of a partition's folder, as ``path_of`` made it."""
    return tuple(unescaped(part.partition("=")[2]) for part in path.split("/"))


def escaped(value: str) -> str:
    """As Hive writes it in a path."""
    return ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", value)


def unescaped(value: str) -> str:
    """The value of a part of a path."""
    return re.sub(r"%([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), value)


def expression(key: PartitionKey, column: str, kind: str | None) -> str:
    """The key's value in SQL. ``column`` is quoted, ``kind`` its type in DuckDB, None if the rows do not have it."""
    if kind is None:
        return f"'{NULL}'"
    plain = f"CAST({column} AS TIMESTAMP)" if kind == ZONED else column
    text = f"CAST({plain} AS VARCHAR)"
    name, _, argument = key.transform.rstrip("]").partition("[")
    match name:
        case "identity":
            found = text
        case "year" | "month" | "day" | "hour":
            found = f"replace(left({text}, {DIGITS[name]}), ' ', '-')"
        case "bucket":
            found = f"CAST(md5_number_lower({text}) % {int(argument)} AS VARCHAR)"
        case "truncate" if kind == "VARCHAR":
            found = f"left({column}, {int(argument)})"
        case "truncate":
            number = f"CAST({column} AS HUGEINT)"
            found = f"CAST({number} - (({number} % {int(argument)}) + {int(argument)}) % {int(argument)} AS VARCHAR)"
        case other:
            raise ValueError(other)
    return f"coalesce(nullif({found}, ''), '{NULL}')"


def _fits(transform: str, kind: ColumnType) -> bool:
    name = transform.partition("[")[0]
    match kind:
        case Timestamp():
            return name in ("identity", "bucket", "year", "month", "day", "hour")
        case Date():
            return name in ("identity", "bucket", "year", "month", "day")
        case Text() | BigInt():
            return name in ("identity", "bucket", "truncate")
        case Boolean() | Decimal():
            return name in ("identity", "bucket")
        case Double() | Json() | Struct() | Array():
            return False
        case other:
            assert_never(other)
