"""JSON Schema -> column types, and what a table's columns are after this sync. Pure.

Types follow Airbyte's reading of JSON Schema: ``null`` in a type means nothing, a single remaining type is that type,
several are a union, which is stored as JSON text, as is an object without declared properties. No type is chosen that
Athena cannot read: times are text, nothing is unsigned, no struct is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from pydantic import BaseModel, ConfigDict

from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.records.names import column_names

MOST_TYPE_CHARACTERS = 131_072  # Glue's limit for a column's type
MOST_COMMENT_BYTES = 255


class GlueColumn(BaseModel):
    """One column as Glue spells it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    Name: str
    Type: str
    Comment: str = ""


@dataclass(frozen=True, slots=True)
class Boolean:
    """``boolean``."""


@dataclass(frozen=True, slots=True)
class BigInt:
    """64-bit integer."""


@dataclass(frozen=True, slots=True)
class Double:
    """64-bit float."""


@dataclass(frozen=True, slots=True)
class Decimal:
    """Fixed point, at most 38 digits."""

    precision: int
    scale: int


@dataclass(frozen=True, slots=True)
class Text:
    """Text; other scalars arrive as their text, objects and arrays as JSON."""


@dataclass(frozen=True, slots=True)
class Json:
    """Any value as JSON text, every digit kept."""


@dataclass(frozen=True, slots=True)
class Date:
    """A day of the years 1 to 9999."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Microseconds of the years 1 to 9999; in UTC if ``zoned``, else the wall clock's."""

    zoned: bool


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with declared properties, in their order."""

    fields: tuple[StructField, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """An array with declared items."""

    item: ColumnType


ColumnType = Boolean | BigInt | Double | Decimal | Text | Json | Date | Timestamp | Struct | Array


@dataclass(frozen=True, slots=True)
class StructField:
    """Name in the table, name in the record, type."""

    name: str
    field: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a file gets from the records: name in the table, name in the record, type."""

    name: str
    field: str
    type: ColumnType


META = (
    GlueColumn(Name="_airbyte_raw_id", Type="string"),
    GlueColumn(Name="_airbyte_extracted_at", Type="timestamp"),
    GlueColumn(Name="_airbyte_generation_id", Type="bigint"),
    GlueColumn(
        Name="_airbyte_meta",
        Type="struct<sync_id:bigint,changes:array<struct<field:string,change:string,reason:string>>>",
    ),
)
EXTRA = GlueColumn(Name="_airbyte_extra", Type="string")


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """The columns of this sync.

    Attributes:
        columns: what is taken from the records.
        glue_columns: ours as they will be in Glue: those that were there, in their order, then new ones, then the
            meta columns; columns that others added are not among them.
        names: field -> column, every one that the table ever had; the ``airbyte_columns`` parameter.
    """

    columns: tuple[Column, ...]
    glue_columns: tuple[GlueColumn, ...]
    names: dict[str, str]


def plan_columns(
    json_schema: Mapping[str, Any],
    *,
    existing: Sequence[GlueColumn],
    known_names: Mapping[str, str],
    stream: str,
    reserved: Iterable[str] = (),
) -> ColumnPlan:
    """Columns for a stream's schema on a table that has ``existing`` columns (none for a new or replaced table).

    No column gets a ``reserved`` name.

    Raises:
        ConfigError: a field's type no longer fits the column that its earlier values are in.
    """
    properties = json_schema.get("properties")
    fields = dict(properties) if isinstance(properties, Mapping) else {}
    names = column_names(list(fields), known_names, reserved)
    present = {column.Name: column for column in existing}
    columns = []
    for field, schema in fields.items():
        wanted = column_type(schema)
        there = present.get(names[field])
        if there is not None and there.Type != glue_type(wanted):
            wanted = _as_stored(there, wanted, field=field, stream=stream)
        columns.append(Column(names[field], field, wanted))
    ours = {**known_names, **names}
    new = {c.name: GlueColumn(Name=c.name, Type=glue_type(c.type), Comment=_comment(c)) for c in columns}
    mine = {*ours.values(), *(column.Name for column in META), EXTRA.Name}
    kept = [new.pop(c.Name, c) if c.Name in new else c for c in existing if c.Name in mine]
    names_there = {column.Name for column in kept}
    glue = (*kept, *new.values(), *(column for column in META if column.Name not in names_there))
    return ColumnPlan(tuple(columns), glue, ours if existing else names)


