"""Whether an operation answers a list, and where in its answer the list is. Pure.

A list is an array; or an object with exactly one array of objects, itself or in its only envelope (``data``, ``result``
and the like). Two arrays are never chosen from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from source_rest_api.body import WELL_KNOWN
from source_rest_api.openapi.document import Node
from source_rest_api.openapi.names import erased, last_word, singulars, snake
from source_rest_api.openapi.schemas import Schemas, Shape

ROOT = "."
ENVELOPES = ("data", "result", "results", "response", "_embedded", "payload", "body", "content")
OWN_KEYS = ("id", "_id", "uuid", "guid", "uid")
MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Records:
    """The list in an answer.

    Attributes:
        path: as the form's ``record_path`` has it.
        items: the schemas that a record may have.
        around: the fields of the answer itself; empty for an array.
    """

    path: str
    reason: str
    items: tuple[Node, ...]
    around: Mapping[str, Node]


class NoListError(ValueError):
    """An answer that is no list. The message is a phrase that says what it is."""


def records_of(schemas: Schemas, schema: Node, path: str) -> Records:
    """The list in the answer of the operation at a path.

    Raises:
        NoListError: it has none, or several.
        LostReferenceError: its schema is not in the document.
    """
    found = [_in_shape(schemas, shape, path) for shape in schemas.variants(schema)]
    if len({one.path for one in found}) > 1:
        raise NoListError("answers one of several shapes, whose lists are at different places")
    items = tuple({id(item): item for one in found for item in one.items}.values())
    around: dict[str, Node] = {}
    for one in found:
        around |= one.around
    return Records(found[0].path, found[0].reason, items, around)


def _in_shape(schemas: Schemas, shape: Shape, path: str) -> Records:
    if shape.kind == "array":
        return Records(ROOT, "the answer is the list itself", (shape.items,), {})
    if shape.kind != "object":
        raise NoListError("answers a single value" if shape.kind == "scalar" else "has an answer of an unknown shape")
    place = _lists(schemas, shape.properties)
    envelope, inner = "", shape
    if not place:
        envelope, inner, place = _in_envelope(schemas, shape)
    if not place:
        raise NoListError("answers one object, without a list of objects")
    if len(place) > 1:
        shown = ", ".join(list(place)[:MOST_SHOWN]) + (", ..." if len(place) > MOST_SHOWN else "")
        raise NoListError(f"has several lists of objects ({shown}): add it with the record_path that you mean")
    name, items = next(iter(place.items()))
    if any("." in key or key in ("", "*") for key in (name, envelope)[: 2 if envelope else 1]):
        raise NoListError(f"has its list in {name!r}, a name that record_path cannot say")
    if _is_one_thing(schemas, inner, name, path):
        raise NoListError(f"answers one thing, with a list {name!r} inside")
    where = f"{envelope}.{name}" if envelope else name
    return Records(where, "the only list of objects in the answer", items, shape.properties)


def _lists(schemas: Schemas, properties: Mapping[str, Node]) -> dict[str, tuple[Node, ...]]:
    """The arrays of objects, with the schemas of their elements."""
    return {
        name: tuple(shape.items for shape in schemas.known_variants(node))
        for name, node in properties.items()
        if schemas.is_list_of_objects(node)
    }


def _in_envelope(schemas: Schemas, shape: Shape) -> tuple[str, Shape, dict[str, tuple[Node, ...]]]:
    """The only envelope with a list in it: its name, its shape and its lists; the answer itself if there is none."""
    found = []
    for name in ENVELOPES:
        shapes = schemas.known_variants(shape.properties[name]) if name in shape.properties else ()
        if len(shapes) == 1 and shapes[0].kind == "object":
            place = _lists(schemas, shapes[0].properties)
            if place:
                found.append((name, shapes[0], place))
    return found[0] if len(found) == 1 else ("", shape, {})


def _is_one_thing(schemas: Schemas, shape: Shape, name: str, path: str) -> bool:
    """Whether an object is a thing of its own, and no page of things: its list is not what the path is about."""
    if name in WELL_KNOWN or singulars(snake(name)) & singulars(snake(last_word(path))):
        return False
    return erased(path).endswith("}") or any(
        key in shape.properties and schemas.shape(shape.properties[key]).kind in ("scalar", "unknown")
        for key in OWN_KEYS
    )
