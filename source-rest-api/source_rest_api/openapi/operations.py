"""The operations of a document, the same for OpenAPI 3 and Swagger 2. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from source_rest_api.openapi.document import Document, LostReferenceError, Node, listing, mapping

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
MAY_LIST = ("get", "post")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation. In Swagger 2 it is its own schema."""

    name: str
    where: str
    is_required: bool
    schema: Node
    description: str
    example: Node = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        schema: of its 2xx answer in JSON, or None.
        no_schema: a phrase that says why there is none.
        headers: names of the answer's headers, in lower case.
        server: its own, where it is not the document's.
        security: its own, or None for the document's.
    """

    path: str
    method: str
    parameters: tuple[Parameter, ...]
    schema: Node = None
    no_schema: str = ""
    headers: frozenset[str] = frozenset()
    server: str = ""
    security: list[Node] | None = None
    node: Mapping[str, Node] = field(default_factory=dict)

    def of(self, where: str) -> list[Parameter]:
        """The parameters of one place: path, query, header, cookie."""
        return [parameter for parameter in self.parameters if parameter.where == where]


def operations(document: Document) -> Iterator[Operation]:
    """All of them, in the document's order."""
    for path, item in mapping(document.root["paths"]).items():
        if path.startswith("x-"):
            continue
        try:
            place = mapping(document.resolve(item))
        except LostReferenceError as problem:
            yield Operation(path, "get", (), no_schema=str(problem))
            continue
        for method in METHODS:
            if method in place:
                yield _operation(document, path, method, place)


def _operation(document: Document, path: str, method: str, place: Mapping[str, Node]) -> Operation:
    try:
        node = mapping(document.resolve(place[method]))
        parameters = _parameters(document, [*listing(place.get("parameters")), *listing(node.get("parameters"))])
    except LostReferenceError as problem:
        return Operation(path, method, (), no_schema=str(problem))
    try:
        schema, headers = _answer(document, node) if method in MAY_LIST else (None, frozenset[str]())
        no_schema = "" if schema is not None else "its answer has no schema"
    except (LostReferenceError, _NoSchemaError) as problem:
        schema, headers, no_schema = None, frozenset(), str(problem)
    servers = listing(node.get("servers") or place.get("servers"))
    security = node.get("security")
    return Operation(
        path,
        method,
        tuple(parameters.values()),
        schema,
        no_schema,
        headers,
        server=str(mapping(servers[0]).get("url", "")) if servers else "",
        security=security if isinstance(security, list) else None,
        node=node,
    )


class _NoSchemaError(ValueError):
    """An operation whose answer is not described. The message is a phrase."""


def _parameters(document: Document, nodes: list[Node]) -> dict[tuple[str, str], Parameter]:
    """By name and place: an operation's own take the place of its path's."""
    found = {}
    for node in nodes:
        given = mapping(document.resolve(node))
        name, where = str(given.get("name", "")), str(given.get("in", ""))
        content = list(mapping(given.get("content")).values())
        schema = given if document.is_swagger else given.get("schema", mapping(content[0] if content else None))
        found[name, where] = Parameter(
            name, where, given.get("required") is True, schema, str(given.get("description", "")), _example(given)
        )
    return found


def _example(given: Mapping[str, Node]) -> Node:
    examples = [mapping(example).get("value") for example in mapping(given.get("examples")).values()]
    every = (given.get("example"), given.get("x-example"), *examples)
    return next((found for found in every if found is not None), None)


def _answer(document: Document, node: Mapping[str, Node]) -> tuple[Node, frozenset[str]]:
    """Schema and header names of the 2xx answer; of several, the lowest one that has a schema.

    Raises:
        _NoSchemaError: there is none, or none in JSON.
    """
    responses = mapping(node.get("responses"))
    good = sorted(code for code in responses if code[:1] == "2" and len(code) == 3)
    if not good:
        raise _NoSchemaError("no 2xx answer of it is described")
    kinds: list[str] = []
    for code in good:
        response = mapping(document.resolve(responses[code]))
        headers = frozenset(name.lower() for name in mapping(response.get("headers")))
        if document.is_swagger:
            kinds += [str(kind) for kind in listing(node.get("produces") or document.root.get("produces"))]
            if "schema" in response and (not kinds or any(map(is_json, kinds))):
                return response["schema"], headers
        else:
            content = mapping(response.get("content"))
            kinds += content
            for kind, media in content.items():
                if is_json(kind) and isinstance(media, dict) and "schema" in media:
                    return media["schema"], headers
    others = sorted({kind for kind in kinds if not is_json(kind)})
    if others and not any(map(is_json, kinds)):
        raise _NoSchemaError(f"it answers no JSON ({', '.join(others)})")
    raise _NoSchemaError("its answer has no schema")


def is_json(kind: str) -> bool:
    """Whether a media type is JSON, or any."""
    plain = kind.partition(";")[0].strip().lower()
    return plain in ("*/*", "application/*", "text/json") or plain.endswith(("/json", "+json"))
