"""The commit protocol as a state machine: the product's own code on a lake in memory, where any call may be the last.

Each run of the destination may die at any S3 or Glue call, before it was done or after (its answer is lost with the
process); the platform may forget the newest STATEs; a lifecycle rule may abort uploads between runs; nothing that was
replaced is kept. After every step the table that a reader sees is compared with what the source has sent and what the
platform knows.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
from destination_s3_datalake.config import Config
from destination_s3_datalake.files.spool import Spool
from destination_s3_datalake.lake.garbage import Retention
from destination_s3_datalake.lake.glue import GlueTable, TableMovedError
from destination_s3_datalake.lake.heartbeat import Heartbeat
from destination_s3_datalake.lake.opening import Lake
from destination_s3_datalake.lake.s3 import (
    AlreadyThereError,
    ListedObject,
    NoSuchUploadError,
    ObjectInfo,
    PendingUpload,
)
from destination_s3_datalake.output import Output
from destination_s3_datalake.pipeline import Sync
from destination_s3_datalake.protocol.catalog import parse_catalog
from destination_s3_datalake.protocol.messages import Framer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

CONFIG = {
    "s3_bucket_name": "lake",
    "s3_bucket_region": "r",
    "glue_database": "d",
    "credentials": {"auth_type": "default_chain"},
    "retain_replaced_hours": 0,
    "compact_files_over": 3,
}


class DiedError(BaseException):
    """The process is gone. Not an ``Exception``: nothing may catch it."""


class Memory:
    """What outlives a process: objects, uploads, the table in Glue, S3's clock."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.table: dict[str, Any] | None = None
        self.version = 0
        self.clock = datetime(2026, 1, 1, tzinfo=UTC)
        self.calls_left: int | None = None
        self.is_done = True

    def now(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock


class MemoryBucket:
    """The verbs of ``Bucket``. Each may be the last of its process."""

    name = "lake"

    def __init__(self, memory: Memory):
        self._memory = memory

    def put(self, key: str, body: bytes, *, overwrite: bool = True) -> None:
        with _call(self._memory):
            if not overwrite and key in self._memory.objects:
                raise AlreadyThereError(key)
            self._memory.objects[key] = (body, self._memory.now())

    def get(self, key: str) -> bytes | None:
        found = self._memory.objects.get(key)
        return found[0] if found else None

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self._memory.objects[key][0])

    def copy(self, source: str, target: str, *, size: int) -> None:
        with _call(self._memory):
            assert len(self._memory.objects[source][0]) == size
            self._memory.objects[target] = (self._memory.objects[source][0], self._memory.now())

    def head(self, key: str) -> ObjectInfo | None:
        found = self._memory.objects.get(key)
        return ObjectInfo(len(found[0]), found[1], self._memory.clock) if found else None

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self._memory.objects if key.startswith(prefix) and key > after))

    def objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        return (ListedObject(key, len(self._memory.objects[key][0])) for key in self.keys(prefix, after=after))

    def folders(self, prefix: str) -> list[str]:
        return sorted({prefix + key.removeprefix(prefix).split("/")[0] for key in self.keys(prefix)})

    def delete_many(self, keys: list[str]) -> None:
        for key in keys:
            self.delete(key)

    def delete(self, key: str) -> None:
        with _call(self._memory):
            self._memory.objects.pop(key, None)

    def start_upload(self, key: str) -> str:
        with _call(self._memory):
            upload_id = f"u{len(self._memory.uploads)}-{self._memory.now().timestamp()}"
            self._memory.uploads[upload_id] = (key, {})
        return upload_id

    def upload_part(self, key: str, upload_id: str, *, number: int, body: bytes) -> str:
        with _call(self._memory):
            self._of(key, upload_id)[number] = body
        return f"e{number}"

    def complete_upload(self, key: str, upload_id: str, etags: tuple[str, ...]) -> None:
        with _call(self._memory):
            parts = self._of(key, upload_id)
            body = b"".join(parts[number] for number in range(1, len(etags) + 1))
            del self._memory.uploads[upload_id]
            self._memory.objects[key] = (body, self._memory.now())

    def abort_upload(self, key: str, upload_id: str) -> None:
        with _call(self._memory):
            self._memory.uploads.pop(upload_id, None)

    def uploads(self, prefix: str) -> list[PendingUpload]:
        return [
            PendingUpload(key, upload_id)
            for upload_id, (key, _) in self._memory.uploads.items()
            if key.startswith(prefix)
        ]

    def _of(self, key: str, upload_id: str) -> dict[int, bytes]:
        found = self._memory.uploads.get(upload_id)
        if found is None:
            raise NoSuchUploadError(key)
        return found[1]


