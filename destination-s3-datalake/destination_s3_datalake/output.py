"""stdout: whole lines, written at once, from one place; secrets masked in everything but STATE.

Nothing is buffered: when a call returns, the platform can read the line.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
import traceback
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import orjson

from destination_s3_datalake.errors import DatalakeError

PROGRESS_SECONDS = 30.0
Level = Literal["DEBUG", "INFO", "WARN", "ERROR"]


class StdoutClosedError(Exception):
    """The reader of our stdout is gone: nothing can be acknowledged any more."""


class Output:
    """Writes protocol messages to a file descriptor."""

    def __init__(self, descriptor: int, *, secrets: Iterable[str] = ()):
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()
        self.hide(secrets)

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these values, as they are and in the encodings in which they turn up in messages."""
        forms: set[str] = set()
        for secret in secrets:
            escaped = json.dumps(secret)[1:-1]
            encoded = base64.b64encode(secret.encode()).decode()
            forms |= {secret, escaped, urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), encoded}
        self._secrets = tuple(sorted(forms, key=len, reverse=True))

    def line(self, raw: bytes) -> None:
        """Write one line as it is.

        Raises:
            StdoutClosedError: nobody reads any more.
        """
        view = memoryview(raw + b"\n")
        try:
            with self._lock:  # progress is said from another thread
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except BrokenPipeError:
            raise StdoutClosedError from None

    def message(self, message: dict[str, Any]) -> None:
        self.line(orjson.dumps(self._masked(message)))

    def log(self, level: Level, text: str) -> None:
        """One LOG line."""
        self.message({"type": "LOG", "log": {"level": level, "message": text}})

    @contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Say every ``PROGRESS_SECONDS`` that something is still going on, for as long as the block runs."""
        over, started = threading.Event(), time.monotonic()

        def say() -> None:
            while not over.wait(PROGRESS_SECONDS):
                with suppress(StdoutClosedError):  # the main thread will notice
                    self.log("INFO", f"{text}: still at it after {time.monotonic() - started:.0f} s.")

        thread = threading.Thread(target=say, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def trace(self, error: BaseException) -> None:
        """One TRACE error. ``stack_trace`` holds files and lines only: texts of errors may quote values."""
        known = isinstance(error, DatalakeError)
        details: dict[str, Any] = {
            "message": error.message if isinstance(error, DatalakeError) else "Something went wrong in the connector.",
            "internal_message": type(error).__name__ + (_facts(error) if isinstance(error, DatalakeError) else ""),
            "stack_trace": places(error),
            "failure_type": error.failure_type if isinstance(error, DatalakeError) else "system_error",
        }
        if not known:
            details["message"] += " This is a bug: please report it with the internal message and stack trace."
        if isinstance(error, DatalakeError) and error.stream is not None:
            descriptor = {"name": error.stream}
            details["stream_descriptor"] = descriptor if error.namespace is None else {
                **descriptor, "namespace": error.namespace,
            }  # fmt: skip
        self.message({"type": "TRACE", "trace": {"type": "ERROR", "emitted_at": time.time() * 1000, "error": details}})

    def _masked(self, node: Any) -> Any:
        if isinstance(node, str):
            for secret in self._secrets:
                node = node.replace(secret, "****")
            return node
        if isinstance(node, dict):
            return {key: self._masked(value) for key, value in node.items()}
        return node


def places(error: BaseException) -> str:
    """Where the error came from: file and line of each frame, without source text or values."""
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f'File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames)


def _facts(error: DatalakeError) -> str:
    return "".join(f" {name}={value}" for name, value in error.facts.items())
