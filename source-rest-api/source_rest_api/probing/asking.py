"""Asks an API for one stream, again and again with other parameters, and keeps what was asked and what it showed.

Several names of a parameter are tried with one request: an API that knows none of them answers as without, and if one
of them works it is found by halves. Where an API refuses what it does not know, names are tried one by one, as many as
the share of the request budget allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.candidates import keys_in, value_at
from source_rest_api.description import MASK, is_secret_name
from source_rest_api.errors import config_error
from source_rest_api.looking import Asked, Look, Record, look
from source_rest_api.pagination import Answer
from source_rest_api.source import SourceRestApi

SINGLE = {"pagination": {"pagination_type": "none"}}
STOPS = (401, 429)  # what an API answers to everything from then on


class Spent(Exception):  # noqa: N818  # no error: what was found until then stands
    """There are no requests left, or the API gives no more answers."""


@dataclass(frozen=True, slots=True)
class Page:
    """What one request showed.

    Attributes:
        records: of the answer, in its order.
        ids: what tells each of them apart.
        problem: in words, if it is no answer with records.
        status: of the last answer.
        answer: as paging looks at it.
    """

    records: Sequence[Record]
    ids: Sequence[str]
    problem: str = ""
    status: int = 0
    answer: Answer | None = None

    def is_same(self, other: Page) -> bool:
        """The same records in the same order."""
        return not self.problem and not other.problem and self.ids == other.ids

    def is_beginning_of(self, other: Page) -> bool:
        """A part of another page, from its first record on."""
        return bool(self.ids) and not self.problem and self.ids == other.ids[: len(self.ids)]

    def is_apart_from(self, other: Page) -> bool:
        """No record of it is in another page."""
        return not self.problem and not set(self.ids) & set(other.ids)

    @property
    def words(self) -> str:
        if self.problem:
            return f"refused with {self.status}" if self.status >= 400 else "no answer that can be read"
        return f"{len(self.records)} record{'' if len(self.records) == 1 else 's'}"


Judge = Callable[[Page], bool]


@dataclass
class Prober:
    """One stream of an API, and a number of requests for it.

    Args:
        config: good for all requests: base_url and credentials.
        stream: settings that all requests have; ``query_params`` among them.
        most: requests.
        keeper: keeps a configuration whose refresh token was rotated.
        told: hears of each request at once.

    Attributes:
        asked: all requests.
        tried: what was tried in vain, in words.
        key: fields that tell records apart; empty for all that they hold.
    """

    config: Mapping[str, Any]
    stream: dict[str, Any]
    most: int
    keeper: Callable[[Mapping[str, Any]], None]
    told: Callable[[Asked], None]
    asked: list[Asked] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    key: Sequence[str] = ()
    _heard: int = 0
    _noted: set[str] = field(default_factory=set)
    _source: SourceRestApi | None = None

    @property
    def left(self) -> int:
        """How many requests may still be made."""
        return self.most - len(self.asked)

    def identify_by(self, records: Sequence[Record]) -> None:
        """Tell records apart by what is unique in these; without such a field, by all that they hold."""
        keys = keys_in(records) if len(records) > 1 else []
        self.key = keys[0].fields if keys else ()

    def page_of(
        self, records: Sequence[Record], problem: str = "", status: int = 0, answer: Answer | None = None
    ) -> Page:
        return Page(records, [self._id(record) for record in records], problem, status, answer)

    def ask(self, params: Mapping[str, str]) -> Page:
        """One answer to the stream's parameters and these.

        Raises:
            Spent: it was not asked, or the API answers no more.
        """
        seen = self.look(SINGLE, params, most_pages=1)
        if not seen.asked:  # the API has said that there is nothing left for now
            raise Spent(seen.problem)
        status = seen.asked[-1].status
        if status in STOPS:
            raise Spent(f"the API answered {status}")
        return self.page_of(seen.records, seen.problem, status, seen.first)

    def look(
        self, settings: Mapping[str, Any], params: Mapping[str, str], *, most_pages: int, tell: bool = True
    ) -> Look:
        """Some pages of the stream with more settings and parameters, within the requests that are left.

        Raises:
            Spent: there are not enough.
        """
        if self.left < most_pages:
            raise Spent(f"all {self.most} requests were made")
        own = {pair["name"]: pair["value"] for pair in self.stream.get("query_params", ())}
        own.update(params)
        pairs = [{"name": name, "value": value} for name, value in own.items()]
        config = {**self.config, "streams": [{**self.stream, **settings, "query_params": pairs}]}
        self._source = self._source or SourceRestApi(config=config)
        seen = look(
            config,
            self.stream["name"],
            most_pages=most_pages,
            most_requests=self.left,
            keeper=self.keeper,
            source=self._source,
        )
        self.asked += seen.asked  # an API that fails is asked once more than was counted on
        if tell:
            self.tell()
        return seen

    def tell(self, records: int | None = None) -> None:
        """Let the user know what was asked, and how many records the last answer had if that is seen only now."""
        if records is not None:
            self.asked[-1] = replace(self.asked[-1], records=records)
        for one in self.asked[self._heard :]:
            self.told(one)
        self._heard = len(self.asked)

    def search(
        self, groups: Sequence[Sequence[str]], value: str, judge: Judge, *, without: Page, also: Mapping[str, str]
    ) -> tuple[str, Page] | None:
        """The first name of a parameter that does with a value what ``judge`` looks for, and the answer that shows it.

        Args:
            groups: names, each with those that may be asked with at once; likely ones first.
            value: for each of them.
            judge: whether an answer shows it.
            without: the answer without any of them.
            also: parameters that go along.

        Raises:
            Spent: as ``ask``.
        """
        share = max(2, self.most // 5)
        refused: list[list[str]] = []
        own = {pair["name"] for pair in self.stream.get("query_params", ())}
        for given in groups:
            # What the user set is tried as paging only, where its name says so: then it stands alone.
            names = [name for name in given if len(given) == 1 or name not in own]
            if not names:
                continue
            page = self._ask_with(names, value, also)
            if judge(page):
                found = self._by_halves(names, page, value, judge, also)
                if found is not None:
                    return found
            if len(names) == 1 or page.is_same(without):
                self._note(names, value, "nothing changed" if page.is_same(without) else page.words)
            else:
                refused.append(names)
        for names in refused:
            for name in names[:share]:
                page = self._ask_with([name], value, also)
                if judge(page):
                    return name, page
                self._note([name], value, "nothing changed" if page.is_same(without) else page.words)
            if names[share:]:
                self._note(names[share:], value, "not tried one by one, and together they were no use")
        return None

    def _by_halves(
        self, names: Sequence[str], page: Page, value: str, judge: Judge, also: Mapping[str, str]
    ) -> tuple[str, Page] | None:
        """The one of several names that does it, if they do together."""
        asked = names
        while len(names) > 1:
            asked = names[: (len(names) + 1) // 2]
            found = self._ask_with(asked, value, also)
            if judge(found):
                names, page = asked, found
            else:
                names = names[len(asked) :]
        if asked != names:
            page = self._ask_with(names, value, also)
        return (names[0], page) if judge(page) else None

    def _ask_with(self, names: Sequence[str], value: str, also: Mapping[str, str]) -> Page:
        return self.ask({**also, **dict.fromkeys(names, value)})

    def _note(self, names: Sequence[str], value: str, what: str) -> None:
        shown = f"the same {len(names)} names" if len(names) > 1 and self._noted.issuperset(names) else ", ".join(names)
        self._noted.update(names)
        value = MASK if any(map(is_secret_name, names)) else value
        self.tried.append(f"{shown} = {value}: {what}")

    def _id(self, record: Record) -> str:
        values: Any = [value_at(record, field) for field in self.key] if self.key else record
        return json.dumps(values, sort_keys=True, default=str)


def unreadable(seen: Look) -> AirbyteTracedException:
    """A config_error for a first answer that is no stream, with more to go by where there is more."""
    last = seen.asked[-1] if seen.asked else None
    words = (
        seen.problem
        or f"The API answered {last.status if last else 'nothing'} without a body: there is nothing to see."
    )
    if last is not None and last.alternate:
        words += f" The page says that the same is to be had as JSON at {last.alternate}."
    elif last is not None and "html" in last.content_type:
        words += " This is a page for people: take the address that the API's documentation names."
    if last is not None and last.status in (401, 403):
        words += " They are given by --bearer-env, --api-key-env or --credentials (see --help)."
    return config_error(words)
