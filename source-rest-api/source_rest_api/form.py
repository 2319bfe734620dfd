"""The form, parsed once: everything behind this module sees these types only.

``Form.parse`` turns a configuration into frozen values or refuses it, naming the place and what to write instead. A
name that the form does not know is refused too: a setting that is silently ignored is a wrong table later.
Manifest.yaml describes the same form to Airbyte; a test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from source_rest_api.errors import config_error
from source_rest_api.times import FormatError, check_format, parse_duration, parse_start

Name = Annotated[str, Meta(min_length=1)]
Positive = Annotated[int, Meta(ge=1)]
SHARED = "__shared"  # in the config of a running source: a dict that its components share
FORM = "form"
PARENT = re.compile(r"\{\{\s*parent\.([A-Za-z_]\w*)\s*\}\}", re.ASCII)


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the form."""


class NoCredentials(_Part, frozen=True, tag_field="auth_type", tag="none"):
    pass


class Basic(_Part, frozen=True, tag_field="auth_type", tag="basic"):
    username: str
    password: str = ""


class Bearer(_Part, frozen=True, tag_field="auth_type", tag="bearer"):
    token: Name
    prefix: str = "Bearer"


class ApiKey(_Part, frozen=True, tag_field="auth_type", tag="api_key"):
    api_key: Name
    name: Name = "X-Api-Key"
    inject_into: Literal["header", "query"] = "header"


class Pair(_Part, frozen=True):
    """One header or query parameter."""

    name: Name
    value: str


class OAuthClientCredentials(_Part, frozen=True, tag_field="auth_type", tag="oauth_client_credentials"):
    token_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]")]
    client_id: Name
    client_secret: Name
    scopes: str = ""
    client_auth: Literal["body", "basic"] = "body"
    audience: str = ""
    extra_params: list[Pair] = []


Credentials = NoCredentials | Basic | Bearer | ApiKey | OAuthClientCredentials


class NoPages(_Part, frozen=True, tag_field="pagination_type", tag="none"):
    pass


InjectInto = Literal["query", "header", "body"]


class PageNumbers(_Part, frozen=True, tag_field="pagination_type", tag="page"):
    page_param: Name = "page"
    start_page: Annotated[int, Meta(ge=0)] = 1
    size_param: str = ""
    page_size: Positive | None = None
    inject_into: InjectInto = "query"
    stop_when_shorter: bool = False


class Offsets(_Part, frozen=True, tag_field="pagination_type", tag="offset"):
    offset_param: Name = "offset"
    start_offset: Annotated[int, Meta(ge=0)] = 0
    size_param: str = "limit"
    page_size: Positive | None = None
    inject_into: InjectInto = "query"
    stop_when_shorter: bool = False


class Tokens(_Part, frozen=True, tag_field="pagination_type", tag="cursor"):
    token_path: str = ""
    token_header: str = ""
    token_field: str = ""
    token_param: Name = "cursor"  # noqa: S105  # a parameter's name
    size_param: str = ""
    page_size: Positive | None = None
    inject_into: InjectInto = "query"
    has_more_path: str = ""


class LinkHeader(_Part, frozen=True, tag_field="pagination_type", tag="link_header"):
    size_param: str = ""
    page_size: Positive | None = None


class NextUrl(_Part, frozen=True, tag_field="pagination_type", tag="next_url"):
    next_path: Name = "next"
    size_param: str = ""
    page_size: Positive | None = None


Pagination = NoPages | PageNumbers | Offsets | Tokens | LinkHeader | NextUrl


class NotIncremental(_Part, frozen=True, tag_field="incremental_type", tag="none"):
    pass


class DatetimeCursor(_Part, frozen=True, tag_field="incremental_type", tag="datetime"):
    cursor_field: Name
    cursor_format: Name = "rfc3339"
    start: str = ""
    start_param: str = ""
    end_param: str = ""
    request_format: str = ""
    step: str = ""
    granularity: str = ""
    lookback: str = ""
    is_ascending: bool = False
    newest_first: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.cursor_field.split("."))


Incremental = NotIncremental | DatetimeCursor


class Timestamp(_Part, frozen=True):
    """A field whose number or text becomes RFC 3339 text."""

    field: Name
    format: Name


class Parent(_Part, frozen=True):
    """One request per record of another stream; ``{{ parent.<as> }}`` stands for the record's field."""

    stream: Name
    field: Name
    as_name: Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*$")] = msgspec.field(name="as", default="id")


