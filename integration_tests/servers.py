"""Server processes that we did not write: Datasette and json-server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

JSON_SERVER = "json-server@0.17.4"
NODE_FOLDER = Path(__file__).parents[1] / ".make" / "json-server"


@contextmanager
def running(command: list[str], ready: str, port: int) -> Iterator[str]:
    """A server process until the block ends; its URL."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(requests.ConnectionError):
                requests.get(url + ready, timeout=10).raise_for_status()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"{command[0]} did not start: {process.communicate()[1].decode()[-1000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def installed_json_server(made: Path) -> str:
    """The path of json-server's program, installed once per checkout by way of an empty folder."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node or no npm on this machine")
    program = NODE_FOLDER / "node_modules" / ".bin" / "json-server"
    if not program.exists():
        # Into a folder of its own, then renamed: workers of one test run may come here at the same time.
        command = ["npm", "install", "--prefix", str(made), "--no-audit", "--no-fund", "--ignore-scripts", JSON_SERVER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        NODE_FOLDER.parent.mkdir(exist_ok=True)
        if not program.exists():
            shutil.move(made, NODE_FOLDER)
    return str(program)
