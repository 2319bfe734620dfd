"""The shape that the lines of a stream share, learned from a sample: how the fast path proves that it read exactly.

A JSON engine reads lines ten times faster than Python does, and forgives: the text "42" becomes a number, 1.5 becomes
2, 1.50 becomes 1.5, of two equal keys one vanishes, a key that nobody asked for too. So every line is written anew, in
SQL, from what was read of it, and compared with the line as it came. Equal text proves all at once: the keys, their
order, that there are no others, the kind of each value, and every digit. A line that differs is not wrong, it is only
of another shape: ``ingest.py`` tries it with another one, and then value by value (``values.py``).

What equal text does not prove is left to conditions of the shape: dates that exist, doubles that are numbers, integers
that a double holds. Pure: makes SQL for DuckDB, runs nothing. Each rule was found by the differential test in
``tests/records/test_shape.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.records import values
from destination_s3_datalake.records.database import duck_type, literal, quoted
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
from destination_s3_datalake.records.values import Undeclared

TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
FRACTION = {"us": r"\.[0-9]{1,6}", "ms": r"\.[0-9]{1,3}"}
ZONE = r"(Z|z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?"
ODD_KEY = re.compile(r'["\\\x00-\x1f\ud800-\udfff]|^$')  # SQL has no empty name either
ESCAPED = re.compile(r'["\\\x00-\x1f]')
MOST_UNDECLARED = 200  # fields without a column: more of them are the keys of a map, and no shape

USUAL = 5  # an order of keys that one in five objects has

Nulls = Literal["never", "null", "absent"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is no object or array with declared parts. ``is_escaped``: its texts need escapes in JSON."""

    type: ColumnType
    is_escaped: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """An array with declared items."""

    item: Node


@dataclass(frozen=True, slots=True)
class Object:
    """An object with these members, in their order."""

    members: tuple[Member, ...]


Node = Leaf | Items | Object


@dataclass(frozen=True, slots=True)
class Member:
    """A key, and whether its value is always there, or may be null, or be left out with its key."""

    key: str
    node: Node
    nulls: Nulls
    is_declared: bool


@dataclass(frozen=True, slots=True)
class Style:
    """White space between the parts of a line, as its writer puts it everywhere or nowhere."""

    comma: str
    colon: str


@dataclass(frozen=True, slots=True)
class Shape:
    """SQL for lines of one shape: what to read, and what to make of it.

    In the expressions ``line`` is the line, ``record`` what was read. ``is_exact`` says that ``values`` (column ->
    expression) and ``extra`` are what the exact path would say too; ``json_values`` is a JSON array of the values that
    must not repeat a key at any depth, NULL where there are none.
    """

    columns: str
    is_exact: str
    values: Mapping[str, str]
    extra: str
    extracted_at: str
    json_values: str


def learn(lines: Sequence[bytes], stream: StreamId, columns: Sequence[Column], undeclared: Undeclared) -> Shape | None:
    """The shape of most of these RECORD lines of a stream; None if they have none."""
    sample = [(line, found) for line in lines if (found := _record_of(line, stream)) is not None]
    if not sample:
        return None
    style = Style(", ", ": ") if b'": ' in sample[0][0] else Style(",", ":")
    envelope = next((made for line, found in sample if (made := _envelope(line, found, style)) is not None), None)
    fields = {column.field: column.type for column in columns}
    data = _object(fields, [found["record"]["data"] for _, found in sample], undeclared)
    if envelope is None or data is None:
        return None
    return _Writer(style, columns, keeps=undeclared == "keep").shape(envelope, data)


