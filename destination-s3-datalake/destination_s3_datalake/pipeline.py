"""The story of a sync: messages -> streams -> commits -> STATE. The only loop over messages.

A STATE is written only when ``Checkpoints`` releases it. How one stream's rows become files and a table is in
``stream.py``; what a crash at any point leaves behind is the business of ``lake/opening.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from destination_s3_datalake.config import Config
from destination_s3_datalake.errors import BadLineError, ConfigError, DatalakeError
from destination_s3_datalake.files.spool import Spool
from destination_s3_datalake.lake.opening import Lake
from destination_s3_datalake.output import Output
from destination_s3_datalake.protocol.catalog import StreamId, StreamPlan
from destination_s3_datalake.protocol.checkpoints import Checkpoints
from destination_s3_datalake.protocol.messages import (
    Message,
    Record,
    Records,
    State,
    StreamStatus,
    with_destination_stats,
)
from destination_s3_datalake.stream import StreamSync

HELD_STATE_BYTES = 16 << 20  # STATE lines that wait for their commit; more of them make a commit due


class Sync:
    """One run of ``write``: all its streams, their STATEs, and the end. ``now`` counts seconds, only forward."""

    def __init__(
        self,
        config: Config,
        plans: Mapping[StreamId, StreamPlan],
        lake: Lake,
        spool: Spool,
        output: Output,
        *,
        now: Callable[[], float] = time.monotonic,
    ):
        self._interval = config.max_commit_interval_s
        self._spool = spool
        self._output = output
        self._now = now
        self._streams = {
            stream_id: StreamSync(plan, config, lake, spool, output, now=now) for stream_id, plan in plans.items()
        }
        self._checkpoints = Checkpoints()
        self._waiting_since: float | None = None
        self._global_resume: str | None = None
        self._any_record = False
        self._say_what_does_nothing(config)

    def receive(self, messages: Iterable[Message]) -> None:
        """Take messages as they arrive; commit whenever that is due."""
        for message in messages:
            match message:
                case Record() | Records():
                    self._record(message)
                case State():
                    self._state(message)
                case StreamStatus():
                    self._stream(message.stream, message.line).status = message.status

    def repair(self) -> None:
        """Write a new log for each stream's table whose log is not whole; nothing else is written.

        Raises:
            ConfigError: none of the streams has a table.
        """
        found = [stream.repair() for stream in self._streams.values()]
        if not any(found):
            raise ConfigError("No stream of the catalog has a table here: check glue_database and the catalog.")

    def seconds_until_due(self) -> float | None:
        """When ``tick`` should be called at the latest; None if nothing waits."""
        if self._waiting_since is None:
            return None
        return max(0.0, self._waiting_since + self._interval - self._now())

    def tick(self) -> None:
        """Commit what has waited long enough, also while no input comes."""
        if self.seconds_until_due() == 0.0:
            self._commit_and_merge()

    def commit_to_last_states(self) -> None:
        """Commit each stream up to its last STATE, and let go the STATEs that wait for nothing else.

        Streams that are published as a whole are left alone.
        """
        for stream in self._streams.values():
            if stream.has_state_to_commit:
                try:
                    stream.commit_to_last_state()
                finally:  # up to a line that is no record, rows are committed all the same
                    self._checkpoints.committed(stream.id, stream.committed)
        self._waiting_since = None
        self._release()

    def _say_what_does_nothing(self, config: Config) -> None:
        """Settings that concern no stream of the catalog: a table that should be partitioned would not be."""
        known = {name for stream_id in self._streams for name in (stream_id.name, str(stream_id))}
        for unknown in sorted({each.stream for each in config.partitioning} - known):
            self._output.log("WARN", f"partitioning: no stream of the catalog is named {unknown}.")

    def _commit_and_merge(self) -> None:
        self.commit_to_last_states()
        for stream in self._streams.values():
            stream.merge_if_due()

    def finish(self) -> None:
        """The input has ended: commit, publish, close.

        Raises:
            DataError: rows without a STATE behind them, or a replace whose end is not the end. Everything else was
                committed and published before.
        """
        self.commit_to_last_states()
        refusals: list[DatalakeError] = []
        with self._output.progress("the input has ended; finishing"):
            for stream in self._streams.values():
                self._open(stream, self._global_resume)
                refusal = stream.finish()
                if refusal is not None:
                    refusals.append(refusal)
                self._checkpoints.committed(stream.id, stream.committed)
        self._release()
        for stream in self._streams.values():
            self._output.log("INFO", stream.summary())
        if refusals:
            raise _combined(refusals)
        for stream in self._streams.values():
            stream.close()

    def _record(self, record: Record | Records) -> None:
        stream = self._stream(record.stream, record.line)
        self._any_record = True
        self._open(stream, self._global_resume)
        stream.receive(record)
        if stream.has_full_file or self._spool.is_full:
            self._make_room(stream)

    def _state(self, state: State) -> None:
        covered = self._covered_by(state)
        # A GLOBAL state says where the source resumed only if no record at all came before it.
        resume = state.digest if state.stream is not None else self._global_resume
        for stream in covered:
            self._open(stream, resume)
            stream.mark(state)
        self._checkpoints.hold(
            state,
            needs={stream.id: stream.received for stream in covered},
            only_last=any(stream.intent.holds_states for stream in covered),
        )
        if self._waiting_since is None:
            self._waiting_since = self._now()
        if not covered:
            self._release()
        elif self._is_commit_due():
            self._commit_and_merge()

    def _covered_by(self, state: State) -> list[StreamSync]:
        """The streams that a STATE speaks for; none if it is of a stream outside the catalog, which is echoed."""
        if state.stream is not None:
            return [self._streams[state.stream]] if state.stream in self._streams else []
        if not self._any_record and self._global_resume is None:
            self._global_resume = state.digest
        return list(self._streams.values())

    def _is_commit_due(self) -> bool:
        return (
            self.seconds_until_due() == 0.0
            or self._checkpoints.held_bytes > HELD_STATE_BYTES
            or any(stream.has_full_commit for stream in self._streams.values())
        )

    def _make_room(self, stream: StreamSync) -> None:
        """A file is full, or the disk is: commit what has a STATE behind it, and turn the rest into files."""
        if stream.has_state_to_commit:
            self._commit_and_merge()
        if stream.has_full_file:
            stream.close_file()
        while self._spool.is_full:
            self.commit_to_last_states()
            largest = max(self._streams.values(), key=lambda candidate: candidate.spooled_bytes)
            if not largest.spooled_bytes:
                return
            largest.close_file()

    def _release(self) -> None:
        for released in self._checkpoints.due():
            self._output.line(with_destination_stats(released.state.raw, records=released.records))

    def _open(self, stream: StreamSync, resume: str | None) -> None:
        if not stream.is_open:
            stream.open(resume)

    def _stream(self, stream_id: StreamId, line: int) -> StreamSync:
        stream = self._streams.get(stream_id)
        if stream is None:
            raise BadLineError(
                f"Line {line} of the input is of the stream {stream_id}, which is not in the catalog: "
                "refresh the connection's schema, or select the stream.",
                stream=stream_id.name,
                namespace=stream_id.namespace,
                line=line,
            )
        return stream


def _combined(refusals: list[DatalakeError]) -> DatalakeError:
    if len(refusals) == 1:
        return refusals[0]
    return type(refusals[0])(" ".join(error.message for error in refusals))
