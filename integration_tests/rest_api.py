"""A REST API over a real socket, and the real source process that reads it."""

from __future__ import annotations

import io
import json
import logging
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from integration_tests import evidence
from integration_tests.harness import BIN, TIMEOUT, Message, Result, plain_environment

SOURCE = BIN / "source-rest-api"


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""
    target: str = ""  # as it stands in the request line

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    claimed_length: int | None = None  # more than the body has: the connection breaks while it comes
    is_chunked: bool = False
    is_cut: bool = False  # the connection breaks before a chunked body ends
    drip: float = 0.0  # seconds between bytes


Answer = Callable[[Request], Any]  # JSON values become a 200, Response goes as it is


@dataclass
class Api:
    """Answers by path; keeps what was asked."""

    answers: dict[str, Answer]
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    default: Answer | None = None  # for paths that have no answer of their own

    def respond(self, request: Request) -> Response:
        self.requests.append(request)
        answer = self.answers.get(request.path, self.default)
        if answer is None:
            return Response(b'{"message": "no such thing"}', 404)
        found = answer(request)
        return found if isinstance(found, Response) else Response(json.dumps(found).encode())

    def of(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]


@contextmanager
def serving(api: Api, tls: ssl.SSLContext | None = None) -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(parts.path, query, dict(self.headers), self.command, body, self.path)
            response = api.respond(request)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if response.is_chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif response.status != 204:
                self.send_header("Content-Length", str(response.claimed_length or len(response.body)))
            self.end_headers()
            step = 1 if response.drip else max(1, len(response.body) // 3)
            pieces = [response.body[at : at + step] for at in range(0, len(response.body), step)]
            for piece in pieces[:-1] if response.is_cut else pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if response.is_chunked else piece)
                time.sleep(response.drip)
            if response.is_chunked and not response.is_cut:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = response.claimed_length is not None or response.is_cut

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that go away are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    api.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Source:
    """Runs the source's commands with files in a folder."""

    folder: Path

    def run(self, command: str, config: object, *, catalog: object = None, state: object = None) -> Result:
        arguments = self.arguments(command, config, catalog=catalog, state=state)
        done = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT, check=False, env=plain_environment())
        return Result(done.returncode, done.stdout, done.stderr)

    def arguments(self, command: str, config: object, *, catalog: object = None, state: object = None) -> list[str]:
        if (kept := evidence.current()) is not None:
            kept.secrets_of(config)
        documents = {"config": config, "catalog": catalog, "state": state}
        files = [self._file(name, document) for name, document in documents.items() if document is not None]
        return [str(SOURCE), command, *(argument for file in files for argument in file)]

    def read(self, config: object, *names: str, state: object = None, mode: str | None = None) -> Result:
        streams = {stream["name"]: stream for stream in config["streams"]}  # type: ignore[index]  # tests give dicts
        catalog = {"streams": [configured(streams.get(name, {"name": name}), mode) for name in names or streams]}
        return self.run("read", config, catalog=catalog, state=state)

    def _file(self, name: str, document: object) -> list[str]:
        path = self.folder / f"{name}.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return [f"--{name}", str(path)]


class InProcess(Source):
    """The same commands by the same functions in this process: no start-up for each of many cases."""

    def run(self, command: str, config: object, *, catalog: object = None, state: object = None) -> Result:
        import source_rest_api.entrypoint  # noqa: F401  # it sets up logging, which is then led elsewhere
        from source_rest_api.run import run

        arguments = self.arguments(command, config, catalog=catalog, state=state)[1:]
        out = io.BytesIO()
        with own_stdout(out):
            code = run(arguments, out)
        if (kept := evidence.current()) is not None:
            kept.output(out.getvalue())
        return Result(code, out.getvalue(), b"")


@contextmanager
def own_stdout(out: io.BytesIO) -> Iterator[None]:
    """What is printed and logged goes to ``out``, as it does in a process of its own."""
    text = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    handlers = [found for found in logging.getLogger().handlers if isinstance(found, logging.StreamHandler)]
    before = [(handler, handler.setStream(text)) for handler in handlers if type(handler) is logging.StreamHandler]
    stdout, sys.stdout = sys.stdout, text
    try:
        yield
    finally:
        sys.stdout = stdout
        for handler, stream in before:
            if stream is not None:
                handler.setStream(stream)
        text.detach()


def configured(stream: Mapping[str, Any], mode: str | None = None) -> Message:
    has_cursor = stream.get("incremental", {}).get("incremental_type", "none") != "none"
    return {
        "stream": {"name": stream["name"], "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]},
        "sync_mode": mode or ("incremental" if has_cursor else "full_refresh"),
        "destination_sync_mode": "append",
    }


def records(result: Result, stream: str | None = None) -> list[dict[str, Any]]:
    return [
        message["record"]["data"]
        for message in result.of("RECORD")
        if stream is None or message["record"]["stream"] == stream
    ]


def kept(result: Result) -> list[dict[str, Any]]:
    """The last STATE of each stream, as the platform gives it back."""
    last = {message["state"]["stream"]["stream_descriptor"]["name"]: message["state"] for message in result.of("STATE")}
    return [{name: value for name, value in body.items() if name != "sourceStats"} for body in last.values()]


def statuses(result: Result, stream: str) -> list[str]:
    found = [message["trace"]["stream_status"] for message in result.of("TRACE") if "stream_status" in message["trace"]]
    return [status["status"] for status in found if status["stream_descriptor"]["name"] == stream]


def traced(result: Result) -> list[dict[str, Any]]:
    return [message["trace"]["error"] for message in result.of("TRACE") if message["trace"]["type"] == "ERROR"]
