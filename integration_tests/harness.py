"""The real destination process, a platform that forgets, and readers that share no code with the product."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from local_runner.lake import RunningLake

from integration_tests import evidence

KEY_ID, SECRET = "AKIAEMBEDDEDLAKE", "embedded-secret-0123456789"
BIN = Path(sys.executable).parent
DESTINATION = BIN / "destination-s3-datalake"
TIMEOUT = 120

Message = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "text": {"type": ["null", "string"]}}}


def record(number: int, stream: str = "orders", **more: Any) -> Message:
    data = {"id": number, "text": f"row {number}", **more}
    return {"type": "RECORD", "record": {"stream": stream, "emitted_at": 1_700_000_000_000 + number, "data": data}}


def state(data: object, stream: str = "orders") -> Message:
    body = {"stream_descriptor": {"name": stream}, "stream_state": data}
    return {"type": "STATE", "state": {"type": "STREAM", "stream": body}}


def complete(stream: str = "orders") -> Message:
    status = {"stream_descriptor": {"name": stream}, "status": "COMPLETE"}
    return {"type": "TRACE", "trace": {"type": "STREAM_STATUS", "emitted_at": 1, "stream_status": status}}


FINAL = {"__ab_full_refresh_sync_complete": True, "run_id": "r"}


def catalog(
    *streams: str, mode: str = "append", sync_mode: str = "incremental", schema: object = None, **more: Any
) -> Message:
    return {
        "streams": [
            {
                "stream": {
                    "name": name,
                    "json_schema": SCHEMA if schema is None else schema,
                    "supported_sync_modes": ["full_refresh", "incremental"],
                },
                "sync_mode": sync_mode,
                "destination_sync_mode": mode,
                **more,
            }
            for name in streams or ("orders",)
        ]
    }


def as_lines(messages: Iterable[Message]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@dataclass(frozen=True)
class Result:
    """What a process printed and how it ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes

    @property
    def messages(self) -> list[Message]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def states(self) -> list[Any]:
        """The data of each STREAM state printed."""
        return [message["state"]["stream"]["stream_state"] for message in self.of("STATE")]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [message["trace"]["error"] for message in self.of("TRACE")]


