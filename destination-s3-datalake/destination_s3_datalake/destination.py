"""The CDK's face of this destination: for its test suite, for tools that expect the class, and for readers of both.

Everything is done by the functions behind the command line (``run.py``), which never import airbyte_cdk; a test runs
both on the same input and compares every message. ``run`` and ``run_cmd`` are ours, since the CDK's skip lines that
they cannot parse, write a STATE's big integers as floats and print what they skipped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from airbyte_cdk.destinations import Destination
from airbyte_cdk.models import (
    AirbyteConnectionStatus,
    AirbyteMessage,
    AirbyteMessageSerializer,
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteCatalogSerializer,
    ConnectorSpecification,
    ConnectorSpecificationSerializer,
)
from airbyte_cdk.utils.traced_exception import AirbyteTracedException, FailureType

from destination_s3_datalake import run
from destination_s3_datalake.errors import DatalakeError
from destination_s3_datalake.output import Output


class DestinationS3Datalake(Destination):
    """Glue-cataloged Parquet on S3."""

    check_config_against_spec = False  # our own validation names the field and never quotes a value

    def spec(self, logger: logging.Logger) -> ConnectorSpecification:
        return ConnectorSpecificationSerializer.load(run.spec())

    def check(self, logger: logging.Logger, config: Mapping[str, Any]) -> AirbyteConnectionStatus:
        output = _Collected()
        run.run_check(config, output)
        status = output.take()[0].connectionStatus
        if status is None:
            raise TypeError("check printed something else than a connection status")
        return status

    def write(
        self,
        config: Mapping[str, Any],
        configured_catalog: ConfiguredAirbyteCatalog,
        input_messages: Iterable[AirbyteMessage],
    ) -> Iterable[AirbyteMessage]:
        """As the CDK defines it. Messages that went through the CDK's classes have lost what these do not keep."""
        lines = (orjson.dumps(AirbyteMessageSerializer.dump(message)) + b"\n" for message in input_messages)
        catalog = ConfiguredAirbyteCatalogSerializer.dump(configured_catalog)
        return self._write_lines(config, catalog, lines)

    def run_cmd(self, parsed_args: argparse.Namespace) -> Iterable[AirbyteMessage]:
        """The messages of one command, as the CDK's classes."""
        output = _Collected()
        run.run_command(parsed_args, output)
        yield from output.take()

    def run(self, args: list[str]) -> None:
        """One command, with the messages of the command line, byte for byte; exits as that does."""
        sys.exit(run.run_command(self.parse_args(args), Output(sys.stdout.fileno())))

    def _write_lines(
        self, config: Mapping[str, Any], catalog: Mapping[str, Any], lines: Iterable[bytes]
    ) -> Iterable[AirbyteMessage]:
        output = _Collected()
        try:
            with run.open_sync(config, catalog, output) as feeder:
                for line in lines:
                    feeder.feed(line)
                    yield from output.take()
                feeder.finish()
                yield from output.take()
        except DatalakeError as error:
            yield from output.take()
            raise AirbyteTracedException(
                message=error.message,
                internal_message=type(error).__name__,
                failure_type=FailureType(error.failure_type),
            ) from None


class _Collected(Output):
    """Keeps messages instead of printing them."""

    def __init__(self) -> None:
        super().__init__(-1)
        self._lines: list[bytes] = []

    def line(self, raw: bytes) -> None:
        self._lines.append(raw)

    def take(self) -> list[AirbyteMessage]:
        """The messages since the last call."""
        lines, self._lines = self._lines, []
        return [AirbyteMessageSerializer.load(orjson.loads(line)) for line in lines]


if __name__ == "__main__":
    DestinationS3Datalake().run(sys.argv[1:])