def _record_of(line: bytes, stream: StreamId) -> values.Object | None:
    """The message, if it is an ordinary RECORD of this stream, without changes of the source."""
    try:
        found = values.read_json(line.decode())
    except ValueError:
        return None
    record = found.get("record") if isinstance(found, values.Object) else None
    if not isinstance(record, values.Object) or not isinstance(record.get("data"), values.Object):
        return None
    meta = record.get("meta")
    is_plain = (
        found.get("type") == "RECORD"
        and (record.get("namespace") or None, record.get("stream")) == stream
        and isinstance(record.get("emitted_at"), values.Number)
        and not (found.repeated or record.repeated)
        and not (isinstance(meta, values.Object) and (meta.get("changes") or meta.repeated))
    )
    return found if is_plain else None


DATA, EMITTED_AT = object(), object()
Part = str | object


def _envelope(line: bytes, message: values.Object, style: Style) -> tuple[Part, ...] | None:
    """The text around data and emitted_at; None if this line is written in another style."""
    parts: list[Part] = []
    for number, (key, value) in enumerate(message.items()):
        parts.append(f"{style.comma if number else '{'}{values.json_text(key)}{style.colon}")
        if key != "record":
            parts.append(values.json_text(value))
            continue
        for inner, (name, item) in enumerate(value.items()):
            parts.append(f"{style.comma if inner else '{'}{values.json_text(name)}{style.colon}")
            hole = {"data": DATA, "emitted_at": EMITTED_AT}.get(name)
            parts.append(hole if hole is not None else values.json_text(item))
        parts.append("}")
    parts.append("}")
    before = "".join(part for part in parts[: parts.index(DATA)] if isinstance(part, str))
    return tuple(parts) if EMITTED_AT in parts[: parts.index(DATA)] or line.startswith(before.encode()) else None


def _object(fields: Mapping[str, ColumnType], objects: Sequence[Any], undeclared: Undeclared) -> Object | None:
    """What these objects share. None if two of their keys differ only in case: SQL's structs cannot hold them."""
    found = [item for item in objects if isinstance(item, values.Object) and not item.repeated]
    keys = _order(found)
    if undeclared == "fail":
        keys = [key for key in keys if key in fields]
    if len({key.lower() for key in keys}) < len(keys) or any(ODD_KEY.search(key) for key in keys):
        return None
    if len(keys) - sum(key in fields for key in keys) > MOST_UNDECLARED:
        return None
    members = []
    for key in keys:
        present = [item[key] for item in found if key in item]
        full = [value for value in present if value is not None]
        absent, null = len(found) - len(present), len(present) - len(full)
        nulls: Nulls = "never" if not absent + null else ("absent" if absent > null else "null")
        node = _node(fields.get(key, Json()), full, undeclared)
        if node is None:
            return None
        members.append(Member(key, node, nulls, key in fields))
    return Object(tuple(members))


def _order(objects: Sequence[values.Object]) -> list[str]:
    """All keys, in the order that many objects have; others behind the one that they stand behind in some object."""
    counted = Counter(tuple(item) for item in objects).most_common(1)
    is_usual = bool(counted) and USUAL * counted[0][1] >= len(objects)
    order = list(counted[0][0] if is_usual else max(objects, key=len, default=()))
    known = set(order)
    for item in objects:
        if item.keys() <= known:
            continue
        place = 0
        for key in item:
            if key in known:
                place = order.index(key) + 1
            else:
                order.insert(place, key)
                known.add(key)
                place += 1
    return order


def _node(kind: ColumnType, full: Sequence[Any], undeclared: Undeclared) -> Node | None:
    match kind:
        case Struct(fields):
            return _object({item.field: item.type for item in fields}, full, undeclared)
        case Array(item):
            inside = [element for value in full if isinstance(value, list) for element in value[:20]]
            node = _node(item, [element for element in inside if element is not None], "fail")
            return None if node is None else Items(node)
        case Text():
            return Leaf(kind, is_escaped=any(isinstance(value, str) and ESCAPED.search(value) for value in full))
        case _:
            return Leaf(kind)


