"""JSON Schema -> column types -> columns of a Glue table, and back. Pure.

Types follow Airbyte's reading of JSON Schema: ``null`` in a type means nothing, a single remaining type is that type,
several are a union, which is stored as JSON text, as is an object without declared properties. No type is chosen that
Athena cannot read: times are text, nothing is unsigned, no struct is empty.

What a column of a table holds is more than its Glue type says: whether a ``string`` is text or JSON, whether a
``timestamp`` has a zone, what the fields of a struct are called in the records. ``GlueColumn.Kind`` says it where it
matters. What becomes of a column whose type changes is the business of ``evolution.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from pydantic import BaseModel, ConfigDict

from destination_s3_datalake.config import TypeOptions
from destination_s3_datalake.records.names import column_names

MOST_TYPE_CHARACTERS = 131_072  # Glue's limit for a column's type


class GlueColumn(BaseModel):
    """One column as Glue spells it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    Name: str
    Type: str
    Comment: str = ""
    Kind: str = ""
    """The column's type as JSON, where ``Type`` does not say all of it; the parameter ``airbyte_type`` in Glue."""


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
    """Micro- or milliseconds of the years 1 to 9999; in UTC if ``zoned``, else the wall clock's."""

    zoned: bool
    unit: Literal["us", "ms"] = "us"


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with declared properties, in their order."""

    fields: tuple[StructField, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """An array with declared items."""

    item: ColumnType


@dataclass(frozen=True, slots=True)
class Foreign:
    """A type that only others write: a narrow number of an adopted table, a map, binary data."""

    glue: str


ColumnType = Boolean | BigInt | Double | Decimal | Text | Json | Date | Timestamp | Struct | Array
StoredType = ColumnType | Foreign


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


def column_type(schema: Any, options: TypeOptions) -> ColumnType:
    """The type of one field's JSON Schema."""
    if not isinstance(schema, Mapping):
        return Json()
    reference = schema.get("$ref")
    if isinstance(reference, str):
        known = WELL_KNOWN.get(reference.rpartition("/")[2])
        return column_type(known, options) if known is not None else Json()
    for union in ("oneOf", "anyOf", "allOf"):
        if isinstance(schema.get(union), list):
            return _only([column_type(branch, options) for branch in schema[union] if branch != {"type": "null"}])
    types = schema.get("type")
    if isinstance(types, list):
        present = [name for name in types if name != "null"]
        return _only([column_type({**schema, "type": name}, options) for name in present])
    match types:
        case "boolean":
            return Boolean()
        case "integer":
            return Decimal(38, 0) if schema.get("airbyte_type") == "big_integer" else INTEGERS[options.integer_overflow]
        case "number":
            is_whole = schema.get("airbyte_type") == "integer"
            return INTEGERS[options.integer_overflow] if is_whole else NUMBERS[options.number]
        case "string":
            return _string_type(schema, options)
        case "object":
            return _object_type(schema, options)
        case "array":
            return _array_type(schema, options)
        case _:
            return Json()


def glue_type(kind: StoredType) -> str:
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
        case Foreign(glue):
            return glue
        case other:
            assert_never(other)


def glue_column(name: str, kind: ColumnType, *, comment: str = "") -> GlueColumn:
    """The column of a type."""
    spelled = glue_type(kind)
    says_all = from_glue(spelled) == kind
    return GlueColumn(Name=name, Type=spelled, Comment=comment, Kind="" if says_all else json.dumps(_spelled(kind)))


def stored_type(column: GlueColumn) -> StoredType:
    """The type of a column of a table."""
    if column.Kind:
        found = _read(json.loads(column.Kind))
        if glue_type(found) == column.Type:
            return found
    return from_glue(column.Type)


