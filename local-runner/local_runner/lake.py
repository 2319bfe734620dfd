"""The embedded lake: moto's S3, Glue and STS as one server, made as strict and, on demand, as unreliable as AWS.

What moto leaves out and this adds: Glue's UpdateTable refuses a stale ``VersionId``; completing an upload that was
aborted is NoSuchUpload and not a server error; a batch of partitions has at most 100 (25 to delete), a page of them
1000; a request that expects another owner of the bucket is denied.

Faults are set over HTTP (``POST /__faults`` with the fields of ``Faults``): rejected requests (nothing was done), lost
answers (it was done, and the answer is an error), Glue faults, denied actions, and one shot at a named step, which may
kill a process: crash tests need no switch in the product.

Where the environment names a folder in ``LOCAL_LAKE_CALLS``, each kind of call of the destination is kept there, once,
each body that it sent to Glue, and the first bytes of each file that it wrote.

    python -m local_runner.lake --port 0 --port-file f     ends with its parent
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
START_SECONDS = 60.0
CALLS = "LOCAL_LAKE_CALLS"
ACCOUNT = "123456789012"
ENCRYPTION = ("", "_AWS_KMS_KEY_ID", "_BUCKET_KEY_ENABLED")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded-lake-secret"}


@dataclass
class Faults:
    """What goes wrong. Rates are shares of requests; ``at`` is one shot at a step.

    ``at``: {"step": "s3:PutObject", "match": "/log/", "skip": 2, "when": "before" | "after", "do": "kill" | "stop" |
    "reject" | "lose" | "refuse", "pid": 123, "body": "text in it", "status": "403 Forbidden", "code": "AccessDenied"}.
    ``skip`` counts matching requests that pass first. A process that is stopped asks again when it wakes; a request is
    refused with ``status`` and ``code``.
    """

    reject: float = 0.0
    lose: float = 0.0
    glue: float = 0.0
    deny: list[str] = field(default_factory=list)
    unconditional: bool = False
    """Whether ``If-None-Match`` is ignored, as some S3-compatible stores do."""
    at: dict[str, Any] | None = None
    role_session_seconds: int | None = None
    """How long an assumed role lasts from now, if not for as long as was asked for."""
    clock_ahead_seconds: float = 0.0
    """How far the clock of S3 is ahead of this machine's: days pass in a moment."""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class RunningLake:
    """A lake that answers at ``url``."""

    url: str

    def faults(self, **changes: Any) -> dict[str, Any]:
        """Set fields of ``Faults``; the faults and counts as they are then."""
        return self._post("/__faults", changes)

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far: its action and what it was on."""
        found: list[dict[str, Any]] = self._post("/__requests", {})["requests"]
        return found

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own loopback server
            found: dict[str, Any] = json.loads(answer.read())
            return found


@contextmanager
def running_lake() -> Iterator[RunningLake]:
    """A lake in a process of its own, on a free port; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="embedded-lake-") as folder:
        port_file = Path(folder) / "port"
        command = [sys.executable, "-m", "local_runner.lake", "--port", "0", "--port-file", str(port_file)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield RunningLake(f"http://127.0.0.1:{_port(process, port_file, Path(folder) / 'log')}")
        finally:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if port_file.exists() and (text := port_file.read_text()):
            return int(text)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"The embedded lake did not start: {log.read_text(errors='replace')[-2000:]}")


