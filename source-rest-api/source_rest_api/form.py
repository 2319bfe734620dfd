"""The form, parsed once: everything behind this module sees these types only.

``Form.parse`` turns a configuration into frozen values or refuses it, naming the place and what to write instead (what
the types cannot say is in ``form_rules``). A name that the form does not know is refused too: a setting that is
silently ignored is a wrong table later. Manifest.yaml describes the same form to Airbyte; a test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from source_rest_api.errors import config_error
from source_rest_api.times import COUNTER

Name = Annotated[str, Meta(min_length=1)]
Url = Annotated[str, Meta(pattern=r"^https?://[^\s/]")]
Positive = Annotated[int, Meta(ge=1)]
StatusCode = Annotated[int, Meta(ge=400, le=599)]
SHARED = "__shared"  # in the config of a running source: a dict that its components share
FORM = "form"
PARENT = re.compile(r"\{\{\s*parent\.([A-Za-z_]\w*)\s*\}\}", re.ASCII)


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the form."""


class Pair(_Part, frozen=True):
    """One header or query parameter."""

    name: Name
    value: str


# --- credentials ------------------------------------------------------------------------------------------------------


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
    inject_into: Literal["header", "query", "body"] = "header"


class OAuthClientCredentials(_Part, frozen=True, tag_field="auth_type", tag="oauth_client_credentials"):
    token_url: Url
    client_id: Name
    client_secret: Name
    scopes: str = ""
    client_auth: Literal["body", "basic"] = "body"
    audience: str = ""
    extra_params: list[Pair] = []


class OAuthRefreshToken(_Part, frozen=True, tag_field="auth_type", tag="oauth_refresh_token", kw_only=True):
    token_url: Url
    client_id: Name
    client_secret: str = ""
    refresh_token: Name
    scopes: str = ""
    client_auth: Literal["body", "basic"] = "body"
    audience: str = ""
    extra_params: list[Pair] = []


class SessionToken(_Part, frozen=True, tag_field="auth_type", tag="session_token"):
    login_url: Url
    login_method: Literal["POST", "GET"] = "POST"
    login_body: str = ""
    token_path: Name = "token"  # noqa: S105  # a path
    lifetime_seconds: Positive = 3600
    inject_into: Literal["header", "query"] = "header"
    name: Name = "Authorization"
    prefix: str = ""


class Jwt(_Part, frozen=True, tag_field="auth_type", tag="jwt", kw_only=True):
    algorithm: Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"] = "RS256"
    key: Name
    key_id: str = ""
    claims: str = "{}"
    header_prefix: str = "Bearer"
    lifetime_seconds: Positive = 1200


OAuth = OAuthClientCredentials | OAuthRefreshToken
Credentials = NoCredentials | Basic | Bearer | ApiKey | OAuthClientCredentials | OAuthRefreshToken | SessionToken | Jwt
SECRET_FIELDS = (
    "password", "token", "api_key", "client_secret", "refresh_token", "login_body", "key",
)  # fmt: skip


# --- pagination -------------------------------------------------------------------------------------------------------

InjectInto = Literal["query", "header", "body"]


class NoPages(_Part, frozen=True, tag_field="pagination_type", tag="none"):
    pass


class Paged(_Part, frozen=True):
    """What all kinds of pagination share: how large a page is asked for, and when it was the last."""

    size_param: str = ""
    page_size: Positive | None = None
    inject_into: InjectInto = "query"
    stop_on_empty: bool = True
    stop_when_shorter: bool = False
    has_more_path: str = ""
    is_last_path: str = ""
    total_path: str = ""
    total_pages_path: str = ""
    max_pages: Positive | None = None

    @property
    def asks_the_answer(self) -> list[str]:
        """Settings that look into the body for the end."""
        paths = ("has_more_path", "is_last_path", "total_path", "total_pages_path")
        return [name for name in paths if getattr(self, name)]


class AutoPages(Paged, frozen=True, tag_field="pagination_type", tag="auto"):
    stop_on_empty: bool = False


class PageNumbers(Paged, frozen=True, tag_field="pagination_type", tag="page"):
    page_param: Name = "page"
    start_page: Annotated[int, Meta(ge=0)] = 1
    max_offset: Positive | None = None


class Offsets(Paged, frozen=True, tag_field="pagination_type", tag="offset"):
    offset_param: Name = "offset"
    start_offset: Annotated[int, Meta(ge=0)] = 0
    size_param: str = "limit"
    max_offset: Positive | None = None