class Stream(_Part, frozen=True):
    """One stream of the form."""

    name: Name
    path: str
    method: Literal["GET", "POST"] = "GET"
    body: str = ""
    record_path: str = ""
    primary_key: list[Name] = []
    headers: list[Pair] = []
    query_params: list[Pair] = []
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    parents: Annotated[list[Parent], Meta(max_length=1)] = []
    add_parent_fields: bool = False
    timestamps: list[Timestamp] = []
    ignore_status_codes: list[Annotated[int, Meta(ge=400, le=499)]] = []
    sample_size: Annotated[int, Meta(ge=1, le=100_000)] = 1000

    @property
    def parent(self) -> Parent | None:
        return self.parents[0] if self.parents else None

    @property
    def cursor(self) -> DatetimeCursor | None:
        return self.incremental if isinstance(self.incremental, DatetimeCursor) else None

    @property
    def key_paths(self) -> list[list[str]]:
        return [key.split(".") for key in self.primary_key]


class RateLimit(_Part, frozen=True):
    """The most requests in a second, a minute and an hour, over all streams."""

    requests_per_second: Positive | None = None
    requests_per_minute: Positive | None = None
    requests_per_hour: Positive | None = None


class Form(_Part, frozen=True):
    """The whole form. Streams come with the connector's defaults filled in (see ``parse``)."""

    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]")]
    streams: Annotated[list[Stream], Meta(min_length=1)]
    credentials: Credentials = NoCredentials()
    headers: list[Pair] = []
    query_params: list[Pair] = []
    pagination: Pagination = NoPages()
    check_streams: list[Name] = []
    rate_limit: RateLimit = RateLimit()
    num_workers: Annotated[int, Meta(ge=1, le=32)] = 4
    max_retries: Annotated[int, Meta(ge=0, le=20)] = 5
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] = 300
    max_response_mb: Annotated[int, Meta(ge=1, le=4096)] = 256

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Form:
        """Check a configuration and fill in what streams inherit.

        Raises:
            AirbyteTracedException: a config_error that names the place. Values are not quoted.
        """
        own = {name: value for name, value in config.items() if not name.startswith("__")}
        try:
            form = msgspec.convert(own, cls)
        except msgspec.ValidationError as cause:
            raise config_error(
                f"Configuration: {str(cause).replace('$.', '').replace('at `$`', 'at the top')}."
            ) from None
        form = msgspec.structs.replace(form, streams=[_with_defaults(stream, form) for stream in form.streams])
        for problem in _problems(form):
            raise config_error(problem)
        return form

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Form:
        """The form of a running source, parsed once for all of its components. Raises as ``parse``."""
        shared = config.get(SHARED)
        if shared is None:
            return cls.parse(config)
        if FORM not in shared:
            shared[FORM] = cls.parse(config)
        form: Form = shared[FORM]
        return form

    def stream(self, name: str) -> Stream:
        """A stream by its name; it exists."""
        return next(stream for stream in self.streams if stream.name == name)

    @property
    def names(self) -> list[str]:
        return [stream.name for stream in self.streams]

    @property
    def secrets(self) -> list[str]:
        """Values in arrays that must not be logged; the CDK finds those outside of arrays."""
        pairs = [*self.headers, *(pair for stream in self.streams for pair in stream.headers)]
        if isinstance(self.credentials, OAuthClientCredentials):
            pairs += self.credentials.extra_params
        return [pair.value for pair in pairs if pair.name.lower() not in _PUBLIC_HEADERS and pair.value]


_PUBLIC_HEADERS = {"accept", "accept-language", "accept-encoding", "content-type", "user-agent", "cache-control"}


def _with_defaults(stream: Stream, form: Form) -> Stream:
    return msgspec.structs.replace(
        stream,
        pagination=stream.pagination or form.pagination,
        headers=_merged(form.headers, stream.headers, fold=str.lower),
        query_params=_merged(form.query_params, stream.query_params, fold=str),
    )


def _merged(inherited: Sequence[Pair], own: Sequence[Pair], *, fold: Any) -> list[Pair]:
    names = {fold(pair.name) for pair in own}
    return [*(pair for pair in inherited if fold(pair.name) not in names), *own]


def _problems(form: Form) -> Iterator[str]:
    """What the types cannot say. Yields nothing for a good form."""
    names = form.names
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"Two streams have the name {name!r}: give each its own."
    for name in form.check_streams:
        if name not in names:
            yield f"check_streams names {name!r}, which is no stream. Streams: {', '.join(names)}."
    for stream in form.streams:
        yield from _stream_problems(stream, form)


