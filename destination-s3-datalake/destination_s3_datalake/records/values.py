"""The exact path: one JSON value -> one storable value, and what had to change. Pure.

Every value is stored as it is, or stored with a recorded change and its original kept in ``_airbyte_extra``. The reader
keeps the text of numbers and accepts what strict readers refuse: NaN and Infinity, lone surrogates, duplicate keys.

``_airbyte_extra`` is a JSON object: path -> original. Paths join keys and array positions (from 0) with dots, a dot or
backslash inside a key is escaped with a backslash. NaN and Infinity stand there as JSON strings. Where a key came
several times, it is the list of its values that are in no column, in their order.
"""

from __future__ import annotations

import decimal
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Literal, assert_never

from destination_s3_datalake.errors import DataError
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

Undeclared = Literal["keep", "drop", "fail"]
NULLED, TRUNCATED = "NULLED", "TRUNCATED"
BAD, TOO_LARGE = "DESTINATION_SERIALIZATION_ERROR", "DESTINATION_FIELD_SIZE_LIMITATION"
EPOCH = datetime(1970, 1, 1)  # differences to it are taken without zones
EPOCH_UTC = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND, MILLISECOND = timedelta(microseconds=1), timedelta(milliseconds=1)
EXACT = decimal.Context(prec=6000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
MOST_EXPONENT = 5000
FEW_DIGITS = 18  # always fit into 64 bits
SURROGATE = re.compile("[\ud800-\udfff]")
DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
LONG_YEAR = re.compile(r"\+?\d{5,}-")
TIMESTAMP = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?\s*([Zz]|[+-]\d{2}(?::?\d{2})?)?"
)


class Number(str):
    """A JSON number as its text."""

    __slots__ = ()


class Token(str):
    """NaN, Infinity or -Infinity: no JSON, but sent by some."""

    __slots__ = ()


class Object(dict[str, Any]):
    """A JSON object. ``pairs`` is how it came if a key stands there again, else empty."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs if len(self) < len(pairs) else []

    @property
    def repeated(self) -> list[tuple[str, Any]]:
        """What a later value of the same key has hidden."""
        last = {key: place for place, (key, _) in enumerate(self.pairs)}
        return [pair for place, pair in enumerate(self.pairs) if last[pair[0]] != place]


_decode = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=Token, object_pairs_hook=Object, strict=False
).decode


def read_json(text: str) -> Any:
    """A JSON text as Object, list, str, Number, Token, bool or None.

    Raises:
        ValueError: it is not JSON, even leniently; without a word of its content.
    """
    try:
        return _decode(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of ``_airbyte_meta.changes``."""

    field: str
    change: str
    reason: str


@dataclass(slots=True)
class Row:
    """One record on its way into a row."""

    undeclared: Undeclared = "keep"
    values: dict[str, Any] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    _originals: dict[str, Any] = field(default_factory=dict)
    _hidden: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def extra(self) -> dict[str, Any]:
        """What ``_airbyte_extra`` holds."""
        if not self._hidden:
            return self._originals
        found = {path: [*hidden, *self._kept(path)] for path, hidden in self._hidden.items()}
        return {**self._originals, **found}

    def _kept(self, path: str) -> list[Any]:
        return [self._originals[path]] if path in self._originals else []

    def changed(self, path: str, change: str, reason: str, original: Any) -> None:
        """Record that a value is not stored as it came, and keep it."""
        self.changes.append(Change(path, change, reason))
        self._originals[path] = original

    def hid(self, path: str, value: Any) -> None:
        """Record that a later value of the same key has taken the place of this one, and keep it."""
        self.changes.append(Change(path, TRUNCATED, BAD))
        self._hidden.setdefault(path, []).append(value)

    def keep_undeclared(self, path: str, value: Any) -> None:
        """A field that the schema does not declare.

        Raises:
            DataError: such fields are to end the sync.
        """
        if self.undeclared == "fail":
            raise DataError(
                f"A record has the field {path}, which the schema does not declare: refresh the source's schema, "
                "or set undeclared_fields to keep."
            )
        if self.undeclared == "keep":
            self._originals[path] = value