@dataclass
class _Writer:
    """Writes the SQL of one shape."""

    style: Style
    columns: Sequence[Column]
    keeps: bool
    conditions: list[str] = field(default_factory=list)
    json_leaves: list[str] = field(default_factory=list)

    def shape(self, envelope: Sequence[Part], data: Object) -> Shape:
        parts: list[str] = []
        for part in envelope:
            if part is DATA:
                parts += self._text(data, "record.data")
            else:
                parts.append("record.emitted_at" if part is EMITTED_AT else literal(part))
        types = f"STRUCT(data {self._read_type(data)}, emitted_at BIGINT)"
        members = {member.key: member for member in data.members}
        stored, extras = {}, []
        for column in self.columns:
            member = members.get(column.field)
            if member is None:
                stored[column.name] = f"NULL::{duck_type(column.type)}"
                continue
            path = f"record.data.{quoted(member.key)}"
            stored[column.name] = self._value(column.type, member.node, path)
            self._check(member.node, path)
            extras += self._undeclared(column.type, member.node, path, f"{values.escaped(member.key)}.")
        extras += self._undeclared_members(data, "record.data", "")
        if not data.members:
            self._check(data, "record.data")
        on_time = "record.emitted_at BETWEEN -62135596800000 AND 253402300799999"  # the years 1 to 9999
        conditions = [f"line = {_concat(parts)}", on_time, *self.conditions]
        leaves = ", ".join(self.json_leaves)
        return Shape(
            columns=f"{{record: {literal(types)}}}",
            is_exact=" AND ".join(f"coalesce({condition}, false)" for condition in conditions),
            values=stored,
            extra=_extra(extras),
            extracted_at=f"CASE WHEN {on_time} THEN make_timestamptz(record.emitted_at * 1000) END",
            json_values=f"nullif(concat('[', concat_ws(',', {leaves}), ']'), '[]')" if leaves else "NULL::VARCHAR",
        )

    def _read_type(self, node: Node) -> str:
        """The type to read a value as: one that keeps what ``_text`` needs."""
        match node:
            case Object(members):
                inner = ", ".join(f"{quoted(member.key)} {self._read_type(member.node)}" for member in members)
                return f"STRUCT({inner})" if members else "JSON"
            case Items(item):
                return f"{self._read_type(item)}[]"
            case Leaf(BigInt()):
                return "BIGINT"
            case Leaf(Boolean()):
                return "BOOLEAN"
            case Leaf(Date()):
                return "DATE"
            case Leaf(Text() | Timestamp()):
                return "VARCHAR"
            case Leaf():
                return "JSON"
            case other:
                assert_never(other)

    def _text(self, node: Node, path: str) -> list[str]:
        """The JSON text of a value that is not null, as operands of concat()."""
        match node:
            case Object(members):
                return self._object_text(members, path) if members else [path]
            case Items(item):
                variable = _variable(path)
                inner = _null_safe(variable, _concat(self._text(item, variable)), "'null'")
                text = (
                    f"array_to_string(list_transform({path}, lambda {variable}: {inner}), {literal(self.style.comma)})"
                )
                return ["'['", text, "']'"]
            case Leaf(Text(), is_escaped=True):
                return [f"to_json({path})::VARCHAR"]
            case Leaf(Text() | Date() | Timestamp()):
                return ["'\"'", path, "'\"'"]
            case Leaf():
                return [path]
            case other:
                assert_never(other)

    def _object_text(self, members: Sequence[Member], path: str) -> list[str]:
        comma = self.style.comma
        first = next((number for number, member in enumerate(members) if member.nulls != "absent"), None)
        parts = ["'{'"]
        for number, member in enumerate(members):
            value = f"{path}.{quoted(member.key)}"
            key = f'"{member.key}"{self.style.colon}'
            text = self._text(member.node, value)
            before = comma if first is None or number > first else ""
            after = comma if first is not None and number < first else ""
            match member.nulls:
                case "never":
                    parts += [literal(before + key), *text]
                case "null":
                    parts += [literal(before + key), _null_safe(value, _concat(text), "'null'")]
                case "absent":
                    parts.append(_null_safe(value, _concat([literal(before + key), *text, literal(after)]), "''"))
        if first is None:  # every member may be absent: the first one that is there has no comma before it
            return ["'{'", f"substr({_concat(parts[1:])}, {len(comma) + 1})", "'}'"]
        return [*parts, "'}'"]

    def _value(self, kind: ColumnType, node: Node, path: str) -> str:
        """The value that the column stores."""
        match kind, node:
            case Struct(fields), Object(members):
                there = {member.key: member for member in members}
                inner = ", ".join(
                    f"{literal(item.name)}: "
                    + (
                        self._value(item.type, there[item.field].node, f"{path}.{quoted(item.field)}")
                        if item.field in there
                        else f"NULL::{duck_type(item.type)}"
                    )
                    for item in fields
                )
                return f"CASE WHEN {path} IS NOT NULL THEN {{{inner}}} END"
            case Array(item), Items(inner_node):
                variable = _variable(path)
                inner = self._value(item, inner_node, variable)
                return path if inner == variable else f"list_transform({path}, lambda {variable}: {inner})"
            case Double(), _:
                return f"try_cast({path}::VARCHAR AS DOUBLE)"
            case Decimal(), _:
                return f"try_cast(trim({path}::VARCHAR, '\"') AS {duck_type(kind)})"
            case Timestamp(zoned, unit), _:
                moment = f"try_cast({path} AS {duck_type(Timestamp(zoned))})"
                return moment if unit == "us" else f"CAST({moment} AS TIMESTAMP)::{duck_type(kind)}"
            case Json(), _:
                return f"{path}::VARCHAR"
            case _:
                return path

    def _check(self, node: Node, path: str) -> None:
        """Add what equal text does not prove of a value."""
        condition = self._condition(node, path)
        if condition is not None:
            self.conditions.append(f"({path} IS NULL OR {condition})")
        self.json_leaves += _json_leaves(node, path)

    def _condition(self, node: Node, path: str) -> str | None:
        match node:
            case Object(members):
                inner = [
                    f"({value} IS NULL OR {condition})"
                    for member in members
                    if (condition := self._condition(member.node, value := f"{path}.{quoted(member.key)}")) is not None
                ]
                if not members:
                    return f"{path}::VARCHAR = '{{}}'"
                return f"({' AND '.join(inner)})" if inner else None
            case Items(item):
                variable = _variable(path)
                condition = self._condition(item, variable)
                if condition is None:
                    return None
                one = f"coalesce({variable} IS NULL OR {condition}, false)"
                return f"coalesce(list_bool_and(list_transform({path}, lambda {variable}: {one})), true)"
            case Leaf(kind):
                return _leaf_condition(kind, path)
            case other:
                assert_never(other)

    def _undeclared(self, kind: ColumnType, node: Node, path: str, name: str) -> list[tuple[str, str, str]]:
        """(condition, path, JSON text) of each undeclared field below a declared one, in the exact path's order."""
        if not isinstance(node, Object) or not isinstance(kind, Struct):
            return []
        found = self._undeclared_members(node, path, name)
        there = {member.key: member for member in node.members}
        for item in kind.fields:
            if item.field in there:
                inner = f"{path}.{quoted(item.field)}"
                found += self._undeclared(
                    item.type, there[item.field].node, inner, f"{name}{values.escaped(item.field)}."
                )
        return found

    def _undeclared_members(self, node: Object, path: str, name: str) -> list[tuple[str, str, str]]:
        found: list[tuple[str, str, str]] = []
        for member in node.members:
            if member.is_declared:
                continue
            value = f"{path}.{quoted(member.key)}"
            self._check(member.node, value)
            if self.keeps:
                is_there = f"{value if member.nulls == 'absent' else path} IS NOT NULL"
                text = f"coalesce({value}::VARCHAR, 'null')"
                found.append((is_there, f"{name}{values.escaped(member.key)}", text))
        return found


