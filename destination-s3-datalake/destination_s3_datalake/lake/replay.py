"""Row hashes of commits that the source may send again, and the filter that drops such rows.

A replay object holds 8 bytes that name the hash function (``database.hash_function``), then the hashes of a commit's
stored rows, 8 bytes each, segment after segment; all little-endian. Hashes are a multiset: a row that is stored once is
dropped once. Hashes of another function prove nothing and drop nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from destination_s3_datalake.lake.log import Replayable, SegmentRef
from destination_s3_datalake.lake.s3 import Bucket
from destination_s3_datalake.records.database import hash_function

Hashes = NDArray[np.uint64]
STORED = np.dtype("<u8")


class ReplayFilter:
    """Drops rows that are stored already, each as often as it is stored."""

    def __init__(self, hashes: Iterable[Hashes], *, unusable: int = 0):
        self.unusable = unusable
        """Commits whose hashes are of another function: their rows are not dropped if they come again."""
        parts = list(hashes)
        stored = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
        self._values, self._counts = np.unique(stored, return_counts=True)

    def keep(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Which of these rows, in order of arrival, are new. Each dropped row is used up."""
        kept = np.ones(len(hashes), dtype=np.bool_)
        if not len(self._values):
            return kept
        places = np.minimum(np.searchsorted(self._values, hashes), len(self._values) - 1)
        for row in np.flatnonzero(self._values[places] == hashes):
            place = places[row]
            if self._counts[place] > 0:
                self._counts[place] -= 1
                kept[row] = False
        return kept


def load(bucket: Bucket, found: Replayable) -> ReplayFilter:
    """The filter for what may come again. Hashes beyond the replay window are gone, and their rows are not dropped."""
    parts: list[Hashes] = []
    unusable = 0
    for commit in found.commits:
        spans = _spans(found, commit.seq, [segment.rows for segment in commit.segments])
        body = bucket.get(commit.replay_key) if commit.replay_key and spans else None
        if body is None:
            continue
        stored = np.frombuffer(body, dtype=STORED).astype(np.uint64)
        if stored[0] == hash_function():
            parts.extend(stored[1 + start : 1 + end] for start, end in spans)
        else:
            unusable += 1
    return ReplayFilter(parts, unusable=unusable)


def packed(hashes: Hashes) -> bytes:
    """The hashes as a replay object."""
    return np.uint64(hash_function()).astype(STORED).tobytes() + hashes.astype(STORED).tobytes()


def _spans(found: Replayable, seq: int, rows: list[int]) -> list[tuple[int, int]]:
    spans, start = [], 0
    for index, count in enumerate(rows):
        if count and SegmentRef(seq, index) not in found.kept_back:
            spans.append((start, start + count))
        start += count
    return spans
