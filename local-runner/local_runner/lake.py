"""The embedded lake: moto's S3, Glue and STS as one server, made as strict and, on demand, as unreliable as AWS.

What moto leaves out and this adds (each has a test that fails on plain moto):

- Glue's UpdateTable refuses a stale ``VersionId`` with ConcurrentModificationException.
- Completing, or sending a part to, an upload that is unknown, aborted or another key's is NoSuchUpload.
- A request whose body was cut off (its sender died) does nothing; moto stores the half that came.
- A conditional PUT is atomic: of many at once with ``If-None-Match: *``, one succeeds and the others are 412.
- Batches of partitions have their limits: 100 to create or update, 25 to delete, 1,000 to get.
- ``x-amz-expected-bucket-owner`` is checked.

Faults are set over HTTP (``POST /__faults`` with fields of ``Faults``): rejected requests (nothing was done), lost
answers (it was done, and the answer is an error or the connection is cut), Glue faults, denied actions, unknown access
keys, slow answers, and a shot at a named step, which may kill a process: crash tests need no switch in the product.

    python -m local_runner.lake --port 0 --port-file f     [--until-stdin-closes]

All in memory. Permissions, signatures and regions are not checked: nothing here stands in for a test on AWS.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
START_SECONDS = 60.0
REQUESTS_KEPT = 100_000
ACCOUNT = "123456789012"  # moto's own, as "the account that owns every bucket here"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded-lake-secret"}


@dataclass(frozen=True, slots=True)
class Shot:
    """A fault at a named step.

    Attributes:
        step: the API call, such as ``s3:CompleteMultipartUpload`` or ``glue:UpdateTable``.
        do: ``reject`` (nothing is done), ``lose`` (it is done, the answer is an error), ``cut`` (the connection ends
            without an answer), ``delay`` (it is done ``seconds`` later), ``kill`` (``pid`` gets SIGKILL).
        match: only requests whose target contains this.
        skip: so many matching requests pass first.
        times: so many are hit.
        when: for ``kill`` and ``cut``: ``before`` or ``after`` it is done.
        code: the error code of the answer, where one is given.
    """

    step: str
    do: str
    match: str = ""
    skip: int = 0
    times: int = 1
    when: str = "before"
    pid: int = 0
    seconds: float = 0.0
    code: str | None = None


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Rates are shares of requests, between 0 and 1.

    Attributes:
        reject: S3 requests answered 500 or 503 SlowDown before anything is done.
        lose: S3 requests that are done, and answered 500.
        cut: S3 and Glue requests that are done, and whose connection ends without an answer.
        glue: Glue requests that are throttled or refused before anything is done.
        delay: seconds that every answer takes longer.
        deny: IAM actions that are denied, such as ``s3:PutObject`` (which parts of uploads need too).
        keys: the access key IDs that exist; None for any.
        at: a shot; gone when it has hit as often as it says.
        seed: makes the dice reproducible from here on.
    """

    reject: float = 0.0
    lose: float = 0.0
    cut: float = 0.0
    glue: float = 0.0
    delay: float = 0.0
    deny: list[str] = field(default_factory=list)
    keys: list[str] | None = None
    at: Shot | None = None
    seed: int | None = None

    def changed(self, changes: Mapping[str, Any]) -> Faults:
        """These faults with some fields set anew, as they come over HTTP."""
        shot = changes.get("at", self.at)
        return replace(self, **{**changes, "at": Shot(**shot) if isinstance(shot, Mapping) else shot})


@dataclass(frozen=True, slots=True)
class RunningLake:
    """A lake that answers at ``url``, for any credentials and with the bucket in the path."""

    url: str

    def faults(self, **changes: Any) -> dict[str, Any]:
        """Set fields of ``Faults``; the faults and counts as they are then."""
        return self._post("/__faults", changes)

    def requests(self) -> list[dict[str, Any]]:
        """The requests so far, the last 100,000: each one's action and what it was on."""
        found: list[dict[str, Any]] = self._post("/__requests", {})["requests"]
        return found

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own loopback server
            found: dict[str, Any] = json.loads(answer.read())
            return found


@contextmanager
def running_lake() -> Iterator[RunningLake]:
    """A lake in a process of its own, on a free port; gone when the block or this process ends."""
    with running_server("local_runner.lake") as port:
        yield RunningLake(f"http://127.0.0.1:{port}")