def _leaf_condition(kind: ColumnType, path: str) -> str | None:
    match kind:
        case BigInt() | Boolean() | Text():
            return None
        case Double():
            # Up to 15 digits a double holds every number; beyond, a fraction was compared as the shortest that it has.
            few = f"(strlen({path}::VARCHAR) < 16 OR contains({path}::VARCHAR, '.'))"
            return f"(isfinite(try_cast({path}::VARCHAR AS DOUBLE)) AND {few})"
        case Decimal(precision, scale):
            fraction = f"([.][0-9]{{1,{scale}}})?" if scale else ""
            return f"regexp_full_match({path}::VARCHAR, '\"?-?[0-9]{{1,{precision - scale}}}{fraction}\"?')"
        case Date():
            return f"{path} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
        case Timestamp(zoned, unit):
            pattern = f"{TIMESTAMP}({FRACTION[unit]})?{ZONE if zoned else ''}"
            plain = f"{path} LIKE '____-__-__T__:__:__{'Z' if zoned else ''}' AND NOT contains({path}, 'T24')"
            matches = f"CASE WHEN {plain} THEN true ELSE regexp_full_match({path}, {literal(pattern)}) END"
            kind_name = duck_type(Timestamp(zoned))
            zone = "+00" if zoned else ""
            limits = f"{kind_name} '0001-01-01 00:00:00{zone}' AND {kind_name} '9999-12-31 23:59:59.999999{zone}'"
            return f"({matches} AND try_cast({path} AS {kind_name}) BETWEEN {limits})"
        case Json() | Struct() | Array():
            # Escapes of control characters are written in two ways; NaN and Infinity are no JSON.
            text = f"{path}::VARCHAR"
            return f"NOT (contains({text}, '\\u') OR contains({text}, 'NaN') OR contains({text}, 'Infinity'))"
        case other:
            assert_never(other)


