"""What the source is measured against: the same pages read by a bare script, by the stock CDK and by dlt.

Each is a command line that reads ``/items`` of an API page by page: into RECORD lines, or for dlt into the files of its
extract step, with gzip as it comes, and without. Nothing is sent to anybody else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DLT = "dlt==1.31.0"
DROPPED = ("tags", "note", "ref")

BARE = """
import sys, time
import orjson, requests
url, dropped, session, page, out = sys.argv[1], sys.argv[2:], requests.Session(), 1, sys.stdout.buffer
while True:
    rows = orjson.loads(session.get(url + "/items", params={"page": page}).content)["data"]
    if not rows:
        break
    for row in rows:
        for name in dropped:
            row.pop(name, None)
        record = {"stream": "items", "data": row, "emitted_at": time.time_ns() // 1_000_000}
        out.write(orjson.dumps({"type": "RECORD", "record": record}) + b"\\n")
    page += 1
"""

STOCK = """
import json, sys
from airbyte_cdk.entrypoint import AirbyteEntrypoint, launch
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource
arguments = sys.argv[2:]
manifest = json.load(open(sys.argv[1]))
catalog = ConcurrentDeclarativeSource.read_catalog(AirbyteEntrypoint.extract_catalog(arguments))
config = json.load(open(AirbyteEntrypoint.extract_config(arguments)))
launch(ConcurrentDeclarativeSource(catalog, config, [], source_config=manifest), arguments)
"""

# Counts what was extracted on its last line.
DLT_SCRIPT = """
import json, sys
import dlt
from dlt.sources.rest_api import rest_api_source
dlt.config["runtime.dlthub_telemetry"] = False
url, folder, kind, gzip, dropped = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:]
dlt.config["data_writer.disable_compression"] = gzip == "plain"
endpoint = {"path": "items", "data_selector": "data",
            "paginator": {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": None}}
if kind == "incremental":
    endpoint["incremental"] = {"cursor_path": "updated_at", "initial_value": "2023-01-01T00:00:00Z",
                               "start_param": "since"}
resource = {"name": "items", "primary_key": "id", "endpoint": endpoint}
if dropped:
    def without(row):
        for name in dropped:
            row.pop(name, None)
        return row
    resource["processing_steps"] = [{"map": without}]
source = rest_api_source({"client": {"base_url": url}, "resources": [resource]})
pipeline = dlt.pipeline("bench", pipelines_dir=folder, destination="filesystem", dataset_name="bench")
info = pipeline.extract(source)
tables = [part["table_metrics"] for parts in info.metrics.values() for part in parts]
print(sum(table["items"].items_count for table in tables if "items" in table))
"""


@dataclass(frozen=True)
class Task:
    """What is read. ``kind`` is plain, incremental or projection."""

    url: str
    kind: str
    page: int
    folder: Path

    @property
    def dropped(self) -> tuple[str, ...]:
        return DROPPED if self.kind == "projection" else ()

    def file(self, name: str, document: Any) -> str:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return str(path)

    def read(self, config: Any) -> list[str]:
        """The arguments of an Airbyte source."""
        mode = "incremental" if self.kind == "incremental" else "full_refresh"
        stream = {"name": "items", "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]}
        catalog = {"streams": [{"stream": stream, "sync_mode": mode, "destination_sync_mode": "append"}]}
        return ["read", "--catalog", self.file("catalog", catalog), "--config", self.file("config", config)]


def bare(task: Task) -> list[str]:
    return [sys.executable, "-c", BARE, task.url, *task.dropped]


def ours(task: Task) -> list[str]:
    return [str(source_bin() / "source-rest-api"), *task.read(our_form(task))]


def our_form(task: Task) -> dict[str, Any]:
    stream: dict[str, Any] = {"name": "items", "path": "/items", "record_path": "data", "primary_key": ["id"]}
    if task.kind == "incremental":
        stream["incremental"] = {"incremental_type": "datetime", "cursor_field": "updated_at", "start": "2023-01-01",
                                 "start_param": "since"}  # fmt: skip
    if task.dropped:
        stream["drop_fields"] = list(task.dropped)
    return {"base_url": task.url, "pagination": {"pagination_type": "page"}, "streams": [stream]}


def stock(task: Task) -> list[str]:
    manifest = task.file("manifest", stock_manifest(task))
    return [str(source_bin() / "python"), "-c", STOCK, manifest, *task.read({})]


def stock_manifest(task: Task) -> dict[str, Any]:
    pages = {"type": "PageIncrement", "page_size": task.page, "start_from_page": 1, "inject_on_first_request": True}
    option = {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"}
    stream: dict[str, Any] = {
        "type": "DeclarativeStream",
        "name": "items",
        "primary_key": ["id"],
        "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": {}}},
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {"type": "HttpRequester", "url_base": task.url, "path": "/items", "http_method": "GET"},
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
            },
            "paginator": {"type": "DefaultPaginator", "page_token_option": option, "pagination_strategy": pages},
        },
    }
    if task.kind == "incremental":
        stream["incremental_sync"] = {
            "type": "DatetimeBasedCursor",
            "cursor_field": "updated_at",
            "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
            "start_datetime": "2023-01-01T00:00:00Z",
            "start_time_option": {**option, "field_name": "since"},
        }
    if task.dropped:
        stream["transformations"] = [{"type": "RemoveFields", "field_pointers": [[name] for name in task.dropped]}]
    spec = {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}}
    check = {"type": "CheckStream", "stream_names": ["items"]}
    return {"version": "7.39.1", "type": "DeclarativeSource", "check": check, "streams": [stream], "spec": spec}


def dlt(task: Task, *, files: str = "gzip") -> list[str]:
    pipelines = task.folder / "dlt"
    return [
        str(python_with("bench-dlt", DLT)),
        "-c",
        DLT_SCRIPT,
        task.url,
        str(pipelines),
        task.kind,
        files,
        *task.dropped,
    ]


def dlt_without_gzip(task: Task) -> list[str]:
    return dlt(task, files="plain")


@cache
def source_bin() -> Path:
    """Where the source is installed alone, as in its image: beside it, the CDK would load the destination's boto3."""
    root = Path(__file__).parents[1]
    folder = root / ".make" / "bench-source"
    sync = ["sync", "--frozen", "--no-dev", "--quiet", "--package", "source-rest-api", "--python", sys.executable]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)}
    subprocess.run([root / ".make" / "uv" / "bin" / "uv", *sync], check=True, cwd=root, env=environment)
    return folder / "bin"


def python_with(name: str, *packages: str) -> Path:
    """Python of a virtual environment that holds a peer's packages, which is made at the first use."""
    folder = Path(__file__).parents[1] / ".make" / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
        )
        (folder / "ready").touch()
    return python
