"""The next request of a stream, from the last one and its answer. Pure.

A pager never guesses that it is done: it ends where the API says so (no link, no next URL, no token, a stop rule of the
form), or at an empty page. An API that ignores its page parameter would go on for ever, or end as if all were read: the
same page twice, or the same URL twice, is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, assert_never
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Raw

from source_rest_api.body import keys, raw_at, value_at
from source_rest_api.form import (
    AutoPages,
    InjectInto,
    LinkHeader,
    NextUrl,
    NoPages,
    Offsets,
    Paged,
    PageNumbers,
    Pagination,
    Tokens,
)

OBJECT = 0x7B  # {
MOST_REPETITIONS = 2


class PagingError(ValueError):
    """The API's paging is not what the form says. The message is safe to show."""


class CeilingReached(Exception):  # noqa: N818  # no error yet: a cursor may lead on
    """The next page lies beyond ``max_offset``, which the API does not serve."""


@dataclass(frozen=True, slots=True)
class Request:
    """What paging decides of a request.

    Attributes:
        url: absolute, where the API named it; otherwise None for the stream's own.
        params, headers: to add.
        body: values to set in the JSON body, by dotted path.
    """

    url: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What paging looks at.

    Attributes:
        url: where the answer came from.
        body: cleaned body.
        count: records in it.
        next_link: the URL of the Link header with ``rel="next"``, if there is one.
        headers: of the answer.
        last, first: the last record, and the first.
        is_json: whether the body is JSON.
    """

    url: str
    body: bytes
    count: int
    next_link: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    last: Raw | None = None
    first: Raw | None = None
    is_json: bool = True


class Pager(Protocol):
    """Pages of one partition. Holds what it needs to see an endless loop; used by one thread."""

    def first(self) -> Request:
        """The first request."""

    def next(self, answer: Answer) -> Request | None:
        """The request after this answer, or None at the end.

        Raises:
            PagingError: the API goes in a circle or points elsewhere.
            CeilingReached: the API does not serve the next page.
        """


def pager_of(pagination: Pagination, base_url: str) -> Pager:
    """A fresh pager for an API at ``base_url``, whose host is the only one that pages may be asked of."""
    match pagination:
        case NoPages():
            return SinglePage()
        case AutoPages():
            from source_rest_api.detection import DetectedPages

            return StoppingPages(pagination, DetectedPages(pagination, base_url))
        case PageNumbers() | Offsets():
            return StoppingPages(pagination, CountingPages(pagination))
        case Tokens():
            return StoppingPages(pagination, TokenPages(pagination))
        case LinkHeader() | NextUrl():
            return StoppingPages(pagination, LinkedPages(pagination, base_url))
        case other:
            assert_never(other)


class SinglePage:
    """One request is all."""

    def first(self) -> Request:
        return Request()

    def next(self, answer: Answer) -> Request | None:
        return None


class StoppingPages:
    """The stop rules that all kinds of pagination share, around one of them."""

    def __init__(self, pagination: Paged, inner: Pager):
        self._pagination = pagination
        self._inner = inner
        self._pages = self._records = 0
        self._ends: tuple[int, bytes, bytes] | None = None
        self._repeated = 0
        self._left_a_token = False

    @property
    def was_cut(self) -> bool:
        """Whether ``max_pages`` was the reason to stop, so that there may be more."""
        return self._pages == self._pagination.max_pages

    @property
    def left_a_token(self) -> bool:
        """Whether an empty page was the end, and had a token for another one."""
        return self._left_a_token or bool(getattr(self._inner, "left_a_token", False))

    @property
    def detected(self) -> str:
        """In words, how the API was seen to page; empty where the form says it."""
        return getattr(self._inner, "found", "")

    def first(self) -> Request:
        return self._inner.first()

    def next(self, answer: Answer) -> Request | None:
        self._pages += 1
        self._records += answer.count
        self._check_for_repetition(answer)
        if not self._is_last(answer):
            return self._inner.next(answer)
        if isinstance(self._inner, TokenPages) and answer.count == 0 and self._says_more(answer) is None:
            self._left_a_token = self._inner.leads_on(answer)
        return None

    def _check_for_repetition(self, answer: Answer) -> None:
        """Raise PagingError for an API that gives one page for ever, each time with a new token or URL."""
        if answer.first is None or answer.last is None or memoryview(answer.last)[0] != OBJECT:
            return  # lists of numbers may well repeat
        ends = (answer.count, bytes(answer.first), bytes(answer.last))
        self._repeated = self._repeated + 1 if ends == self._ends else 0
        self._ends = ends
        if self._repeated >= MOST_REPETITIONS:
            raise PagingError(f"gave the same page {self._repeated + 1} times. Check pagination")

    def _is_last(self, answer: Answer) -> bool:
        rules = self._pagination
        if self.was_cut:
            return True
        has_more = self._says_more(answer)
        if has_more is False:
            return True
        if rules.total_path and self._records >= self._number(answer, rules.total_path):
            return True
        if rules.total_pages_path and self._pages >= self._number(answer, rules.total_pages_path):
            return True
        if rules.stop_on_empty and answer.count == 0 and has_more is not True:
            return True
        return rules.stop_when_shorter and rules.page_size is not None and answer.count < rules.page_size

    def _says_more(self, answer: Answer) -> bool | None:
        """What the answer itself says about the next page; None if it says nothing."""
        for path, meaning in ((self._pagination.has_more_path, True), (self._pagination.is_last_path, False)):
            found = value_at(answer.body, keys(path)) if path else None
            if isinstance(found, bool):
                return found is meaning
        return None

    @staticmethod
    def _number(answer: Answer, path: str) -> int:
        found = value_at(answer.body, keys(path))
        if isinstance(found, str) and found.isdigit():
            return int(found)
        if not isinstance(found, int) or isinstance(found, bool):
            raise PagingError(f"has no number at {path!r}")
        return found


class CountingPages:
    """Page numbers, or offsets that count the records received: an API that caps its pages loses nothing."""

    def __init__(self, pagination: PageNumbers | Offsets):
        self._pagination = pagination
        self._counts_records = isinstance(pagination, Offsets)
        match pagination:
            case Offsets(offset_param=param, start_offset=start) | PageNumbers(page_param=param, start_page=start):
                self._param, self._at = param, start
        self._records = 0
        self._last: bytes | None = None

    def first(self) -> Request:
        return self._request()

    def next(self, answer: Answer) -> Request | None:
        digest = _digest(answer.body)
        if answer.count and digest == self._last:
            raise PagingError(
                f"answered the same page twice: does it know the parameter {self._param!r}? "
                "If it has no pages, choose pagination_type none"
            )
        self._last = digest
        self._records += answer.count
        most = self._pagination.max_offset
        if most is not None and self._records + (self._pagination.page_size or 1) > most:
            raise CeilingReached
        self._at += answer.count if self._counts_records else 1
        return self._request()

    def _request(self) -> Request:
        return placed_request({self._param: self._at, **_size(self._pagination)}, self._pagination.inject_into)


class TokenPages:
    """A token from the last answer leads to the next one. It is passed on as the API wrote it, and never evaluated."""

    def __init__(self, pagination: Tokens):
        self._pagination = pagination
        self._seen: set[bytes] = set()

    def first(self) -> Request:
        return placed_request(_size(self._pagination), self._pagination.inject_into)

    def next(self, answer: Answer) -> Request | None:
        pagination = self._pagination
        token = self._token(answer)
        if not token:
            return None
        digest = _digest(token.encode())
        if digest in self._seen:
            raise PagingError(
                f"gave the same token for {pagination.token_param!r} twice: does it know that parameter? Set pagination"
            )
        self._seen.add(digest)
        return placed_request({pagination.token_param: token, **_size(pagination)}, pagination.inject_into)

    def leads_on(self, answer: Answer) -> bool:
        """Whether it has a token that no answer had before."""
        token = self._token(answer)
        return bool(token) and _digest(token.encode()) not in self._seen

    def _token(self, answer: Answer) -> str:
        pagination = self._pagination
        if pagination.token_header:
            return answer.headers.get(pagination.token_header, "")
        if pagination.token_path:
            return _as_token(raw_at(answer.body, keys(pagination.token_path)), pagination.token_path)
        if answer.last is None:
            return ""
        token = _as_token(raw_at(answer.last, keys(pagination.token_field)), pagination.token_field)
        if not token:
            raise PagingError(f"has a last record without the field {pagination.token_field!r} that leads on")
        return token


class LinkedPages:
    """Follows the Link header, or a URL in the body; on the form's host only, since credentials go along.

    The host of the answer is no measure: a redirect may have led to another one, without credentials.
    """

    def __init__(self, pagination: LinkHeader | NextUrl, base_url: str):
        self._pagination = pagination
        self._base_url = base_url
        self._seen: set[bytes] = set()

    def first(self) -> Request:
        return placed_request(_size(self._pagination), self._pagination.inject_into)

    def next(self, answer: Answer) -> Request | None:
        self._seen.add(_digest(answer.url.encode()))
        link = answer.next_link
        if isinstance(self._pagination, NextUrl):
            link = self._next_in_body(answer, self._pagination.next_path)
        if not link:
            return None
        try:
            url = urljoin(answer.url, link)
            is_here = _origin(url) == _origin(self._base_url)
        except ValueError:
            raise PagingError("names a next page that is no URL") from None
        if not is_here:
            raise PagingError("names a next page on another host; credentials are not sent there")
        if _digest(url.encode()) in self._seen:
            raise PagingError("names a next page that was already read")
        # A page size in the query is in the API's URL already; headers and bodies go along with each request.
        return replace(self.first(), url=url, params={})

    @staticmethod
    def _next_in_body(answer: Answer, next_path: str) -> str | None:
        found: Any = value_at(answer.body, keys(next_path))
        if found is None or found is False:
            return None
        if not isinstance(found, str):
            raise PagingError(f"has no URL at {next_path!r} but a {type(found).__name__}")
        return found


def size_request(pagination: Paged) -> Request:
    """A request that asks for a page size and nothing else."""
    return placed_request(_size(pagination), pagination.inject_into)


def _size(pagination: Paged) -> dict[str, str | int]:
    if pagination.page_size is None or not pagination.size_param:
        return {}
    return {pagination.size_param: pagination.page_size}


def placed_request(values: Mapping[str, str | int], where: InjectInto) -> Request:
    """A request with values in its query, headers or body."""
    match where:
        case "query":
            return Request(params=_texts(values))
        case "header":
            return Request(headers=_texts(values))
        case "body":
            return Request(body=values)
        case other:
            assert_never(other)


def _texts(values: Mapping[str, str | int]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


def _as_token(raw: bytes | None, path: str) -> str:
    """A text, or the text of a number; empty for null, false and what is not there."""
    if raw is None or raw in (b"null", b"false"):
        return ""
    if raw[:1] == b'"':
        return str(msgspec.json.decode(raw))
    if raw[:1] in (b"{", b"[") or raw == b"true":
        raise PagingError(f"has no token at {path!r} but an object, a list or true")
    return raw.decode()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