def from_glue(text: str) -> StoredType:
    """What a Glue type says by itself: text, times in UTC, fields of the names that they have."""
    plain = text.strip().lower()
    if plain in PLAIN:
        return PLAIN[plain]
    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", plain):
        return Decimal(int(found[1]), int(found[2]))
    if re.fullmatch(r"(var)?char\(\d+\)", plain):
        return Text()
    if plain.startswith("array<") and plain.endswith(">"):
        item = from_glue(plain[6:-1])
        return Foreign(plain) if isinstance(item, Foreign) else Array(item)
    if plain.startswith("struct<") and plain.endswith(">"):
        parts = [part.partition(":") for part in _split(plain[7:-1])]
        kinds = [(name, from_glue(kind)) for name, _, kind in parts]
        fields = tuple(StructField(name, name, kind) for name, kind in kinds if not isinstance(kind, Foreign))
        return Struct(fields) if len(fields) == len(parts) else Foreign(plain)
    return Foreign(plain)


def _split(text: str) -> list[str]:
    """Fields of a struct: split at commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "<(") - (character in ">)")
        if character == "," and not depth:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _spelled(kind: ColumnType) -> Any:
    match kind:
        case Json():
            return "json"
        case Timestamp(zoned, unit):
            return f"timestamp_{'with' if zoned else 'without'}_timezone_{unit}"
        case Struct(fields):
            return {"struct": [[field.name, field.field, _spelled(field.type)] for field in fields]}
        case Array(item):
            return {"array": _spelled(item)}
        case _:
            return glue_type(kind)


def _read(spelled: Any) -> ColumnType:
    match spelled:
        case {"struct": fields}:
            return Struct(tuple(StructField(name, field, _read(kind)) for name, field, kind in fields))
        case {"array": item}:
            return Array(_read(item))
        case "json":
            return Json()
        case str() if found := re.fullmatch(r"timestamp_(with|without)_timezone_(us|ms)", spelled):
            return Timestamp(zoned=found[1] == "with", unit="ms" if found[2] == "ms" else "us")
    kind = from_glue(str(spelled))
    return Json() if isinstance(kind, Foreign) else kind


PLAIN: dict[str, ColumnType] = {
    "boolean": Boolean(),
    "bigint": BigInt(),
    "double": Double(),
    "string": Text(),
    "date": Date(),
    "timestamp": Timestamp(zoned=True),
}
INTEGERS: dict[str, ColumnType] = {"null": BigInt(), "decimal": Decimal(38, 0), "string": Text()}
NUMBERS: dict[str, ColumnType] = {"double": Double(), "decimal": Decimal(38, 9)}
WELL_KNOWN: dict[str, Mapping[str, str]] = {
    "String": {"type": "string"},
    "BinaryData": {"type": "string"},
    "Boolean": {"type": "boolean"},
    "Integer": {"type": "integer"},
    "Number": {"type": "number"},
    "Date": {"type": "string", "format": "date"},
    "TimestampWithTimezone": {"type": "string", "format": "date-time"},
    "TimestampWithoutTimezone": {
        "type": "string",
        "format": "date-time",
        "airbyte_type": "timestamp_without_timezone",
    },
    "TimeWithTimezone": {"type": "string"},
    "TimeWithoutTimezone": {"type": "string"},
}


def _string_type(schema: Mapping[str, Any], options: TypeOptions) -> ColumnType:
    kind = schema.get("airbyte_type")
    if kind == "big_integer":
        return Decimal(38, 0)
    if kind == "big_number":
        return Decimal(38, 9)
    match schema.get("format"):
        case "date":
            return Date()
        case "date-time":
            return Timestamp(zoned=kind != "timestamp_without_timezone", unit=options.timestamp_unit)
        case _:
            return Text()


def _object_type(schema: Mapping[str, Any], options: TypeOptions) -> ColumnType:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties or options.nested == "json":
        return Json()
    names = column_names(list(properties), {})
    struct = Struct(tuple(StructField(names[f], f, column_type(s, options)) for f, s in properties.items()))
    return struct if len(glue_type(struct)) <= MOST_TYPE_CHARACTERS else Json()


def _array_type(schema: Mapping[str, Any], options: TypeOptions) -> ColumnType:
    items = schema.get("items")
    if not isinstance(items, Mapping) or not items or options.nested == "json":
        return Json()
    return Array(column_type(items, options))


def _only(types: Sequence[ColumnType]) -> ColumnType:
    """One type for all branches of a union, or JSON text."""
    return types[0] if types and all(kind == types[0] for kind in types) else Json()
