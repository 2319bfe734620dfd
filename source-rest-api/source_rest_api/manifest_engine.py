"""Runs a pasted manifest: the CDK's own declarative source, with what this connector promises around it.

Streams, requests, cursors and states are the CDK's. Ours are the parts of ``manifest_parts.py``; RECORD lines made a
page at a time in the workers, in place of one queue item and one message per record; the order of STATE and COMPLETE
(``reading.py``); errors that name a place of the manifest; schemas by sampling where the manifest has none.
"""

from __future__ import annotations

import ast
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from logging import Logger
from typing import Any

import msgspec
from airbyte_cdk.models import (
    AirbyteCatalog,
    AirbyteConnectionStatus,
    AirbyteErrorTraceMessage,
    AirbyteMessage,
    AirbyteStateMessage,
    ConfiguredAirbyteCatalog,
    FailureType,
    Status,
)
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource
from airbyte_cdk.sources.declarative.retrievers.retriever import Retriever
from airbyte_cdk.sources.streams.concurrent.abstract_stream import AbstractStream
from airbyte_cdk.sources.types import Record, StreamSlice
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.errors import config_error, shown
from source_rest_api.exact_json import dumps
from source_rest_api.form import Form
from source_rest_api.manifest import Manifest, check_components, check_limits, check_shape, resolve, texts_in
from source_rest_api.manifest_parts import keep_configuration, parts_for
from source_rest_api.page import BUDGET, PAGE, Page
from source_rest_api.reading import FULL_REFRESH_COMPLETE, Reading, keep_pace, refuse_unknown, state_message
from source_rest_api.rows import MOST_RECORDS
from source_rest_api.sampling import CHECK_SECONDS, Sample, Sampler, sample_all, within
from source_rest_api.schema_inference import infer_schema
from source_rest_api.states import State, stream_state
from source_rest_api.streams import api_budget
from source_rest_api.tokens import hide
from source_rest_api.watching import Enough

SAMPLE_SIZE = 1000
MOST_PAGE_BYTES = 1 << 20
MOST_PAGE_SECONDS = 1.0
_EXHAUSTED = "Exhausted available request attempts"


