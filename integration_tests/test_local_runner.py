"""The local runner between a source of a few lines and the real destination."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from local_runner.run import Connection, Connector, Outcome, sync

from integration_tests.harness import DESTINATION, FINAL, House, as_lines, catalog, complete, record, state

SOURCE = """
import json, pathlib, sys, time
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = pathlib.Path(__file__).parent
given = arguments.get("--state")
(folder / "got_state.json").write_text(pathlib.Path(given).read_text() if given else "null")
(folder / "got_catalog.json").write_text(pathlib.Path(arguments["--catalog"]).read_text())
sys.stdout.buffer.write((folder / "lines").read_bytes())
sys.stdout.flush()
time.sleep(float((folder / "sleep").read_text()))
sys.exit(int((folder / "exit").read_text()))
"""


class Stage:
    """A folder with a source that says what it is told to say."""

    def __init__(self, house: House, folder: Path, **configured: Any):
        self.house, self.folder = house, folder
        (folder / "source.py").write_text(SOURCE)
        (folder / "source.json").write_text('{"token": "old"}')
        (folder / "destination.json").write_text(json.dumps(house.config()))
        (folder / "catalog.json").write_text(json.dumps(catalog(**configured)))

    def connection(self, **changes: Any) -> Connection:
        return Connection(
            Connector((sys.executable, str(self.folder / "source.py")), self.folder / "source.json"),
            Connector((str(DESTINATION),), self.folder / "destination.json"),
            self.folder / "catalog.json",
            self.folder / "state.json",
            **changes,
        )

    def says(self, body: bytes, *, exit_code: int = 0, sleep: float = 0) -> None:
        for name, value in (("lines", body), ("exit", str(exit_code).encode()), ("sleep", str(sleep).encode())):
            (self.folder / name).write_bytes(value)

    def sync(self, *, is_retry: bool = False, **changes: Any) -> Outcome:
        return sync(self.connection(**changes), is_retry=is_retry)

    def got(self, name: str) -> Any:
        return json.loads((self.folder / f"got_{name}.json").read_text())


def test_an_incremental_sync_goes_on_where_the_last_ended(house: House, tmp_path: Path):
    stage = Stage(house, tmp_path)
    stage.says(as_lines([{"type": "LOG", "log": {"level": "INFO", "message": "x"}}, record(1), state({"c": 1})]))
    first = stage.sync()
    assert (first.is_success, first.records, first.states, stage.got("state")) == (True, {"orders": 1}, 1, None)
    stage.says(as_lines([state({"c": 1}), record(2), state({"c": 2})]))
    assert stage.sync().is_success
    assert [entry["stream"]["stream_state"] for entry in stage.got("state")] == [{"c": 1}]
    assert house.ids() == [1, 2]
    assert "generation_id" not in stage.got("catalog")["streams"][0]


def test_a_full_refresh_begins_without_state_and_a_retry_with_it(house: House, tmp_path: Path):
    stage = Stage(house, tmp_path, mode="overwrite", sync_mode="full_refresh")
    stage.says(as_lines([record(1), state(FINAL)]))
    assert stage.sync().is_success
    stage.says(as_lines([state(FINAL)]))
    assert stage.sync(is_retry=True).is_success
    assert [entry["stream"]["stream_state"] for entry in stage.got("state")] == [FINAL]
    assert house.ids() == [1]
    stage.says(as_lines([record(2), state({**FINAL, "run_id": "2"})]))
    assert stage.sync().is_success
    assert stage.got("state") is None
    assert house.ids() == [2]


def test_generations_and_statuses_as_the_platform_sends_them(house: House, tmp_path: Path):
    stage = Stage(house, tmp_path, mode="overwrite", sync_mode="full_refresh")
    stage.says(as_lines([record(1), complete()]))
    numbers = []
    for _ in range(2):
        assert stage.sync(supports_refreshes=True).is_success
        entry = stage.got("catalog")["streams"][0]
        numbers.append((entry["generation_id"], entry["minimum_generation_id"], entry["sync_id"]))
    assert numbers == [(1, 1, 1), (2, 2, 2)]
    assert house.ids() == [1]


def test_a_new_configuration_of_the_source_is_kept(house: House, tmp_path: Path):
    stage = Stage(house, tmp_path)
    control = {"type": "CONNECTOR_CONFIG", "emitted_at": 1, "connectorConfig": {"config": {"token": "new"}}}
    stage.says(as_lines([{"type": "CONTROL", "control": control}, record(1), state({"c": 1})]))
    assert stage.sync().is_success
    assert json.loads((tmp_path / "source.json").read_text()) == {"token": "new"}


def test_numbers_reach_the_lake_with_every_digit(house: House, tmp_path: Path):
    stage = Stage(house, tmp_path)
    body = as_lines([record(1), state({"c": 1})]).replace(
        b'"id": 1', b'"id": 1, "n": 123456789012345678901234567890.10'
    )
    stage.says(body)
    assert stage.sync().is_success
    assert house.rows()[0]["_airbyte_extra"] == '{"n":123456789012345678901234567890.10}'


def test_both_failures_are_reported(house: House, tmp_path: Path):
    stage = Stage(house, tmp_path)
    error = {"type": "ERROR", "emitted_at": 1, "error": {"message": "the API is down"}}
    stage.says(as_lines([record(1), {"type": "TRACE", "trace": error}]), exit_code=3)
    outcome = stage.sync()
    assert (outcome.source_exit, outcome.destination_exit) == (3, 1)
    assert outcome.errors[0] == "source: the API is down"
    assert "1 rows" in outcome.errors[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_the_runner(house: House, tmp_path: Path, number: int):
    stage = Stage(house, tmp_path)
    stage.says(as_lines([record(1)]), sleep=60)
    source = shlex.join([sys.executable, f"{tmp_path}/source.py"])
    command = [sys.executable, "-m", "local_runner.run", "--source", source,
               "--source-config", f"{tmp_path}/source.json", "--destination", shlex.quote(str(DESTINATION)),
               "--destination-config", f"{tmp_path}/destination.json", "--catalog", f"{tmp_path}/catalog.json",
               "--state", f"{tmp_path}/state.json"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as runner:
        children: list[int] = []
        for _ in range(100):
            time.sleep(0.05)
            children = children_of(runner.pid)
            if len(children) == 2 and (tmp_path / "got_catalog.json").exists():
                break
        assert len(children) == 2
        runner.send_signal(number)
        runner.wait(timeout=60)
    for _ in range(100):
        if not any(is_alive(pid) for pid in children):
            return
        time.sleep(0.05)
    raise AssertionError("a child lives on")


def children_of(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
