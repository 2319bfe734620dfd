"""Which records stand exactly at the end of a state, so that they are not brought twice. Pure.

Lower bounds of APIs include their value, so the records at a stream's highest cursor value come again with the next
sync. Their digests travel in the STATE under ``boundary``, beside what the CDK writes:

    {"updated_at": "2024-01-31T12:00:00.000000Z",
     "boundary": [{"partition": {}, "at": 1706702400000000, "records": ["<digest>", ...]}]}

The tracker is fed in the order of stdout, and so a STATE names no record that is not out yet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from source_rest_api.form import Cursor
from source_rest_api.page import Boundary
from source_rest_api.rows import MOST_BOUNDARY
from source_rest_api.times import FormatError, from_state

KEY = "boundary"
CDK_ENTRY = "parent_slice"  # in the partitions of the CDK's routers, and of ours: what stands above
MOST_RECORDS = 100_000  # over all partitions of a stream: 10 MB at most
NO_PARTITION = "{}"


def partition_key(partition: Mapping[str, Any]) -> str:
    """Canonical JSON of a partition, without the CDK's own entry."""
    return json.dumps(flat_partition(partition), sort_keys=True)


def flat_partition(partition: Mapping[str, Any]) -> dict[str, Any]:
    """A partition of a STATE, also of one that nests what stands above: as earlier versions wrote it."""
    above = partition.get(CDK_ENTRY)
    own = {name: value for name, value in partition.items() if name != CDK_ENTRY}
    return {**(flat_partition(above) if isinstance(above, Mapping) else {}), **own}


def without_boundary(state: Mapping[str, Any]) -> dict[str, Any]:
    """A STATE as the CDK knows it."""
    return {name: value for name, value in state.items() if name != KEY}


@dataclass(frozen=True, slots=True)
class Known:
    """What the input STATE says of one partition."""

    at: int
    records: frozenset[str]


def known_of(state: Mapping[str, Any]) -> dict[str, Known]:
    """The boundaries of an input STATE, by partition. One that is not ours is ignored: records then come twice."""
    found = {}
    for entry in state.get(KEY) or ():
        match entry:
            case {"partition": dict() as partition, "at": int() as at, "records": list() as records}:
                found[partition_key(partition)] = Known(at, frozenset(map(str, records)))
    return found


@dataclass
class BoundaryTracker:
    """The boundaries of one stream, as far as its pages are out."""

    cursor: Cursor
    known: dict[str, Known]
    _places: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    _best: dict[str, dict[str, int]] = field(default_factory=dict)  # by partition and window
    _count: int = 0

    def __post_init__(self) -> None:
        for partition, known in self.known.items():
            self._places[partition] = {known.at: set(known.records)}
            self._count += len(known.records)

    def take(self, boundary: Boundary) -> None:
        """A page went out."""
        bests = self._best.setdefault(boundary.partition, {})
        best = bests.get(boundary.window)
        if best is not None and boundary.at < best:
            return
        places = self._places.setdefault(boundary.partition, {})
        if (
            best is not None
            and boundary.at > best
            and best not in self._still_needed(boundary.partition, boundary.window)
        ):
            self._count -= len(places.pop(best, ()))
        bests[boundary.window] = boundary.at
        records = places.setdefault(boundary.at, set())
        for record in boundary.records:
            if len(records) < MOST_BOUNDARY and self._count < MOST_RECORDS and record not in records:
                records.add(record)
                self._count += 1

    def annotate(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A STATE of the CDK with the boundaries at its values."""
        entries = list(filter(None, (self._entry(partition, value) for partition, value in self._values(state))))
        return {**without_boundary(state), **({KEY: entries} if entries else {})}

    def _still_needed(self, partition: str, window: str) -> set[int]:
        """Values that the next STATE may stand at: where it began, and the best of other windows."""
        needed = {best for other, best in self._best[partition].items() if other != window}
        if partition in self.known:
            needed.add(self.known[partition].at)
        return needed

    def _values(self, state: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
        if "states" in state:
            for entry in state["states"]:
                yield partition_key(entry.get("partition", {})), entry.get("cursor", {}).get(self.cursor.cursor_field)
        else:
            yield NO_PARTITION, state.get(self.cursor.cursor_field)

    def _entry(self, partition: str, value: Any) -> dict[str, Any] | None:
        try:
            at = from_state(value, self.cursor.cursor_format)
        except FormatError:
            return None
        places = self._places.get(partition, {})
        records = places.get(at)
        if not records:
            return None
        return {"partition": json.loads(partition), "at": at, "records": sorted(records)}
