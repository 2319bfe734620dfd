"""Reading on behind the last page that an API serves (``max_offset``): where the next window begins. Pure.

The next window begins at the highest cursor value seen, and leaves out the records that stand there. That is right only
if nothing below that value is still to come: the records must come in ascending order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from msgspec import Raw

from source_rest_api.rows import Window, digest


class NotAscending(ValueError):  # noqa: N818  # its caller says it in the words of the form
    """Records came in another order."""


@dataclass
class Tail:
    """What stands at the highest cursor value seen so far."""

    _at: int | None = None
    _records: set[str] = field(default_factory=set)
    _last: int | None = None  # of the present window, which begins anew

    def follow(self, records: Sequence[Raw], moments: Sequence[int | None]) -> None:
        """Take the records of a page, with their cursors. Raises NotAscending."""
        for record, moment in zip(records, moments, strict=True):
            if moment is None:
                continue
            if self._last is not None and moment < self._last:
                raise NotAscending
            self._last = moment
            if self._at is None or moment > self._at:
                self._at, self._records = moment, set()
            if moment == self._at:
                self._records.add(digest(record))

    def window_behind(self, window: Window) -> Window | None:
        """The next window; None if it would be the same again, or if no record had a cursor."""
        if self._at is None or self._at == window.lower:
            return None
        self._last = None
        known = {moment: records for moment, records in window.known.items() if moment > self._at}
        return replace(window, lower=self._at, known={**known, self._at: frozenset(self._records)})
