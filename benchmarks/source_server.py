"""An API in a process of its own, whose pages are rendered before it answers.

    python -m benchmarks.source_server --records 200000 --page 1000 --port-file f [--different N] [--delay-ms 50]

``/items``, ``/few/items`` (one page), ``/slow-1/items`` and so on: ``?page=N`` from 1; behind the end a page is empty.
``/stats`` says when the first request came (seconds of the machine's monotonic clock). It ends with its parent.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local_runner.lake import end_with_parent

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def row(number: int) -> dict[str, Any]:
    """15 fields."""
    return {
        "id": number, "name": f"customer {number}", "email": f"c{number}@example.com", "active": number % 3 == 0,
        "score": number * 0.37, "created_at": "2024-01-01T00:00:00Z",
        "updated_at": (BEGIN + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tags": ["a", "b"], "address": {"city": "Berlin", "zip": "10115"}, "note": None, "visits": number % 1000,
        "country": "DE", "plan": "basic", "balance": number * 1.01, "ref": f"{number:012d}",
    }  # fmt: skip


def rendered(records: int, size: int, different: int) -> list[bytes]:
    """The pages; if there are more than ``different``, those come again and again, to keep this process small."""
    firsts = range(0, records, size)[:different]
    made = [page(range(first, min(first + size, records))) for first in firsts]
    return [made[number % len(made)] for number in range(-(-records // size))]


def page(numbers: range) -> bytes:
    return json.dumps({"data": [row(number) for number in numbers]}).encode()


def serve(pages: list[bytes], delay: float, port_file: Path) -> None:
    first_request: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/stats":
                return self._send(json.dumps(first_request).encode())
            if not first_request:
                first_request.append(time.monotonic())
            number = int(parse_qs(parts.query).get("page", ["1"])[0])
            last = 1 if parts.path.startswith("/few/") else len(pages)
            time.sleep(delay)
            return self._send(pages[number - 1] if number <= last else b'{"data": []}')

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing of clients that go away: one is meant to, at a page that is too large."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(server.server_port))
    draft.rename(port_file)
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--page", type=int, required=True)
    parser.add_argument("--different", type=int, default=1_000_000)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--port-file", type=Path, required=True)
    arguments = parser.parse_args()
    end_with_parent()
    pages = rendered(arguments.records, arguments.page, arguments.different)
    serve(pages, arguments.delay_ms / 1000, arguments.port_file)


if __name__ == "__main__":
    main()
