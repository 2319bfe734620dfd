"""What a JSON Schema says about the shape of a value. Pure, and bounded for schemas that contain themselves.

Nothing is unfolded further than it is asked for: a shape has the schemas of its fields, and not their shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from source_rest_api.openapi.document import Document, LostReferenceError, Node, listing, mapping

MOST_VARIANTS = 64
Kind = Literal["array", "object", "scalar", "unknown"]
SCALARS = ("string", "integer", "number", "boolean")


@dataclass(frozen=True, slots=True)
class Shape:
    """One of the shapes that a value may have.

    Attributes:
        type: of a scalar, if it is known.
        items: the schema of a list's elements.
        properties: the schemas of an object's fields.
        required: names of fields that are always there.
        facts: format, description, default and the like, of the outermost schema that has them.
    """

    kind: Kind = "unknown"
    type: str = ""
    items: Node = None
    properties: Mapping[str, Node] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    is_nullable: bool = False
    facts: Mapping[str, Node] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A fact as a text; empty if there is none."""
        found = self.facts.get(name)
        return found if isinstance(found, str) else ""


UNKNOWN = Shape()
_FACTS = ("format", "description", "default", "example", "enum", "minimum", "maximum", "title")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the records, over all the shapes that they may have.

    Attributes:
        is_sure: whether it is there in every record, and never null, as far as the schema says.
    """

    name: str
    shape: Shape
    is_sure: bool


class Schemas:
    """The schemas of one document."""

    def __init__(self, document: Document):
        self._document = document
        self._known: dict[int, tuple[Shape, ...]] = {}
        self._open: set[int] = set()
        self.unreadable: dict[str, None] = {}  # why parts of schemas are not known

    def variants(self, node: Node) -> tuple[Shape, ...]:
        """The shapes that a value may have: several for oneOf and anyOf, else one; null is no shape of its own.

        Raises:
            LostReferenceError: the schema itself is not in the document.
        """
        schema = self._document.resolve(node)
        if not isinstance(schema, dict) or id(schema) in self._open:
            return (UNKNOWN,)
        if id(schema) not in self._known:
            self._open.add(id(schema))
            try:
                self._known[id(schema)] = self._unfolded(schema)
            finally:
                self._open.discard(id(schema))
        return self._known[id(schema)]

    def shape(self, node: Node) -> Shape:
        """The first of the shapes; unknown where the schema is not in the document."""
        return self.known_variants(node)[0]

    def known_variants(self, node: Node) -> tuple[Shape, ...]:
        """As ``variants``; what is not in the document is unknown."""
        try:
            return self.variants(node)
        except LostReferenceError as problem:
            self.unreadable.setdefault(str(problem))
            return (UNKNOWN,)

    def is_list_of_objects(self, node: Node) -> bool:
        """Whether every shape of a value is a list, and every element of it an object."""
        return all(
            shape.kind == "array" and all(item.kind == "object" for item in self.known_variants(shape.items))
            for shape in self.known_variants(node)
        )

    def fields(self, nodes: Iterable[Node]) -> dict[str, Field]:
        """The fields of objects that may have any of several schemas."""
        shapes = [shape for node in nodes for shape in self.known_variants(node) if shape.kind == "object"]
        found: dict[str, Field] = {}
        for name in dict.fromkeys(name for shape in shapes for name in shape.properties):
            variants = [
                variant
                for shape in shapes
                if name in shape.properties
                for variant in self.known_variants(shape.properties[name])
            ]
            is_sure = all(name in shape.required for shape in shapes) and not any(one.is_nullable for one in variants)
            is_nullable = any(one.is_nullable for one in variants)
            found[name] = Field(name, replace(variants[0], is_nullable=is_nullable), is_sure)
        return found

    def _unfolded(self, schema: Mapping[str, Node]) -> tuple[Shape, ...]:
        shapes = [_own(schema)]
        for part in listing(schema.get("allOf")):
            shapes = _combined(shapes, self.known_variants(part))
        for name in ("oneOf", "anyOf"):
            choices = [part for part in listing(schema.get(name)) if not _is_null(part)]
            if choices:
                has_null = len(choices) < len(schema[name])
                found = [shape for part in choices for shape in self.known_variants(part)]
                shapes = _combined(shapes, [replace(one, is_nullable=one.is_nullable or has_null) for one in found])
        return tuple(shapes)


def _own(schema: Mapping[str, Node]) -> Shape:
    """What a schema says itself, without what it is put together of."""
    types = schema.get("type")
    named = [kind for kind in (types if isinstance(types, list) else [types]) if isinstance(kind, str)]
    given = [kind for kind in named if kind != "null"]
    properties = mapping(schema.get("properties"))
    kind: Kind = "unknown"
    if "array" in given or (not given and "items" in schema):
        kind = "array"
    elif "object" in given or (not given and (properties or "additionalProperties" in schema)):
        kind = "object"
    elif given:
        kind = "scalar"
    return Shape(
        kind,
        type=given[0] if kind == "scalar" and given[0] in SCALARS else "",
        items=schema.get("items") if kind == "array" else None,
        properties=properties if kind in ("object", "unknown") else {},
        required=frozenset(name for name in listing(schema.get("required")) if isinstance(name, str)),
        is_nullable="null" in named or schema.get("nullable") is True or schema.get("x-nullable") is True,
        facts={name: schema[name] for name in _FACTS if name in schema},
    )


def _combined(shapes: list[Shape], others: Iterable[Shape]) -> list[Shape]:
    return [_both(one, other) for one in shapes for other in others][:MOST_VARIANTS] or shapes


def _both(one: Shape, other: Shape) -> Shape:
    first, second = (one, other) if one.kind != "unknown" else (other, one)
    return Shape(
        first.kind,
        type=first.type or second.type,
        items=first.items if first.items is not None else second.items,
        properties={**other.properties, **one.properties},
        required=one.required | other.required,
        is_nullable=one.is_nullable or other.is_nullable,
        facts={**other.facts, **one.facts},
    )


def _is_null(part: Node) -> bool:
    return isinstance(part, dict) and (part.get("type") == "null" or part.get("enum") in ([None], [""]))
