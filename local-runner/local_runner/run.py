"""The platform's part for people without one: joins a source and a destination, keeps the state, shows progress.

What it does as Airbyte does: RECORD and STATE lines reach the destination byte for byte; stream statuses only where
refreshes are supported; a configuration that the source sends in a CONTROL message replaces its file; the state that
is kept is the one that the destination echoed; a full refresh begins without state, unless it is a retry; generation
ids are set, or left out as for custom connectors.

Both processes end with this one, however it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from local_runner.lake import end_with_parent

PROGRESS_SECONDS = 2.0
END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Connector:
    """A connector's command, such as ``["source-rest-api"]``, and its configuration file."""

    command: tuple[str, ...]
    config: Path


@dataclass(frozen=True, slots=True)
class Connection:
    """A source, a destination, and what stands between their syncs.

    Attributes:
        catalog: a configured catalog (JSON file).
        state: file with the kept state; made by the first sync.
        supports_refreshes: send generation ids and stream statuses, as the platform does for its own connectors.
    """

    source: Connector
    destination: Connector
    catalog: Path
    state: Path
    supports_refreshes: bool = False


@dataclass(slots=True)
class Outcome:
    """What one sync did."""

    source_exit: int = 0
    destination_exit: int = 0
    records: dict[str, int] = field(default_factory=dict)
    states: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        return self.source_exit == 0 and self.destination_exit == 0


class StateFile:
    """The kept state: a list of the last STATE per stream, or one GLOBAL or LEGACY; and the sync's numbers."""

    def __init__(self, path: Path):
        self._path = path
        found = json.loads(path.read_bytes()) if path.exists() else {}
        self.sync_id: int = found.get("sync_id", 0)
        self.generations: dict[str, int] = found.get("generations", {})
        self._states: dict[str, Any] = found.get("states", {})

    def take(self, message: Mapping[str, Any]) -> None:
        """Keep a STATE that the destination echoed."""
        body = {name: value for name, value in message["state"].items() if not name.endswith("Stats")}
        if body.get("type") == "STREAM":
            self._states[_stream_key(body["stream"]["stream_descriptor"])] = body
        else:
            self._states = {"": body}
        self.save()

    def forget(self, stream: str) -> None:
        """Begin a stream without state."""
        self._states.pop(stream, None)

    def as_input(self) -> list[Any]:
        """What a source takes as ``--state``."""
        return list(self._states.values())

    def save(self) -> None:
        draft = self._path.with_name(self._path.name + ".draft")
        document = {"sync_id": self.sync_id, "generations": self.generations, "states": self._states}
        draft.write_text(json.dumps(document, indent=1))
        draft.replace(self._path)


def sync(connection: Connection, *, is_retry: bool = False, progress: bool = False) -> Outcome:
    """Run one sync. A retry repeats the last one: the same sync id and generations, and state for full refreshes."""
    kept = StateFile(connection.state)
    catalog = json.loads(connection.catalog.read_bytes())
    _begin(kept, catalog, connection, is_retry=is_retry)
    folder = connection.state.parent
    catalog_file, state_file = folder / "catalog.sent.json", folder / "state.sent.json"
    catalog_file.write_text(json.dumps(catalog))
    state_file.write_text(json.dumps(kept.as_input()))
    source_arguments = ["read", "--config", str(connection.source.config), "--catalog", str(catalog_file)]
    if kept.as_input():
        source_arguments += ["--state", str(state_file)]
    write_arguments = ["write", "--config", str(connection.destination.config), "--catalog", str(catalog_file)]
    outcome = Outcome()
    with (
        _process([*connection.source.command, *source_arguments], stdin=subprocess.DEVNULL) as source,
        _process([*connection.destination.command, *write_arguments], stdin=subprocess.PIPE) as destination,
    ):
        reader = threading.Thread(target=_keep_states, args=(destination, kept, outcome), daemon=True)
        reader.start()
        _pump(source, destination, connection, outcome, progress=progress)
        outcome.source_exit = source.wait()
        if destination.stdin is not None:
            with suppress(BrokenPipeError):
                destination.stdin.close()
        reader.join()
        outcome.destination_exit = destination.wait()
    return outcome


def _begin(kept: StateFile, catalog: dict[str, Any], connection: Connection, *, is_retry: bool) -> None:
    kept.sync_id += 0 if is_retry and kept.sync_id else 1
    for entry in catalog["streams"]:
        key = _stream_key(entry["stream"])
        is_full = entry["sync_mode"] == "full_refresh"
        is_replace = is_full and entry["destination_sync_mode"].startswith("overwrite")
        if is_full and not is_retry:
            kept.forget(key)
        if is_replace and not is_retry:
            kept.generations[key] = kept.generations.get(key, 0) + 1
        generation = kept.generations.setdefault(key, 1)
        if connection.supports_refreshes:
            numbers = {"generation_id": generation, "minimum_generation_id": generation if is_replace else 0}
            entry.update(numbers, sync_id=kept.sync_id)
    kept.save()