def _stream_problems(stream: Stream, form: Form) -> Iterator[str]:
    here = f"Stream {stream.name!r}"
    yield from _parent_problems(stream, form)
    for stamp in stream.timestamps:
        yield from _format_problems(stamp.format, f"{here}, timestamps of {stamp.field!r}")
    fields = sorted(stamp.field for stamp in stream.timestamps)
    for one, other in pairwise(fields):
        if one == other or other.startswith(f"{one}."):
            yield f"{here}: timestamps names {other!r} twice, or inside of another one."
    match stream.pagination:
        case PageNumbers() | Offsets() as pages if pages.stop_when_shorter and pages.page_size is None:
            yield f"{here}: stop_when_shorter needs page_size."
        case Tokens() as tokens if sum(map(bool, (tokens.token_path, tokens.token_header, tokens.token_field))) != 1:
            yield f"{here}: pagination needs exactly one of token_path, token_header and token_field."
        case _:
            pass
    yield from _body_problems(stream, here)
    if stream.cursor is not None:
        yield from _cursor_problems(stream.cursor, stream, here)


def _body_problems(stream: Stream, here: str) -> Iterator[str]:
    if stream.method == "GET":
        if stream.body:
            yield f"{here}: a body needs method POST."
        if isinstance(stream.pagination, PageNumbers | Offsets | Tokens) and stream.pagination.inject_into == "body":
            yield f"{here}: pagination that goes into the body needs method POST."
    elif stream.body:
        try:
            msgspec.json.decode(PARENT.sub("0", stream.body))
        except msgspec.DecodeError:
            yield f"{here}: body is no JSON."


def _cursor_problems(cursor: DatetimeCursor, stream: Stream, here: str) -> Iterator[str]:
    if "{" in cursor.cursor_field:
        yield f"{here}: incremental.cursor_field is a path such as properties.updated, not a template."
    for format_ in filter(None, (cursor.cursor_format, cursor.request_format)):
        yield from _format_problems(format_, f"{here}, incremental")
    for field in ("step", "granularity", "lookback"):
        text = getattr(cursor, field)
        if text:
            try:
                parse_duration(text)
            except FormatError as problem:
                yield f"{here}, incremental.{field}: {problem}"
    if cursor.start:
        try:
            parse_start(cursor.start)
        except FormatError as problem:
            yield f"{here}, incremental.start: {problem}"
    if cursor.step and not (cursor.start and cursor.start_param and cursor.end_param):
        yield f"{here}: incremental.step cuts time into windows, which needs start, start_param and end_param."
    if cursor.newest_first and (cursor.is_ascending or cursor.step):
        yield f"{here}: incremental.newest_first goes with neither is_ascending nor step."
    if cursor.is_ascending and (cursor.step or stream.parents):
        yield f"{here}: incremental.is_ascending goes with neither step nor parents; their windows save state anyway."


def _format_problems(format_: str, here: str) -> Iterator[str]:
    try:
        check_format(format_)
    except FormatError as problem:
        yield f"{here}: {problem}"


def _parent_problems(stream: Stream, form: Form) -> Iterator[str]:
    here = f"Stream {stream.name!r}"
    texts = [stream.path, stream.body, *(pair.value for pair in [*stream.headers, *stream.query_params])]
    used = {name for text in texts for name in PARENT.findall(text)}
    for text in texts:
        if "{{" in PARENT.sub("", text):
            yield f"{here}: only {{{{ parent.<name> }}}} is understood in path, headers, query_params and body."
    parent = stream.parent
    known = {parent.as_name} if parent else set()
    for name in sorted(used - known):
        yield f"{here} uses {{{{ parent.{name} }}}}, but no entry of its parents has `as: {name}`."
    if parent is None:
        return
    if parent.stream not in form.names:
        yield f"{here}: its parent {parent.stream!r} is no stream. Streams: {', '.join(form.names)}."
        return
    if parent.as_name not in used:
        wanted = f"{{{{ parent.{parent.as_name} }}}}"
        yield f"{here} has a parent, but {wanted} is nowhere in its path, headers, query_params or body."
    above, seen = form.stream(parent.stream), [stream.name]
    while above.name not in seen:
        seen.append(above.name)
        if above.parent is None or above.parent.stream not in form.names:
            return
        above = form.stream(above.parent.stream)
    yield f"{here}: its parents form a circle ({' -> '.join([*seen, above.name])})."