def row_of(data: Mapping[str, Any], columns: Sequence[Column], undeclared: Undeclared) -> Row:
    """The data of one record as a row of ``columns``."""
    row = Row(undeclared)
    for column in columns:
        row.values[column.name] = _value(row, escaped(column.field), column.type, data.get(column.field))
    declared = {column.field for column in columns}
    for key, value in data.items():
        if key not in declared:
            row.keep_undeclared(escaped(key), value)
    _repeated(row, "", data, declared)
    return row


def escaped(key: str) -> str:
    """A key as a part of a path."""
    return key.replace("\\", "\\\\").replace(".", "\\.") if "." in key or "\\" in key else key


def storable(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return SURROGATE.sub("\ufffd", text)


def json_text(value: Any) -> str:
    """The value as JSON text: numbers and repeated keys as they came, lone surrogates escaped, NaN and Infinity as
    strings."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Number():
            return str(value)
        case str():
            quoted = json.dumps(str(value), ensure_ascii=False)
            return SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
        case list():
            return f"[{','.join(json_text(item) for item in value)}]"
        case dict():
            pairs = (value.pairs if isinstance(value, Object) else None) or value.items()
            return f"{{{','.join(f'{json_text(key)}:{json_text(item)}' for key, item in pairs)}}}"
        case _:
            raise TypeError(type(value).__name__)


class _UnfitError(Exception):
    """A value that its column cannot hold, with the reason of the change."""


def _value(row: Row, path: str, kind: ColumnType, value: Any) -> Any:
    if value is None:
        return None
    try:
        return _converted(row, path, kind, value)
    except _UnfitError as unfit:
        row.changed(path, NULLED, unfit.args[0], value)
        return None


def _converted(row: Row, path: str, kind: ColumnType, value: Any) -> Any:
    match kind:
        case Text():
            return _text(row, path, value)
        case Json():
            return _json(row, path, value)
        case BigInt():
            return _integer(value)
        case Double():
            return _double(row, path, value)
        case Boolean():
            return _boolean(value)
        case Decimal(precision, scale):
            return _decimal(row, path, value, precision, scale)
        case Date():
            return _date(value)
        case Timestamp(zoned, unit):
            return _timestamp(row, path, value, zoned=zoned, digits=3 if unit == "ms" else 6)
        case Struct():
            return _struct(row, path, kind, value)
        case Array(item):
            if not isinstance(value, list):
                raise _UnfitError(BAD)
            return [_value(row, f"{path}.{index}", item, element) for index, element in enumerate(value)]
        case other:
            assert_never(other)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _UnfitError(BAD)
    return value


def _text(row: Row, path: str, value: Any) -> str:
    if isinstance(value, Token):
        raise _UnfitError(BAD)
    if not isinstance(value, str):
        return _json(row, path, value)
    return _clean(row, path, str(value), original=value)


def _clean(row: Row, path: str, text: str, *, original: Any) -> str:
    if text.isascii() or not SURROGATE.search(text):
        return text
    row.changed(path, TRUNCATED, BAD, original)
    return storable(text)


def _json(row: Row, path: str, value: Any) -> str:
    return json_text(_without_tokens(row, path, value))


def _without_tokens(row: Row, path: str, value: Any) -> Any:
    """The value without NaN and Infinity, which no reader of JSON text accepts."""
    if isinstance(value, Token):
        row.changed(path, NULLED, BAD, value)
        return None
    if isinstance(value, Object):
        _repeated(row, f"{path}.", value, value.keys())
        return {key: _without_tokens(row, f"{path}.{escaped(key)}", item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_tokens(row, f"{path}.{index}", item) for index, item in enumerate(value)]
    return value


def _repeated(row: Row, prefix: str, value: Mapping[str, Any], declared: Collection[str]) -> None:
    """Values hidden by a later one of the same key. The last wins."""
    for key, hidden in value.repeated if isinstance(value, Object) else ():
        if key in declared or row.undeclared == "keep":
            row.hid(f"{prefix}{escaped(key)}", hidden)


def _exact(value: Any) -> decimal.Decimal | None:
    """The number that a JSON number says; None if it is none, or far beyond every type."""
    if not isinstance(value, Number):
        return None
    return EXACT.create_decimal(str(value))


def _integer(value: Any) -> int:
    if isinstance(value, Number) and len(value) <= FEW_DIGITS and value.isdigit():
        return int(value)  # what most are
    exact = _exact(value)
    if exact is None:
        raise _UnfitError(BAD)
    if exact.adjusted() > 18 and exact:
        raise _UnfitError(TOO_LARGE)
    if exact != exact.to_integral_value():
        raise _UnfitError(BAD)
    whole = int(exact)
    if not -(2**63) <= whole < 2**63:
        raise _UnfitError(TOO_LARGE)
    return whole


def _double(row: Row, path: str, value: Any) -> float:
    if isinstance(value, Number) and repr(rounded := float(value)) == value:
        return rounded  # written as a double is, as most are
    exact = _exact(value)
    if exact is None:
        raise _UnfitError(BAD)
    rounded = float(value)
    if rounded in (float("inf"), float("-inf")):
        raise _UnfitError(TOO_LARGE)
    if EXACT.create_decimal(repr(rounded)) != exact:
        row.changed(path, TRUNCATED, TOO_LARGE, value)
    return rounded


def _decimal(row: Row, path: str, value: Any, precision: int, scale: int) -> decimal.Decimal:
    text = str(value) if isinstance(value, str) else ""
    try:
        exact = EXACT.create_decimal(text)
    except decimal.InvalidOperation:
        raise _UnfitError(BAD) from None
    if not exact.is_finite():
        raise _UnfitError(BAD)
    if exact and exact.adjusted() >= precision - scale:
        raise _UnfitError(TOO_LARGE)
    stored = exact.quantize(decimal.Decimal(1).scaleb(-scale), decimal.ROUND_HALF_UP, EXACT)
    if len(stored.as_tuple().digits) > precision:
        raise _UnfitError(TOO_LARGE)
    if stored != exact:
        row.changed(path, TRUNCATED, TOO_LARGE, value)
    return stored


def _date(value: Any) -> date:
    text = value if isinstance(value, str) and not isinstance(value, Number) else ""
    found = DATE.fullmatch(text)
    try:
        if found is not None and text.isascii():
            return date(*(int(part) for part in found.groups()))
    except ValueError:
        pass  # no day of the calendar: recorded below
    raise _UnfitError(TOO_LARGE if LONG_YEAR.match(text) else BAD)


def _timestamp(row: Row, path: str, value: Any, *, zoned: bool, digits: int) -> int:
    """Microseconds since 1970, or milliseconds with 3 digits."""
    text = value if isinstance(value, str) and not isinstance(value, Number) else ""
    found = TIMESTAMP.fullmatch(text)
    if found is None or not text.isascii():
        raise _UnfitError(TOO_LARGE if LONG_YEAR.match(text) else BAD)
    *calendar, seconds, fraction, offset = found.groups()
    year, month, day, hour, minute = (int(part) for part in calendar)
    micros = int((fraction or "")[:digits].ljust(6, "0"))
    try:
        moment = datetime(year, month, day, hour, minute, int(seconds or 0), micros)
        zone = _zone(offset)
        if zoned:
            since = moment.replace(tzinfo=zone or UTC) - EPOCH_UTC
            (EPOCH_UTC + since).year  # noqa: B018  # raises beyond the years 1 to 9999
        else:
            since = moment - EPOCH
    except OverflowError:
        raise _UnfitError(TOO_LARGE) from None
    except ValueError:
        raise _UnfitError(BAD) from None
    if (fraction or "")[digits:].strip("0") or (not zoned and zone is not None):
        row.changed(path, TRUNCATED, TOO_LARGE, value)
    return since // (MICROSECOND if digits == 6 else MILLISECOND)


def _zone(offset: str | None) -> timezone | None:
    if offset is None:
        return None
    if offset in ("Z", "z"):
        return UTC
    digits = offset[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if minutes > 59:
        raise ValueError("no such offset")
    distance = timedelta(hours=hours, minutes=minutes)
    return timezone(-distance if offset[0] == "-" else distance)


def _struct(row: Row, path: str, kind: Struct, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnfitError(BAD)
    declared = {field.field for field in kind.fields}
    for key, item in value.items():
        if key not in declared:
            row.keep_undeclared(f"{path}.{escaped(key)}", item)
    _repeated(row, f"{path}.", value, declared)
    return {f.name: _value(row, f"{path}.{escaped(f.field)}", f.type, value.get(f.field)) for f in kind.fields}
