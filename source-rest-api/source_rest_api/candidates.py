"""What could be the primary key and the cursor of a stream, seen in a sample, each with its reason. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from source_rest_api.body import value_in
from source_rest_api.schema_inference import string_kind
from source_rest_api.times import EPOCHS, RFC3339, FormatError, to_moment

MOST_SHOWN = 5
DEEPEST = 3
LONGEST_KEY = 200
_CHANGE = re.compile(r"updat|modif|chang|edited|last_?mod", re.IGNORECASE)
_TIME = re.compile(r"creat|insert|date|time|stamp|_at$|At$|^at$|^ts$|_on$|generated|published", re.IGNORECASE)
_ID = re.compile(r"^_?(id|uuid|guid|gid|pk)$", re.IGNORECASE)
_IDS = re.compile(r"(id|Id|ID|uuid|guid|key|code|number|slug|sku|iid|ts)$")
_FIRST_EPOCH, _LAST_EPOCH = 946_684_800_000_000, 4_102_444_800_000_000  # 2000 to 2100, in microseconds


@dataclass(frozen=True, slots=True)
class Key:
    """Fields that could be the primary key.

    Attributes:
        fields: dotted.
        reason: in words.
        is_named_so: whether their names say so too.
    """

    fields: tuple[str, ...]
    reason: str
    is_named_so: bool


@dataclass(frozen=True, slots=True)
class CursorField:
    """A field that could be the cursor.

    Attributes:
        field: dotted.
        format: for ``cursor_format``.
        order: of its values in the sample: ascending, descending, equal or mixed.
        reason: in words.
        is_change: whether its name says that it moves when a record changes.
    """

    field: str
    format: str
    order: str
    reason: str
    is_change: bool


def keys_in(records: Sequence[Mapping[str, Any]]) -> list[Key]:
    """Unique fields that are never null, likeliest first; if there is none, pairs of fields that look like ids."""
    if not records:
        return []
    values = _columns(records)
    count = f"in {len(records)} of {len(records)} records" if len(records) > 1 else "in the only record: no proof"
    found = [
        (_key_rank(field), Key((field,), f"unique and never null {count}", _key_rank(field) < 2))
        for field, column in values.items()
        if _is_key(column, len(records))
    ]
    if not found:
        parts = [field for field, column in values.items() if _key_rank(field) < 2 and len(column) == len(records)]
        found = [
            (0, Key(pair, f"unique together {count}", False))
            for pair in combinations(parts[:6], 2)
            if len(set(zip(*(map(repr, values[field]) for field in pair), strict=True))) == len(records)
        ]
    return [key for _, key in sorted(found, key=lambda entry: entry[0])][:MOST_SHOWN]


def cursors_in(records: Sequence[Mapping[str, Any]]) -> list[CursorField]:
    """Fields that hold a time, likeliest first: those whose name says that they move when a record changes."""
    found = []
    for field, column in _columns(records).items():
        format_ = _time_format(field, column)
        if format_ is None:
            continue
        try:
            order = _order([to_moment(value, format_) for value in column])
        except FormatError:
            continue
        name = field.rpartition(".")[2]
        is_change, is_time = bool(_CHANGE.search(name)), bool(_TIME.search(name))
        says = "; its name says that it moves when a record changes" if is_change else ""
        words = {"ascending": "in ascending order", "descending": "newest first", "equal": "always the same",
                 "mixed": "in no order"}[order]  # fmt: skip
        reason = f"a time ({format_}) in {len(column)} of {len(records)} records, {words}{says}"
        rank = (len(column) < len(records), not is_change, order == "equal", not is_time, field.count("."))
        found.append((rank, CursorField(field, format_, order, reason, is_change)))
    return [cursor for _, cursor in sorted(found, key=lambda entry: entry[0])][:MOST_SHOWN]


def value_at(record: Mapping[str, Any], field: str) -> Any:
    """The value at a dotted path; None if there is none."""
    return value_in(record, field.split("."))


def _columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The scalars of all records by dotted path, nulls left out."""
    found: dict[str, list[Any]] = {}
    for record in records:
        for field, value in _scalars(record, "", 1):
            found.setdefault(field, []).append(value)
    return found


def _scalars(record: Mapping[str, Any], above: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if "." in name or not name:
            continue  # a path could not name it
        if isinstance(value, Mapping) and depth < DEEPEST:
            yield from _scalars(value, f"{above}{name}.", depth + 1)
        elif isinstance(value, str | int | float):
            yield f"{above}{name}", value


def _is_key(column: Sequence[Any], count: int) -> bool:
    if len(column) != count or len(set(column)) != count:
        return False
    texts = all(isinstance(value, str) and 0 < len(value) <= LONGEST_KEY for value in column)
    numbers = all(type(value) is int for value in column)
    return (texts and any(string_kind(value) == "text" for value in column)) or numbers


def _key_rank(field: str) -> int:
    *above, name = field.split(".")
    if _ID.search(name) and not above:
        return 0
    return (1 if _IDS.search(name) else 2) + (2 if above else 0)


def _time_format(field: str, column: Sequence[Any]) -> str | None:
    if all(isinstance(value, str) for value in column):
        kinds = {string_kind(value) for value in column}
        if kinds <= {"zoned", "local", "date"}:
            return RFC3339
    if not _TIME.search(field.rpartition(".")[2]) and not _CHANGE.search(field.rpartition(".")[2]):
        return None
    numbers = [_number(value) for value in column]
    for format_, unit in EPOCHS.items():
        if all(number is not None and _FIRST_EPOCH <= number * unit < _LAST_EPOCH for number in numbers):
            return format_
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return float(value) if re.fullmatch(r"\d{9,16}(\.\d{1,6})?", value) else None


def _order(moments: Sequence[int]) -> str:
    if len(set(moments)) == 1:
        return "equal"
    if all(one <= other for one, other in pairwise(moments)):
        return "ascending"
    return "descending" if all(one >= other for one, other in pairwise(moments)) else "mixed"
