"""The whole proposal: a configuration, with the reasons of its guesses, its gaps, and what was left out. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from source_rest_api.openapi.access import Access, access_of, base_url_of, is_elsewhere
from source_rest_api.openapi.document import Document, DocumentError, LostReferenceError
from source_rest_api.openapi.fields import cursor_of, primary_key_of
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.openapi.names import collection_of, erased, last_word, parameters_of, snake, stream_names
from source_rest_api.openapi.operations import MAY_LIST, Operation, Parameter, operations
from source_rest_api.openapi.paging import pagination_of, paging_parameters
from source_rest_api.openapi.parents import Family, Listing, Parents, filled, texts
from source_rest_api.openapi.records import NoListError, Records, records_of
from source_rest_api.openapi.schemas import Schemas

SET_ELSEWHERE = {"accept", "content-type", "authorization"}  # OpenAPI says that they are no parameters
ALL = "all"

Settings = dict[str, Any]
Place = tuple[str, str]  # method and path


@dataclass(frozen=True, slots=True)
class ProposedStream:
    """One stream.

    Attributes:
        settings: as in the configuration.
        guesses: by what they are about.
        gaps: what must be filled in, or looked at, before it can be read.
        streams: those that it is read by, all the way up.
    """

    operation: Operation
    settings: Mapping[str, Any]
    guesses: Mapping[str, Guess]
    gaps: tuple[Gap, ...]
    streams: frozenset[str]

    @property
    def name(self) -> str:
        return str(self.settings["name"])


@dataclass(frozen=True, slots=True)
class Skipped:
    """An operation that is no stream, and why."""

    method: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a document gives.

    Attributes:
        config: of this source.
        guesses: those that are about no stream.
        gaps: those that are about no stream.
        streams: in the configuration's order.
        skipped: operations that may be meant to be read, and are no streams.
        count: of all operations.
        unreadable: why parts of schemas are not known.
    """

    title: str
    config: Mapping[str, Any]
    guesses: Mapping[str, Guess]
    gaps: tuple[Gap, ...]
    streams: tuple[ProposedStream, ...]
    skipped: tuple[Skipped, ...]
    count: int
    unreadable: tuple[str, ...] = ()


def propose(document: Document, only: Sequence[str] = ()) -> Proposal:
    """A configuration of all lists of a document.

    Args:
        document: parsed.
        only: patterns of stream names and paths, such as ``orders*``; the parents of what they match come along.

    Raises:
        DocumentError: nothing in it, or nothing that the patterns match, is a list.
    """
    every = list(operations(document))
    schemas = Schemas(document)
    base_url, gaps = base_url_of(document, every)
    elsewhere = {_place(operation) for operation in every if is_elsewhere(operation, document, base_url.value)}
    lists, skipped = _lists(every, elsewhere, schemas)
    if not lists:
        raise DocumentError(_nothing(skipped))
    access = access_of(document, [operation for operation, _ in lists], base_url.value)
    streams = _chosen(_streams(lists, access, schemas, _addresses(every)), only)
    if not streams:
        raise DocumentError(f"No list of the document matches {' or '.join(only)}. Patterns are of names or paths.")
    config, pagination = _config(streams, base_url, access)
    return Proposal(
        document.title,
        config,
        {"base_url": base_url, "credentials": access.credentials, **pagination},
        (*gaps, *access.gaps),
        tuple(streams),
        tuple(skipped),
        len(every),
        tuple(schemas.unreadable),
    )


def _nothing(skipped: Sequence[Skipped]) -> str:
    text = "No operation of the document is a list that can be read by GET."
    reasons = Counter(one.reason for one in skipped).most_common(3)
    return f"{text} Why: {'; '.join(f'{reason} ({count} times)' for reason, count in reasons)}." if reasons else text


def _lists(
    every: Sequence[Operation], elsewhere: Collection[Place], schemas: Schemas
) -> tuple[list[tuple[Operation, Records]], list[Skipped]]:
    lists, skipped = [], []
    for operation in every:
        if operation.method not in MAY_LIST:
            continue
        try:
            records = _records(operation, elsewhere, schemas)
        except (NoListError, LostReferenceError) as problem:
            if operation.method == "get":
                skipped.append(Skipped("GET", operation.path, str(problem)))
            continue
        if operation.method == "get":
            lists.append((operation, records))
        elif _seems_to_read(operation):
            reason = f"a POST that answers a list (record_path {records.path}): add it with its body if it only reads"
            skipped.append(Skipped("POST", operation.path, reason))
    return lists, skipped


def _place(operation: Operation) -> Place:
    return operation.method, operation.path


