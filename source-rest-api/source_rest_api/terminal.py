"""Tables and schemas for a terminal. Pure.

A cell is one line of printable characters, whatever an API put into it: line breaks and control characters are shown as
JSON escapes them, and so no value can move the cursor or colour the screen.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDEST_CELL = 32
GAP = "  "


def table(records: Sequence[Mapping[str, Any]], width: int) -> Iterator[str]:
    """The first fields of some records as aligned columns, as many as fit; the others are named below."""
    names = list(dict.fromkeys(name for record in records for name in record))
    columns: list[list[str]] = []
    used = 0
    for name in names:
        cells = [shortened(shown(name)), *(shortened(shown(record.get(name, ""))) for record in records)]
        column_width = max(map(display_width, cells))
        if columns and used + len(GAP) + column_width > width:
            break
        used += column_width + (len(GAP) if columns else 0)
        columns.append([padded(cell, column_width) for cell in cells])
    for row in zip(*columns, strict=True):
        yield GAP.join(row).rstrip()
    left = names[len(columns) :]
    if left:
        yield f"… and {len(left)} more: {shortened(', '.join(map(shown, left)), max(WIDEST_CELL, width - 20))}"


def schema_lines(schema: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """One line per field: name and type, fields of objects below them."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    width = max((display_width(shown(name)) for name in properties), default=0)
    for name, field in properties.items():
        yield f"{'  ' * indent}{padded(shown(name), width)}  {type_in_words(field)}"
        for inner in _objects_in(field):
            yield from schema_lines(inner, indent + 1)


def type_in_words(schema: Mapping[str, Any]) -> str:
    """The type of a field, without null: any may be missing."""
    if "oneOf" in schema:
        branches = [branch for branch in schema["oneOf"] if branch.get("type") != "null"]
        return " or ".join(map(type_in_words, branches))
    kinds = schema.get("type", "any")
    kind = next((kind for kind in kinds if kind != "null"), "null") if isinstance(kinds, list) else str(kinds)
    if kind == "array":
        return f"list of {type_in_words(schema.get('items', {}))}"
    if kind == "object":
        return "object" if schema.get("properties") else "object with keys of its own"
    return {"date-time": "timestamp", "date": "date"}.get(str(schema.get("format")), kind)


def _objects_in(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for branch in schema.get("oneOf", [schema]):
        if branch.get("properties"):
            yield branch
        elif branch.get("items"):
            yield from _objects_in(branch["items"])


def shown(value: Any) -> str:
    """A value on one line; texts without quotes, all else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def shortened(text: str, most: int = WIDEST_CELL) -> str:
    """At most so wide, with … for what is left out."""
    if display_width(text) <= most:
        return text
    while display_width(text) > most - 1:
        text = text[:-1]
    return f"{text}…"


def padded(text: str, width: int) -> str:
    """Filled with spaces to a width."""
    return text + " " * (width - display_width(text))


def display_width(text: str) -> int:
    """Columns that a terminal needs; East Asian characters are two wide, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
