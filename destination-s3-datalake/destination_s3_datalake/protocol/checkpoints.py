"""Which STATE messages may leave, and when.

A STATE is released once every record that arrived before it (of its stream; for GLOBAL, of all streams) is committed.
STATEs of one stream leave in their order. Nothing here reads a clock, a socket or a file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.protocol.messages import State


@dataclass(frozen=True, slots=True)
class Released:
    """A STATE that may leave. ``records`` are those committed since the STATE of its kind before it."""

    state: State
    records: int


@dataclass(frozen=True, slots=True)
class _Held:
    state: State
    needs: Mapping[StreamId, int]


class Checkpoints:
    """Holds STATEs until their records are committed. Positions count the records of a stream, from 0."""

    def __init__(self) -> None:
        self._queues: dict[StreamId | None, deque[_Held]] = {}
        self._left_at: dict[StreamId | None, dict[StreamId, int]] = {}
        self._committed: dict[StreamId, int] = {}
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """Size of the STATE lines that wait."""
        return self._bytes

    def hold(self, state: State, *, needs: Mapping[StreamId, int], only_last: bool) -> None:
        """Hold a STATE until each stream of ``needs`` is committed up to the position given.

        Args:
            only_last: those of its kind before it never leave: of a run that is published as a whole, only the last.
        """
        queue = self._queues.setdefault(state.stream, deque())
        if only_last:
            self._bytes -= sum(len(held.state.raw) for held in queue)
            queue.clear()
        queue.append(_Held(state, dict(needs)))
        self._bytes += len(state.raw)

    def committed(self, stream: StreamId, upto: int) -> None:
        """The stream is committed up to position ``upto``."""
        self._committed[stream] = upto

    def due(self) -> list[Released]:
        """The STATEs that may leave now, in their order."""
        released = []
        for kind, queue in self._queues.items():
            while queue and all(self._committed.get(stream, -1) >= need for stream, need in queue[0].needs.items()):
                held = queue.popleft()
                self._bytes -= len(held.state.raw)
                left_at = self._left_at.setdefault(kind, {})
                records = sum(position - left_at.get(stream, 0) for stream, position in held.needs.items())
                left_at.update(held.needs)
                released.append(Released(held.state, records))
        return released
