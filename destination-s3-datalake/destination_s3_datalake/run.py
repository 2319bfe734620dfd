"""The command line: ``spec``, ``check``, ``write``, ``repair``. argv, files, stdin, stdout, signals; decides nothing.

Starts fast: ``spec`` is a file, and nothing here imports airbyte_cdk or pandas (``destination.py`` is the face for
those who want the CDK's class). Every failure ends in one message on stdout, never in a traceback.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from destination_s3_datalake.errors import BadLineError, ConfigError, DatalakeError
from destination_s3_datalake.output import Output, StdoutClosedError

if TYPE_CHECKING:
    from destination_s3_datalake.config import Config
    from destination_s3_datalake.pipeline import Sync
    from destination_s3_datalake.protocol.messages import Framer

READ_BYTES = 1 << 20
IDLE_SECONDS = 1.0
TERM_SECONDS = 10.0
TERMINATED = 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script. Exits 0, 1, or 143 after SIGTERM."""
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    output = Output(sys.stdout.fileno())
    sys.exit(run_command(arguments, output))


def spec() -> dict[str, Any]:
    """The SPEC message's content, from the file that is made from the typed configuration at build time."""
    found: dict[str, Any] = orjson.loads((resources.files(__package__) / "spec.json").read_bytes())
    return found


def run_check(raw_config: Mapping[str, Any], output: Output) -> None:
    """Print one CONNECTION_STATUS, whatever happens."""
    status: dict[str, Any] = {"status": "SUCCEEDED"}
    try:
        from destination_s3_datalake.check import check

        check(_config(raw_config, output))
    except DatalakeError as error:
        status = {"status": "FAILED", "message": error.message}
    output.message({"type": "CONNECTION_STATUS", "connectionStatus": status})


class Feeder:
    """A sync that takes bytes. Made by ``open_sync``; ``feed`` any number of times, then ``finish`` or ``terminate``.

    All raise:
        DatalakeError: what went wrong; everything that a STATE was printed for is committed.
        StdoutClosedError: nobody reads our stdout any more.
    """

    def __init__(self, sync: Sync, framer: Framer):
        self._sync = sync
        self._framer = framer
        self.repair = sync.repair

    def feed(self, chunk: bytes) -> None:
        """Bytes of the input, cut anywhere."""
        with self._keeping_what_is_good():
            self._sync.receive(self._framer.feed(chunk))
            self._sync.tick()

    def tick(self) -> None:
        """No input has come for a while."""
        with self._keeping_what_is_good():
            self._sync.tick()

    def finish(self) -> None:
        """The input has ended."""
        with self._keeping_what_is_good():
            self._sync.receive(self._framer.finish())
            self._sync.finish()

    def terminate(self) -> None:
        """We are told to stop."""
        with self._keeping_what_is_good():
            self._sync.commit_to_last_states()

    @contextmanager
    def _keeping_what_is_good(self) -> Iterator[None]:
        """A line that cannot be used ends the sync, and what has a STATE before it is committed first."""
        try:
            yield
        except BadLineError:
            self._sync.commit_to_last_states()
            raise


@contextmanager
def open_sync(raw_config: Mapping[str, Any], raw_catalog: Mapping[str, Any], output: Output) -> Iterator[Feeder]:
    """A sync from an unchecked configuration and catalog.

    Raises:
        ConfigError: one of them is wrong.
    """
    from destination_s3_datalake.files.spool import Spool
    from destination_s3_datalake.lake.garbage import Retention
    from destination_s3_datalake.lake.glue import Catalog
    from destination_s3_datalake.lake.heartbeat import Heartbeat
    from destination_s3_datalake.lake.opening import Lake
    from destination_s3_datalake.lake.s3 import Bucket
    from destination_s3_datalake.lake.session import connect
    from destination_s3_datalake.pipeline import Sync
    from destination_s3_datalake.protocol.catalog import parse_catalog
    from destination_s3_datalake.protocol.messages import Framer

    config = _config(raw_config, output)
    plans = parse_catalog(raw_catalog)
    clients = connect(config)
    bucket = Bucket(clients.s3, config.s3_bucket_name, config.encryption)
    catalog = Catalog(clients.glue, catalog_id=config.glue_catalog_id, create_databases=config.create_databases)
    with (
        Spool(config.spool_directory, limit_bytes=config.spool_limit_mb << 20) as spool,
        Heartbeat(bucket, config.s3_bucket_path, takeover_after_seconds=config.takeover_after_seconds) as heartbeat,
    ):
        retention = Retention(hours=config.retain_replaced_hours, copies=config.retain_replaced_copies)
        lake = Lake(
            bucket=bucket,
            catalog=catalog,
            heartbeat=heartbeat,
            prefix=config.s3_bucket_path,
            takeover_after_seconds=config.takeover_after_seconds,
            retention=retention,
            adopts=config.existing_table == "adopt",
            notify=output.log,
        )
        named = Counter(stream.name for stream in plans)
        framer = Framer(
            max_line_bytes=config.max_record_mb << 20, ambiguous=[name for name, count in named.items() if count > 1]
        )
        yield Feeder(Sync(config, plans, lake, spool, output), framer)


