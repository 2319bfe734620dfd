"""What a table's columns are after this sync, whatever they were before. Pure.

A new field is a new column; one that is not declared any more stays, NULL from now on. A field of another type gets a
type that holds both: every value that is stored, exactly, and every value that the new type may bring. Nothing is
narrowed. Where the stored values decide (``bigint`` to ``double`` is exact up to 2^53), ``Fits`` looks at them.

| Before | After | Column |
|---|---|---|
| bigint | number | double if every stored value is exact in it, else decimal(38,9) |
| double | integer | double |
| decimal, and another number | | the new type, or decimal(38,9), if every stored value is exact in it, else text |
| any | text | text |
| text | any but JSON | text |
| text, and JSON | | the new one of the two; texts become JSON strings, JSON strings texts |
| JSON | any but text | JSON |
| any | JSON | JSON |
| struct | struct | all fields of both, those that were there first; arrays by their items |
| a struct or array | any other | JSON |
| a time without a zone, and one with | | with, in UTC; microseconds if one of them has them |
| any other scalar | | text |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from destination_s3_datalake.config import TypeOptions
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.records.names import column_names, suffix, with_suffix
from destination_s3_datalake.records.schema import (
    EXTRA,
    META,
    MOST_TYPE_CHARACTERS,
    Array,
    BigInt,
    Column,
    ColumnType,
    Decimal,
    Double,
    Foreign,
    GlueColumn,
    Json,
    StoredType,
    Struct,
    StructField,
    Text,
    Timestamp,
    column_type,
    glue_column,
    glue_type,
    stored_type,
)

MOST_COMMENT_BYTES = 255
CENTS = Decimal(38, 9)
LEVELS = range(3)
"""How much room a number gets: what was asked for, ``decimal(38,9)``, text."""
NARROW: dict[str, ColumnType] = {
    "tinyint": BigInt(),
    "smallint": BigInt(),
    "int": BigInt(),
    "integer": BigInt(),
    "float": Double(),
}

Fits = Callable[[int, str, StoredType, ColumnType], bool]
"""Whether every value of a column (source, name, its type there) is exact in another type."""


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
    sources: Sequence[Sequence[GlueColumn]],
    known_names: Mapping[str, str],
    stream: str,
    options: TypeOptions,
    fits: Fits = lambda source, name, old, new: True,
    earlier: Sequence[GlueColumn] = (),
    foreign: Sequence[GlueColumn] = (),
    reserved: Iterable[str] = (),
    is_flat: bool = False,
) -> ColumnPlan:
    """Columns for a stream's schema.

    Args:
        sources: columns of the rows that this sync's rows will stand beside: of the table, of commits that wait.
        known_names: field -> column, as the table has them.
        fits: what the stored values say.
        earlier: columns that the table had, for the names of fields inside of objects.
        foreign: columns in Glue that others added; a field of their name and type shares one.
        reserved: names that no column gets.
        is_flat: whether objects and arrays are JSON text, whatever the options say.

    Raises:
        ConfigError: no type holds the values of a column that others made, and ours.
    """
    properties = json_schema.get("properties")
    fields = dict(properties) if isinstance(properties, Mapping) else {}
    options = options.model_copy(update={"nested": "json"}) if is_flat else options
    wanted = {field: column_type(schema, options) for field, schema in fields.items()}
    names = _names(wanted, known_names, foreign, reserved)
    typed = {names[field]: kind for field, kind in wanted.items()}
    before = {column.Name: stored_type(column) for column in earlier}
    typed = {name: _named_as(before.get(name), kind) for name, kind in typed.items()}
    there = [{column.Name: stored_type(column) for column in source} for source in sources]
    every = dict.fromkeys([*(name for source in there for name in source), *typed])
    final = {name: _evolved(name, there, typed.get(name), fits, stream) for name in every if name not in OURS}
    columns = tuple(Column(names[field], field, _writable(final[names[field]])) for field in fields)
    comments = {column.name: _comment(column) for column in columns}
    kept = {column.Name: column for source in reversed(sources) for column in source}
    ordered = dict.fromkeys([*(c.Name for source in sources for c in source), *final, *(c.Name for c in META)])
    glue = tuple(_glue(name, kept.get(name), final.get(name), comments.get(name)) for name in ordered)
    return ColumnPlan(columns, glue, {**known_names, **names} if sources else names)


def changes(there: Sequence[GlueColumn], wanted: Sequence[GlueColumn]) -> dict[str, tuple[StoredType, ColumnType]]:
    """Columns of files whose values must be converted: name -> type there, type wanted."""
    kinds = {column.Name: stored_type(column) for column in wanted}
    pairs = {column.Name: (stored_type(column), kinds.get(column.Name)) for column in there}
    return {
        name: (old, new)
        for name, (old, new) in pairs.items()
        if new is not None and new != old and not isinstance(new, Foreign)
    }


OURS = {*(column.Name for column in META), EXTRA.Name}
OURS_BY_NAME = {column.Name: column for column in META}


def _names(
    wanted: Mapping[str, ColumnType], known: Mapping[str, str], foreign: Sequence[GlueColumn], reserved: Iterable[str]
) -> dict[str, str]:
    names = column_names(list(wanted), known, reserved)
    theirs = {column.Name: column.Type for column in foreign}
    for field, kind in wanted.items():
        if field not in known and theirs.get(names[field], glue_type(kind)) != glue_type(kind):
            names[field] = with_suffix(names[field], suffix(field))
    return names


def _glue(name: str, there: GlueColumn | None, kind: StoredType | None, comment: str | None) -> GlueColumn:
    """A column as it will be; ``comment`` is None for one that no field writes."""
    if kind is None or isinstance(kind, Foreign):
        return there if there is not None else OURS_BY_NAME[name]
    if there is not None and stored_type(there) == kind and (comment is None or there.Type == glue_type(kind)):
        return there
    return glue_column(name, kind, comment=comment or (there.Comment if there is not None else ""))


def _evolved(
    name: str, sources: Sequence[Mapping[str, StoredType]], wanted: ColumnType | None, fits: Fits, stream: str
) -> StoredType:
    stored = [(number, source[name]) for number, source in enumerate(sources) if name in source]
    kinds: list[StoredType] = [kind for _, kind in stored]
    kinds += [wanted] if wanted is not None else []
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    for level in LEVELS:
        found = _widened(kinds[0], name, stream)
        for kind in kinds[1:]:
            found = common(found, _widened(kind, name, stream), level)
        if len(glue_type(found)) > MOST_TYPE_CHARACTERS:
            return Json()
        if all(
            kind == found or not _depends(kind, found) or fits(number, name, kind, found) for number, kind in stored
        ):
            return found
    raise AssertionError("text holds every value")


def _widened(kind: StoredType, name: str, stream: str) -> ColumnType:
    if not isinstance(kind, Foreign):
        return kind
    if kind.glue in NARROW:
        return NARROW[kind.glue]
    raise ConfigError(
        f"Stream {stream}: the column {name} of its table is {kind.glue}, which this destination cannot write. Refresh "
        "the stream (full refresh | overwrite makes the column anew), rename that column, or leave the field out.",
        stream=stream,
        column=name,
    )


def _writable(kind: StoredType) -> ColumnType:
    return NARROW[kind.glue] if isinstance(kind, Foreign) else kind


def _depends(old: StoredType, new: ColumnType) -> bool:
    """Whether it is the values that say if they are exact in the new type."""
    match old, new:
        case Struct(fields), Struct(others):
            kinds = {field.name: field.type for field in others}
            return any(field.name in kinds and _depends(field.type, kinds[field.name]) for field in fields)
        case Array(item), Array(other):
            return _depends(item, other)
        case (BigInt(), Double()) | (Double(), Decimal()) | (Decimal(), Double()) | (Decimal(), Decimal()):
            return old != new
        case _:
            return False


def common(old: ColumnType, new: ColumnType, level: int = 0) -> ColumnType:
    """A type for stored values of ``old`` and coming ones of ``new``; numbers get more room at a higher level."""
    match old, new:
        case _ if old == new:
            return old
        case (_, Text()) | (_, Json()):
            return new
        case (Text(), _) | (Json(), _):
            return old
        case Struct(), Struct():
            return _common_struct(old, new, level)
        case Array(item), Array(other):
            return Array(common(item, other, level))
        case (Struct() | Array(), _) | (_, Struct() | Array()):
            return Json()
        case Timestamp(), Timestamp():
            return Timestamp(old.zoned or new.zoned, "ms" if old.unit == new.unit == "ms" else "us")
        case (BigInt() | Double() | Decimal(), BigInt() | Double() | Decimal()):
            return _common_number(old, new, level)
        case _:
            return Text()


def _common_struct(old: Struct, new: Struct, level: int) -> ColumnType:
    named = _named_as(old, new)
    assert isinstance(named, Struct)
    coming = {field.field: field for field in named.fields}
    kept = [
        StructField(f.name, f.field, common(f.type, coming[f.field].type, level)) if f.field in coming else f
        for f in old.fields
    ]
    there = {field.field for field in old.fields}
    return Struct((*kept, *(field for field in named.fields if field.field not in there)))


def _named_as(before: StoredType | None, kind: ColumnType) -> ColumnType:
    """The type with the names that the fields of objects have had before."""
    match before, kind:
        case Struct(known), Struct(fields):
            names = column_names([field.field for field in fields], {field.field: field.name for field in known})
            kinds = {field.field: field.type for field in known}
            return Struct(
                tuple(StructField(names[f.field], f.field, _named_as(kinds.get(f.field), f.type)) for f in fields)
            )
        case Array(item), Array(other):
            return Array(_named_as(item, other))
        case _:
            return kind


def _common_number(old: BigInt | Double | Decimal, new: BigInt | Double | Decimal, level: int) -> ColumnType:
    if _holds(old, new):
        return old
    if level == 0:
        return new
    # decimal(38,9) is room enough for what a number says; not for all integers of 38 digits.
    return CENTS if level == 1 and new != Decimal(38, 0) else Text()


def _holds(wide: BigInt | Double | Decimal, narrow: BigInt | Double | Decimal) -> bool:
    """Whether a column of the first type may go on when values of the second come."""
    match wide, narrow:
        case Double(), BigInt():
            return True  # beyond 2^53 they are rounded, with the change and the original recorded
        case Decimal(precision, scale), BigInt():
            return precision - scale >= 19
        case Decimal(precision, scale), Decimal(other, places):
            return scale >= places and precision - scale >= other - places
        case _:
            return wide == narrow


def _comment(column: Column) -> str:
    """The original name where it differs: printable, on one line, within Glue's limit."""
    if column.field == column.name:
        return ""
    line = "".join(c if c.isprintable() else " " for c in column.field)
    return line.encode("utf-8", "replace")[:MOST_COMMENT_BYTES].decode("utf-8", "ignore")