class Tokens(Paged, frozen=True, tag_field="pagination_type", tag="cursor"):
    token_path: str = ""
    token_header: str = ""
    token_field: str = ""
    token_param: Name = "cursor"  # noqa: S105  # a parameter's name


class LinkHeader(Paged, frozen=True, tag_field="pagination_type", tag="link_header"):
    stop_on_empty: bool = False


class NextUrl(Paged, frozen=True, tag_field="pagination_type", tag="next_url"):
    next_path: Name = "next"
    stop_on_empty: bool = False


Pagination = AutoPages | NoPages | PageNumbers | Offsets | Tokens | LinkHeader | NextUrl


# --- incremental ------------------------------------------------------------------------------------------------------


class NotIncremental(_Part, frozen=True, tag_field="incremental_type", tag="none"):
    pass


class DatetimeCursor(_Part, frozen=True, tag_field="incremental_type", tag="datetime"):
    cursor_field: Name
    cursor_format: Name = "rfc3339"
    start: str = ""
    start_param: str = ""
    end_param: str = ""
    inject_into: InjectInto = "query"
    request_format: str = ""
    step: str = ""
    granularity: str = ""
    lookback: str = ""
    is_ascending: bool = False
    newest_first: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.cursor_field.split("."))


class CounterCursor(_Part, frozen=True, tag_field="incremental_type", tag="counter"):
    """A number that grows, such as an id or a sequence; the API is asked for what lies behind the last one."""

    cursor_field: Name
    start_param: Name
    start: Annotated[int, Meta(ge=0)] | None = None
    inject_into: InjectInto = "query"
    is_ascending: bool = False

    # What a datetime cursor may have and a counter has not.
    cursor_format = request_format = COUNTER
    end_param = step = granularity = lookback = ""
    newest_first = False

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.cursor_field.split("."))


Cursor = DatetimeCursor | CounterCursor
Incremental = NotIncremental | DatetimeCursor | CounterCursor


# --- streams ----------------------------------------------------------------------------------------------------------


class Timestamp(_Part, frozen=True):
    """A field whose number or text becomes RFC 3339 text."""

    field: Name
    format: Name


class Parent(_Part, frozen=True):
    """One request per value of a field of another stream, or per value of a list; ``{{ parent.<as> }}`` stands for it.

    Entries of the same stream take several fields of each of its records; other entries are combined, each with each.
    """

    stream: str = ""
    field: str = ""
    values: list[str] = []
    as_name: Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*$")] = msgspec.field(name="as", default="id")


class Errors(_Part, frozen=True):
    """Errors that an API answers with status 200."""

    error_when: str = ""
    error_message_path: str = ""


class Stream(_Part, frozen=True):
    """One stream of the form."""

    name: Name
    path: str
    method: Literal["GET", "POST"] = "GET"
    body: str = ""
    record_path: str = ""
    format: Literal["json", "columns", "jsonl", "csv"] = "json"
    csv_delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = ","
    primary_key: list[Name] = []
    headers: list[Pair] = []
    query_params: list[Pair] = []
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    parents: list[Parent] = []
    add_parent_fields: bool = False
    filter: str = ""
    select_fields: list[Name] = []
    drop_fields: list[Name] = []
    timestamps: list[Timestamp] = []
    schema: str = ""
    ignore_status_codes: list[Annotated[int, Meta(ge=400, le=499)]] = []
    errors: Errors | None = None
    sample_size: Annotated[int, Meta(ge=1, le=100_000)] = 1000

    @property
    def cursor(self) -> Cursor | None:
        return self.incremental if isinstance(self.incremental, DatetimeCursor | CounterCursor) else None

    @property
    def answers_json(self) -> bool:
        """Whether paging and conditions can look into an answer: it is one JSON value."""
        return self.format in ("json", "columns")

    @property
    def key_paths(self) -> list[list[str]]:
        return [key.split(".") for key in self.primary_key]

    @property
    def parent_streams(self) -> list[str]:
        """The streams that this one is read by, each once."""
        return list(dict.fromkeys(parent.stream for parent in self.parents if parent.stream))


class RateLimit(_Part, frozen=True):
    """The most requests over all streams, and what an API's answers say about its own limits."""

    requests_per_second: Positive | None = None
    requests_per_minute: Positive | None = None
    requests_per_hour: Positive | None = None
    max_wait_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 600
    status_codes: list[StatusCode] = msgspec.field(default_factory=lambda: [429])
    remaining_header: str = ""
    reset_header: str = ""