def run_write(
    raw_config: Mapping[str, Any],
    raw_catalog: Mapping[str, Any],
    descriptor: int,
    output: Output,
    is_terminated: Callable[[], bool] = lambda: False,
) -> None:
    """Write what comes from a file descriptor to the lake until it ends, or until ``is_terminated``.

    Raises:
        DatalakeError, StdoutClosedError: as ``Feeder``.
    """
    with suppress(OSError):  # no pipe, or a limit of the machine
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, READ_BYTES)  # fewer, larger reads than the 64 kB of a fresh pipe
    with open_sync(raw_config, raw_catalog, output) as feeder:
        while not is_terminated():
            is_ready = bool(select.select([descriptor], [], [], IDLE_SECONDS)[0])
            if is_terminated():
                break  # an input that ends when we are told to stop has not ended by itself
            if not is_ready:
                feeder.tick()  # a commit may be due although nothing comes
                continue
            chunk = os.read(descriptor, READ_BYTES)
            if not chunk:
                feeder.finish()
                return
            feeder.feed(chunk)
        feeder.terminate()


def run_command(arguments: argparse.Namespace, output: Output) -> int:
    try:
        match arguments.command:
            case "spec":
                output.message({"type": "SPEC", "spec": spec()})
            case "check":
                return _check(arguments, output)
            case "write":
                return _write(arguments, output)
            case "repair":
                config = _read_json(arguments.config, "--config")
                with open_sync(config, _read_json(arguments.catalog, "--catalog"), output) as feeder:
                    feeder.repair()
    except DatalakeError as error:
        output.trace(error)
        return 1
    except StdoutClosedError:
        return 1
    except Exception as error:  # noqa: BLE001  # the last line of defence: a bug must end in a message without values
        output.trace(error)
        return 1
    return 0


def _config(raw: Mapping[str, Any], output: Output) -> Config:
    """The configuration, its secrets hidden from here on."""
    from destination_s3_datalake.config import Config, secrets_of
    from destination_s3_datalake.migration import translated

    ours, notes = translated(raw)
    output.hide((*secrets_of(raw), *secrets_of(ours)))
    for note in notes:
        output.log(note.level, note.text)
    return Config.parse(ours)


def _check(arguments: argparse.Namespace, output: Output) -> int:
    try:
        raw = _read_json(arguments.config, "--config")
    except ConfigError as error:
        status = {"status": "FAILED", "message": error.message}
        output.message({"type": "CONNECTION_STATUS", "connectionStatus": status})
        return 0
    run_check(raw, output)
    return 0


def _write(arguments: argparse.Namespace, output: Output) -> int:
    terminated = threading.Event()

    def on_term(_signal: int, _frame: object) -> None:
        terminated.set()
        # A commit that takes longer is left to the next run, which finishes it.
        timer = threading.Timer(TERM_SECONDS, os._exit, args=(TERMINATED,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, on_term)
    config = _read_json(arguments.config, "--config")
    catalog = _read_json(arguments.catalog, "--catalog")
    run_write(config, catalog, sys.stdin.fileno(), output, terminated.is_set)
    return TERMINATED if terminated.is_set() else 0


def _read_json(path: str, option: str) -> Mapping[str, Any]:
    try:
        found = orjson.loads(Path(path).read_bytes())
    except OSError as cause:
        raise ConfigError(f"The file of {option} cannot be read ({cause.strerror}): {path}") from None
    except orjson.JSONDecodeError as cause:
        raise ConfigError(f"The file of {option} is not JSON (line {cause.lineno}): {path}") from None
    if not isinstance(found, Mapping):
        raise ConfigError(f"The file of {option} must hold a JSON object: {path}")
    return found


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="destination-s3-datalake", description="Airbyte destination: Glue-cataloged Parquet tables on S3."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="spec | check | write | repair")
    commands.add_parser("spec", help="print the connection specification")
    texts = {
        "check": "try the configuration",
        "write": "write the messages of stdin to the lake",
        "repair": "make a new log for tables whose log was lost or damaged",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", required=True, help="configuration, a JSON file")
        if name != "check":
            command.add_argument("--catalog", required=True, help="configured catalog, a JSON file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