def _json_leaves(node: Node, path: str) -> list[str]:
    """Expressions of the JSON texts that hold an object, comma separated where they are several."""
    match node:
        case Object(members):
            return [leaf for m in members for leaf in _json_leaves(m.node, f"{path}.{quoted(m.key)}")]
        case Items(item):
            variable = _variable(path)
            inner = _json_leaves(item, variable)
            if not inner:
                return []
            text = f"concat_ws(',', {', '.join(inner)})"
            return [f"nullif(array_to_string(list_transform({path}, lambda {variable}: {text}), ','), '')"]
        case Leaf(Json()):
            return [f"CASE WHEN contains({path}::VARCHAR, '{{') THEN {path}::VARCHAR END"]
        case Leaf():
            return []
        case other:
            assert_never(other)


def _extra(extras: Sequence[tuple[str, str, str]]) -> str:
    """``_airbyte_extra`` of these undeclared fields; NULL if none is there."""
    if not extras:
        return "NULL::VARCHAR"
    parts = [
        f"CASE WHEN {condition} THEN concat({literal(',' + values.json_text(path) + ':')}, {text}) ELSE '' END"
        for condition, path, text in extras
    ]
    return f"nullif(concat('{{', substr({_concat(parts)}, 2), '}}'), '{{}}')"


def _null_safe(path: str, text: str, otherwise: str) -> str:
    return f"CASE WHEN {path} IS NULL THEN {otherwise} ELSE {text} END"


def _concat(parts: Iterable[str]) -> str:
    """concat() of operands, literals side by side joined."""
    joined: list[str] = []
    for part in parts:
        if joined and part.startswith("'") and joined[-1].startswith("'"):
            joined[-1] = f"{joined[-1][:-1]}{part[1:]}"
        else:
            joined.append(part)
    if len(joined) == 1:
        return f"{joined[0]}::VARCHAR"  # a cast costs less, and is NULL where concat() is empty: nobody asks it that
    return f"concat({', '.join(joined)})"


def _variable(path: str) -> str:
    """A name for the items of the list at ``path`` that no list around it uses."""
    depth = int(path[1:].partition(".")[0]) + 1 if re.match(r"x\d", path) else 1
    return f"x{depth}"
