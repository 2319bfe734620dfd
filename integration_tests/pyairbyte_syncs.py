"""PyAirbyte drives both connectors as local executables: into the lake, in three syncs each, and into its own cache.

    python -m integration_tests.pyairbyte_syncs      (make test-pyairbyte)

PyAirbyte pins an older DuckDB and pyarrow than we use, so it has an environment of its own; it never contacts a
registry (``AIRBYTE_OFFLINE_MODE``). Each sync is a process of its own, so that only the state that PyAirbyte kept leads
from one to the next. It says generation 1 of 1 and sync 1 every time: append must append all the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_runner.lake import running_lake

from integration_tests.harness import DESTINATION, House, plain_environment
from integration_tests.rest_api import SOURCE, Api, Request, serving

VERSION = "0.71.3"
DRIVER = Path(__file__).with_name("pyairbyte_driver.py")
TOKEN = "a-token-that-pyairbyte-passes-on"
FIRST_ROWS = 500


@dataclass
class Orders:
    """An API whose rows change: each has an id, a total and the time of its last change."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    _day: int = 0

    def change(self, *ids: int) -> None:
        """On a new day these rows are new, or have new totals."""
        self._day += 1
        for number in ids:
            stamp = f"2026-01-{self._day:02d}T00:00:{number % 60:02d}Z"
            row = {"id": number, "total": number + self._day / 4, "tags": [f"day {self._day}"], "updated_at": stamp}
            self.rows[number] = row
            self.versions.append(row)

    def answer(self, request: Request) -> list[dict[str, Any]]:
        since = request.query.get("since", "")
        return sorted((row for row in self.rows.values() if row["updated_at"] >= since), key=lambda row: row["id"])


def main() -> None:
    python = environment()
    orders, begun = Orders(), time.monotonic()
    with (
        running_lake() as lake,
        serving(Api({"/orders": orders.answer})) as api,
        tempfile.TemporaryDirectory(prefix="pyairbyte-") as folder,
    ):
        source = {"source": str(SOURCE), "source_config": form(api.url)}
        houses = {name: House(lake, bucket=name, database=name) for name in ("append", "merge")}
        for sync, ids in enumerate((range(FIRST_ROWS), (3, 7, FIRST_ROWS, FIRST_ROWS + 1), (7, FIRST_ROWS + 2)), 1):
            orders.change(*ids)
            for name, house in houses.items():
                job = {**source, "strategy": name, "cache": f"{folder}/{name}.duckdb",
                       "destination": str(DESTINATION), "destination_config": house.config()}  # fmt: skip
                say(name, sync, run(python, job)["records"], len(house.rows()))
        expect("append: every version of every row, once", plain(houses["append"].rows()), orders.versions)
        expect("merge: the last version of each row", plain(houses["merge"].rows()), list(orders.rows.values()))
        cached = run(python, {**source, "cache": f"{folder}/own.duckdb"})
        print(f"DuckDB cache: {cached['records']} records read, {len(cached['rows']['orders'])} rows")
        expect("cache: each row", plain(cached["rows"]["orders"]), list(orders.rows.values()))
    print(f"PyAirbyte {VERSION}: everything is as it should be ({time.monotonic() - begun:.0f} s).")


def environment() -> Path:
    """Python of an environment with PyAirbyte, made at the first use."""
    folder = Path(__file__).parents[1] / ".make" / f"pyairbyte-{VERSION}"
    python, uv = folder / "bin" / "python", folder.parent / "uv" / "bin" / "uv"
    if not (folder / "ready").exists():
        print(f"Making an environment for PyAirbyte {VERSION} (once)", flush=True)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, f"airbyte=={VERSION}"], check=True)
        (folder / "ready").touch()
    return python


def form(url: str) -> dict[str, Any]:
    cursor = {"incremental_type": "datetime", "cursor_field": "updated_at", "start_param": "since"}
    return {
        "base_url": url,
        "credentials": {"auth_type": "bearer", "token": TOKEN},
        "streams": [{"name": "orders", "path": "/orders", "primary_key": ["id"], "incremental": cursor}],
    }


def run(python: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job; what it says last. Everything that it printed is searched for the secrets of the configurations."""
    environment = {**plain_environment(), "AIRBYTE_OFFLINE_MODE": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [python, DRIVER, json.dumps(job)], capture_output=True, text=True, env=environment, check=False,
        cwd=os.path.dirname(job["cache"]),
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"PyAirbyte ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
    if TOKEN in done.stdout + done.stderr:
        sys.exit("PyAirbyte or a connector printed the token.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the API wrote them: PyAirbyte's cache keeps arrays as JSON text, ours holds times."""
    return [
        {
            "id": row["id"],
            "total": row["total"],
            "tags": json.loads(row["tags"]) if isinstance(row["tags"], str) else row["tags"],
            "updated_at": as_text(row["updated_at"]),
        }
        for row in rows
    ]


def as_text(moment: Any) -> str:
    if isinstance(moment, int):  # pandas' JSON has milliseconds
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment / 1000))
    return moment if isinstance(moment, str) else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def say(name: str, sync: int, records: int, rows: int) -> None:
    print(f"{name}, sync {sync}: {records} records, {rows} rows in the table", flush=True)


def expect(what: str, found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Stop with exit code 1 unless both hold the same rows."""
    in_order: Callable[[dict[str, Any]], str] = json.dumps
    if sorted(found, key=in_order) != sorted(wanted, key=in_order):
        sys.exit(f"{what}: {len(found)} rows instead of {len(wanted)}, or other values.")
    print(f"{what}: {len(found)} rows, all values right", flush=True)


if __name__ == "__main__":
    main()