class MemoryCatalog:
    """The methods of ``Catalog`` for one table, with versions."""

    def __init__(self, memory: Memory):
        self._memory = memory

    def ensure_database(self, name: str) -> None:
        """Every database is there."""

    def table(self, database: str, name: str) -> GlueTable | None:
        found = self._memory.table
        if found is None or found["Name"] != name:
            return None
        return GlueTable(name, str(self._memory.version), json.loads(json.dumps(found)))

    def create_table(self, database: str, table: dict[str, Any]) -> None:
        with _call(self._memory):
            if self._memory.table is not None:
                raise TableMovedError(table["Name"])
            self._memory.table = table

    def update_table(self, database: str, table: dict[str, Any], *, version: str | None) -> None:
        with _call(self._memory):
            if version != str(self._memory.version):
                raise TableMovedError(table["Name"])
            self._memory.table, self._memory.version = table, self._memory.version + 1


class _call:  # reads as a statement
    """A call that changes something; the process may die before it, or behind it without its answer."""

    def __init__(self, memory: Memory):
        self._memory = memory

    def __enter__(self) -> None:
        left = self._memory.calls_left
        if left is not None and left <= 0 and not self._memory.is_done:
            raise DiedError

    def __exit__(self, kind: object, *_: object) -> None:
        left = self._memory.calls_left
        if left is None or kind is not None:
            return
        if left <= 0:
            raise DiedError
        self._memory.calls_left = left - 1


class Death(NamedTuple):
    """At which call a process dies, whether that was done, how many STATEs the platform forgets then, and more."""

    call: int
    is_done: bool
    forgets: int
    shuffles: bool
    aborts: bool


DEATHS = st.lists(
    st.builds(Death, st.integers(0, 16), st.booleans(), st.integers(0, 3), st.booleans(), st.booleans()), max_size=3
)


