"""Which field says what is new, and which parameter asks the API for it.

A parameter is proved by an answer to the middle one of the values seen: none of its records is older, and those of the
first page that are newer are there (a filter by when records were made leaves out old ones that changed). Where an
answer is a full page, on which they need not be, a later value is asked for. Only a field that moves when a record
changes is proposed: with another one changes would be missed in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from source_rest_api.candidates import CursorField, cursors_in, value_at
from source_rest_api.looking import Record
from source_rest_api.openapi.fields import WRITTEN_ONCE
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.openapi.names import singulars, snake
from source_rest_api.probing.asking import Page, Prober, Spent
from source_rest_api.schema_inference import string_kind
from source_rest_api.times import EPOCHS, RFC3339, FormatError, to_moment, to_text

DATE = "%Y-%m-%d"
SUFFIXES = ("_gte", "__gte", "[gte]", "_after", "_since", "_from", "_min", ".gte", "_ge")
STEMS = ("{}_after", "{}_since", "{}After", "{}Since", "{}_from", "min_{}")
GENERAL = (
    "since", "updated_since", "updated_after", "modified_since", "modified_after", "updatedSince", "updatedAfter",
    "modifiedSince", "changed_since", "start_date", "startDate", "start_time", "startTime", "starttime", "from_date",
    "date_from", "min_date", "if_modified_since", "updatedafter", "modifiedafter",
)  # fmt: skip
AMBIGUOUS = ("from", "after", "start", "begin")
LEAST_ORDERED = 3


@dataclass(frozen=True, slots=True)
class Since:
    """The cursor of a stream.

    Attributes:
        guess: what ``incremental`` is set to; without a value, there is none.
        gaps: what to look at.
    """

    guess: Guess
    gaps: Sequence[Gap] = ()


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that may be the cursor, and its values in the sample."""

    cursor: CursorField
    moments: Sequence[int | None]

    @classmethod
    def of(cls, cursor: CursorField, records: Sequence[Record]) -> _Field:
        return cls(cursor, [_moment(record, cursor) for record in records])

    @property
    def is_everywhere(self) -> bool:
        """Whether all records have it."""
        return None not in self.moments

    @property
    def distinct(self) -> list[int]:
        return sorted({moment for moment in self.moments if moment is not None})