@dataclass
class House:
    """One bucket and database of the lake, and what is in it for a reader."""

    lake: RunningLake
    bucket: str
    database: str
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="house-")))

    def __post_init__(self) -> None:
        access: dict[str, Any] = {
            "endpoint_url": self.lake.url,
            "aws_access_key_id": KEY_ID,
            "aws_secret_access_key": SECRET,
            "region_name": "us-east-1",
        }
        self.s3 = boto3.client("s3", **access)
        self.glue: Any = boto3.client("glue", **access)
        self.s3.create_bucket(Bucket=self.bucket)

    def config(self, **changes: Any) -> dict[str, Any]:
        return {
            "s3_bucket_name": self.bucket,
            "s3_bucket_path": "lake",
            "s3_bucket_region": "us-east-1",
            "glue_database": self.database,
            "s3_endpoint": self.lake.url,
            "glue_endpoint": self.lake.url,
            "s3_addressing": "path",
            "takeover_after_seconds": 0,
            "credentials": {"auth_type": "access_key", "access_key_id": KEY_ID, "secret_access_key": SECRET},
            **changes,
        }

    def write(
        self,
        messages: Iterable[Message] | bytes,
        configured: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        on_start: Callable[[int], None] = lambda pid: None,
        command: Sequence[str] = (str(DESTINATION),),
    ) -> Result:
        """Run ``write`` in its own process. ``on_start`` gets its pid before it gets any input."""
        files = self.save(
            config=self.config() if config is None else config, catalog=catalog() if configured is None else configured
        )
        arguments = [*command, "write", "--config", files["config"], "--catalog", files["catalog"]]
        body = messages if isinstance(messages, bytes) else as_lines(messages)
        process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment()
        )
        on_start(process.pid)
        stdout, stderr = process.communicate(body, timeout=TIMEOUT)
        return Result(process.returncode, stdout, stderr)

    def check(self, config: object, command: Sequence[str] = (str(DESTINATION),)) -> Result:
        files = self.save(config=config)
        done = subprocess.run(
            [*command, "check", "--config", files["config"]], capture_output=True, timeout=TIMEOUT, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def save(self, **documents: object) -> dict[str, str]:
        """Each document as a JSON file; their paths."""
        if (kept := evidence.current()) is not None:
            kept.secrets_of(documents.get("config"))
        paths = {}
        for name, document in documents.items():
            path = self.folder / f"{name}.json"
            path.write_text(document if isinstance(document, str) else json.dumps(document))
            paths[name] = str(path)
        return paths

    def rows(self, table: str = "orders") -> list[dict[str, Any]]:
        """Every row that a reader of the table sees, as Athena would: columns and Location from Glue."""
        definition = self.table(table)
        keys = [key["Name"] for key in definition["PartitionKeys"]]
        rows: list[dict[str, Any]] = []
        for place in self.partitions(table) if keys else [{**definition, "Values": []}]:
            values = [None if value == "__HIVE_DEFAULT_PARTITION__" else value for value in place["Values"]]
            rows.extend(row | dict(zip(keys, values, strict=True)) for row in self._rows_at(place["StorageDescriptor"]))
        return rows

    def _rows_at(self, storage: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the SerDe makes of the files at a Location."""
        names = [column["Name"] for column in storage["Columns"]]
        for key in self.visible_keys(storage["Location"]):
            body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            match storage["SerdeInfo"]["SerializationLibrary"].rpartition(".")[2]:
                case "ParquetHiveSerDe":
                    found: pa.Table = pq.read_table(io.BytesIO(body))
                    yield from ({name: row.get(name) for name in names} for row in found.to_pylist())
                case "JsonSerDe":
                    for line in text_lines(key, body):
                        row = json.loads(line)
                        yield {name: row.get(name) for name in names}
                case "LazySimpleSerDe":
                    for line in text_lines(key, body):
                        fields = lazy_fields(line)
                        yield dict(zip(names, [*fields, *[None] * len(names)], strict=False))
                case other:
                    raise AssertionError(other)

    def partitions(self, table: str = "orders") -> list[dict[str, Any]]:
        """Every partition that is registered."""
        pages = self.glue.get_paginator("get_partitions").paginate(DatabaseName=self.database, TableName=table)
        return [partition for page in pages for partition in page["Partitions"]]

    def ids(self, table: str = "orders") -> list[int]:
        return sorted(row["id"] for row in self.rows(table))

    def table(self, table: str = "orders") -> dict[str, Any]:
        return dict(self.glue.get_table(DatabaseName=self.database, Name=table)["Table"])

    def columns(self, table: str = "orders") -> dict[str, str]:
        return {column["Name"]: column["Type"] for column in self.table(table)["StorageDescriptor"]["Columns"]}

    def has_table(self, table: str = "orders") -> bool:
        try:
            self.table(table)
        except self.glue.exceptions.EntityNotFoundException:
            return False
        return True

    def live_keys(self, table: str = "orders") -> list[str]:
        """What Athena reads: everything below the Location but names that begin with ``_`` or ``.``."""
        return self.visible_keys(self.table(table)["StorageDescriptor"]["Location"])

    def visible_keys(self, location: str) -> list[str]:
        prefix = location.removeprefix(f"s3://{self.bucket}/")
        return [key for key in self.keys(prefix) if not key.rpartition("/")[2].startswith(("_", "."))]

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def log_entries(self) -> list[str]:
        return [key for key in self.keys("lake/_airbyte/") if "/log/0" in key]

    def uploads(self) -> list[str]:
        return [item["Key"] for item in self._uploads()]

    def abort_uploads(self) -> None:
        """What a lifecycle rule may do at any time."""
        for upload in self._uploads():
            self.s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def _uploads(self) -> list[Any]:
        return list(self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ()))


def text_lines(key: str, body: bytes) -> list[bytes]:
    """The lines of a text file; Hadoop knows its compression by its name."""
    if key.endswith(".gz"):
        body = gzip.decompress(body)
    if key.endswith(".zst"):
        body = pa.input_stream(io.BytesIO(body), compression="zstd").read()
    return body.split(b"\n")[:-1] if body else []


def lazy_fields(line: bytes) -> list[str | None]:
    """The fields of a line as Hive's LazySimpleSerDe reads them: first split, then NULL, then escapes."""
    raw, is_escaped = [bytearray()], False
    for byte in line:
        if byte == ord(",") and not is_escaped:
            raw.append(bytearray())
        else:
            raw[-1].append(byte)
        is_escaped = byte == ord("\\") and not is_escaped
    letters = {b"n": b"\n", b"r": b"\r"}
    return [
        None
        if field == rb"\N"
        else re.sub(rb"\\(.)", lambda found: letters.get(found[1], found[1]), bytes(field)).decode()
        for field in raw
    ]


class Watcher:
    """Calls ``look`` again and again, every ``pause`` seconds, while writers come and go."""

    def __init__(self, look: Callable[[], None], *, pause: float):
        self._look = look
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            self._look()


def peak_of(pid: int) -> int:
    """The most memory in MB that a running process has had, 0 if it has gone; what ``wait4`` says has its parent's."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) >> 10
    return 0


def plain_environment() -> dict[str, str]:
    """What a user's process has: no switch that changes buffering, and no credentials of the machine."""
    hidden = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("AWS_")}
