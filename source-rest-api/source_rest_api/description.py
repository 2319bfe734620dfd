"""What a form asks of an API, in words: one line per stream. Pure; credentials and headers are named, never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, assert_never
from urllib.parse import quote

from source_rest_api.form import (
    ApiKey,
    AutoPages,
    Basic,
    Bearer,
    Credentials,
    Cursor,
    Form,
    Jwt,
    LinkHeader,
    NextUrl,
    NoCredentials,
    NoPages,
    OAuthClientCredentials,
    OAuthRefreshToken,
    Offsets,
    Paged,
    PageNumbers,
    Pagination,
    Parent,
    SessionToken,
    Stream,
    Tokens,
)
from source_rest_api.pagination import pager_of
from source_rest_api.streams import request_format
from source_rest_api.times import COUNTER, parse_start, to_text

MASK = "****"
_SECRET_NAME = re.compile(
    r"(^|[._\-\[])(api|app|access|client|secret|auth|private)?[_-]?"
    r"(key|token|secret|password|passwd|pwd|sig|signature|authorization)\]?$|apikey|accesstoken",
    re.IGNORECASE,
)


def describe(form: Form) -> Iterator[str]:
    """First how all streams ask, then each stream's first request and what follows."""
    yield f"{form.base_url}, {credentials_in_words(form.credentials)}"
    width = max(map(len, form.names))
    for stream in form.streams:
        yield f"  {stream.name:<{width}}  {_line(form, stream)}"


def _line(form: Form, stream: Stream) -> str:
    pages = stream.pagination or form.pagination
    request = pager_of(pages, form.base_url).first()
    cursor = stream.cursor
    params = {pair.name: shown_value(pair.name, pair.value) for pair in stream.query_params}
    params |= {**_cursor_params(cursor, "query"), **request.params}
    placed: dict[str, dict[str, Any]] = {
        "headers": {**dict.fromkeys((pair.name for pair in stream.headers), MASK), **_cursor_params(cursor, "header"),
                    **request.headers},
        "body": {**_cursor_params(cursor, "body"), **request.body},
    }  # fmt: skip
    parts = [f"{stream.method} {_url(form, stream, params)}"]
    parts += [f"{where} {_pairs(values)}" for where, values in placed.items() if values]
    parts.append(f"pages: {pages_in_words(pages)}")
    if cursor is not None:
        parts.append(f"cursor: {_cursor_in_words(cursor)}")
    if stream.parents:
        parts.append(f"for each {' and '.join(map(_parent_in_words, stream.parents))}")
    if stream.primary_key:
        parts.append(f"key: {', '.join(stream.primary_key)}")
    return "; ".join(parts)


def _url(form: Form, stream: Stream, params: Mapping[str, Any]) -> str:
    base = form.base_url.rstrip("/")
    path = stream.path.lstrip("/")
    query = "&".join(f"{name}={_plain(str(value))}" for name, value in params.items())
    return f"{base}/{path}".rstrip("/") + (("&" if "?" in path else "?") + query if query else "")


def _plain(text: str) -> str:
    """As it is sent, but for what people read more easily."""
    return quote(text, safe=":,*{} ").replace(" ", "" if "{" in text else "%20")


def shown_value(name: str, value: str) -> str:
    """A query parameter's value, unless its name says that it is a secret."""
    return MASK if is_secret_name(name) else value


def is_secret_name(name: str) -> bool:
    """Whether a header or parameter of this name usually holds a secret."""
    return _SECRET_NAME.search(name) is not None or name.lower() in ("cookie", "auth")


def credentials_in_words(credentials: Credentials) -> str:
    """The kind of credentials and where they go."""
    match credentials:
        case NoCredentials():
            return "no credentials"
        case Basic():
            return "user and password in the header Authorization (HTTP Basic)"
        case Bearer(prefix=prefix):
            return f"a token in the header Authorization ({prefix} {MASK})"
        case ApiKey(name=name, inject_into=where):
            return f"an API key in the {where}, as {name}"
        case OAuthClientCredentials(token_url=url):
            return f"OAuth client credentials, a token from {url}"
        case OAuthRefreshToken(token_url=url):
            return f"an OAuth refresh token, access tokens from {url}"
        case SessionToken(login_url=url, inject_into=where, name=name):
            return f"a session token from {url}, in the {where} as {name}"
        case Jwt(algorithm=algorithm, header_prefix=prefix):
            return f"a token signed by {algorithm} in the header Authorization ({prefix} {MASK})"
        case other:
            assert_never(other)


def pages_in_words(pages: Pagination) -> str:
    """How one page leads to the next, and what ends it."""
    match pages:
        case NoPages():
            return "a single one"
        case AutoPages():
            words = "detected in the first answer (Link header, next URL or token; else a single page)"
        case PageNumbers(page_param=param, start_page=start):
            words = f"{param} counts up from {start}"
        case Offsets(offset_param=param, start_offset=start):
            words = f"{param} counts records from {start}"
        case Tokens(token_param=param):
            at = pages.token_path or pages.token_header or pages.token_field
            kind = "header " if pages.token_header else "the last record's " if pages.token_field else ""
            words = f"{param} takes the token from {kind}{at}"
        case LinkHeader():
            words = "by the Link header"
        case NextUrl(next_path=path):
            words = f"by the URL at {path}"
        case other:
            assert_never(other)
    return ", ".join([words, *_ends(pages)])


def _ends(pages: Paged) -> Iterator[str]:
    if pages.stop_on_empty and not isinstance(pages, Tokens):
        yield "until an empty page"
    if pages.stop_when_shorter:
        yield f"or one of less than {pages.page_size}"
    for path, words in (
        (pages.has_more_path, "until {} is false"),
        (pages.is_last_path, "until {} is true"),
        (pages.total_path, "until {} records"),
        (pages.total_pages_path, "until {} pages"),
    ):
        if path:
            yield words.format(path)
    if pages.max_pages:
        yield f"at most {pages.max_pages} pages"
    if isinstance(pages, PageNumbers | Offsets) and pages.max_offset:
        yield f"at most {pages.max_offset} records of one search"


def _cursor_params(cursor: Cursor | None, where: str) -> dict[str, str]:
    """What narrows the first request of a first sync."""
    if cursor is None or cursor.inject_into != where:
        return {}
    found = {}
    if cursor.start_param and cursor.start not in ("", None):
        is_counter = cursor.cursor_format == COUNTER
        moment = int(cursor.start) if is_counter else parse_start(str(cursor.start))
        found[cursor.start_param] = str(to_text(moment, request_format(cursor)))
    if cursor.end_param:
        found[cursor.end_param] = "{now}"
    return found


def _cursor_in_words(cursor: Cursor) -> str:
    if not cursor.start_param:
        return f"{cursor.cursor_field}, old records are left out on our side"
    return f"{cursor.cursor_field}, {cursor.start_param} from the second sync on"


def _parent_in_words(parent: Parent) -> str:
    if parent.values:
        return f"{parent.as_name} of {len(parent.values)} values"
    return f"record of {parent.stream} ({parent.field} as {parent.as_name})"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