class SinceSearch:
    """Finds the cursor of a stream, and how the API is asked for what is new.

    Args:
        prober: asks.
        base: a page of the stream, not narrowed.
        is_stable: whether it is the same if it is asked for again. If not, no parameter is tried.
        name: of the stream.
    """

    def __init__(self, prober: Prober, base: Page, name: str, *, is_stable: bool):
        self._prober = prober
        self._base = base
        self._is_stable = is_stable
        self._fields = [_Field.of(cursor, base.records) for cursor in cursors_in(base.records)]
        self._is_written_once = bool(singulars(snake(name)) & WRITTEN_ONCE)

    def find(self) -> Since:
        """Never raises Spent."""
        if not self._fields:
            return Since(Guess(None, "no field holds times: each sync reads all"))
        fields = sorted(self._fields, key=lambda field: (not field.cursor.is_change, not field.is_everywhere))
        best = fields[0]
        settings: dict[str, Any] = {"incremental_type": "datetime", "cursor_field": best.cursor.field}
        if best.cursor.format != RFC3339:
            settings["cursor_format"] = best.cursor.format
        try:
            asked = self._asked_since(best) if self._is_stable else None
        except Spent as spent:
            self._prober.tried.append(f"nothing more about what is new: {spent}")
            asked = None
        how, words = asked if asked is not None else self._without_parameter(best)
        settings |= how
        doubt = self._doubt(best)
        if not doubt:
            return Since(Guess(settings, f"{best.cursor.reason}; {words}"))
        advice = f"{best.cursor.field!r} is a time, but {doubt}, set {json.dumps(settings)}; {words}"
        nothing = Guess(None, "no field is sure to move when a record changes: each sync reads all")
        return Since(nothing, [Gap("incremental", advice)])

    def _doubt(self, field: _Field) -> str:
        """Why changes could be missed; empty if they could not."""
        if not field.is_everywhere:
            return "not all records have it: one without may never come again. If that is as it should be"
        if not field.cursor.is_change and not self._is_written_once:
            return "its name does not say that it moves when a record changes. If it does, or if records never change"
        return ""

    # --- by a parameter -----------------------------------------------------------------------------------------------

    def _asked_since(self, field: _Field) -> tuple[dict[str, Any], str] | None:
        """The settings that ask the API, and their proof."""
        for number, format_ in enumerate(_formats(field, self._base.records)):
            middle = self._middle(field, format_)
            if middle is None:
                continue
            value = to_text(middle, format_)
            found = self._prober.search(
                _names(field.cursor.field, all_of_them=number == 0),
                value,
                self._judge(field, middle),
                without=self._base,
                also={},
            )
            if found is not None:
                name, page = found
                settings = {"start_param": name}
                if format_ != field.cursor.format:
                    settings["request_format"] = format_
                words = f"asked with {name}={value} the API gave {page.words}, none of them older"
                if len(page.ids) >= len(self._base.ids):
                    more = self._later(field, name, format_)
                    if more is None:
                        return None
                    words += more
                if self._leaves_out_equals(field, middle, page):
                    settings["lookback"] = "P1D" if format_ == DATE else "PT1S"
                    words += f", and none of that very moment, so that {settings['lookback']} is asked for again"
                return settings, words
        return None

    def _middle(self, field: _Field, format_: str) -> int | None:
        """A moment that a request can say, with older and newer records on the page; None if there is none."""
        distinct = field.distinct
        if len(distinct) < 2:
            return None
        middle = to_moment(to_text(distinct[len(distinct) // 2], format_), format_)
        return middle if distinct[0] < middle <= distinct[-1] else None

    def _judge(self, field: _Field, middle: int) -> Callable[[Page], bool]:
        newer = {id_ for id_, moment in self._here(field) if moment is not None and moment > middle}
        # Newer by this field and older by another one: an API that filters by the other one leaves them out.
        telling = [
            {id_ for id_, moment in self._here(other) if id_ in newer and moment is not None and moment < middle}
            for other in self._fields
            if other is not field
        ]

        def judge(page: Page) -> bool:
            moments = [_moment(record, field.cursor) for record in page.records]
            if page.problem or not moments or any(moment is None or moment < middle for moment in moments):
                return False
            found = set(page.ids)
            if newer and not any(moment is not None and moment > middle for moment in moments):
                return False
            if len(page.ids) < len(self._base.ids) and not newer <= found:
                return False
            return all(not ids or ids & found for ids in telling)

        return judge

    def _later(self, field: _Field, name: str, format_: str) -> str | None:
        """What a later value shows, in words; None if what is newer is missing."""
        late = to_moment(to_text(field.distinct[-2], format_), format_)
        newer = {id_ for id_, moment in self._here(field) if moment is not None and moment > late}
        page = self._prober.ask({name: to_text(late, format_)})
        if not page.problem and len(page.ids) >= len(self._base.ids):
            return f" (always a full page: see in the documentation that {name} means {field.cursor.field})"
        if newer <= set(page.ids):
            return ""
        self._prober.tried.append(
            f"{name} = {to_text(late, format_)}: newer records are missing, so that it means another time"
        )
        return None

    def _leaves_out_equals(self, field: _Field, middle: int, page: Page) -> bool:
        equal = {id_ for id_, moment in self._here(field) if moment == middle}
        return bool(equal) and not equal & set(page.ids)

    def _here(self, field: _Field) -> list[tuple[str, int | None]]:
        return list(zip(self._base.ids, field.moments, strict=True))

    # --- without one --------------------------------------------------------------------------------------------------

    def _without_parameter(self, field: _Field) -> tuple[dict[str, Any], str]:
        none = f"no parameter {'is known' if self._is_stable else 'can be proved'} that asks for what is new"
        if len(field.distinct) >= LEAST_ORDERED and field.cursor.order == "descending":
            if self._is_written_once or not self._is_ordered_otherwise(field):
                words = f"{none}, but newest records come first: reading ends at the first old one"
                return {"newest_first": True}, words
            return {}, (
                f"{none}; newest records come first, but by when they were made as well, so that all are read, and old "
                "ones left out here"
            )
        return {}, f"{none}: all are read, and old ones left out here"

    def _is_ordered_otherwise(self, field: _Field) -> bool:
        """Whether the order may be that of another time or of a number: then a change moves no record to the front."""
        times = (other.cursor.order in ("descending", "equal") for other in self._fields if other is not field)
        return any(times) or any(_falls(self._base.records, name) for name in self._base.records[0])


def _falls(records: Sequence[Record], name: str) -> bool:
    values = [record.get(name) for record in records]
    numbers = [value for value in values if type(value) is int]
    return len(numbers) == len(records) and numbers == sorted(set(numbers), reverse=True)


def _names(field: str, *, all_of_them: bool) -> list[list[str]]:
    """Groups of parameters that may be asked with at once, those that name the field first."""
    name = field.rpartition(".")[2]
    stem = snake(name)
    for end in ("_at", "_on", "_time", "_date"):
        stem = stem.removesuffix(end)
    own = [f"{name}{suffix}" for suffix in SUFFIXES]
    own += [pattern.format(stem) for pattern in STEMS if stem != name or pattern.startswith("min")]
    general = [one for one in GENERAL if one not in own]
    return [own, general, list(AMBIGUOUS)] if all_of_them else [[*own, *general]]


def _formats(field: _Field, records: Sequence[Record]) -> list[str]:
    """How a moment may be written into a request, likeliest first."""
    if field.cursor.format in EPOCHS:
        return [field.cursor.format, RFC3339]
    texts = [text for text in (value_at(record, field.cursor.field) for record in records) if isinstance(text, str)]
    kinds = {string_kind(text) for text in texts}
    if kinds == {"date"}:
        return [DATE, RFC3339]
    if kinds == {"local"}:
        return [f"%Y-%m-%d{texts[0][10]}%H:%M:%S", RFC3339, DATE]
    return [RFC3339, DATE, "epoch_s"]


def _moment(record: Record, cursor: CursorField) -> int | None:
    try:
        return to_moment(value_at(record, cursor.field), cursor.format)
    except FormatError:
        return None
