"""``pagination_type: auto``: how an API pages, seen in its first answer. Pure.

Looked for in this order: a Link header with ``rel="next"``, a next URL and then a token at one of the places where APIs
put them. If none is there the stream is a single page; but an answer that says that there is more, and not how to get
it, is an error: a table must not be a first page only because nobody said otherwise.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from source_rest_api.body import keys, outline, raw_at, value_in
from source_rest_api.form import AutoPages, LinkHeader, NextUrl, Tokens
from source_rest_api.pagination import Answer, Pager, PagingError, Request, StoppingPages, pager_of, size_request

NEXT_URLS = (
    "next", "links.next", "links.next.href", "_links.next", "_links.next.href", "next.href", "paging.next",
    "paging.next.link", "paging.nextUrl", "pagination.next", "pagination.next_url", "pagination.next.href", "meta.next",
    "meta.next_url", "meta.pagination.links.next", "next_url", "nextUrl", "next_link", "nextLink", "@odata.nextLink",
    "next_page_url", "next_page", "nextPage", "result.next", "info.next",
)  # fmt: skip
# Where the token is, and the parameter that such APIs read it from.
TOKENS = (
    ("next_cursor", "cursor"), ("nextCursor", "cursor"), ("meta.next_cursor", "cursor"), ("meta.nextCursor", "cursor"),
    ("pagination.next_cursor", "cursor"), ("pagination.nextCursor", "cursor"), ("paging.next_cursor", "cursor"),
    ("paging.cursors.after", "after"), ("paging.next.after", "after"), ("response_metadata.next_cursor", "cursor"),
    ("cursor.next", "cursor"), ("meta.cursor.next", "cursor"), ("nextPageToken", "pageToken"),
    ("next_page_token", "page_token"), ("meta.next_page_token", "page_token"), ("nextToken", "nextToken"),
    ("next_token", "next_token"), ("meta.next_token", "pagination_token"), ("continuationToken", "continuationToken"),
    ("continuation_token", "continuation_token"),
    ("next_page", "page"), ("nextPage", "page"), ("meta.next_page", "page"), ("meta.pagination.next_page", "page"),
    ("pagination.next_page", "page"), ("pagination.nextPage", "page"), ("paging.next_page", "page"),
)  # fmt: skip
HAS_MORE = (
    "has_more", "hasMore", "has_next", "hasNext", "more", "meta.has_more", "meta.hasMore", "pagination.has_more",
    "pagination.hasMore", "pagination.has_next", "paging.has_more", "meta.pagination.has_more",
)  # fmt: skip
IS_LAST = (
    "isLast",
    "is_last",
    "isLastPage",
    "is_last_page",
    "last",
    "end_of_stream",
    "done",
    "meta.is_last",
    "page.last",
)
TOTAL_PAGES = (
    "total_pages", "totalPages", "page_count", "pages", "last_page", "meta.total_pages", "meta.last_page",
    "meta.totalPages", "meta.pagination.total_pages", "pagination.total_pages", "pagination.totalPages",
)  # fmt: skip
TOTALS = ("total", "total_count", "totalCount", "total_results", "totalResults", "total_items", "totalItems",
          "meta.total", "meta.total_count", "meta.pagination.total", "pagination.total", "pagination.total_count",
          "paging.total")  # fmt: skip


class DetectedPages:
    """Looks at the first answer, and then does what the pager does that fits it.

    Attributes:
        found: in words, once an answer was seen.
    """

    def __init__(self, pagination: AutoPages, base_url: str):
        self._pagination = pagination
        self._base_url = base_url
        self._inner: Pager | None = None
        self.found = ""

    def first(self) -> Request:
        return size_request(self._pagination)

    def next(self, answer: Answer) -> Request | None:
        if self.found:
            return self._inner.next(answer) if self._inner is not None else None
        self._inner, self.found = self._detect(answer)
        return self._inner.next(answer) if self._inner is not None else None

    @property
    def left_a_token(self) -> bool:
        """As ``StoppingPages``."""
        return isinstance(self._inner, StoppingPages) and self._inner.left_a_token

    def _detect(self, answer: Answer) -> tuple[Pager | None, str]:
        way = way_on(answer)
        if way is not None:
            asked = self._pagination
            found = msgspec.structs.replace(
                way, size_param=asked.size_param, page_size=asked.page_size, inject_into=asked.inject_into
            )
            return pager_of(found, self._base_url), way_in_words(way)
        sign = sign_of_more(answer)
        if sign:
            raise PagingError(
                f"says that there is more ({sign}), but not where. Set pagination to how the API pages, or "
                "pagination_type none if this is all"
            )
        return None, "single page"


def way_on(answer: Answer) -> LinkHeader | NextUrl | Tokens | None:
    """How an answer leads to the next one; None if nothing in it does."""
    if answer.next_link:
        return LinkHeader()
    place, around = around_records(answer)
    for path in NEXT_URLS:
        if _is_url(value_in(around, keys(path))):
            return NextUrl(next_path=place + path)
    for path, param in TOKENS:
        if _is_token(value_in(around, keys(path))):
            return Tokens(token_path=place + path, token_param=param)
    return None


def way_in_words(way: LinkHeader | NextUrl | Tokens) -> str:
    """What in the answer it is."""
    match way:
        case LinkHeader():
            return "Link header"
        case NextUrl(next_path=path):
            return f"next URL at {path!r}"
        case Tokens(token_path=path, token_param=param):
            return f"token at {path!r}, sent as {param!r}"
        case other:
            assert_never(other)


def around_records(answer: Answer) -> tuple[str, dict[str, Any]]:
    """What stands beside the records, behind the path to it: the root, or the first item of a list of both."""
    if not answer.is_json:
        return "", {}
    if answer.body.lstrip().startswith(b"{"):
        return "", outline(answer.body)
    head = raw_at(answer.body, ["0"])
    is_record = answer.first is not None and head == bytes(answer.first)
    return "0.", {} if head is None or is_record else outline(head)


def _is_url(found: Any) -> bool:
    return isinstance(found, str) and found.startswith(("http://", "https://", "/", "?"))


def _is_token(found: Any) -> bool:
    return isinstance(found, str | int) and not isinstance(found, bool) and found not in ("", 0)


def sign_of_more(answer: Answer) -> str:
    """The name of what says that this is not all; empty if nothing does."""
    (_, around), count = around_records(answer), answer.count
    for flags, more in ((HAS_MORE, True), (IS_LAST, False)):
        for path in flags:
            if value_in(around, keys(path)) is more:
                return path
    if count == 0:
        return ""
    for paths, seen in ((TOTAL_PAGES, 1), (TOTALS, count)):
        for path in paths:
            found = value_in(around, keys(path))
            if isinstance(found, int) and not isinstance(found, bool) and found > seen:
                return path
    return ""
