"""How an API pages, proved by its answers: another page than the first, that is not empty.

First what leads on in an answer (Link header, next URL, token), then a parameter for the size of a page (a small page
often shows what leads on), then page numbers, offsets, and the key of the last record. Where nothing is proved nothing
is set, and reading detects it anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from source_rest_api.body import keys, raw_at, value_in
from source_rest_api.candidates import value_at
from source_rest_api.detection import (
    HAS_MORE,
    IS_LAST,
    TOTAL_PAGES,
    TOTALS,
    around_records,
    sign_of_more,
    way_in_words,
    way_on,
)
from source_rest_api.form import LinkHeader, NextUrl, Tokens
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.openapi.names import snake
from source_rest_api.openapi.paging import TOKEN_FIELDS
from source_rest_api.pagination import Answer
from source_rest_api.probing.address import Address
from source_rest_api.probing.asking import Page, Prober, Spent

PAGE_SIZE = 100
FAR_PAGE, FAR_OFFSET = 4000, 9000  # beyond the end of most, and below the 10,000 records that search APIs serve
SIZES = (
    ("limit", "per_page", "page_size", "pageSize", "size", "perPage", "count", "maxResults", "max_results", "rows",
     "take", "top"),
    ("_limit", "_size", "page[size]", "$top", "_per_page", "page[limit]"),
)  # fmt: skip
PAGE_NUMBERS = (
    ("page", "page_number", "pageNumber", "p", "page_no", "pageIndex", "page_num", "currentPage", "pg"),
    ("_page", "page[number]"),
)
OFFSETS = (
    ("offset", "skip", "start", "startAt", "startIndex", "from", "start_index", "first_result"),
    ("_start", "_offset", "$skip", "page[offset]"),
)
LAST_KEYS = (
    ("starting_after", "after", "after_id", "last_id", "since_id", "from_id", "startingAfter", "afterId", "min_id"),
    ("_after", "cursor", "start_after", "last_key", "gt_id"),
)
FLAGS = ("has_more_path", "is_last_path")
TOKEN_PARAMS = (
    "cursor", "page_token", "pageToken", "after", "next", "starting_after", "next_token", "nextToken", "next_cursor",
    "continuation_token", "continuationToken", "pagination_token", "marker", "start_cursor", "token", "bookmark",
)  # fmt: skip
NOTHING = "no other page was found: nothing in the answer leads on, and no parameter that was tried gives another"
UNSTABLE = "records are others each time they are asked for: what a parameter does cannot be told"
Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """A parameter that sets the size of a page; ``short`` is a small page that it gave."""

    param: str
    short: Page

    @property
    def params(self) -> dict[str, str]:
        return {self.param: str(len(self.short.ids))}


@dataclass(frozen=True, slots=True)
class Paging:
    """How a stream pages.

    Attributes:
        guess: the pagination to set; without a value, nothing is proved.
        gaps: what to look at.
        replaced: parameters of the URL that the pagination sets.
    """

    guess: Guess
    gaps: Sequence[Gap] = ()
    replaced: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class End:
    """What ends reading: stop rules and their reason, or what the user must find out."""

    settings: Settings
    words: str = ""
    advice: str = ""


class PagingSearch:
    """Finds out how a stream pages, from its first page on.

    Args:
        prober: asks.
        address: whose paging parameters are tried first.
        base: the first page, as the URL asks for it.
        is_stable: whether it is the same if it is asked for again. If not, only what an answer itself leads to counts.
    """

    def __init__(self, prober: Prober, address: Address, base: Page, *, is_stable: bool):
        self._prober = prober
        self._address = address
        self._base = base
        self._is_stable = is_stable
        self._size: Size | None = None

    def find(self) -> Paging:
        """Never raises Spent: what was not tried for want of requests is no reason against what was found."""
        if len(self._base.ids) < 2:
            return Paging(Guess(None, "with less than two records no page can be told from another: detected later"))
        found: tuple[Settings, str] | None = None
        try:
            found = self._linked(self._base, {})
            if self._is_stable and (found is None or len(self._base.ids) < PAGE_SIZE):
                self._size = self._find_size()
                found = found or self._other()
        except Spent as spent:
            self._prober.tried.append(f"nothing more about pages: {spent}")
        return self._with_size(*found) if found is not None else self._nothing()

    # --- what leads on in an answer -----------------------------------------------------------------------------------

    def _linked(self, page: Page, size: Mapping[str, str]) -> tuple[Settings, str] | None:
        answer = _answer_of(page)
        way = way_on(answer)
        if isinstance(way, LinkHeader | NextUrl):
            settings = _settings(way)
            seen = self._prober.look({"pagination": settings}, size, most_pages=2)
            ends = seen.pages[0] if seen.pages else 0
            first, second = (self._prober.page_of(part) for part in (seen.records[:ends], seen.records[ends:]))
            if second.ids and second.is_apart_from(first):
                return settings, f"{way_in_words(way)}: it was followed to {_others(second)}"
            self._prober.tried.append(f"{way_in_words(way)}: {seen.problem or 'it leads to no other records'}")
        if not self._is_stable:
            return None
        known = [way] if isinstance(way, Tokens) else []
        others = [
            Tokens(token_path=path) for path in _token_places(answer) if path not in {one.token_path for one in known}
        ]
        return next(filter(None, (self._by_token(page, one, size) for one in [*known, *others])), None)

    def _by_token(self, page: Page, way: Tokens, size: Mapping[str, str]) -> tuple[Settings, str] | None:
        token = msgspec.json.decode(raw_at(_answer_of(page).body, keys(way.token_path)) or b"null")
        own = [way.token_param, way.token_path.rpartition(".")[2]]
        others = [name for name in TOKEN_PARAMS if name not in own]
        found = self._prober.search(
            [own[:1], [f"_{own[1]}"], [*(name for name in own[1:] if name != own[0]), *others]],
            str(token),
            lambda answer: bool(answer.ids) and answer.is_apart_from(page),
            without=page,
            also=size,
        )
        if found is None:
            return None
        settings = {"pagination_type": "cursor", "token_path": way.token_path, "token_param": found[0]}
        return settings, f"sent as {found[0]!r}, the answer's {way.token_path!r} gave {_others(found[1])}"

    # --- parameters ---------------------------------------------------------------------------------------------------

    def _find_size(self) -> Size | None:
        count = min(2, len(self._base.ids) - 1)
        hints = [[name] for name in self._address.sizes]
        found = self._prober.search(
            [*hints, *SIZES],
            str(count),
            lambda page: page.is_beginning_of(self._base) and len(page.ids) < len(self._base.ids),
            without=self._base,
            also={},
        )
        return Size(*found) if found is not None else None

    def _other(self) -> tuple[Settings, str] | None:
        """Through small pages, if there are such: they show more."""
        size = self._size.params if self._size else {}
        first = self._size.short if self._size else self._base
        found = self._linked(first, size) if self._size else None
        return (
            found or self._page_numbers(first, size) or self._offsets(first, size) or self._behind_the_last(first, size)
        )

    def _page_numbers(self, first: Page, size: Mapping[str, str]) -> tuple[Settings, str] | None:
        hints = [[name] for name in self._address.pages]
        # Behind a small first page there is another one; behind the API's own there may be none.
        may_be_empty = self._size is None
        found = self._prober.search(
            [*hints, *PAGE_NUMBERS],
            "2",
            lambda page: (
                not page.problem and page.ids not in (first.ids, self._base.ids) and bool(page.ids or may_be_empty)
            ),
            without=first,
            also=size,
        )
        if found is None:
            return None
        name, then = found
        page, start = self._prober.ask({**size, name: "1"}), 1
        if not page.is_beginning_of(self._base):
            then, start = page, 0
            page = self._prober.ask({**size, name: "0"})
        is_all = len(page.ids) == len(self._base.ids)
        if not page.is_beginning_of(self._base) or not then.is_apart_from(page) or not (then.ids or is_all):
            self._prober.tried.append(f"{name} = 0, 1, 2: they are not the first pages")
            return None
        what = f"gave {_others(then)}" if then.ids else "none: all are on the first"
        reason = f"{name}={start} gave the first page, and {name}={start + 1} {what}"
        return {"pagination_type": "page", "page_param": name, "start_page": start}, reason

    def _offsets(self, first: Page, size: Mapping[str, str]) -> tuple[Settings, str] | None:
        skipped = min(2, len(self._base.ids) - 1)

        def start_of(page: Page) -> int | None:
            """0 or 1, the number of the first record, if a page begins where it should."""
            for start in (0, 1) if skipped > 1 else (0,):  # of two records, the first page would be proof of itself
                rest = self._base.ids[skipped - start :]
                both = min(len(rest), len(page.ids))
                if both and page.ids[:both] == rest[:both]:
                    return start
            return None

        hints = [[name] for name in self._address.offsets]
        found = self._prober.search(
            [*hints, *OFFSETS], str(skipped), lambda page: start_of(page) is not None, without=first, also=size
        )
        if found is None:
            return None
        name, page = found
        start = start_of(page)
        what = f"{skipped + 1 - start}. record" if start else f"record behind the first {skipped}"
        settings = {"pagination_type": "offset", "offset_param": name, "start_offset": start, "size_param": ""}
        return settings, f"{name}={skipped} gave an answer that begins with the {what}"

    def _behind_the_last(self, first: Page, size: Mapping[str, str]) -> tuple[Settings, str] | None:
        """A parameter that takes the key of the last record."""
        if len(self._prober.key) != 1:
            return None
        (field,) = self._prober.key
        last = str(value_at(first.records[-1], field))
        rest = self._base.ids[len(first.ids) :]

        def goes_on(page: Page) -> bool:
            both = min(len(rest), len(page.ids))
            return bool(page.ids) and page.is_apart_from(first) and page.ids[:both] == rest[:both]

        found = self._prober.search(LAST_KEYS, last, goes_on, without=first, also=size)
        if found is None:
            return None
        settings = {"pagination_type": "cursor", "token_field": field, "token_param": found[0]}
        more = [(setting, path) for setting, path in _ends_in(_answer_of(first)) if setting in FLAGS]
        reason = f"{found[0]} with the {field} of the last record gave {_others(found[1])}, those behind it"
        return {**settings, **dict(more[:1])}, reason

    # --- what goes along ----------------------------------------------------------------------------------------------

    def _with_size(self, settings: Settings, reason: str) -> Paging:
        """A larger size if the API takes it, and an end that does not fail."""
        replaced = [*self._address.pages, *self._address.offsets]
        gaps: list[Gap] = []
        exact = False
        try:
            if self._size is not None:
                size, words, exact = self._large_size(self._size)
                settings |= size
                reason += f"; {words}"
                replaced += [self._size.param] if size else []
            if settings["pagination_type"] in ("page", "offset"):
                end = self._end(settings, exact=exact)
                settings |= end.settings
                reason += f"; {end.words}" if end.words else ""
                gaps += [Gap("pagination", end.advice)] if end.advice else []
        except Spent as spent:
            gaps.append(Gap("pagination", f"its page size and its end were not tried: {spent}"))
        return Paging(Guess(settings, reason), gaps, replaced)

    def _large_size(self, size: Size) -> tuple[Settings, str, bool]:
        wanted = int(self._address.sizes.get(size.param, PAGE_SIZE))
        shown = f"{size.param}={len(size.short.ids)} gave {size.short.words}"
        page = self._prober.ask({size.param: str(wanted)})
        if page.problem or len(page.ids) < min(wanted, len(self._base.ids)):
            return {}, f"{shown}, and {size.param}={wanted} {page.words}: the API's own size is taken", False
        words = f"{shown}, {size.param}={wanted} {page.words}"
        return {"size_param": size.param, "page_size": wanted}, words, len(page.ids) == wanted

    def _end(self, settings: Settings, *, exact: bool) -> End:
        """What ends reading, if an API has no empty page behind its last one."""
        is_page = settings["pagination_type"] == "page"
        name, far = (settings["page_param"], FAR_PAGE) if is_page else (settings["offset_param"], FAR_OFFSET)
        size = self._size.params if self._size else {}
        page = self._prober.ask({**size, name: str(far)})
        if not page.problem and not page.ids:
            return End({}, f"{name}={far} gave an empty page, which ends reading")
        if not page.problem and not self._prober.ask({**size, name: str(far + 1)}).is_same(page):
            return End({})  # there is so much
        what = f"{name}={far} {'gave a page that comes again' if not page.problem else f'was {page.words}'}"
        for setting, path in _ends_in(_answer_of(self._size.short if self._size else self._base)):
            return End({setting: path}, f"{what}, so that {path!r} of the answer ends reading")
        if exact:
            least = settings["page_size"]
            return End({"stop_when_shorter": True}, f"{what}, so that a page of less than {least} ends reading")
        return End({}, advice=f"{what}: find out how the last page is known, and set a stop rule such as has_more_path")

    def _nothing(self) -> Paging:
        count = len(self._base.ids)
        reason = NOTHING if self._is_stable else UNSTABLE
        gaps = []
        sign = sign_of_more(_answer_of(self._base))
        if sign:
            advice = f"the answer says that there is more ({sign}): look into the API's documentation how to get it"
            gaps.append(Gap("pagination", advice))
        elif self._size is not None:
            advice = f"{self._size.param!r} is known and nothing that leads on: these {count} records may not be all"
            gaps.append(Gap("pagination", advice))
        return Paging(Guess(None, reason), gaps)


def _answer_of(page: Page) -> Answer:
    assert page.answer is not None  # a page of records has one
    return page.answer


def _others(page: Page) -> str:
    return f"{len(page.ids)} other record{'' if len(page.ids) == 1 else 's'}"


def _settings(way: LinkHeader | NextUrl) -> Settings:
    if isinstance(way, LinkHeader):
        return {"pagination_type": "link_header"}
    return {"pagination_type": "next_url", "next_path": way.next_path}


def _token_places(answer: Answer) -> list[str]:
    """Where a token may be that detection does not know."""
    place, around = around_records(answer)
    found = [path for path, _ in _scalars(around, "") if snake(path.rpartition(".")[2]) in TOKEN_FIELDS]
    return [place + path for path in found[:2]]


def _scalars(around: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in around.items():
        if "." not in name and isinstance(value, Mapping):
            yield from _scalars(value, f"{above}{name}.")
        elif "." not in name and isinstance(value, str | int) and value and not isinstance(value, bool):
            yield f"{above}{name}", value


def _ends_in(answer: Answer) -> Iterator[tuple[str, str]]:
    """Stop rules that an answer offers, with their paths."""
    place, around = around_records(answer)
    for setting, flags, more in (("has_more_path", HAS_MORE, True), ("is_last_path", IS_LAST, False)):
        yield from ((setting, place + path) for path in flags if value_in(around, keys(path)) is more)
    numbers: Mapping[str, tuple[str, ...]] = {"total_pages_path": TOTAL_PAGES, "total_path": TOTALS}
    for setting, paths in numbers.items():
        for path in paths:
            value = value_in(around, keys(path))
            if type(value) is int and value > 0:
                yield setting, place + path