@contextmanager
def running_server(module: str, *arguments: str) -> Iterator[int]:
    """``python -m module`` with the options of ``serve_until_told``; yields its port and ends it with the block."""
    with tempfile.TemporaryDirectory(prefix="local-runner-") as folder:
        port_file, log_file = Path(folder) / "port", Path(folder) / "log"
        options = ["--port", "0", "--port-file", str(port_file), "--until-stdin-closes"]
        with log_file.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal must not end it before those who use it.
            process = subprocess.Popen(
                [sys.executable, "-m", module, *options, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield _port(process, port_file, log_file)
        finally:
            process.kill()
            process.communicate()


def _port(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if port_file.exists():
            return int(port_file.read_text())
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text(errors='replace')[-2000:]}")


# The IAM actions that calls need, where the name is another one.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
IAM = {
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:UploadPartCopy": "s3:PutObject",
    "s3:HeadObject": "s3:GetObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:ListObjects": "s3:ListBucket",
    "s3:HEADBucket": "s3:ListBucket",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
}


def action_of(env: Mapping[str, Any]) -> tuple[str, str]:
    """The API call of a request, such as s3:UploadPart, and the key or the query that it is on."""
    target = str(env.get("HTTP_X_AMZ_TARGET", ""))
    if target.startswith("AWSGlue."):
        return f"glue:{target.removeprefix('AWSGlue.')}", ""
    path, query = str(env.get("PATH_INFO", "")), str(env.get("QUERY_STRING", ""))
    method = str(env.get("REQUEST_METHOD", ""))
    if "/s3/" not in str(env.get("HTTP_AUTHORIZATION", "")):
        return "other", path
    _bucket, _, key = path.lstrip("/").partition("/")
    names = {part.partition("=")[0] for part in query.split("&") if part}
    is_copy = "HTTP_X_AMZ_COPY_SOURCE" in env
    if "uploadId" in names:
        put = "UploadPartCopy" if is_copy else "UploadPart"
        verbs = {"PUT": put, "POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
        return f"s3:{verbs.get(method, 'ListParts')}", key
    if "uploads" in names:
        return ("s3:CreateMultipartUpload" if method == "POST" else "s3:ListMultipartUploads"), key or query
    if not key:
        if method == "POST" and "delete" in names:
            return "s3:DeleteObjects", query
        if "lifecycle" in names:
            return "s3:GetLifecycleConfiguration" if method == "GET" else f"s3:{method}LifecycleConfiguration", query
        return ("s3:ListObjects" if method == "GET" else f"s3:{method}Bucket"), query
    put = "CopyObject" if is_copy else "PutObject"
    verbs = {"PUT": put, "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
    return f"s3:{verbs.get(method, method)}", key


Environment = dict[str, Any]
Start = Callable[..., Any]
Application = Callable[[Environment, Start], Iterable[bytes]]
GLUE_FAULTS = ("ThrottlingException", "ConcurrentModificationException", "InternalServiceException")
S3_FAULTS = ("SlowDown", "InternalError")
TEXTS = {
    "AccessDenied": "Access Denied",
    "AccessDeniedException": "not authorized to perform this action",
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
    "NoSuchUpload": "The specified upload does not exist. It may have been aborted or completed.",
    "ConcurrentModificationException": "Update table failed due to concurrent modifications.",
    "IncompleteBody": "You did not provide the number of bytes specified by the Content-Length HTTP header.",
}
STATUS = {
    "AccessDenied": "403 Forbidden",
    "InvalidAccessKeyId": "403 Forbidden",
    "NoSuchUpload": "404 Not Found",
    "IncompleteBody": "400 Bad Request",
    "SlowDown": "503 Slow Down",
    "InternalError": "500 Internal Server Error",
    "InternalServiceException": "500 Internal Server Error",
}


class FaultyApplication:
    """A WSGI application around another, which decides for each request what goes wrong."""

    def __init__(self, application: Application):
        self._application = application
        self._faults = Faults()
        self._random = random.Random(1)  # noqa: S311  # reproducible faults, not secrets
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("requests", "reject", "lose", "cut", "glue", "deny", "at"), 0)
        self._requests: deque[dict[str, Any]] = deque(maxlen=REQUESTS_KEPT)

    def __call__(self, env: Environment, start: Start) -> Iterable[bytes]:
        path = env.get("PATH_INFO", "")
        body = _whole_body(env)
        if path == "/__faults":
            return _json(start, self._control(json.loads(body or b"{}")))
        if path == "/__requests":
            with self._lock:
                return _json(start, {"requests": list(self._requests)})
        action, resource = action_of(env)
        if body is None:
            return _refuse(start, action, "IncompleteBody")
        with self._lock:
            self._counts["requests"] += 1
            self._requests.append({"action": action, "on": resource})
            faults, shot, dice = self._faults, self._shot(action, resource), self._random.random()
        if faults.delay:
            time.sleep(faults.delay)
        if (refusal := _signed_in(faults, env, action)) is not None:
            self._count("deny")
            return _refuse(start, action, refusal)
        if shot is not None:
            return self._shoot(env, start, action, shot)
        return self._by_chance(env, start, action, faults, dice)

    def _control(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._faults = self._faults.changed(changes)
            if changes.get("seed") is not None:
                self._random.seed(changes["seed"])
            return {**asdict(self._faults), "counts": dict(self._counts)}

    def _shot(self, action: str, resource: str) -> Shot | None:
        shot = self._faults.at
        if shot is None or shot.step != action or shot.match not in resource:
            return None
        if shot.skip > 0:
            self._faults = replace(self._faults, at=replace(shot, skip=shot.skip - 1))
            return None
        self._faults = replace(self._faults, at=replace(shot, times=shot.times - 1) if shot.times > 1 else None)
        self._counts["at"] += 1
        return shot

    def _shoot(self, env: Environment, start: Start, action: str, shot: Shot) -> Iterable[bytes]:
        if shot.do == "delay":
            time.sleep(shot.seconds)
            return self._application(env, start)
        if shot.when == "after" or shot.do == "lose":
            self._done(env)
        if shot.do == "kill":
            os.kill(shot.pid, signal.SIGKILL)
        if shot.do == "cut":
            return _cut(env, start)
        return _refuse(start, action, shot.code or _internal(action))

    def _by_chance(self, env: Environment, start: Start, action: str, faults: Faults, dice: float) -> Iterable[bytes]:
        service, _, _name = action.partition(":")
        which = int(dice * 1e6)
        reject = {"s3": faults.reject, "glue": faults.glue}.get(service, 0.0)
        lose = faults.lose if service == "s3" else 0.0
        cut = faults.cut if service in ("s3", "glue") else 0.0
        if dice < reject:
            self._count("glue" if service == "glue" else "reject")
            codes = GLUE_FAULTS if service == "glue" else S3_FAULTS
            return _refuse(start, action, codes[which % len(codes)])
        if dice < reject + lose:
            self._count("lose")
            self._done(env)
            return _refuse(start, action, _internal(action))
        if dice < reject + lose + cut:
            self._count("cut")
            self._done(env)
            return _cut(env, start)
        return self._application(env, start)

    def _done(self, env: Environment) -> None:
        """Do what was asked, and keep the answer from its sender."""
        for _ in self._application(env, lambda *_: None):
            pass

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def _signed_in(faults: Faults, env: Environment, action: str) -> str | None:
    """The error code for a sender who may not do this, or None."""
    is_glue = action.startswith("glue:")
    if faults.keys is not None and _access_key(env) not in faults.keys:
        return "UnrecognizedClientException" if is_glue else "InvalidAccessKeyId"
    if IAM.get(action, action) in faults.deny:
        return "AccessDeniedException" if is_glue else "AccessDenied"
    return None


def _credential(env: Mapping[str, Any]) -> list[str]:
    """Key ID, day, region, service and "aws4_request", as the signature names them."""
    _, _, rest = str(env.get("HTTP_AUTHORIZATION", "")).partition("Credential=")
    return rest.partition(",")[0].split("/")


def _access_key(env: Mapping[str, Any]) -> str:
    return _credential(env)[0]


def _internal(action: str) -> str:
    return "InternalServiceException" if action.startswith("glue:") else "InternalError"


def _whole_body(env: Environment) -> bytes | None:
    """Read the body before anything is done, and leave it to be read again; None if its sender ended too early."""
    length = env.get("CONTENT_LENGTH")
    chunked = bool(env.get("wsgi.input_terminated"))
    try:
        body: bytes = env["wsgi.input"].read() if chunked else env["wsgi.input"].read(int(length or 0))
    except OSError:
        return None
    if not chunked and len(body) < int(length or 0):
        return None
    env["wsgi.input"] = io.BytesIO(body)
    env["CONTENT_LENGTH"] = str(len(body))
    env.pop("HTTP_TRANSFER_ENCODING", None)
    env.pop("wsgi.input_terminated", None)
    return body


def _json(start: Start, answer: Mapping[str, Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def _refuse(start: Start, action: str, code: str) -> Iterable[bytes]:
    status, text = STATUS.get(code, "400 Bad Request"), TEXTS.get(code, "injected")
    if action.startswith("glue:"):
        start(status, [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "message": text}).encode()]
    start(status, [("Content-Type", "application/xml")])
    return [f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'.encode()]


def _cut(env: Environment, start: Start) -> Iterable[bytes]:
    """End the connection; what is still sent goes nowhere."""
    env["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    start("500 Internal Server Error", [("Connection", "close")])
    return []


class StrictApplication:
    """moto's server application with its laxities removed.

    One request at a time per service: what AWS does atomically is atomic here, and moto's dictionaries are not made
    for threads. Only the work is serialised; bodies are read before and answers are sent after it.
    """

    def __init__(self, application: Application):
        self._application = application
        self._locks = {"s3": threading.Lock(), "glue": threading.Lock(), "other": threading.Lock()}

    def __call__(self, env: Environment, start: Start) -> Iterable[bytes]:
        action, key = action_of(env)
        service = action.partition(":")[0]
        with self._locks[service]:
            refusal = {"s3": _s3_refusal, "glue": _glue_refusal, "other": _no_refusal}[service](env, action, key)
            if refusal is not None:
                return _refuse(start, action, refusal)
            return list(self._application(env, start))


def _no_refusal(_env: Environment, _action: str, _key: str) -> str | None:
    return None


def _s3_refusal(env: Environment, action: str, key: str) -> str | None:
    """The error code that S3 has for a request and moto has not, or None."""
    from moto.s3.models import s3_backends

    if env.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER", ACCOUNT) != ACCOUNT:
        return "AccessDenied"
    if action not in ("s3:UploadPart", "s3:UploadPartCopy", "s3:CompleteMultipartUpload", "s3:AbortMultipartUpload"):
        return None
    bucket = s3_backends[ACCOUNT]["aws"].buckets.get(str(env["PATH_INFO"]).lstrip("/").partition("/")[0])
    if bucket is None:
        return None  # moto answers NoSuchBucket
    upload_id = urllib.parse.parse_qs(str(env["QUERY_STRING"]))["uploadId"][0]
    upload = bucket.multiparts.get(upload_id)
    if upload is not None:
        return None if upload.key_name == key else "NoSuchUpload"
    made = bucket.keys.get(key)
    is_repetition = made is not None and made.multipart is not None and made.multipart.id == upload_id
    return None if action == "s3:CompleteMultipartUpload" and is_repetition else "NoSuchUpload"


# https://docs.aws.amazon.com/glue/latest/webapi/API_BatchCreatePartition.html and its siblings
BATCHES = {
    "glue:BatchCreatePartition": ("PartitionInputList", 100),
    "glue:BatchUpdatePartition": ("Entries", 100),
    "glue:BatchDeletePartition": ("PartitionsToDelete", 25),
    "glue:BatchGetPartition": ("PartitionsToGet", 1000),
}


def _glue_refusal(env: Environment, action: str, _key: str) -> str | None:
    """The error code that Glue has for a request and moto has not, or None."""
    if action != "glue:UpdateTable" and action not in BATCHES:
        return None
    asked = json.loads(env["wsgi.input"].getvalue())
    if action in BATCHES:
        name, most = BATCHES[action]
        return "ValidationException" if len(asked.get(name, ())) > most else None
    wanted = asked.get("VersionId")
    current = _table_version(_credential(env)[2], asked["DatabaseName"], asked["TableInput"]["Name"])
    is_stale = wanted is not None and current is not None and str(wanted) != current
    return "ConcurrentModificationException" if is_stale else None


def _table_version(region: str, database: str, table: str) -> str | None:
    from moto.glue.models import glue_backends

    found = glue_backends[ACCOUNT][region].databases.get(database)
    if found is None or table not in found.tables:
        return None  # moto answers EntityNotFoundException
    return str(max(int(version) for version in found.tables[table].versions))


def plain_application() -> Application:
    """moto's server application as it comes."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    application: Application = DomainDispatcherApplication(create_backend_app)
    return application


def serve(application: Application, port: int, port_file: Path | None) -> None:
    """Serve on the loopback address until killed. Port 0 takes a free one and writes it to ``port_file``."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):
        def log_request(self, *_: object) -> None:
            """Say nothing: requests are kept for ``/__requests``."""

    server = make_server("127.0.0.1", port, application, threaded=True, request_handler=QuietHandler)
    announce(server.server_port, port_file)
    server.serve_forever()


def announce(port: int, port_file: Path | None) -> None:
    """Say where the server is, in one step: a file that is there is whole."""
    if port_file is None:
        sys.stdout.write(f"http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        return
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(port))
    draft.replace(port_file)


def server_arguments(description: str) -> argparse.ArgumentParser:
    """The options that every server here has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument("--port-file", type=Path, help="written when the server answers; default: its URL on stdout")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process at the other end")
    return parser


def end_with_stdin() -> None:
    """End this process when stdin is closed: by a parent that ends, however it ends."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, however that ends; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    parser = server_arguments("S3, Glue and STS on this machine, strict and in memory.")
    parser.add_argument("--plain", action="store_true", help="moto as it comes, to see what strictness adds")
    arguments = parser.parse_args()
    if arguments.until_stdin_closes:
        end_with_stdin()
    os.environ.update(CREDENTIALS)
    application = plain_application()
    if not arguments.plain:
        application = FaultyApplication(StrictApplication(application))
    serve(application, arguments.port, arguments.port_file)


if __name__ == "__main__":
    main()