def without_nesting(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with every field that would be a struct or an array declared as any value: JSON text."""
    properties = json_schema.get("properties")
    fields = properties.items() if isinstance(properties, Mapping) else ()
    flat = {name: {} if isinstance(column_type(schema), Struct | Array) else schema for name, schema in fields}
    return {**json_schema, "properties": flat}


def column_type(schema: Any) -> ColumnType:
    """The type of one field's JSON Schema."""
    if not isinstance(schema, Mapping):
        return Json()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return WELL_KNOWN.get(reference.rpartition("/")[2], Json())
    for union in ("oneOf", "anyOf", "allOf"):
        if isinstance(schema.get(union), list):
            return _only([column_type(branch) for branch in schema[union] if branch != {"type": "null"}])
    types = schema.get("type")
    if isinstance(types, list):
        present = [name for name in types if name != "null"]
        return _only([column_type({**schema, "type": name}) for name in present])
    match types:
        case "boolean":
            return Boolean()
        case "integer":
            return Decimal(38, 0) if schema.get("airbyte_type") == "big_integer" else BigInt()
        case "number":
            return BigInt() if schema.get("airbyte_type") == "integer" else Double()
        case "string":
            return _string_type(schema)
        case "object":
            return _object_type(schema)
        case "array":
            return _array_type(schema)
        case _:
            return Json()


def glue_type(kind: ColumnType) -> str:
    """The type as Hive and Glue write it."""
    match kind:
        case Boolean():
            return "boolean"
        case BigInt():
            return "bigint"
        case Double():
            return "double"
        case Decimal(precision, scale):
            return f"decimal({precision},{scale})"
        case Text() | Json():
            return "string"
        case Date():
            return "date"
        case Timestamp():
            return "timestamp"
        case Struct(fields):
            return f"struct<{','.join(f'{field.name}:{glue_type(field.type)}' for field in fields)}>"
        case Array(item):
            return f"array<{glue_type(item)}>"
        case other:
            assert_never(other)


WELL_KNOWN: dict[str, ColumnType] = {
    "String": Text(),
    "BinaryData": Text(),
    "Boolean": Boolean(),
    "Integer": BigInt(),
    "Number": Double(),
    "Date": Date(),
    "TimestampWithTimezone": Timestamp(zoned=True),
    "TimestampWithoutTimezone": Timestamp(zoned=False),
    "TimeWithTimezone": Text(),
    "TimeWithoutTimezone": Text(),
}


def _string_type(schema: Mapping[str, Any]) -> ColumnType:
    kind = schema.get("airbyte_type")
    if kind == "big_integer":
        return Decimal(38, 0)
    if kind == "big_number":
        return Decimal(38, 9)
    match schema.get("format"):
        case "date":
            return Date()
        case "date-time":
            return Timestamp(zoned=kind != "timestamp_without_timezone")
        case _:
            return Text()


def _object_type(schema: Mapping[str, Any]) -> ColumnType:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return Json()
    names = column_names(list(properties), {})
    struct = Struct(tuple(StructField(names[f], f, column_type(s)) for f, s in properties.items()))
    return struct if len(glue_type(struct)) <= MOST_TYPE_CHARACTERS else Json()


def _array_type(schema: Mapping[str, Any]) -> ColumnType:
    items = schema.get("items")
    if not isinstance(items, Mapping) or not items:
        return Json()
    return Array(column_type(items))


def _only(types: Sequence[ColumnType]) -> ColumnType:
    """One type for all branches of a union, or JSON text."""
    return types[0] if types and all(kind == types[0] for kind in types) else Json()


def _as_stored(column: GlueColumn, wanted: ColumnType, *, field: str, stream: str) -> ColumnType:
    """How to go on writing a column of another type without a loss.

    Raises:
        ConfigError: that is not possible.
    """
    if column.Type == "string" and not isinstance(wanted, Struct | Array):
        return Text()
    if re.fullmatch(r"decimal\(38,0\)", column.Type) and isinstance(wanted, BigInt):
        return Decimal(38, 0)
    raise ConfigError(
        f"Stream {stream}: the field {field} is now {glue_type(wanted)}, and the column {column.Name} of the table is "
        f"{column.Type}. Refresh the stream (full refresh | overwrite replaces the table with the new type), give the "
        "table another name, or correct the field's type in the source's schema.",
        stream=stream,
        column=column.Name,
    )


def _comment(column: Column) -> str:
    """The original name where it differs: printable, on one line, within Glue's limit."""
    if column.field == column.name:
        return ""
    line = "".join(c if c.isprintable() else " " for c in column.field)
    return line.encode("utf-8", "replace")[:MOST_COMMENT_BYTES].decode("utf-8", "ignore")
