"""The CDK's entrypoint, with pages: it writes finished lines, and counts what they hold.

Also: the files of the command line are read with errors that say which file is wrong; log records lose their stack
traces and bodies of failed requests; each error is one TRACE.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from airbyte_cdk.entrypoint import AirbyteEntrypoint
from airbyte_cdk.models import (
    AirbyteErrorTraceMessage,
    AirbyteMessage,
    AirbyteMessageSerializer,
    AirbyteStateStats,
    AirbyteTraceMessage,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteCatalogSerializer,
    ConnectorSpecification,
    FailureType,
    TraceType,
    Type,
)
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.errors import config_error
from source_rest_api.form import Form
from source_rest_api.logs import without_details
from source_rest_api.page import Page
from source_rest_api.run import places
from source_rest_api.source import SourceRestApi


class PageEntrypoint(AirbyteEntrypoint):
    """One command of the command line."""

    def __init__(self, source: SourceRestApi, out: BinaryIO):
        super().__init__(source)
        self._source = source
        self._out = out
        self.has_traced = False
        for handler in logging.getLogger().handlers:
            handler.addFilter(without_details)

    @classmethod
    def build(cls, parsed: argparse.Namespace, out: BinaryIO) -> PageEntrypoint:
        """Read the files of the command line and make the source.

        Raises:
            AirbyteTracedException: a file is missing or is no JSON.
        """
        files = {
            name: _read_json(getattr(parsed, name), name)
            for name in ("config", "catalog", "state")
            if getattr(parsed, name, None)
        }
        for name in files.keys() & {"config", "catalog"}:
            if not isinstance(files[name], dict):
                raise config_error(f"The {name} file {getattr(parsed, name)} holds no JSON object.")
        try:
            catalog = ConfiguredAirbyteCatalogSerializer.load(files["catalog"]) if "catalog" in files else None
        except Exception:  # noqa: BLE001  # whatever the CDK's serializer raises
            raise config_error(
                f"The file {parsed.catalog} is no configured catalog. Discover the schema again."
            ) from None
        try:
            state = SourceRestApi.read_state(parsed.state) if "state" in files else None
        except Exception:  # noqa: BLE001  # as above
            raise config_error(
                f"The file {parsed.state} is no list of STATE messages. Give the state back that the last sync ended "
                "with."
            ) from None
        return cls(SourceRestApi(catalog, files.get("config"), state), out)

    def read(
        self, source_spec: ConnectorSpecification, config: Any, catalog: ConfiguredAirbyteCatalog, state: list[Any]
    ) -> Iterable[AirbyteMessage]:
        """As the CDK's, but a page goes to stdout as it is."""
        self.set_up_secret_filter(config, source_spec.connectionSpecification)
        counts: dict[str, float] = {}
        for message in self._source.read_pages(self.logger, config, catalog, state):
            if isinstance(message, Page):
                counts[message.stream] = counts.get(message.stream, 0.0) + message.count
                self._out.write(message.lines)
                continue
            if message.state is not None and message.state.stream is not None:
                name = message.state.stream.stream_descriptor.name
                message.state.sourceStats = AirbyteStateStats(recordCount=counts.pop(name, 0.0))
            yield self._plain(message)
        yield from self._emit_queued_messages(self.source)

    def _plain(self, message: AirbyteMessage) -> AirbyteMessage:
        """An error without texts that may quote data."""
        if message.trace is not None and message.trace.error is not None:
            self.has_traced = True
            error = message.trace.error
            error.message = filter_secrets(error.message)
            error.internal_message = filter_secrets(error.message)
            error.stack_trace = None
        return message

    @staticmethod
    def validate_connection(source_spec: ConnectorSpecification, config: Mapping[str, Any]) -> None:
        """By the form: JSON Schema's messages quote values."""
        Form.parse(config)


def error_line(problem: BaseException) -> str:
    """A TRACE for an error that ended the command."""
    known = problem if isinstance(problem, AirbyteTracedException) else None
    message = (
        known.message
        if known and known.message
        else "Something went wrong in the connector. This is a bug: please report it."
    )
    error = AirbyteErrorTraceMessage(
        message=filter_secrets(message),
        internal_message=type(problem).__name__,
        stack_trace=places(problem),
        failure_type=known.failure_type if known else FailureType.system_error,
    )
    trace = AirbyteTraceMessage(type=TraceType.ERROR, emitted_at=time.time_ns() // 1_000_000, error=error)
    return orjson.dumps(AirbyteMessageSerializer.dump(AirbyteMessage(type=Type.TRACE, trace=trace))).decode()


def _read_json(path: str, name: str) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as problem:
        raise config_error(f"The {name} file {path} cannot be read: {problem.strerror}.") from None
    except ValueError:
        raise config_error(f"The {name} file {path} is no JSON.") from None