def _seems_to_read(operation: Operation) -> bool:
    words = set(snake(f"{operation.path} {operation.node.get('operationId', '')}").split("_"))
    return bool(words & {"search", "query", "list", "find", "filter", "lookup"})


def _records(operation: Operation, elsewhere: Collection[Place], schemas: Schemas) -> Records:
    if operation.no_schema:
        raise NoListError(operation.no_schema)
    if any(sign in operation.path for sign in ("?", "#", "{{")):
        raise NoListError("its path holds a query or a fragment, which the form cannot say")
    if _place(operation) in elsewhere:
        raise NoListError(f"is served from another host ({operation.server}): make a second configuration for it")
    return records_of(schemas, operation.schema, operation.path)


def _addresses(every: Sequence[Operation]) -> dict[str, Parameter]:
    """By the erased path of a collection, the parameter by which the API gives or changes one of its things."""
    found: dict[str, Parameter] = {}
    for operation in every:
        names = parameters_of(operation.path)
        if names and operation.path.endswith("}"):
            collection = collection_of(operation.path, names[-1])
            for parameter in operation.of("path"):
                if collection is not None and parameter.name == names[-1]:
                    found.setdefault(collection, parameter)
    return found


def _streams(
    lists: Sequence[tuple[Operation, Records]], access: Access, schemas: Schemas, addresses: Mapping[str, Parameter]
) -> list[ProposedStream]:
    names = stream_names([operation.path for operation, _ in lists])
    listings = [
        Listing(name, operation, schemas.fields(records.items))
        for name, (operation, records) in zip(names, lists, strict=True)
    ]
    family = Family(listings, schemas)
    return [
        _stream(
            listing,
            records,
            family.parents_of(listing),
            schemas=schemas,
            access=access,
            address=addresses.get(erased(listing.path)),
        )
        for listing, (_, records) in zip(listings, lists, strict=True)
    ]


def _stream(
    listing: Listing,
    records: Records,
    parents: Parents,
    *,
    schemas: Schemas,
    access: Access,
    address: Parameter | None,
) -> ProposedStream:
    operation, collection = listing.operation, last_word(listing.path)
    settings: Settings = {
        "name": listing.name,
        "path": filled(operation.path, parents.names),
        "record_path": records.path,
    }
    guesses = {"record_path": Guess(records.path, records.reason)}
    key = primary_key_of(listing.fields, collection, schemas, address)
    if key.value is not None:
        # The same thing may be listed below two parents: only together do the values tell records apart.
        settings["primary_key"] = [*sorted(parents.available), key.value]
        guesses["primary_key"] = Guess(settings["primary_key"], key.reason)
    else:
        guesses["primary_key"] = key
    guesses["pagination"] = pagination_of(operation, records, schemas)
    guesses["incremental"] = cursor_of(operation, listing.fields, collection, schemas)
    if guesses["incremental"].value is not None:
        settings["incremental"] = guesses["incremental"].value
    if parents.entries:
        settings |= {"parents": list(parents.entries), "add_parent_fields": True}
        guesses["parents"] = Guess(list(parents.entries), "; ".join(parents.reasons))
    gaps = [*parents.gaps]
    for place in ("query", "header"):
        setting = {"query": "query_params", "header": "headers"}[place]
        pairs, why, missing = _given(operation.of(place), _set_already(guesses, access), schemas, setting)
        if pairs:
            settings[setting] = pairs
            guesses[setting] = Guess(pairs, why)
        gaps += missing
    gaps += _other_gaps(operation, access)
    return ProposedStream(operation, settings, guesses, tuple(gaps), parents.streams)


def _set_already(guesses: Mapping[str, Guess], access: Access) -> set[str]:
    """Names of parameters that pagination, cursor and credentials set."""
    cursor = guesses["incremental"].value or {}
    names = {name.lower() for name in paging_parameters(guesses["pagination"].value or {})}
    return names | {str(cursor.get("start_param", "")).lower()} | set(access.taken) | SET_ELSEWHERE


def _other_gaps(operation: Operation, access: Access) -> list[Gap]:
    gaps = [
        Gap("headers", f"it needs the cookie {parameter.name!r}: set a header Cookie")
        for parameter in operation.of("cookie")
        if parameter.is_required and parameter.name.lower() not in access.taken
    ]
    if operation.security and access.schemes:
        ways = [set(way) for way in operation.security if isinstance(way, dict)]
        if not any(way <= access.schemes for way in ways):
            names = ", ".join(sorted(set().union(*ways)))
            gaps.append(Gap("credentials", f"it asks for other credentials ({names})"))
    return gaps


