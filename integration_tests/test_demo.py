"""``make demo`` as a user runs it, to its end and interrupted."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from integration_tests.harness import plain_environment

MARK = "DEMO_TEST_MARK"
LONGEST = 60


def start(output: Path, mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "local_runner.demo", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**plain_environment(), MARK: mark},
        start_new_session=True,
    )


def left_running(mark: str) -> list[int]:
    """Every process that the demo started, however it was detached: all have its environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_the_demo_ends_with_its_tables_and_a_picture(tmp_path):
    mark = uuid.uuid4().hex
    begun = time.monotonic()
    process = start(tmp_path, mark)
    stdout, stderr = process.communicate(timeout=LONGEST * 2)
    took = time.monotonic() - begun
    assert process.returncode == 0, stderr.decode()
    assert re.fullmatch(rb"(  \d+ records so far\n)*", stderr), "stderr holds progress only"
    last = json.loads(stdout.splitlines()[-1])
    assert last["tables"] == {"countries": 250, "earthquakes": 1707}
    picture = Path(last["picture"]).read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 800
    assert height > 400
    for words in (b"check", b"discover", b"1366 records", b"341 records", b"read through Glue", b"timestamp"):
        assert words in stdout
    assert took < LONGEST
    assert left_running(mark) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_is_left_after_ctrl_c_at_any_moment(tmp_path):
    chance = random.Random(20261124)
    for number in range(5):
        mark = uuid.uuid4().hex
        process = start(tmp_path, mark)
        time.sleep(chance.uniform(0.3 + number, 1.8 + number))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        stdout, stderr = process.communicate(timeout=40)
        assert process.returncode == 130, (number, stdout, stderr)
        assert b"Traceback" not in stderr
        deadline = time.monotonic() + 10
        while left_running(mark) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left_running(mark) == []