class ProtocolMachine(RuleBasedStateMachine):
    """One table in one of three modes, its source, and a platform."""

    @initialize(mode=st.sampled_from(["append", "upsert", "refresh"]), seed=st.integers(0, 1 << 16))
    def begin(self, mode: str, seed: int) -> None:
        self.memory = Memory()
        self.mode = mode
        self.dice = random.Random(seed)
        self.generation = 1
        self.sent = 0  # rows that the source has, of this generation
        self.kept = 0  # the STATE that the platform has
        self.acknowledged: set[int] = set()
        self.before: set[int] = set()  # rows of earlier generations that are in the table
        self.in_refresh = False
        self.syncs = 0

    @rule(rows=st.integers(0, 4), deaths=DEATHS)
    def sync(self, rows: int, deaths: list[Death]) -> None:
        """New rows in the source; tries that die, and one that does not."""
        self.sent += rows
        self.syncs += 1  # tries of one sync have its id
        for death in deaths:
            self._try(death)
        self._end_well()

    @rule(rows=st.integers(0, 4), deaths=DEATHS, is_cancelled=st.booleans())
    def refresh(self, rows: int, deaths: list[Death], is_cancelled: bool) -> None:
        """The source starts over under a new generation; the user may cancel that before it ends."""
        if self.mode != "refresh":
            return
        self.before = set(self._seen())
        self.generation += 1
        self.syncs += 1
        self.sent, self.kept, self.acknowledged = rows, 0, set()
        self.in_refresh = True
        for death in deaths:
            self._try(death)
        if is_cancelled and not self._is_over_without_a_state():
            self.in_refresh = False
            self.syncs += 1
        self._end_well()

    def _is_over_without_a_state(self) -> bool:
        """The limit that the README names: a run of this refresh closed, and not one of its STATEs was kept.

        For another sync that has no resume point, its rows are new ones: only a retry of the same sync knows better.
        """
        entries = self._entries()
        ours = {found["seq"] for found in entries if found["type"] == "open" and found["generation"] == self.generation}
        return self.kept == 0 and any(found["type"] == "close" and found["epoch"] in ours for found in entries)

    def _end_well(self) -> None:
        assert self._try(None)
        self.in_refresh = False
        found, expected = self._seen(), self._everything()
        assert sorted(found) == sorted(expected), (self.mode, sorted(found), sorted(expected))

    def _try(self, death: Death | None) -> bool:
        """The rows behind the kept STATE; whether it ended well."""
        self.memory.calls_left = death.call if death else None
        self.memory.is_done = death is None or death.is_done
        states, ended = self._write(self._messages(shuffles=death is not None and death.shuffles))
        self.memory.calls_left = None
        if death and death.aborts:
            self.memory.uploads.clear()
        reached = states if death is None else states[: max(0, len(states) - death.forgets)]
        self.kept = max([self.kept, *reached])
        self.acknowledged |= {self._id(number) for number in range(1, self.kept + 1)}
        self._settle()
        return ended

    @invariant()
    def no_row_is_there_twice_and_a_refresh_is_whole(self) -> None:
        if not hasattr(self, "memory"):
            return
        found = self._seen()
        assert len(found) == len(set(found)), sorted(found)
        if self.mode == "append":
            assert set(found) >= self.acknowledged

    def _id(self, number: int) -> int:
        return self.generation * 1000 + number

    def _everything(self) -> set[int]:
        return self.before | {self._id(number) for number in range(1, self.sent + 1)}

    def _settle(self) -> None:
        """Whether the refresh was published is what the log says, also if its run died behind that."""
        swaps = [found for found in self._entries() if found["type"] == "swap" and found["replaces"]]
        if any(found["generation"] == self.generation for found in swaps):
            self.before, self.in_refresh = set(), False

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(body) for key, (body, _) in sorted(self.memory.objects.items()) if "/log/0" in key]

    def _messages(self, *, shuffles: bool) -> bytes:
        lines: list[dict[str, Any]] = [_state(self._id(self.kept))] if self.kept else []
        numbers = list(range(self.kept + 1, self.sent + 1))
        for first in range(0, len(numbers), 2):
            part = numbers[first : first + 2]
            if shuffles:
                self.dice.shuffle(part)
            lines += [_record(self._id(number)) for number in part]
            lines.append(_state(self._id(max(part))))
        lines.append(_state(self._id(self.sent)))
        lines.append({"type": "TRACE", "trace": {"type": "STREAM_STATUS", "emitted_at": 1, "stream_status": {
            "stream_descriptor": {"name": "s"}, "status": "COMPLETE"}}})  # fmt: skip
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def _write(self, lines: bytes) -> tuple[list[int], bool]:
        """A process of the destination: the STATEs that it printed, and whether it ended well."""
        config = Config.parse(CONFIG)
        minimum = self.generation if self.in_refresh else 0
        entry: dict[str, Any] = {
            "stream": {"name": "s", "json_schema": {"type": "object", "properties": {"id": {"type": "integer"}}}},
            "sync_mode": "incremental",
            "destination_sync_mode": "append_dedup" if self.mode == "upsert" else "append",
            "primary_key": [["id"]],
            "generation_id": self.generation,
            "minimum_generation_id": minimum,
            "sync_id": 100 + self.syncs,
        }
        bucket: Any = MemoryBucket(self.memory)
        catalog: Any = MemoryCatalog(self.memory)
        with tempfile.TemporaryFile() as out:
            ended = True
            try:
                heartbeat = Heartbeat(bucket, "lake", takeover_after_seconds=0)
                with Spool(None, limit_bytes=1 << 30) as spool:
                    heartbeat._begin()  # the thread that renews it has no part in the protocol
                    lake = Lake(
                        bucket, catalog, heartbeat, "lake", 0, Retention(hours=0, copies=0), False, _say_nothing
                    )
                    sync = Sync(config, parse_catalog({"streams": [entry]}), lake, spool, Output(out.fileno()))
                    framer = Framer(max_line_bytes=1 << 20)
                    sync.receive(framer.feed(lines))
                    sync.finish()
            except DiedError:
                ended = False
            out.seek(0)
            printed = [json.loads(line) for line in out]
        found = [message["state"]["stream"]["stream_state"]["c"] for message in printed if message["type"] == "STATE"]
        return [number % 1000 for number in found if number // 1000 == self.generation], ended

    def _seen(self) -> list[int]:
        """The rows of the table, through Glue."""
        table = self.memory.table
        if table is None:
            return []
        folder = table["StorageDescriptor"]["Location"].removeprefix("s3://lake/")
        ids: list[int] = []
        for key, (body, _) in self.memory.objects.items():
            if key.startswith(folder):
                with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
                    file.write(body)
                    file.flush()
                    ids += [row[0] for row in duckdb.execute(f"SELECT id FROM '{file.name}'").fetchall()]
        return ids


def _state(number: int) -> dict[str, Any]:
    body = {"stream_descriptor": {"name": "s"}, "stream_state": {"c": number}}
    return {"type": "STATE", "state": {"type": "STREAM", "stream": body}}


def _record(number: int) -> dict[str, Any]:
    return {"type": "RECORD", "record": {"stream": "s", "emitted_at": 1, "data": {"id": number}}}


def _say_nothing(level: str, text: str) -> None:
    """Nobody reads the log here."""


TestProtocol = ProtocolMachine.TestCase
TestProtocol.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "20")),
    derandomize="MODEL_EXAMPLES" not in os.environ,  # the guard of main is the same for every change
    stateful_step_count=6,
    suppress_health_check=list(HealthCheck),
)
