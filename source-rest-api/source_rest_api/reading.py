"""What a destination may rely on, made of what the CDK emits.

1. A stream with an input STATE emits it once, verbatim, before anything else of the stream. Without one, no STATE
   leaves before the stream's first record, but the one that ends it.
2. A full refresh ends with ``{"__ab_full_refresh_sync_complete": true, "run_id": ...}``; given back as input, the
   stream emits that very STATE and nothing else. A stream that failed never emits it.
3. A STATE never runs ahead of its records.
4. COMPLETE comes last: behind the stream's last STATE, which the CDK emits after it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airbyte_cdk.models import (
    AirbyteErrorTraceMessage,
    AirbyteMessage,
    AirbyteRecordMessage,
    AirbyteStateBlob,
    AirbyteStateMessage,
    AirbyteStateType,
    AirbyteStream,
    AirbyteStreamState,
    AirbyteStreamStatus,
    ConfiguredAirbyteCatalog,
    StreamDescriptor,
    SyncMode,
    TraceType,
    Type,
)
from airbyte_cdk.sources.declarative.incremental.concurrent_partition_cursor import ConcurrentPerPartitionCursor
from airbyte_cdk.sources.streams.concurrent.abstract_stream import AbstractStream
from airbyte_cdk.utils.stream_status_utils import as_airbyte_message as status_message
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.boundary import BoundaryTracker, known_of
from source_rest_api.errors import config_error
from source_rest_api.form import Cursor
from source_rest_api.page import BUDGET, Page, page_of
from source_rest_api.states import FULL_REFRESH_COMPLETE, State

NO_CURSOR = "__ab_no_cursor_state_message"  # how the CDK ends a stream without a cursor
STATE_RECORDS = 9_000  # of the promised 10,000: the slices under way, one per worker, may add theirs
STATE_SECONDS = 60.0


@dataclass
class StreamReading:
    """One stream of this run."""

    name: str
    is_full_refresh: bool
    input: State
    tracker: BoundaryTracker | None = None
    count: int = 0
    left_out: int = 0
    last_state: State | None = None
    final_state: State | None = None
    complete: AirbyteMessage | None = None
    has_failed: bool = False

    @property
    def was_done(self) -> bool:
        """An earlier attempt of this refresh has brought all."""
        return self.is_full_refresh and bool(self.input.get(FULL_REFRESH_COMPLETE))

    @property
    def may_emit_state(self) -> bool:
        return bool(self.input) or self.count > 0


@dataclass
class Reading:
    """One ``read``: takes the CDK's messages in their order and yields ours.

    Args:
        cursors: the cursor of each stream that has one, ours with boundary records, or None where the CDK's does all.
        configured: the catalog of the read.
        input: the input states by stream.
        ignored: how many answers were ignored, by stream and status code.
        run_id: of this run.
    """

    cursors: Mapping[str, Cursor | None]
    configured: ConfiguredAirbyteCatalog
    input: Mapping[str, State]
    ignored: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def __post_init__(self) -> None:
        self._log = logging.getLogger("airbyte")
        self._streams: dict[str, StreamReading] = {}
        self._blamed: set[str | None] = set()
        for entry in self.configured.streams:
            name = entry.stream.name
            cursor = self.cursors.get(name)
            is_full = entry.sync_mode == SyncMode.full_refresh or name not in self.cursors
            given = self.input.get(name, {})
            tracker = BoundaryTracker(cursor, known_of(given)) if cursor is not None else None
            self._streams[name] = StreamReading(name, is_full, given, tracker)

    @property
    def catalog(self) -> ConfiguredAirbyteCatalog:
        """What is still to be read."""
        left = [entry for entry in self.configured.streams if not self._streams[entry.stream.name].was_done]
        return ConfiguredAirbyteCatalog(streams=left)

    @property
    def failed(self) -> list[str]:
        """The names of the streams that failed."""
        return [stream.name for stream in self._streams.values() if stream.has_failed]

    def pages(self, messages: Iterator[AirbyteMessage]) -> Iterator[AirbyteMessage | Page]:
        """The whole of a read: what comes before the CDK's messages, they themselves, and what comes behind them.

        Raises:
            AirbyteTracedException: a stream failed; all others were read to their end.
        """
        yield from self.begin()
        BUDGET.open()
        try:
            for message in messages:
                page = page_of(message.record.data) if message.record is not None else None
                if page is None:
                    yield from self.take(message)
                    continue
                yield from self.take_page(page)
                BUDGET.give(len(page.lines))
            yield from self.end()
        except AirbyteTracedException:
            if self.failed:
                self._log.error(f"Streams that failed: {', '.join(self.failed)}. All others were read to their end.")
            raise
        finally:
            BUDGET.close()

    def begin(self) -> Iterator[AirbyteMessage]:
        """The input STATEs; and the whole of streams that were done before."""
        for stream in self._streams.values():
            if stream.input:
                stream.last_state = stream.input
                yield state_message(stream.name, stream.input)
            if stream.was_done:
                for status in (AirbyteStreamStatus.STARTED, AirbyteStreamStatus.COMPLETE):
                    yield status_message(AirbyteStream(stream.name, {}, []), status)

    def take(self, message: AirbyteMessage) -> Iterator[AirbyteMessage]:
        """Any message but a page."""
        if message.type is Type.STATE and message.state is not None and message.state.stream is not None:
            yield from self._take_state(message.state.stream)
        elif (
            message.trace is not None and message.trace.type is TraceType.STREAM_STATUS and message.trace.stream_status
        ):
            status = message.trace.stream_status
            yield from self._take_status(message, status.stream_descriptor.name, status.status)
        elif message.trace is None or message.trace.error is None or self._is_new(message.trace.error):
            yield message

    def _is_new(self, error: AirbyteErrorTraceMessage) -> bool:
        """Thousands of partitions of a stream may fail for one reason: it is said once."""
        name = error.stream_descriptor.name if error.stream_descriptor is not None else None
        is_new = name not in self._blamed
        self._blamed.add(name)
        return is_new

    def take_page(self, page: Page) -> Iterator[AirbyteMessage | Page]:
        """A page, and the STATE that may follow it."""
        stream = self._streams[page.stream]
        stream.count += page.count
        stream.left_out += page.left_out
        yield page
        if stream.tracker is None or page.boundary is None:
            return
        stream.tracker.take(page.boundary)
        if page.checkpoint is not None:
            yield from self._emit(stream, {stream.tracker.cursor.cursor_field: page.checkpoint})

    def end(self) -> Iterator[AirbyteMessage]:
        """Whatever still waits for a STATE that did not come."""
        for stream in self._streams.values():
            if stream.complete is not None:
                yield from self._finish(stream, stream.complete)

    def _take_state(self, state: AirbyteStreamState) -> Iterator[AirbyteMessage]:
        stream = self._streams[state.stream_descriptor.name]
        body: State = dict(vars(state.stream_state)) if state.stream_state is not None else {}
        if stream.complete is not None:
            stream.final_state = None if NO_CURSOR in body else body
            yield from self._finish(stream, stream.complete)
        elif NO_CURSOR not in body and stream.may_emit_state:
            yield from self._emit(stream, body)

    def _take_status(self, message: AirbyteMessage, name: str, status: AirbyteStreamStatus) -> Iterator[AirbyteMessage]:
        stream = self._streams[name]
        match status:
            case AirbyteStreamStatus.COMPLETE:
                stream.complete = message
            case AirbyteStreamStatus.INCOMPLETE:
                stream.has_failed = True
                yield message
            case _:
                yield message

    def _finish(self, stream: StreamReading, complete: AirbyteMessage) -> Iterator[AirbyteMessage]:
        stream.complete = None
        if stream.is_full_refresh:
            yield state_message(stream.name, {FULL_REFRESH_COMPLETE: True, "run_id": self.run_id})
        elif stream.final_state is not None:
            yield from self._emit(stream, stream.final_state)
        known = f", and left out {stream.left_out} that an earlier sync had brought" if stream.left_out else ""
        self._log.info(f"Read {stream.count} records of stream {stream.name!r}{known}")
        for code, count in sorted(self.ignored.get(stream.name, {}).items()):
            self._log.info(f"Ignored {count} answers with status {code} in stream {stream.name!r}")
        yield complete

    def _emit(self, stream: StreamReading, body: State) -> Iterator[AirbyteMessage]:
        full = stream.tracker.annotate(body) if stream.tracker is not None else body
        if full != stream.last_state:
            stream.last_state = full
            yield state_message(stream.name, full)


def refuse_unknown(catalog: ConfiguredAirbyteCatalog, names: Collection[str], of: str) -> None:
    """Raise a config_error if the catalog names streams that the form, or the manifest, does not have."""
    unknown = sorted({entry.stream.name for entry in catalog.streams} - set(names))
    if unknown:
        raise config_error(f"The catalog names streams that the {of} does not have: {', '.join(unknown)}. "
                           f"Streams: {', '.join(names)}. Discover the schema again.")  # fmt: skip


def keep_pace(stream: AbstractStream, counts: Mapping[str, int]) -> None:
    """Let the states of a stream with partitions leave in time: the CDK lets ten minutes pass, and has no setting."""
    if isinstance(stream.cursor, ConcurrentPerPartitionCursor):
        pace = Pace(lambda: counts.get(stream.name, 0))
        setattr(stream.cursor, "_throttle_state_message", pace.is_due)  # noqa: B010


class Pace:
    """When the next STATE of a stream with partitions may leave: after 10,000 records, or a minute.

    Args:
        count: how many records the stream has so far.
    """

    def __init__(self, count: Callable[[], int], *, now: Callable[[], float] = time.time):
        self._count = count
        self._now = now
        self._last_count, self._last = 0, now()

    def is_due(self) -> float | None:
        """The time if it is due, as the CDK's cursor wants it; None if not."""
        now, count = self._now(), self._count()
        if now - self._last < STATE_SECONDS and count - self._last_count < STATE_RECORDS:
            return None
        self._last, self._last_count = now, count
        return now


def state_message(name: str, body: Mapping[str, Any]) -> AirbyteMessage:
    """A STREAM state."""
    stream = AirbyteStreamState(
        stream_descriptor=StreamDescriptor(name=name), stream_state=AirbyteStateBlob(dict(body))
    )
    return AirbyteMessage(type=Type.STATE, state=AirbyteStateMessage(type=AirbyteStateType.STREAM, stream=stream))


def as_records(page: Page) -> Iterator[AirbyteMessage]:
    """A page as single messages."""
    for record in page.records():
        body = AirbyteRecordMessage(stream=page.stream, data=record["data"], emitted_at=record["emitted_at"])
        yield AirbyteMessage(type=Type.RECORD, record=body)
