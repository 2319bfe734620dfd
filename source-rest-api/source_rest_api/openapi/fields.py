"""Which of a record's fields are its key, its cursor, and what others ask for it by. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from source_rest_api.openapi.guess import Guess
from source_rest_api.openapi.names import remainder, singulars, snake
from source_rest_api.openapi.operations import Operation, Parameter
from source_rest_api.openapi.schemas import Field, Schemas, Shape

KEYS = ("id", "uuid", "guid", "uid", "_id", "sid", "gid")
METADATA = "metadata"
NESTED = (METADATA, "meta", "attributes")
# What things are asked for by, if the parameter does not say it: what people read, before what machines made.
ASKED_BY = ("id", "slug", "key", "login", "username", "handle", "name", "code", "number", "sha", "ref", *KEYS[1:])
ALSO_CALLED = {"index": ("number",)}
NUMBERS = ("integer", "number")
KEY_TYPES = ("string", "", *NUMBERS)

CHANGE = ("updat", "modif", "chang", "edit")
UPDATED = (
    "updated_at", "updated", "updated_on", "updated_time", "update_time", "updated_date", "date_updated", "update_date",
    "modified_at", "modified", "modified_on", "modified_time", "date_modified", "modified_date", "last_modified",
    "last_modified_at", "last_modified_time", "last_modified_date", "last_updated", "last_updated_at", "last_update",
    "last_update_time", "last_edited_time", "changed_at", "changed", "modification_date", "modification_time",
)  # fmt: skip
CREATED = (
    "created_at", "created", "created_on", "created_time", "create_time", "date_created", "creation_time", "timestamp",
    "creation_date", "occurred_at", "event_time", "time", "date",
)  # fmt: skip
# Things that are written once: a cursor on their creation misses no change.
WRITTEN_ONCE = {"event", "log", "audit", "audit_log", "activity", "history", "audit_event", "log_entry", "audit_trail"}
SINCE = ("since", "updates_since", "from_date", "start_date", "start_time", "changes_since", "min_date")
_AFTER = re.compile(r"(?P<stem>\w+?)_(since|after|from|gte|gt|min|start|ge)")
_BEFORE = re.compile(r"(since|after|from|gte|gt|min|start|begin)_(?P<stem>\w+)")
RANGE_KEYS = ("gte", "gt", "after", "since", "from", "min", "start")


def primary_key_of(
    fields: Mapping[str, Field], collection: str, schemas: Schemas, address: Parameter | None = None
) -> Guess:
    """The path of the field that tells records apart; without a value if the schema shows none.

    Args:
        fields: of the records.
        collection: the last word of their path.
        schemas: the document's.
        address: the parameter by which the API gives a single one of them, if it does.
    """
    nouns = singulars(snake(collection))
    own = [name for name in fields for noun in nouns if snake(name) in (f"{noun}_id", f"{noun}id")]
    for name in (*KEYS, *own):
        if name in fields and _is_key(fields[name].shape):
            return Guess(name, "each record has it, by its name" if fields[name].is_sure else "by its name")
    inner = _inner(fields, METADATA, schemas)
    for name in ("uid", "id"):
        if name in inner and _is_key(inner[name].shape):
            return Guess(f"{METADATA}.{name}", "by its name")
    if address is not None:
        found = asked_by(fields, address, collection, schemas, is_own=True)
        if found is not None:
            return Guess(found, f"the API gives a single one by {{{address.name}}}")
    return Guess(None, "no field is named like a key")


def _is_key(shape: Shape) -> bool:
    return shape.kind == "scalar" and shape.type in KEY_TYPES and not shape.is_nullable


def asked_by(
    fields: Mapping[str, Field], parameter: Parameter, collection: str, schemas: Schemas, *, is_own: bool
) -> str | None:
    """The field of a collection's records that a path's parameter takes; None if the schema shows none.

    Args:
        fields: of the records.
        parameter: of the path.
        collection: the last word of the collection's path.
        schemas: the document's.
        is_own: whether the parameter chooses one of the records; otherwise it is about something that they name.
    """
    kind = schemas.shape(parameter.schema).type
    name = snake(parameter.name)
    by_name = {snake(field): field for field in reversed(list(fields)) if "." not in field}
    for wanted in (name, f"{name}_id") if name not in KEYS else ():
        field = by_name.get(wanted)
        if field is None:
            continue
        if fields[field].shape.kind == "scalar":
            return field
        below = _best(_inner(fields, field, schemas), "", kind)
        if below is not None:
            return f"{field}.{below}"
    if not is_own:
        return None
    rest = remainder(parameter.name, collection)
    rest = name.rpartition("_")[2] if rest is None else rest
    found = _best(fields, rest, kind)
    if found is not None:
        return found
    for outer in NESTED:
        below = _best(_inner(fields, outer, schemas), rest, kind)
        if below is not None:
            return f"{outer}.{below}"
    return None


def _inner(fields: Mapping[str, Field], name: str, schemas: Schemas) -> dict[str, Field]:
    shape = fields[name].shape if name in fields else None
    if shape is None or shape.kind != "object":
        return {}
    found = {}
    for inner, node in shape.properties.items():
        below = schemas.shape(node)
        found[inner] = Field(inner, below, inner in shape.required and not below.is_nullable)
    return found


def _best(fields: Mapping[str, Field], rest: str, kind: str) -> str | None:
    """The field that a parameter asks by: what it is named after first, then of the same type, then sure ones."""
    candidates = []
    for place, name in enumerate(dict.fromkeys((rest, *ALSO_CALLED.get(rest, ()), *ASKED_BY) if rest else ASKED_BY)):
        field = _named(fields, name)
        if field is not None and field.shape.kind == "scalar" and field.shape.type in KEY_TYPES:
            is_meant = name == rest and not field.shape.is_nullable and (name != "name" or field.is_sure)
            unlikely = (not is_meant, not _fits(field.shape, kind), field.shape.is_nullable, not field.is_sure)
            candidates.append((unlikely, place, field.name))
    return min(candidates)[-1] if candidates else None


def _fits(shape: Shape, kind: str) -> bool:
    return not kind or not shape.type or kind == shape.type or {kind, shape.type} <= set(NUMBERS)


def _named(fields: Mapping[str, Field], name: str) -> Field | None:
    return next((field for field in fields.values() if snake(field.name) == name and "." not in field.name), None)


def cursor_of(operation: Operation, fields: Mapping[str, Field], collection: str, schemas: Schemas) -> Guess:
    """The incremental settings; without a value where nothing shows that the API can be asked for what changed."""
    is_written_once = bool(singulars(snake(collection)) & WRITTEN_ONCE)
    seen = ""
    for name, parameter, shape in _starts(operation, schemas):
        stem = _stem(name)
        if stem is None:
            continue
        is_change = any(part in stem for part in CHANGE) or not stem
        found = _cursor_field(fields, stem, UPDATED if is_change else CREATED)
        if found is None and not stem and is_written_once:
            is_change, found = False, _cursor_field(fields, stem, CREATED)
        if found is None or (stem and not is_change and "creat" not in stem and snake(found.name) != stem):
            continue
        if not is_change and not is_written_once:
            why = f"{name!r} asks by {found.name!r}, when records came to be: it would find no changes"
            seen = seen or f"{why}, and is left out"
            continue
        formats = _formats(found.shape, shape, parameter.description)
        if formats is None:
            seen = seen or f"{name!r} and {found.name!r} do not write time alike: set incremental by hand"
            continue
        settings = {"incremental_type": "datetime", "cursor_field": found.name, "start_param": name, **formats}
        return Guess(settings, f"{name!r} asks for records by {found.name!r}")
    updated = _cursor_field(fields, "", UPDATED)
    if not seen and updated is not None:
        seen = f"records have {updated.name!r}, but no parameter asks by it"
    return Guess(None, seen or "nothing shows what changed")


def _starts(operation: Operation, schemas: Schemas) -> Iterator[tuple[str, Parameter, Shape]]:
    """Query parameters, and the keys of those that take a range, such as ``created[gte]``."""
    for parameter in operation.of("query"):
        shapes = schemas.known_variants(parameter.schema)
        for key in RANGE_KEYS:
            for shape in shapes:
                if shape.kind == "object" and key in shape.properties:
                    yield f"{parameter.name}[{key}]", parameter, schemas.shape(shape.properties[key])
        if shapes[0].kind in ("scalar", "unknown"):
            yield parameter.name, parameter, shapes[0]


def _stem(name: str) -> str | None:
    """What a start parameter is about: ``updated`` of ``updated_since``; empty for ``since``; None if it is none."""
    plain = snake(name)
    if plain in SINCE:
        return ""
    found = _AFTER.fullmatch(plain) or _BEFORE.fullmatch(plain)
    return found["stem"] if found else None


def _cursor_field(fields: Mapping[str, Field], stem: str, usual: tuple[str, ...]) -> Field | None:
    """A field that says when, and is never null."""
    for name in (stem, f"{stem}_at", f"{stem}_on", f"{stem}_time", *usual) if stem else usual:
        field = _named(fields, name)
        if field is None or field.shape.kind != "scalar" or field.shape.is_nullable:
            continue
        if field.shape.type in ("string", *NUMBERS) and field.shape.text("format") != "duration":
            return field
    return None


def _formats(field: Shape, parameter: Shape, description: str) -> dict[str, Any] | None:
    """How records and requests write time; None if that cannot be said."""
    in_record = _format(field, field.text("description"))
    in_request = _format(parameter, description)
    if parameter.type in NUMBERS and in_record == "rfc3339" and not _is_epoch(description):
        return None  # an id, or a number of days
    found = {} if in_record == "rfc3339" else {"cursor_format": in_record}
    return found if in_request == in_record else {**found, "request_format": in_request}


def _format(shape: Shape, description: str) -> str:
    if shape.type in NUMBERS:
        example = shape.facts.get("example")
        is_large = isinstance(example, int | float) and example > 100_000_000_000
        text = f"{description} {shape.text('format')}".lower()
        return "epoch_ms" if is_large or "milli" in text or "-ms" in text else "epoch_s"
    return "%Y-%m-%d" if shape.text("format") == "date" else "rfc3339"


def _is_epoch(description: str) -> bool:
    return any(word in description.lower() for word in ("epoch", "unix", "timestamp"))