def _pump(
    source: subprocess.Popen[bytes],
    destination: subprocess.Popen[bytes],
    connection: Connection,
    outcome: Outcome,
    *,
    progress: bool,
) -> None:
    """Pass the source's lines on until it ends, or until the destination does."""
    assert source.stdout is not None  # made with a pipe
    assert destination.stdin is not None
    shown = time.monotonic()
    for line in source.stdout:
        if not _passes(line, connection, outcome):
            continue
        try:
            destination.stdin.write(line)
        except BrokenPipeError:
            break  # it says why on its stdout
        if progress and time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"  {sum(outcome.records.values())} records so far", file=sys.stderr)  # noqa: T201
    else:
        return
    source.terminate()


def _passes(line: bytes, connection: Connection, outcome: Outcome) -> bool:
    """Whether a line of the source goes to the destination."""
    try:
        message = orjson.loads(line)
        kind = message["type"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return bool(line.strip())  # the destination refuses what is no message, with its line number
    match kind:
        case "RECORD":
            key = _stream_key({"name": message["record"]["stream"], "namespace": message["record"].get("namespace")})
            outcome.records[key] = outcome.records.get(key, 0) + 1
            return True
        case "STATE":
            return True
        case "TRACE":
            trace = message["trace"]
            if trace.get("type") == "ERROR":
                outcome.errors.append(f"source: {trace['error']['message']}")
            return connection.supports_refreshes and trace.get("type") == "STREAM_STATUS"
        case "CONTROL":
            _take_config(message["control"], connection.source.config)
            return False
        case _:
            return False


def _take_config(control: Mapping[str, Any], path: Path) -> None:
    """A source that got new credentials sends its configuration anew."""
    config = control.get("connectorConfig", {}).get("config")
    if isinstance(config, dict):
        draft = path.with_name(path.name + ".draft")
        draft.write_text(json.dumps(config))
        draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(path)


def _keep_states(destination: subprocess.Popen[bytes], kept: StateFile, outcome: Outcome) -> None:
    assert destination.stdout is not None  # made with a pipe
    for line in destination.stdout:
        message = json.loads(line)
        if message["type"] == "STATE":
            kept.take(message)
            outcome.states += 1
        elif message["type"] == "TRACE" and message["trace"].get("type") == "ERROR":
            outcome.errors.append(f"destination: {message['trace']['error']['message']}")


@contextmanager
def _process(command: Sequence[str], *, stdin: int) -> Iterator[subprocess.Popen[bytes]]:
    """A child in its own group, which ends with this block and with this process."""
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        _close(process.stdin, process.stdout)


def _close(*files: BinaryIO | Any) -> None:
    for file in files:
        if file is not None:
            with suppress(BrokenPipeError):
                file.close()


def _stream_key(descriptor: Mapping[str, Any]) -> str:
    namespace = descriptor.get("namespace")
    return f"{namespace}.{descriptor['name']}" if namespace else str(descriptor["name"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="local-runner", description="Run one sync without an Airbyte platform.")
    for side in ("source", "destination"):
        parser.add_argument(f"--{side}", required=True, help=f"command of the {side}")
        parser.add_argument(f"--{side}-config", required=True, type=Path)
    parser.add_argument("--catalog", required=True, type=Path, help="configured catalog")
    parser.add_argument("--state", required=True, type=Path, help="state file; made by the first sync")
    parser.add_argument("--supports-refreshes", action="store_true", help="send generation ids and stream statuses")
    parser.add_argument("--retry", action="store_true", help="repeat the last sync as its next attempt")
    arguments = parser.parse_args()
    connection = Connection(
        Connector(tuple(shlex.split(arguments.source)), arguments.source_config),
        Connector(tuple(shlex.split(arguments.destination)), arguments.destination_config),
        arguments.catalog,
        arguments.state,
        arguments.supports_refreshes,
    )
    outcome = sync(connection, is_retry=arguments.retry, progress=True)
    for error in outcome.errors:
        print(error, file=sys.stderr)  # noqa: T201
    print(  # noqa: T201
        json.dumps({"records": outcome.records, "states": outcome.states, "source_exit": outcome.source_exit,
                    "destination_exit": outcome.destination_exit})
    )  # fmt: skip
    sys.exit(0 if outcome.is_success else 1)


if __name__ == "__main__":
    main()
