"""Pages: what travels from the workers to stdout in place of single records.

A queue item of the CDK is a mapping with a page under ``PAGE``, and the page's highest cursor value under the cursor's
name, where the CDK's cursors look for it. A page holds finished RECORD lines. The bytes of all pages between workers
and stdout are bounded by ``Budget``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

PAGE = "\0page"  # no field of a record: JSON forbids a raw NUL, and escaped it is not what any API calls a field
MOST_BYTES_IN_FLIGHT = 64 << 20


@dataclass(frozen=True, slots=True)
class Boundary:
    """The records that stand exactly at a highest cursor value: they come again with the next sync.

    Attributes:
        partition: the parent values as canonical JSON, ``{}`` without parents.
        window: start of the cursor's window.
        at: the cursor value, in microseconds.
        records: digests of those records.
    """

    partition: str
    window: str
    at: int
    records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Finished lines of one stream.

    Attributes:
        stream: its name.
        lines: whole RECORD messages, each ended by a line break.
        count: how many.
        left_out: records of the answer that an earlier sync has already brought.
        boundary: of an incremental stream, the highest place reached.
        checkpoint: a cursor value (as in STATE) that may be saved once this page is out.
    """

    stream: str
    lines: bytes
    count: int
    left_out: int = 0
    boundary: Boundary | None = None
    checkpoint: str | int | None = None

    def records(self) -> Iterator[dict[str, Any]]:
        """The records as Python values, for callers that are no platform."""
        for line in self.lines.splitlines():
            yield msgspec.json.decode(line)["record"]

    def __deepcopy__(self, memo: object) -> Page:
        """Frozen: the CDK copies what passes through some of its transformations."""
        return self


def page_of(data: Mapping[str, Any] | None) -> Page | None:
    """The page that a CDK record carries, if it is one of ours."""
    found = data.get(PAGE) if data is not None else None
    return found if isinstance(found, Page) else None


class Budget:
    """Bytes in flight between workers and the writer; the CDK's queue counts items only."""

    def __init__(self, limit: int = MOST_BYTES_IN_FLIGHT):
        self._limit = limit
        self._used = 0
        self._is_open = False
        self._change = threading.Condition()

    def open(self) -> None:
        """From here on somebody gives back what is taken."""
        with self._change:
            self._is_open, self._used = True, 0

    def close(self) -> None:
        """Nobody gives anything back any more: let all workers pass."""
        with self._change:
            self._is_open = False
            self._change.notify_all()

    def take(self, size: int) -> None:
        """Wait until there is room. One item may be larger than the whole budget."""
        with self._change:
            self._change.wait_for(lambda: not self._is_open or not self._used or self._used + size <= self._limit)
            self._used += size

    def give(self, size: int) -> None:
        with self._change:
            self._used -= size
            self._change.notify_all()


BUDGET = Budget()
