"""Stored values of one column type as values of another, in DuckDB's SQL. Pure: text in, text out.

A converted value is what the exact path (``values.py``) would have written had the column had the new type from the
beginning: numbers as the shortest text that is the same number, times in ISO 8601, objects under the names of their
fields in the records. What the record held besides (the digits of ``1.10``, the zone of a time) was not stored then.
"""

from __future__ import annotations

import json
import re
from typing import assert_never

from destination_s3_datalake.records.database import duck_type, literal, quoted
from destination_s3_datalake.records.schema import (
    Array,
    BigInt,
    Boolean,
    ColumnType,
    Date,
    Decimal,
    Double,
    Foreign,
    Json,
    StoredType,
    Struct,
    Text,
    Timestamp,
)

MOST_EXACT = 2**53


def converted(value: str, old: StoredType, new: ColumnType) -> str:
    """The expression ``value`` of type ``old`` as type ``new``, which holds it."""
    match old, new:
        case _ if old == new:
            return value
        case Foreign(), _:
            return f"CAST({value} AS {duck_type(new)})"
        case Json(), Text():
            return f"CASE WHEN starts_with({value}, '\"') THEN json_extract_string({value}, '$') ELSE {value} END"
        case Text(), Json():
            return _json(value, old)
        case _, Text():
            return _text(value, old)
        case _, Json():
            return _json(value, old)
        case Struct(), Struct():
            return _struct(value, old, new)
        case Array(item), Array(other):
            name = _inner(value)
            return f"list_transform({value}, lambda {name}: {converted(name, item, other)})"
        case _:
            return f"CAST({value} AS {duck_type(new)})"


def is_exact(value: str, old: StoredType, new: ColumnType) -> str:
    """Whether the value of this expression is the same in the other type; NULL for NULL."""
    match old, new:
        case Struct(fields), Struct(others):
            kinds = {field.name: field.type for field in others}
            parts = [is_exact(f"{value}.{quoted(f.name)}", f.type, kinds[f.name]) for f in fields if f.name in kinds]
            return " AND ".join(f"coalesce({part}, true)" for part in parts) or "true"
        case Array(item), Array(other):
            name = _inner(value)
            return (
                f"list_bool_and(list_transform({value}, lambda {name}: coalesce({is_exact(name, item, other)}, true)))"
            )
        case BigInt(), Double():
            return f"{value} BETWEEN -{MOST_EXACT} AND {MOST_EXACT}"
        case (Double() | Decimal(), Double() | Decimal()):
            there = f"TRY_CAST(CAST({value} AS VARCHAR) AS {duck_type(new)})"
            back = f"TRY_CAST(CAST({there} AS VARCHAR) AS {duck_type(old)})"
            return f"({value} IS NULL OR coalesce({back} = {value}, false))"
        case _:
            return "true"


def _struct(value: str, old: Struct, new: Struct) -> str:
    there = {field.name: field.type for field in old.fields}
    parts = []
    for field in new.fields:
        if field.name in there:
            part = converted(f"{value}.{quoted(field.name)}", there[field.name], field.type)
        else:
            part = f"CAST(NULL AS {duck_type(field.type)})"
        parts.append(f"{quoted(field.name)} := {part}")
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(parts)}) END"


def _text(value: str, old: ColumnType) -> str:
    """As ``values.py`` writes it into a column of text; NULL for NULL."""
    match old:
        case Text():
            return value
        case Boolean() | BigInt() | Double() | Date():
            return f"CAST({value} AS VARCHAR)"
        case Decimal(_, scale):
            return f"rtrim(rtrim(CAST({value} AS VARCHAR), '0'), '.')" if scale else f"CAST({value} AS VARCHAR)"
        case Timestamp(zoned):
            iso = f"strftime(CAST({value} AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%f')"
            return f"rtrim(rtrim({iso}, '0'), '.') || '{'Z' if zoned else ''}'"
        case Json() | Struct() | Array():
            return _json(value, old)
        case other:
            assert_never(other)


def _json(value: str, old: ColumnType) -> str:
    """As ``values.py`` writes it into a column of JSON text; NULL for NULL."""
    match old:
        case Json():
            return value
        case Text():
            return f"CAST(to_json({value}) AS VARCHAR)"
        case Boolean() | BigInt() | Double() | Decimal():
            return _text(value, old)
        case Date() | Timestamp():
            return f"'\"' || {_text(value, old)} || '\"'"
        case Struct(fields):
            parts = []
            for field in fields:
                found = _json(f"{value}.{quoted(field.name)}", field.type)
                parts.append(f"{literal(_key(field.field) + ':')} || coalesce({found}, 'null')")
            inside = " || ',' || ".join(parts)
            return f"CASE WHEN {value} IS NOT NULL THEN '{{' || {inside} || '}}' END"
        case Array(item):
            name = _inner(value)
            items = f"list_transform({value}, lambda {name}: coalesce({_json(name, item)}, 'null'))"
            return f"'[' || array_to_string({items}, ',') || ']'"
        case other:
            assert_never(other)


def _inner(value: str) -> str:
    """A name for the items of a list: not that of the list around it."""
    found = re.match(r"e(\d+)", value)
    return f"e{int(found[1]) + 1 if found else 0}"


def _key(field: str) -> str:
    return json.dumps(field, ensure_ascii=False)
