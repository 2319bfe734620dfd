"""A look at a stream: some of its pages through the engine that a sync uses, and every request that this took.

What is kept of a request is safe to show: credentials are masked by value, and values of parameters by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote_plus, urljoin, urlsplit, urlunsplit

import requests
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.description import MASK, is_secret_name
from source_rest_api.pagination import Answer
from source_rest_api.source import SourceRestApi
from source_rest_api.watching import Enough

MOST_RECORDS = 10_000

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and its answer.

    Attributes:
        stream: whose it was; empty for a request for a token.
        method, url: as they may be shown.
        status: of the answer.
        seconds: until its head was there.
        size: of the body in bytes, None for answers that are not read as records.
        records: in it.
        content_type: of the body.
        alternate: the URL of the same thing as JSON, if its Link header has one.
    """

    stream: str
    method: str
    url: str
    status: int
    seconds: float
    size: int | None = None
    records: int | None = None
    content_type: str = ""
    alternate: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Attributes:
        asked: the requests, in their order.
        records: in the order of the API.
        pages: how many records each page of the stream had.
        record_path: where they were.
        detected: how the API pages, if the form leaves that open.
        problem: in words, why reading ended; empty if it did not fail.
        has_more: whether reading would have gone on.
        first: the first answer of the stream that could be read.
    """

    asked: Sequence[Asked]
    records: Sequence[Record]
    pages: Sequence[int]
    record_path: str
    detected: str
    problem: str
    has_more: bool
    first: Answer | None


@dataclass
class _Log:
    """A watcher that ends the reading after some pages of a stream, or some requests."""

    stream: str
    most_pages: int
    most_requests: int
    asked: list[Asked] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    record_path: str = ""
    detected: str = ""
    has_more: bool = False
    first: Answer | None = None
    before: int | None = None

    def asking(self, stream: str) -> None:
        is_enough = stream == self.stream and len(self.pages) >= self.most_pages
        if is_enough or len(self.asked) >= self.most_requests:
            self.has_more = True
            raise Enough

    def answered(self, stream: str, response: requests.Response) -> None:
        method, url = response.request.method or "", masked_url(response.request.url or "")
        kind = response.headers.get("Content-Type", "")
        seconds = response.elapsed.total_seconds()
        asked = Asked(
            stream, method, url, response.status_code, seconds, content_type=kind, alternate=_as_json(response)
        )
        self.asked.append(asked)

    def took(self, stream: str, answer: Answer, record_path: str, detected: str) -> None:
        last = max(index for index, asked in enumerate(self.asked) if asked.stream == stream)
        self.asked[last] = replace(self.asked[last], size=len(answer.body), records=answer.count)
        if stream == self.stream:
            self.first = self.first or answer
            self.pages.append(answer.count)
            self.record_path, self.detected = record_path, detected

    def is_enough_of_manifest(self) -> bool:
        """Whether a record is of a page too many: of a manifest one sees that answers came, and not what is in them."""
        if self.before is None:
            self.before = len(self.asked)
        self.has_more = len(self.asked) - self.before >= self.most_pages
        return self.has_more


def look(
    config: Mapping[str, Any],
    name: str,
    *,
    most_pages: int,
    most_requests: int,
    keeper: Callable[[Mapping[str, Any]], None],
    source: SourceRestApi | None = None,
) -> Look:
    """Read some pages of a stream. What goes wrong meanwhile is part of what was seen.

    Args:
        config: a good form.
        name: of a stream of it.
        most_pages: of the stream.
        most_requests: for all of it.
        keeper: keeps a configuration whose refresh token was rotated.
        source: that of an earlier look at the same API, whose token and limit go on.
    """
    log = _Log(name, most_pages, most_requests)
    records: list[Record] = []
    problem = ""
    try:
        source = source or SourceRestApi(config=config)
        for record in source.sampled(config, name, log, keeper):
            if "manifest" in config and log.is_enough_of_manifest():
                break
            records.append(record)
            if len(records) == MOST_RECORDS:
                break
    except AirbyteTracedException as cause:
        problem = filter_secrets(cause.message or type(cause).__name__)
    return Look(log.asked, records, log.pages, log.record_path, log.detected, problem, log.has_more, log.first)


def _as_json(response: requests.Response) -> str:
    """Where a page for people says that the same is to be had as JSON."""
    link = response.links.get("alternate", {})
    return masked_url(urljoin(response.url, link["url"])) if "json" in link.get("type", "") and "url" in link else ""


def masked_url(url: str) -> str:
    """A URL without user and password, and without secrets in its query."""
    parts = urlsplit(url)
    query = "&".join(
        f"{name}={MASK}" if is_secret_name(unquote_plus(name)) else pair
        for pair in parts.query.split("&")
        for name in [pair.partition("=")[0]]
        if pair
    )
    return filter_secrets(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="")))


def masked(value: Any) -> Any:
    """A JSON value without secrets: an API may well echo what it was sent."""
    match value:
        case str():
            return filter_secrets(value)
        case Mapping():
            return {filter_secrets(str(name)): masked(inner) for name, inner in value.items()}
        case list() | tuple():
            return [masked(inner) for inner in value]
        case bool() | None:
            return value
        case _:
            return value if filter_secrets(str(value)) == str(value) else MASK