class Form(_Part, frozen=True):
    """The whole form: streams with their base_url, or a manifest (``form_rules`` sees to it).

    Streams come with the connector's defaults filled in (see ``parse``).
    """

    base_url: Url = ""
    streams: list[Stream] = []
    manifest: str = ""
    manifest_config: str = ""
    credentials: Credentials = NoCredentials()
    headers: list[Pair] = []
    query_params: list[Pair] = []
    pagination: Pagination = AutoPages()
    incremental: Incremental = NotIncremental()
    errors: Errors = Errors()
    check_streams: list[Name] = []
    rate_limit: RateLimit = RateLimit()
    num_workers: Annotated[int, Meta(ge=1, le=32)] = 4
    max_retries: Annotated[int, Meta(ge=0, le=20)] = 5
    timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] = 300
    max_response_mb: Annotated[int, Meta(ge=1, le=4096)] = 256
    ca_bundle: str = ""
    client_certificate: str = ""
    client_key: str = ""
    user_agent: str = ""
    allow_private_hosts: bool = True

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Form:
        """Check a configuration and fill in what streams inherit.

        Raises:
            AirbyteTracedException: a config_error that names the place. Values are not quoted.
        """
        from source_rest_api.form_rules import problems

        try:
            form = cls.converted(without_ours(config))
        except msgspec.ValidationError as cause:
            raise config_error(
                f"Configuration: {str(cause).replace('$.', '').replace('at `$`', 'at the top')}."
            ) from None
        for problem in problems(form):
            raise config_error(problem)
        return form

    @classmethod
    def converted(cls, own: Mapping[str, Any]) -> Form:
        """The form with what streams inherit, its rules not looked at. Raises msgspec.ValidationError."""
        form = msgspec.convert(own, cls)
        return msgspec.structs.replace(form, streams=[_with_defaults(stream, form) for stream in form.streams])

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

    def parent_names(self, stream: Stream) -> list[str]:
        """All names that ``{{ parent.<name> }}`` of a stream may use: its own, and those of the streams above it."""
        parents = [self.stream(name) for name in stream.parent_streams if name in self.names]
        above = [name for parent in parents for name in self.parent_names(parent)]
        return [*above, *(parent.as_name for parent in stream.parents)]

    @property
    def names(self) -> list[str]:
        return [stream.name for stream in self.streams]

    @property
    def secrets(self) -> list[str]:
        """All values that must not be logged."""
        pairs = [*self.headers, *(pair for stream in self.streams for pair in stream.headers)]
        if isinstance(self.credentials, OAuthClientCredentials | OAuthRefreshToken):
            pairs += self.credentials.extra_params
        listed = [pair.value for pair in pairs if pair.name.lower() not in _PUBLIC_HEADERS]
        own = [getattr(self.credentials, name, "") for name in SECRET_FIELDS]
        return [secret for secret in [*listed, *own, self.client_key, *self._login_texts()] if secret]

    def _login_texts(self) -> Iterator[str]:
        """The texts inside of a login's body, but those that say who, and not how it is proved."""
        if isinstance(self.credentials, SessionToken) and self.credentials.login_body:
            yield from _texts_in(msgspec.json.decode(self.credentials.login_body))


def without_ours(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as the user has it: without what this process, or the platform, keeps in it."""
    return {name: value for name, value in config.items() if not name.startswith("__")}


_PUBLIC_HEADERS = {"accept", "accept-language", "accept-encoding", "content-type", "user-agent", "cache-control"}


_PUBLIC_FIELDS = {
    "user",
    "username",
    "user_name",
    "name",
    "email",
    "login",
    "client_id",
    "grant_type",
    "tenant",
    "scope",
}


def _texts_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                if name.lower() not in _PUBLIC_FIELDS:
                    yield from _texts_in(inner)
        case list():
            for inner in value:
                yield from _texts_in(inner)


def _with_defaults(stream: Stream, form: Form) -> Stream:
    return msgspec.structs.replace(
        stream,
        pagination=stream.pagination or form.pagination,
        incremental=stream.incremental or form.incremental,
        errors=stream.errors or form.errors,
        headers=_merged(form.headers, stream.headers, fold=str.lower),
        query_params=_merged(form.query_params, stream.query_params, fold=str),
    )


def _merged(inherited: Sequence[Pair], own: Sequence[Pair], *, fold: Any) -> list[Pair]:
    names = {fold(pair.name) for pair in own}
    return [*(pair for pair in inherited if fold(pair.name) not in names), *own]