def _given(
    parameters: Sequence[Parameter], taken: set[str], schemas: Schemas, setting: str
) -> tuple[list[dict[str, str]], str, list[Gap]]:
    """Parameters that must be sent, with their values; and those that would otherwise leave records out."""
    pairs: list[dict[str, str]] = []
    reasons: list[str] = []
    gaps: list[Gap] = []
    for parameter in parameters:
        if parameter.name.lower() in taken:
            continue
        if parameter.is_required:
            value, reason, gap = _required(parameter, schemas, setting)
            gaps += [gap] if gap else []
        elif _hides_records(parameter, schemas):
            value, reason = ALL, f"{parameter.name}: without it, some records are left out"
        else:
            continue
        pairs.append({"name": parameter.name, "value": value})
        reasons.append(reason)
    return pairs, "; ".join(reasons), gaps


def _required(parameter: Parameter, schemas: Schemas, setting: str) -> tuple[str, str, Gap | None]:
    """The value of a parameter that must be sent, why it is that, and what to look at."""
    shape = schemas.shape(parameter.schema)
    name = parameter.name
    values: Sequence[Any] = shape.facts.get("enum") or ()
    example = parameter.example if parameter.example is not None else shape.facts.get("example")
    if _says(shape.facts.get("default")):
        return _text(shape.facts["default"]), f"{name} is required: its default", None
    if len(values) == 1 and _says(values[0]):
        return _text(values[0]), f"{name} is required: its only value", None
    if len(values) > 1 and _says(values[0]):
        shown = ", ".join(texts(values))
        gap = Gap(setting, f"choose what {name} is to be: {shown}")
        return _text(values[0]), f"{name} is required: the first of its values", gap
    if _says(example):
        gap = Gap(setting, f"{name} is required; the value is the document's example only")
        return _text(example), f"{name} is required: the document's example", gap
    return f"<{name}>", f"{name} is required", Gap(setting, f"{name} is required, and has no value", f"<{name}>")


def _says(value: Any) -> bool:
    """Whether a value of the document can stand in the form."""
    return isinstance(value, str | int | float | list) and value not in ("", []) and "{{" not in _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(texts(value))
    return texts([value])[0] if not isinstance(value, dict) else json.dumps(value)


def _hides_records(parameter: Parameter, schemas: Schemas) -> bool:
    """Whether a parameter leaves out records unless it is asked for all: ``state``, which is ``open`` by default."""
    facts = schemas.shape(parameter.schema).facts
    default = facts.get("default")
    return parameter.where == "query" and ALL in (facts.get("enum") or ()) and default not in (None, ALL)


def _chosen(streams: list[ProposedStream], only: Sequence[str]) -> list[ProposedStream]:
    if not only:
        return streams
    matched = [
        stream
        for stream in streams
        if any(fnmatchcase(text, pattern) for pattern in only for text in (stream.name, stream.operation.path))
    ]
    wanted = {stream.name for stream in matched}.union(*(stream.streams for stream in matched))
    return [stream for stream in streams if stream.name in wanted]


def _config(streams: Sequence[ProposedStream], base_url: Guess, access: Access) -> tuple[Settings, dict[str, Guess]]:
    """The configuration; the commonest pagination is the connector's, and streams that differ have their own."""
    commonest, guess = _commonest([stream.guesses["pagination"] for stream in streams])
    config: Settings = {"base_url": base_url.value, "credentials": access.credentials.value}
    if access.headers:
        config["headers"] = list(access.headers)
    if access.query_params:
        config["query_params"] = list(access.query_params)
    if commonest:
        config["pagination"] = commonest
    ready = [stream.name for stream in streams if not stream.gaps and not stream.operation.of("path")]
    if ready and (streams[0].gaps or streams[0].operation.of("path")):
        config["check_streams"] = ready[:1]
    config["streams"] = [_with_pagination(stream, commonest) for stream in streams]
    return config, {"pagination": guess} if commonest else {}


def _commonest(paginations: Sequence[Guess]) -> tuple[Settings | None, Guess]:
    counts = Counter(json.dumps(guess.value) for guess in paginations)
    text, count = counts.most_common(1)[0]
    settings = json.loads(text)
    return settings, Guess(settings, f"that of {count} of {len(paginations)} streams")


def _with_pagination(stream: ProposedStream, commonest: Settings | None) -> Settings:
    own = stream.guesses["pagination"].value
    settings = dict(stream.settings)
    if own != commonest:
        settings["pagination"] = own or {"pagination_type": "auto"}
    return settings
