"""JSON Schema from sampled records: the same for every order of the records, and stable from run to run. Pure.

What was seen of a place in the records is a set of facts and counts; joining them is union and addition, so no order
matters. The schema is a function of the joined facts alone, with sorted keys. Nothing is ever declared
as required or closed: what a sample missed is kept by the destination as an undeclared field.

An object is a map, and stays open, if its keys are data: very many, or many of one kind of which each record has a few
(currencies by code, names by language). As columns they would be a struct of hundreds of fields that grows for ever.

Dates and times are recognised strictly (RFC 3339, the calendar checked), since a wrong guess would turn later values
into NULLs with a change; one odd value makes the field text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

MOST_KEYS = 200  # an object with more distinct keys is a map, and stays open
MOST_DEPTH = 30
MAP_KEYS = 30  # fewer keys make a readable struct
MAP_FILL = 0.2  # the share of all keys that an average object of a map has

Schema = dict[str, Any]

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)

DATE: Schema = {"type": "string", "format": "date"}
ZONED: Schema = {"type": "string", "format": "date-time", "airbyte_type": "timestamp_with_timezone"}
LOCAL: Schema = {"type": "string", "format": "date-time", "airbyte_type": "timestamp_without_timezone"}
TEXT: Schema = {"type": "string"}
STRINGS = {"date": DATE, "zoned": ZONED, "local": LOCAL, "text": TEXT}


@dataclass(slots=True)
class Seen:
    """The facts about one place: kinds of scalars, fields of objects, items of arrays."""

    scalars: set[str] = field(default_factory=set)
    fields: dict[str, Seen] | None = None
    is_map: bool = False
    objects: int = 0
    entries: int = 0
    items: Seen | None = None

    def add(self, value: Any, depth: int = 0) -> None:
        """Take one value."""
        match value:
            case None:
                return
            case bool():
                self.scalars.add("boolean")
            case int():
                self.scalars.add("integer")
            case float():
                self.scalars.add("number")
            case str():
                self.scalars.add(string_kind(value))
            case Mapping():
                self._add_object(value, depth)
            case list() | tuple():
                self.items = self.items or Seen()
                for item in value:
                    self.items.add(item, depth + 1)
            case _:
                raise TypeError(f"{type(value).__name__} is no JSON value")

    def schema(self) -> Schema:
        """The JSON Schema of this place; nullable, since any record may leave it out."""
        branches = self._branches()
        if not branches:
            return {"type": ["null", "string"]}
        if len(branches) == 1:
            return {**branches[0], "type": ["null", branches[0]["type"]]}
        return {"oneOf": [{"type": "null"}, *branches]}

    def _add_object(self, value: Mapping[str, Any], depth: int) -> None:
        self.fields = {} if self.fields is None else self.fields
        self.objects += 1
        self.entries += len(value)
        if depth >= MOST_DEPTH:
            self.is_map = True
        if self.is_map:
            return
        for name, item in value.items():
            self.fields.setdefault(name, Seen()).add(item, depth + 1)
        if len(self.fields) > MOST_KEYS:
            self.is_map = True
            self.fields.clear()

    def _branches(self) -> list[Schema]:
        branches: list[Schema] = []
        if "boolean" in self.scalars:
            branches.append({"type": "boolean"})
        if "number" in self.scalars:
            branches.append({"type": "number"})
        elif "integer" in self.scalars:
            branches.append({"type": "integer"})
        strings = self.scalars & STRINGS.keys()
        if strings:
            branches.append(STRINGS[strings.pop()] if len(strings) == 1 else TEXT)
        if self.items is not None:
            branches.append({"type": "array", "items": self.items.schema()})
        if self.fields is not None:
            branches.append(_object_schema({} if self.is_map or self._looks_like_a_map(self.fields) else self.fields))
        return branches

    def _looks_like_a_map(self, fields: Mapping[str, Seen]) -> bool:
        if len(fields) < MAP_KEYS or self.entries > MAP_FILL * self.objects * len(fields):
            return False
        kinds = {place.kind for place in fields.values() if place.kind}
        return len(kinds) <= 1

    @property
    def kind(self) -> frozenset[str]:
        """What JSON types were seen here, in broad terms."""
        text = {"text"} if self.scalars & STRINGS.keys() else set()
        number = {"number"} if self.scalars & {"integer", "number"} else set()
        rest = self.scalars & {"boolean"}
        nested = ({"object"} if self.fields is not None else set()) | ({"array"} if self.items is not None else set())
        return frozenset(text | number | rest | nested)


def infer_schema(records: Iterable[Mapping[str, Any]], *, always: Sequence[Sequence[str]] = ()) -> Schema:
    """The JSON Schema of a stream.

    Args:
        records: the sample, as parsed JSON objects.
        always: paths (of primary key and cursor) that are declared even if no record had them.

    Raises:
        TypeError: a record holds something that is no JSON value.
    """
    top = Seen(fields={})
    for record in records:
        for name, value in record.items():
            _fields(top).setdefault(name, Seen()).add(value, 1)
    for path in always:
        place = top
        for name in path:
            if place.is_map:
                break
            place = _fields(place).setdefault(name, Seen())
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_object_schema(_fields(top))}


def _fields(place: Seen) -> dict[str, Seen]:
    if place.fields is None:
        place.fields = {}
    return place.fields


def _object_schema(fields: Mapping[str, Seen]) -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": True}
    if fields:
        schema["properties"] = {name: fields[name].schema() for name in sorted(fields)}
    return schema


def string_kind(text: str) -> str:
    """One of date, zoned, local, text."""
    if _DATE.fullmatch(text):
        return "date" if _is_real(date.fromisoformat, text) else "text"
    found = _TIMESTAMP.fullmatch(text)
    if found is None or not _is_real(datetime.fromisoformat, text[:19]):
        return "text"
    zone = found[2]
    if zone is None:
        return "local"
    return "zoned" if zone in "Zz" or (zone[1:3] < "24" and zone[4:6] < "60") else "text"


def _is_real(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
