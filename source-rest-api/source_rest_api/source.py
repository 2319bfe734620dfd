"""The source: a ``YamlDeclarativeSource`` whose streams come from the form, or a pasted manifest's.

What is added to the CDK, and nothing more: streams built from the form; ``check`` and ``discover`` by reading first
pages; and in ``read`` what the destination relies on (see ``reading.py``). A manifest has an engine of its own
(``manifest_engine.py``), which is imported only then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airbyte_cdk.models import (
    AirbyteCatalog,
    AirbyteConnectionStatus,
    AirbyteMessage,
    AirbyteStateMessage,
    AirbyteStream,
    ConfiguredAirbyteCatalog,
    Status,
    SyncMode,
)
from airbyte_cdk.sources.declarative.parsers.manifest_component_transformer import ManifestComponentTransformer
from airbyte_cdk.sources.declarative.yaml_declarative_source import YamlDeclarativeSource
from airbyte_cdk.sources.streams.concurrent.abstract_stream import AbstractStream
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.api_errors import IGNORED
from source_rest_api.boundary import known_of
from source_rest_api.credentials import TOKENS
from source_rest_api.errors import config_error
from source_rest_api.form import SHARED, Form, Stream
from source_rest_api.limits import GATE
from source_rest_api.page import Page
from source_rest_api.reading import FULL_REFRESH_COMPLETE, Reading, as_records, keep_pace, refuse_unknown, state_message
from source_rest_api.retriever import BOUNDARIES, COUNTS, DETECTED
from source_rest_api.sampling import CHECK_SECONDS, Sample, Sampler, first_page, sample_all, schema_of, within
from source_rest_api.states import check_states, migrated, stream_state
from source_rest_api.streams import api_budget, stream_components
from source_rest_api.tokens import KEEPER, hide
from source_rest_api.watching import WATCHER, Enough, Watcher

if TYPE_CHECKING:
    from source_rest_api.manifest_engine import ManifestEngine

# Absolute: a relative name would be looked up in the current directory first.
MANIFEST = Path(__file__).with_name("manifest.yaml")
CHECK_RETRIES = 1


class SourceRestApi(YamlDeclarativeSource):
    """Any JSON REST API, by the form.

    Args:
        catalog: the configured catalog of a read.
        config: the form.
        state: the input STATE of a read.
    """

    check_config_against_spec = False  # Form.parse checks it, and says which place is wrong without quoting values

    def __init__(
        self,
        catalog: ConfiguredAirbyteCatalog | None = None,
        config: Mapping[str, Any] | None = None,
        state: list[AirbyteStateMessage] | None = None,
    ):
        self._catalog = catalog
        self._states = list(state or ())
        self._input = {name: body for name, body in map(stream_state, state or ()) if name}
        self._max_retries: int | None = None
        known = {name: known_of(body) for name, body in self._input.items()}
        super().__init__(
            str(MANIFEST),
            catalog=catalog,
            config={**config, BOUNDARIES: known, SHARED: {}} if config is not None else None,
            state=[_for_the_cdk(message) for message in state or ()],
        )

    @property
    def dynamic_streams(self) -> list[dict[str, Any]]:
        """The CDK's components of all streams. Raises a config_error for a bad form."""
        definitions = self._source_config["definitions"]
        built = stream_components(self._form(), definitions, max_retries=self._max_retries)
        return [ManifestComponentTransformer().propagate_types_and_parameters("", component, {}) for component in built]

    def configure(self, config: Mapping[str, Any], temp_dir: str) -> Mapping[str, Any]:
        """Take a configuration that came late: the CDK's test kit builds a source without one.

        The CDK's own would write the configuration, and its secrets, into ``temp_dir``.
        """
        if not self._config:
            self._config = {**config, BOUNDARIES: {}, SHARED: {}}
        return self._config

    def check(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        """Read the first page of one stream that needs no parent, or of those in ``check_streams``."""
        try:
            self._take(config)
            if self._form().manifest:
                with self._engine() as engine:
                    return engine.check(logger, engine.config)
            self._max_retries = CHECK_RETRIES
            form = self._form()
            streams = {stream.name: stream for stream in self.streams(self._config)}
            for name in form.check_streams or [_first_to_check(form).name]:
                within(CHECK_SECONDS, partial(first_page, streams[name]))
        except AirbyteTracedException as problem:
            return AirbyteConnectionStatus(status=Status.FAILED, message=filter_secrets(problem.message or ""))
        detected = self._config[SHARED].get(DETECTED, {})
        words = "; ".join(f"{name}: {found}" for name, found in sorted(detected.items()))
        return AirbyteConnectionStatus(
            status=Status.SUCCEEDED, message=f"Pagination detected: {words}." if words else None
        )

    def discover(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteCatalog:
        """All streams, each with the schema of a sample. A stream that cannot be sampled is listed with a warning.

        Raises:
            AirbyteTracedException: the form is wrong, or no stream can be read.
        """
        self._take(config)
        if self._form().manifest:
            with self._engine() as engine:
                return engine.discover(logger, engine.config)
        self._max_retries = CHECK_RETRIES
        form = self._form()
        streams = self.streams(self._config)
        sizes = [stream.sample_size for stream in form.streams]
        samples = sample_all(zip(streams, sizes, strict=True), form.num_workers)
        for stream, sample in zip(form.streams, samples, strict=True):
            if sample.problem:
                logger.warning(f"Stream {stream.name!r} is listed with its key and cursor only: {sample.problem}")
            elif not sample.records:
                logger.warning(f"Stream {stream.name!r} is listed with its key and cursor only: it has no records yet")
        if all(sample.problem for sample in samples):
            raise config_error(f"No stream can be read. {form.streams[0].name!r}: {samples[0].problem}")
        return AirbyteCatalog(
            streams=[_airbyte_stream(stream, sample) for stream, sample in zip(form.streams, samples, strict=True)]
        )

    def read(
        self,
        logger: logging.Logger,
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage]:
        """RECORD, STATE and TRACE messages, one RECORD per record, for any caller but our command line."""
        for message in self.read_pages(logger, config, catalog, state):
            if isinstance(message, Page):
                yield from as_records(message)
            else:
                yield message

    def read_pages(
        self,
        logger: logging.Logger,
        config: Mapping[str, Any],
        catalog: ConfiguredAirbyteCatalog,
        state: list[AirbyteStateMessage] | None = None,
    ) -> Iterator[AirbyteMessage | Page]:
        """The same, with pages of finished lines in place of RECORD messages.

        Raises:
            AirbyteTracedException: the form is wrong, the catalog names an unknown stream, or a stream failed.
        """
        self._take(config)
        form = self._form()
        if form.manifest:
            with self._engine() as engine:
                yield from engine.read_pages(catalog)
            return
        check_states(form, self._input)
        refuse_unknown(catalog, form.names, of="form")
        cursors = {stream.name: stream.cursor for stream in form.streams if stream.cursor is not None}
        reading = Reading(cursors, catalog, self._input, self._config[SHARED].setdefault(IGNORED, {}))
        yield from reading.pages(super().read(logger, self._config, reading.catalog, state))

    def sampled(
        self, config: Mapping[str, Any], name: str, watcher: Watcher, keeper: Callable[[Mapping[str, Any]], None]
    ) -> Iterator[Mapping[str, Any]]:
        """Records of one stream, read as in a sync, for somebody who looks on and may end it by ``Enough``.

        May be called again with another form for the same API: its token and what it said of its limit are kept.

        Args:
            config: the form.
            name: of the stream; it exists.
            watcher: sees the requests.
            keeper: keeps a configuration whose refresh token was rotated.

        Raises:
            AirbyteTracedException: as ``read`` does.
        """
        before = self._config.get(SHARED, {})
        shared = {part: before[part] for part in (GATE, TOKENS) if part in before}
        self._config = {**config, BOUNDARIES: {}, SHARED: {**shared, WATCHER: watcher, KEEPER: keeper}}
        self._take(config)
        if self._form().manifest:
            with self._engine() as engine, suppress(Enough):
                yield from engine.sampled(name)
            return
        self._max_retries = CHECK_RETRIES
        (stream,) = [stream for stream in self.streams(self._config) if stream.name == name]
        with suppress(Enough):
            yield from Sampler(math.inf).iterate(stream)

    def _take(self, config: Mapping[str, Any]) -> None:
        self.configure(config, temp_dir="")
        for secret in self._form().secrets:
            hide(secret)

    @contextmanager
    def _engine(self) -> Iterator[ManifestEngine]:
        """What runs the pasted manifest. Raises a config_error for a bad one."""
        from source_rest_api.manifest import Manifest
        from source_rest_api.manifest_engine import ManifestEngine

        form = self._form()
        with ManifestEngine.parts(form, self._config):
            yield ManifestEngine(Manifest.parse(form.manifest), form, self._config, self._catalog, self._states)

    def _form(self) -> Form:
        return Form.of(self._config)

    def streams(self, config: Mapping[str, Any]) -> list[AbstractStream]:
        """In the order of the form."""
        budget = api_budget(self._form().rate_limit)
        if budget is not None:
            self._source_config = {**self._source_config, "api_budget": budget}
        streams = super().streams(config)
        counts = self._config[SHARED].setdefault(COUNTS, {})
        for stream in streams:
            keep_pace(stream, counts)
        return streams


def _first_to_check(form: Form) -> Stream:
    return next((stream for stream in form.streams if not stream.parents), form.streams[0])


def _airbyte_stream(stream: Stream, sample: Sample) -> AirbyteStream:
    modes = [SyncMode.full_refresh, *([SyncMode.incremental] if stream.cursor else [])]
    return AirbyteStream(
        name=stream.name,
        json_schema=schema_of(stream, sample),
        supported_sync_modes=modes,
        source_defined_cursor=True if stream.cursor else None,
        default_cursor_field=list(stream.cursor.path) if stream.cursor else None,
        source_defined_primary_key=stream.key_paths or None,
        is_resumable=stream.cursor is not None,
    )


def _for_the_cdk(message: AirbyteStateMessage) -> AirbyteStateMessage:
    """A STATE without what the CDK does not know: our boundaries, and the mark of a full refresh."""
    name, body = stream_state(message)
    if name is None:
        return message
    return state_message(name, {} if FULL_REFRESH_COMPLETE in body else migrated(body)).state or message
