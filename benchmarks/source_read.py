"""What reading costs: ours against the bare minimum and against the stock CDK, as ratios of CPU in one run.

    .venv/bin/python -m benchmarks.source_read [--records 200000] [--page 1000]

All three read the same pages over a socket and print RECORD messages into a file whose lines are counted. CPU is that
of the whole reading process, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BIN = Path(sys.executable).parent

BARE = """
import sys, time
import orjson, requests
url, session, page, out = sys.argv[1], requests.Session(), 1, sys.stdout.buffer
while True:
    rows = orjson.loads(session.get(url + "/items", params={"page": page}).content)["data"]
    if not rows:
        break
    for row in rows:
        record = {"stream": "items", "data": row, "emitted_at": time.time_ns() // 1_000_000}
        out.write(orjson.dumps({"type": "RECORD", "record": record}) + b"\\n")
    page += 1
"""

STOCK = """
import json, sys
from airbyte_cdk.entrypoint import launch
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource
from airbyte_cdk.entrypoint import AirbyteEntrypoint
arguments = sys.argv[2:]
manifest = json.load(open(sys.argv[1]))
catalog = ConcurrentDeclarativeSource.read_catalog(AirbyteEntrypoint.extract_catalog(arguments))
config = json.load(open(AirbyteEntrypoint.extract_config(arguments)))
launch(ConcurrentDeclarativeSource(catalog, config, [], source_config=manifest), arguments)
"""


def row(number: int) -> dict[str, Any]:
    return {
        "id": number, "name": f"customer {number}", "email": f"c{number}@example.com", "active": number % 3 == 0,
        "score": number * 0.37, "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-05-01T12:30:00Z",
        "tags": ["a", "b"], "address": {"city": "Berlin", "zip": "10115"}, "note": None, "visits": number % 1000,
        "country": "DE", "plan": "basic", "balance": number * 1.01, "ref": f"{number:012d}",
    }  # fmt: skip


def serve(records: int, size: int) -> ThreadingHTTPServer:
    pages = [
        json.dumps({"data": [row(number) for number in range(first, min(first + size, records))]}).encode()
        for first in range(0, records, size)
    ]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number = int(parse_qs(urlsplit(self.path).query)["page"][0])
            body = pages[number - 1] if number <= len(pages) else b'{"data": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def manifest(url: str, size: int) -> dict[str, Any]:
    pages = {"type": "PageIncrement", "page_size": size, "start_from_page": 1, "inject_on_first_request": True}
    option = {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"}
    stream = {
        "type": "DeclarativeStream",
        "name": "items",
        "primary_key": ["id"],
        "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object", "properties": {}}},
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {"type": "HttpRequester", "url_base": url, "path": "/items", "http_method": "GET"},
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
            },
            "paginator": {"type": "DefaultPaginator", "page_token_option": option, "pagination_strategy": pages},
        },
    }
    spec = {"type": "Spec", "connection_specification": {"type": "object", "properties": {}}}
    check = {"type": "CheckStream", "stream_names": ["items"]}
    return {"version": "7.39.1", "type": "DeclarativeSource", "check": check, "streams": [stream], "spec": spec}


def measure(command: list[str], records: int, folder: Path) -> tuple[float, int]:
    """CPU seconds and peak RSS in MB of a command that must print ``records`` RECORD lines."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    out = folder / "out.jsonl"
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    count = sum(line.startswith(b'{"type":"RECORD"') for line in out.open("rb"))
    if process.returncode or count != records:
        raise SystemExit(f"{command[:3]}: exit code {process.returncode}, {count} of {records} records")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--page", type=int, default=1000)
    arguments = parser.parse_args()
    server = serve(arguments.records, arguments.page)
    url = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        entry = {"stream": {"name": "items", "json_schema": {}, "supported_sync_modes": ["full_refresh"]},
                 "sync_mode": "full_refresh", "destination_sync_mode": "append"}  # fmt: skip
        pages = {"pagination_type": "page", "size_param": "size", "page_size": arguments.page}
        form = {"base_url": url, "streams": [{"name": "items", "path": "/items", "record_path": "data"}]}
        files = {"catalog": {"streams": [entry]}, "form": {**form, "pagination": pages}, "empty": {},
                 "manifest": manifest(url, arguments.page)}  # fmt: skip
        paths = {name: folder / f"{name}.json" for name in files}
        for name, document in files.items():
            paths[name].write_text(json.dumps(document))
        read = ["read", "--catalog", str(paths["catalog"]), "--config"]
        variants = {
            "bare": [sys.executable, "-c", BARE, url],
            "ours": [str(BIN / "source-rest-api"), *read, str(paths["form"])],
            "stock CDK": [sys.executable, "-c", STOCK, str(paths["manifest"]), *read, str(paths["empty"])],
        }
        found = {name: measure(command, arguments.records, folder) for name, command in variants.items()}
    ours = found["ours"][0]
    for name, (cpu, rss) in found.items():
        print(f"{name:<10} CPU {cpu:6.2f} s   x{cpu / ours:5.2f} of ours   peak RSS {rss} MB")
    server.shutdown()


if __name__ == "__main__":
    main()