class ManifestEngine(ConcurrentDeclarativeSource):
    """One run of a manifest. Use it inside of ``engine.parts()``.

    Args:
        manifest: found good.
        form: the connector's, for its limits.
        outer: the connector's whole configuration.
        catalog: of a read.
        state: the input STATE of a read.

    Raises:
        AirbyteTracedException: a config_error: the configuration does not fit the manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        form: Form,
        outer: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog | None = None,
        state: Iterable[AirbyteStateMessage] = (),
    ):
        check_limits(manifest, form)
        config = manifest.config(form.manifest_config)
        for secret in manifest.secrets(config):
            hide(secret)
        self._form = form
        self._outer = outer
        self._input: dict[str, State] = {name: body for name, body in map(stream_state, state) if name}
        self._private = sorted({text for text in texts_in([config, self._input]) if len(text) > 1}, key=len)[::-1]
        try:
            super().__init__(
                catalog or ConfiguredAirbyteCatalog(streams=[]),
                config,
                [_for_the_cdk(message) for message in state],
                source_config=_with_limits(manifest.document, form),
                migrate_manifest=True,
                custom_components_trusted=False,
            )
        except Exception as problem:  # noqa: BLE001  # the CDK raises whatever it met
            raise self._unbuilt("it cannot be read", problem) from None

    @classmethod
    def parts(cls, form: Form, outer: Mapping[str, Any]) -> AbstractContextManager[None]:
        """In which an engine is made and used."""
        return parts_for(form, outer)

    @property
    def config(self) -> Mapping[str, Any]:
        """The manifest's own."""
        return self._config

    # --- commands -----------------------------------------------------------------------------------------------------

    def check(self, logger: Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        """The manifest's own check, in bounded time."""
        try:
            status = within(CHECK_SECONDS, partial(super().check, logger, config), look_at="the manifest's url")
        except Exception as problem:  # noqa: BLE001  # as above
            raise self._unbuilt("its check cannot be made", problem) from None
        if status.status is Status.FAILED:
            status.message = self._shown(_unquoted(status.message or ""))
        return status

    def discover(self, logger: Logger, config: Mapping[str, Any]) -> AirbyteCatalog:
        """The manifest's schemas; where it has none, those of a sample."""
        streams = self._built()
        try:
            listed = [stream.as_airbyte_stream() for stream in streams]
        except Exception as problem:  # noqa: BLE001  # as above
            raise self._unbuilt("a schema cannot be loaded", problem) from None
        unknown = [number for number, stream in enumerate(listed) if not stream.json_schema.get("properties")]
        samples = sample_all(((streams[number], SAMPLE_SIZE) for number in unknown), self._form.num_workers)
        for number, sample in zip(unknown, samples, strict=True):
            found = listed[number]
            if sample.problem or not sample.records:
                why = self._shown(sample.problem) if sample.problem else "it has no records yet"
                logger.warning(f"Stream {found.name!r} has no schema in the manifest, and no sample: {why}")
            found.json_schema = _sampled(sample, found.source_defined_primary_key, found.default_cursor_field)
        return AirbyteCatalog(streams=listed)

    def read_pages(self, catalog: ConfiguredAirbyteCatalog) -> Iterator[AirbyteMessage | Page]:
        """As ``SourceRestApi.read_pages``."""
        streams = {stream.name: stream for stream in self._built()}
        refuse_unknown(catalog, streams, of="manifest")
        counts: dict[str, int] = {}
        for stream in streams.values():
            keep_pace(stream, counts)
            _in_pages(stream, counts)
        cursors = {name: None for name, stream in streams.items() if stream.cursor_field}
        reading = Reading(cursors, catalog, self._input)
        left = [streams[entry.stream.name] for entry in reading.catalog.streams]
        messages = self._concurrent_source.read(left) if left else iter(())  # as the CDK's own read
        for message in reading.pages(messages):
            if isinstance(message, AirbyteMessage) and message.trace is not None and message.trace.error is not None:
                _assign(message.trace.error, self._shown(message.trace.error.message))
            yield message

    def sampled(self, name: str) -> Iterator[Mapping[str, Any]]:
        """Records of one stream, as ``SourceRestApi.sampled``.

        Raises:
            AirbyteTracedException: there is no such stream, or reading it fails.
        """
        streams = {stream.name: stream for stream in self._built()}
        if name not in streams:
            raise config_error(f"{name!r} is no stream. Streams: {', '.join(streams)}.")
        try:
            yield from Sampler(math.inf).iterate(streams[name])
        except Enough:
            raise
        except Exception as problem:  # noqa: BLE001  # as above
            raise self._unbuilt(f"stream {name!r} cannot be read", problem) from None

    # --- what the CDK asks --------------------------------------------------------------------------------------------

    def _pre_process_manifest(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return resolve(manifest)

    def _validate_source(self) -> None:
        check_shape(self._source_config, self._declarative_component_schema)

    def _dynamic_stream_configs(
        self, manifest: Mapping[str, Any], with_dynamic_stream_name: bool | None = None
    ) -> list[dict[str, Any]]:
        """Streams that become known now may hold custom code too."""
        found = super()._dynamic_stream_configs(manifest, with_dynamic_stream_name)
        for component in found:
            check_components(component, ("dynamic_streams", str(component.get("name"))))
        return found

    def _create_streams(self, selected_configs: list[Any], all_configs: list[Any]) -> list[AbstractStream]:
        try:
            return super()._create_streams(selected_configs, all_configs)
        except Exception as problem:
            for config in selected_configs:
                try:
                    super()._create_streams([config], all_configs)
                except Exception as own:  # noqa: BLE001  # as above
                    raise self._unbuilt(f"stream {config.get('name')!r} cannot be made", own) from None
            raise problem

    def _migrate_and_transform_config(
        self, config_path: str | None, config: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """As the CDK's, but what is written back is this connector's configuration."""
        if self._spec_component is None or not config:
            return config
        own = deepcopy(dict(config))
        self._spec_component.migrate_config(own)
        if own != config:
            keep_configuration(self._outer, own)
        self._spec_component.transform_config(own)
        return own

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _built(self) -> list[AbstractStream]:
        try:
            return self.streams(self._config)
        except Exception as problem:  # noqa: BLE001  # as above
            raise self._unbuilt("its streams cannot be made", problem) from None

    def _unbuilt(self, what: str, problem: Exception) -> AirbyteTracedException:
        """The error, if it has words for the user, or a config_error with the CDK's, without any value."""
        if isinstance(problem, AirbyteTracedException):
            problem.message = self._shown(problem.message or "")
            return problem
        words = self._shown(str(problem))
        for text in self._private:
            words = words.replace(text, "****")
        given = " If its cursor was changed, reset the stream (clear its data)." if self._input else ""
        return config_error(f"manifest: {what} ({type(problem).__name__}: {words[:500]}). Change it there.{given}")

    def _shown(self, text: str) -> str:
        return filter_secrets(shown(text)).strip()


class PagedRetriever(Retriever):
    """Makes pages of the records that a retriever of the CDK yields.

    A record is observed by the stream's cursor when it comes, as the CDK does it behind the queue; the page that it
    then travels in is not observed again. A page leaves when it is full, a second old, or the slice ends.

    Args:
        inner: the CDK's.
        stream: the stream that it belongs to.
        counts: records so far, by stream.
    """

    def __init__(self, inner: Retriever, stream: AbstractStream, counts: dict[str, int]):
        self._inner = inner
        self._stream = stream.name
        self._observe = stream.cursor.observe
        self._counts = counts
        self._head = b'{"type":"RECORD","record":{"stream":%s,"data":' % msgspec.json.encode(stream.name)

    def observe(self, record: Record) -> None:
        """In place of the cursor's."""
        if PAGE not in record.data:
            self._observe(record)

    def read_records(self, records_schema: Mapping[str, Any], stream_slice: StreamSlice | None = None) -> Iterable[Any]:
        """Part of the CDK's interface."""
        lines: list[bytes] = []
        size, begun = 0, time.monotonic()
        try:
            for item in self._inner.read_records(records_schema, stream_slice):
                if not isinstance(item, Mapping):
                    yield item
                    continue
                record = item if isinstance(item, Record) else Record(item, self._stream, stream_slice)
                lines.append(dumps(record.data))
                size += len(lines[-1])
                self._observe(record)
                is_full = len(lines) >= MOST_RECORDS or size >= MOST_PAGE_BYTES
                if is_full or time.monotonic() - begun > MOST_PAGE_SECONDS:
                    yield self._page(lines, stream_slice)
                    lines, size, begun = [], 0, time.monotonic()
        except Exception:
            if lines:
                yield self._page(lines, stream_slice)  # as the CDK, which has passed them on already
            raise
        if lines:
            yield self._page(lines, stream_slice)

    def _page(self, lines: list[bytes], stream_slice: StreamSlice | None) -> Record:
        tail = b',"emitted_at":%d}}\n' % (time.time_ns() // 1_000_000)
        page = Page(self._stream, self._head + (tail + self._head).join(lines) + tail, len(lines))
        BUDGET.take(len(page.lines))
        self._counts[self._stream] = self._counts.get(self._stream, 0) + page.count
        return Record({PAGE: page}, self._stream, stream_slice)


def _assign(error: AirbyteErrorTraceMessage, words: str) -> None:
    """Say who should act where the CDK blames itself: time for what failed again and again, the user for 4xx."""
    is_unassigned = error.failure_type in (None, FailureType.system_error)
    if is_unassigned and words.startswith(_EXHAUSTED):
        error.failure_type = FailureType.transient_error
        words = f"{words.partition('xception: ')[2] or words.rstrip('. ')}. Tried again in vain. Try later."
    elif is_unassigned and words.startswith("HTTP Status Code: 4"):
        error.failure_type = FailureType.config_error
        words = f"{words} Check manifest_config, and the requests of the manifest."
    error.message = words


def _in_pages(stream: AbstractStream, counts: dict[str, int]) -> None:
    """Put the pages between a stream's retriever and the CDK's queue. Parents have retrievers of their own."""
    partitions = stream._stream_partition_generator._partition_factory  # type: ignore[attr-defined]  # the CDK's version is pinned
    paged = PagedRetriever(partitions._retriever, stream, counts)
    partitions._retriever = paged
    setattr(stream.cursor, "observe", paged.observe)  # noqa: B010


def _with_limits(document: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """A manifest with the form's limits where it has none of its own (``manifest.check_limits``)."""
    own = deepcopy(dict(document))
    budget = api_budget(form.rate_limit)
    if budget is not None:
        own["api_budget"] = budget
    own.setdefault("concurrency_level", {"type": "ConcurrencyLevel", "default_concurrency": form.num_workers})
    return own


def _sampled(sample: Sample, key: list[list[str]] | None, cursor: list[str] | None) -> dict[str, Any]:
    return infer_schema(sample.records, always=[*(key or ()), *([cursor] if cursor else ())])


def _for_the_cdk(message: AirbyteStateMessage) -> AirbyteStateMessage:
    """A STATE without the mark of our full refresh."""
    name, body = stream_state(message)
    if name is None or FULL_REFRESH_COMPLETE not in body:
        return message
    return state_message(name, {}).state or message


def _unquoted(text: str) -> str:
    """The CDK shows an error as Python would write it."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return found if isinstance(found, str) else text