def action_of(env: Mapping[str, Any]) -> tuple[str, str]:
    """The API call of a request, such as s3:UploadPart, and what it is on."""
    target = str(env.get("HTTP_X_AMZ_TARGET", ""))
    if target.startswith("AWSGlue."):
        return f"glue:{target.removeprefix('AWSGlue.')}", ""
    path, query = str(env.get("PATH_INFO", "")), str(env.get("QUERY_STRING", ""))
    method = str(env.get("REQUEST_METHOD", ""))
    if "/sts/" in str(env.get("HTTP_AUTHORIZATION", "")):
        return "sts:AssumeRole", path  # the one call that we make of it
    if "/s3/" not in str(env.get("HTTP_AUTHORIZATION", "")):
        return "other", path
    key = path.lstrip("/").partition("/")[2]
    names = {part.partition("=")[0] for part in query.split("&") if part}
    if "uploadId" in names:
        verbs = {"PUT": "UploadPart", "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
        return f"s3:{verbs.get(method, 'ListParts')}", key
    if "uploads" in names:
        return ("s3:CreateMultipartUpload" if method == "POST" else "s3:ListMultipartUploads"), key or query
    if not key and "delete" in names and method == "POST":
        return "s3:DeleteObjects", query
    if not key:
        return ("s3:ListObjects" if method == "GET" else f"s3:{method}Bucket"), query
    verbs = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
    return f"s3:{verbs.get(method, method)}", key


def call_of(env: Mapping[str, Any]) -> str:
    """The API call of a request by the destination, or an AssumeRole; empty if it is somebody else's."""
    action, _ = action_of(env)
    if action != "sts:AssumeRole" and "destination-s3-datalake" not in str(env.get("HTTP_USER_AGENT", "")):
        return ""
    if "HTTP_X_AMZ_COPY_SOURCE" in env:
        return {"s3:PutObject": "s3:CopyObject", "s3:UploadPart": "s3:UploadPartCopy"}.get(action, action)
    names = {part.partition("=")[0] for part in str(env.get("QUERY_STRING", "")).split("&")}
    return action if action != "s3:ListObjects" or "prefix" in names else f"s3:GET?{'&'.join(sorted(names))}"


def options_of(env: dict[str, Any], action: str) -> dict[str, Any]:
    """What else a request says that one may want to know: its encryption and size, the account of the catalog."""
    if action.startswith("glue:"):
        body = _whole_body(env)
        account = json.loads(body).get("CatalogId") if body else None
        return {"catalog": account} if account else {}
    found = [env.get(f"HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION{name}") for name in ENCRYPTION]
    size = int(env.get("CONTENT_LENGTH") or 0)
    return ({"encryption": found} if any(found) else {}) | ({"bytes": size} if size else {})


# IAM names of the calls that are denied under another name than their own.
IAM = {
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
GLUE_FAULTS = ("ThrottlingException", "ConcurrentModificationException", "InternalServiceException")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Clock:
    """What S3 takes for the time."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Evidence:
    """What the destination asked for: ``<pid>.calls``, ``<pid>.glue`` and ``<pid>.files`` in a folder."""

    def __init__(self, folder: Path):
        self._name = str(folder / str(os.getpid()))
        self._kept: set[int] = set()
        self._lock = threading.Lock()

    def keep(self, call: str, env: dict[str, Any]) -> None:
        """Keep a call, its body if it is one to Glue, and how its file begins if it writes one."""
        if not call:
            return
        self._once("calls", call.encode())
        query = str(env.get("QUERY_STRING", "")).split("&")
        is_beginning = call == "s3:PutObject" or (call == "s3:UploadPart" and "partNumber=1" in query)
        where = str(env.get("PATH_INFO", "")).encode("latin-1")  # as WSGI has it
        if call.startswith("glue:"):
            if body := _whole_body(env):
                self._once("glue", call.encode() + b" " + body)
        elif b"/_airbyte/" not in where and (is_beginning or call == "s3:CopyObject"):
            body = _peeked(env)
            if "aws-chunked" in str(env.get("HTTP_CONTENT_ENCODING", "")):
                body = body.partition(b"\r\n")[2]
            begins = b"copy" if call == "s3:CopyObject" else body[:4].hex().encode()
            self._once("files", begins + b" " + where.lstrip(b"/"))

    def _once(self, kind: str, line: bytes) -> None:
        with self._lock:
            if (known := hash((kind, line))) not in self._kept:
                self._kept.add(known)
                with open(f"{self._name}.{kind}", "ab") as kept:
                    kept.write(line + b"\n")


class FaultyApplication:
    """A WSGI application around moto's, which decides for each request what goes wrong."""

    def __init__(self, application: Application, clock: Clock):
        self._application = application
        self._faults = Faults()
        self._clock = clock
        self._random = random.Random(1)  # noqa: S311  # reproducible faults, not secrets
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "reject": 0, "lose": 0, "glue": 0, "deny": 0, "at": 0}
        self._requests: list[dict[str, Any]] = []
        folder = os.environ.get(CALLS)
        self._evidence = Evidence(Path(folder)) if folder else None

    def __call__(self, env: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = env.get("PATH_INFO", "")
        if path == "/__faults":
            return _json(start, self._control(json.loads(_body(env) or b"{}")))
        if path == "/__requests":
            return _json(start, {"requests": self._requests})
        action, resource = action_of(env)
        if self._evidence is not None:
            self._evidence.keep(call_of(env), env)
        kept = {"action": action, "on": resource, **options_of(env, action)}
        with self._lock:
            self._counts["requests"] += 1
            self._requests.append(kept)
            shot = self._shot(env, action, resource)
            dice = self._random.random()
        if self._faults.unconditional:
            env.pop("HTTP_IF_NONE_MATCH", None)
        is_anothers = env.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER", ACCOUNT) != ACCOUNT
        if is_anothers or IAM.get(action, action) in self._faults.deny:
            return self._deny(env, start, action)
        if shot is not None:
            return self._shoot(env, start, action, shot)
        if action == "sts:AssumeRole" and self._faults.role_session_seconds is not None:
            return self._short_session(env, start, self._faults.role_session_seconds)
        return self._by_chance(env, start, action, dice)

    def _control(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._faults = Faults(**{**asdict(self._faults), **changes})
            self._clock.ahead = timedelta(seconds=self._faults.clock_ahead_seconds)
            if changes.get("seed") is not None:
                self._random.seed(changes["seed"])
            return {**asdict(self._faults), "counts": dict(self._counts)}

    def _shot(self, env: dict[str, Any], action: str, resource: str) -> dict[str, Any] | None:
        shot = self._faults.at
        if shot is None or shot["step"] != action or shot.get("match", "") not in resource:
            return None
        if "body" in shot and shot["body"].encode() not in _peeked(env):
            return None
        if shot.get("skip", 0) > 0:
            shot["skip"] -= 1
            return None
        self._faults.at = None
        self._counts["at"] += 1
        return shot

    def _shoot(self, env: dict[str, Any], start: Any, action: str, shot: Mapping[str, Any]) -> Iterable[bytes]:
        if shot.get("when", "before") == "after" or shot["do"] == "lose":
            list(self._application(env, lambda *_: None))
        else:
            _body(env)
        if shot["do"] == "refuse":
            return _error(start, action, shot["status"], shot["code"], "refused")
        if shot["do"] == "stop":
            os.kill(int(shot["pid"]), signal.SIGSTOP)
        if shot["do"] == "kill":
            os.kill(int(shot["pid"]), signal.SIGKILL)
        return _error(start, action, "500 Internal Server Error", _internal(action), "injected")

    def _short_session(self, env: dict[str, Any], start: Any, seconds: int) -> Iterable[bytes]:
        ends = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        answer = b"".join(self._application(env, lambda *_: None))
        body = re.sub(rb"<Expiration>[^<]*<", b"<Expiration>%s<" % ends, answer)
        start("200 OK", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def _deny(self, env: dict[str, Any], start: Any, action: str) -> Iterable[bytes]:
        self._counts["deny"] += 1
        _body(env)
        code = "AccessDeniedException" if action.startswith("glue:") else "AccessDenied"
        status = "400 Bad Request" if action.startswith("glue:") else "403 Forbidden"
        return _error(start, action, status, code, "denied")

    def _by_chance(self, env: dict[str, Any], start: Any, action: str, dice: float) -> Iterable[bytes]:
        faults = self._faults
        if action.startswith("glue:") and dice < faults.glue:
            self._counts["glue"] += 1
            _body(env)
            code = GLUE_FAULTS[int(dice * 1e6) % len(GLUE_FAULTS)]
            return _error(start, action, "400 Bad Request", code, "injected")
        if action.startswith("s3:") and dice < faults.reject:
            self._counts["reject"] += 1
            _body(env)
            slow = int(dice * 1e6) % 2
            status, code = (("503 Slow Down", "SlowDown"), ("500 Internal Server Error", "InternalError"))[slow]
            return _error(start, action, status, code, "injected")
        if action.startswith("s3:") and dice < faults.reject + faults.lose:
            self._counts["lose"] += 1
            list(self._application(env, lambda *_: None))
            return _error(start, action, "500 Internal Server Error", "InternalError", "injected")
        return self._application(env, start)


def _internal(action: str) -> str:
    return "InternalServiceException" if action.startswith("glue:") else "InternalError"


def _body(env: Mapping[str, Any]) -> bytes:
    found: bytes = env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
    return found


def _peeked(env: dict[str, Any]) -> bytes:
    """The body, which can be read again."""
    body = _body(env)
    env["wsgi.input"] = io.BytesIO(body)
    return body


def _whole_body(env: dict[str, Any]) -> bytes:
    """The same; empty if not all of it came: a writer may be killed while it asks."""
    body = _peeked(env)
    return body if len(body) == int(env.get("CONTENT_LENGTH") or 0) else b""


def _json(start: Any, answer: Mapping[str, Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def _error(start: Any, action: str, status: str, code: str, text: str) -> Iterable[bytes]:
    if action.startswith("glue:"):
        start(status, [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "message": text}).encode()]
    start(status, [("Content-Type", "application/xml")])
    error = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
    body = f"<ErrorResponse>{error}</ErrorResponse>" if action.startswith("sts:") else error
    return [f'<?xml version="1.0"?>{body}'.encode()]


def strict_application(clock: Clock) -> Application:
    """moto's server application with its laxities removed, for this process."""
    from moto.core.exceptions import JsonRESTError
    from moto.glue import responses as glue
    from moto.s3 import models as s3
    from moto.s3.exceptions import NoSuchUpload
    from moto.server import DomainDispatcherApplication, create_backend_app

    lock = threading.RLock()
    complete = s3.S3Backend.complete_multipart_upload
    get_partitions: Any = glue.GlueResponse.get_partitions

    class ConcurrentModificationError(JsonRESTError):
        code = 400

        def __init__(self) -> None:
            super().__init__("ConcurrentModificationException", "Update table failed due to concurrent modifications.")

    class TooManyError(JsonRESTError):
        code = 400

        def __init__(self) -> None:
            super().__init__("ValidationException", "A batch has too many partitions.")

    def update_table(self: Any) -> Any:
        with lock:
            database, wanted = self.parameters["DatabaseName"], self.parameters.get("VersionId")
            table_input = self.parameters["TableInput"]
            table = self.glue_backend.get_table(database, table_input["Name"])
            if wanted is not None and str(wanted) != str(max(int(version) for version in table.versions)):
                raise ConcurrentModificationError
            self.glue_backend.update_table(database, table_input["Name"], table_input)
            return glue.EmptyResult()

    def complete_multipart_upload(self: Any, bucket_name: str, multipart_id: str, body: Any) -> Any:
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return complete(self, bucket_name, multipart_id, body)

    def at_most(call: Any, name: str, most: int) -> Any:
        def limited(self: Any) -> Any:
            if len(self.parameters.get(name, ())) > most:
                raise TooManyError
            return call(self)

        return limited

    def partitions_by_page(self: Any) -> Any:
        first = int(self.parameters.get("NextToken") or 0)
        found = get_partitions(self).result["Partitions"]
        more = {"NextToken": str(first + 1000)} if len(found) > first + 1000 else {}
        return glue.ActionResult({"Partitions": found[first : first + 1000], **more})

    setattr(s3, "utcnow", lambda: clock.now().replace(tzinfo=None))  # noqa: B010
    setattr(s3.S3Backend, "complete_multipart_upload", complete_multipart_upload)  # noqa: B010  # mypy: a method
    setattr(glue.GlueResponse, "update_table", update_table)  # noqa: B010
    setattr(glue.GlueResponse, "get_partitions", partitions_by_page)  # noqa: B010
    for verb, name, most in (
        ("batch_create_partition", "PartitionInputList", 100),
        ("batch_update_partition", "Entries", 100),
        ("batch_delete_partition", "PartitionsToDelete", 25),
    ):
        setattr(glue.GlueResponse, verb, at_most(getattr(glue.GlueResponse, verb), name, most))
    application: Application = DomainDispatcherApplication(create_backend_app)
    return application


def serve(port: int, port_file: Path | None, host: str = "127.0.0.1") -> None:
    """Serve until killed. Port 0 takes a free one and writes it to ``port_file``."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    clock = Clock()

    class Handler(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            """Say nothing: requests are kept for ``/__requests``."""

        def date_time_string(self, timestamp: float | None = None) -> str:
            """For the header ``Date``."""
            return super().date_time_string(clock.now().timestamp() if timestamp is None else timestamp)

    application = FaultyApplication(strict_application(clock), clock)
    server = make_server(host, port, application, threaded=True, request_handler=Handler)
    if port_file is not None:
        draft = port_file.with_suffix(".draft")
        draft.write_text(str(server.server_port))
        draft.rename(port_file)
    server.serve_forever()


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, however that ends; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description="S3 and Glue on this machine, strict and in memory.")
    parser.add_argument("--host", default="127.0.0.1", help="another one only inside of a container")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    arguments = parser.parse_args()
    end_with_parent()
    os.environ.update(CREDENTIALS)
    serve(arguments.port, arguments.port_file, arguments.host)


if __name__ == "__main__":
    main()
