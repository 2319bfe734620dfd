"""What reading costs: ours against a bare script, the stock CDK and dlt, as ratios of CPU in one run.

    python -m benchmarks.source_read [plain incremental projection small slow memory large]      (make bench-source)

All read the same pages, which another process serves, and the records are counted. CPU is that of the whole reading
process, start-up included, with compiled bytecode. Ends with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import finished
from benchmarks.source_peers import Task, bare, dlt, dlt_without_gzip, our_form, ours, source_bin, stock

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
START_SECONDS = 120
ALL = ("plain", "incremental", "projection", "small", "slow", "memory", "large")
PEERS: Mapping[str, Callable[[Task], list[str]]] = {
    "bare": bare,
    "ours": ours,
    "dlt": dlt,
    "dlt, no gzip": dlt_without_gzip,
    "stock CDK": stock,
}
# How many times less CPU than the stock CDK and dlt ours must take.
TARGETS = {"plain": (5.0, 2.0), "incremental": (5.0, 2.0), "projection": (4.0, 1.6)}
STOCK_IN_SMALL_PAGES = 3.0
SLOW_STREAMS, SLOW_PAGES, SLOW_SECONDS = 8, 100, 0.05
LARGE_MB = 500


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    cpu: float
    peak_mb: float
    exit_code: int
    out: Path

    @property
    def records(self) -> int:
        with self.out.open("rb") as lines:
            count = sum(line.startswith(b'{"type":"RECORD"') for line in lines)
        if count:
            return count
        last = self.out.read_bytes().strip().rpartition(b"\n")[2]
        return int(last) if last.isdigit() else 0


@contextmanager
def serving(records: int, page: int, *, different: int = 1_000_000, delay_ms: float = 0) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        options = {"--records": records, "--page": page, "--different": different, "--delay-ms": delay_ms}
        texts = [str(text) for option in options.items() for text in option]
        command = [sys.executable, "-m", "benchmarks.source_server", *texts, "--port-file", str(port_file)]
        process = subprocess.Popen(command)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not port_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the server did not start")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port_file.read_text()}"
        finally:
            process.kill()
            process.wait()


def cost(command: list[str], folder: Path) -> Cost:
    out = folder / "out.jsonl"
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, env=ENVIRONMENT)
        used = finished(process)
    return Cost(used.cpu, used.peak_mb, process.returncode, out)


def costs(task: Task, records: int, peers: Mapping[str, Callable[[Task], list[str]]]) -> dict[str, Cost]:
    """Each peer once, behind a run over one page that compiles its bytecode."""
    found = {}
    for name, command in peers.items():
        shutil.rmtree(task.folder / "dlt", ignore_errors=True)
        cost(command(Task(f"{task.url}/few", task.kind, task.page, task.folder)), task.folder)
        shutil.rmtree(task.folder / "dlt", ignore_errors=True)
        found[name] = cost(command(task), task.folder)
        if found[name].exit_code or found[name].records != records:
            raise SystemExit(f"{name}: exit code {found[name].exit_code}, {found[name].records} of {records} records")
    return found


def compare(kind: str, records: int, page: int, targets: Mapping[str, float]) -> list[str]:
    """Print a table of one kind of reading; the targets that are missed."""
    with serving(records, page) as url, tempfile.TemporaryDirectory() as folder:
        chosen = PEERS if "dlt" in targets else ("bare", "ours", *targets)
        peers = {name: PEERS[name] for name in chosen}
        found = costs(Task(url, kind, page, Path(folder)), records, peers)
    print(f"{kind}: {records} records in pages of {page}")
    mine = found["ours"].cpu
    for name, one in found.items():
        target = f"   target {targets[name]}" if name in targets else ""
        print(
            f"  {name:<12} CPU {one.cpu:6.2f} s   {one.cpu / mine:5.2f} times ours   peak {one.peak_mb:.0f} MB{target}"
        )
    return [
        f"{kind}, pages of {page}: {found[name].cpu / mine:.2f} times less CPU than {name}, not {least}"
        for name, least in targets.items()
        if found[name].cpu < least * mine
    ]


def slow(workers: int) -> list[str]:
    """Eight streams whose pages take 50 ms each: the time from the first request to the end of the process."""
    server = serving(SLOW_PAGES, 1, delay_ms=SLOW_SECONDS * 1000)
    with server as url, tempfile.TemporaryDirectory() as folder:
        task = Task(url, "plain", 1, Path(folder))
        streams = [{"name": f"s{n}", "path": f"/slow-{n}/items", "record_path": "data"} for n in range(SLOW_STREAMS)]
        form = {**our_form(task), "streams": streams, "num_workers": workers}
        catalog = {
            "streams": [
                {"stream": {"name": stream["name"], "json_schema": {}, "supported_sync_modes": ["full_refresh"]},
                 "sync_mode": "full_refresh", "destination_sync_mode": "append"}
                for stream in streams
            ]
        }  # fmt: skip
        arguments = ["read", "--catalog", task.file("catalog", catalog), "--config", task.file("config", form)]
        one = cost([str(source_bin() / "source-rest-api"), *arguments], task.folder)
        took = time.monotonic() - _first_request(url)
        if one.records != SLOW_STREAMS * SLOW_PAGES:
            raise SystemExit(f"slow streams: {one.records} records")
    # The last request of a stream is the empty page behind its end.
    ideal = SLOW_STREAMS * (SLOW_PAGES + 1) * SLOW_SECONDS / min(workers, SLOW_STREAMS)
    print(
        f"slow: {SLOW_STREAMS} streams, {workers} workers: {took:.2f} s, ideal {ideal:.2f} s, {took / ideal:.2f} times"
    )
    return [f"slow streams: {took / ideal:.2f} times the ideal, not 1.2"] if took > 1.2 * ideal else []


def _first_request(url: str) -> float:
    with urllib.request.urlopen(f"{url}/stats") as answer:
        return float(json.loads(answer.read())[0])


def memory(records: int) -> list[str]:
    """Peak memory of ten times as many records, beside that of the number itself."""
    problems = []
    for kind in ("plain", "incremental"):
        peaks = []
        for count in (records, 10 * records):
            with serving(count, 1000, different=200) as url, tempfile.TemporaryDirectory() as folder:
                task = Task(url, kind, 1000, Path(folder))
                peaks.append(costs(task, count, {"ours": ours})["ours"].peak_mb)
        ratio = peaks[1] / peaks[0]
        print(f"memory, {kind}: peak {peaks[0]:.0f} MB at {records}, {peaks[1]:.0f} MB at {10 * records}: {ratio:.2f}")
        problems += [f"memory, {kind}: {ratio:.2f} times at ten times the records, not 1.2"] if ratio > 1.2 else []
    return problems


def large() -> list[str]:
    """One page of 500 MB: at most four times its size if the form allows it, and refused if not."""
    records = LARGE_MB * 1_048_576 // 365
    problems = []
    with serving(records, records) as url, tempfile.TemporaryDirectory() as folder:
        task = Task(url, "plain", records, Path(folder))
        form = {**our_form(task), "pagination": {"pagination_type": "none"}}
        size = int(urllib.request.urlopen(f"{url}/items?page=1").headers["Content-Length"]) / 1_048_576
        allowed = cost(
            [str(source_bin() / "source-rest-api"), *task.read({**form, "max_response_mb": 600})], task.folder
        )
        print(f"large: a page of {size:.0f} MB: peak {allowed.peak_mb:.0f} MB, {allowed.peak_mb / size:.2f} times")
        if allowed.exit_code or allowed.records != records:
            problems.append(f"large: exit code {allowed.exit_code}, {allowed.records} of {records} records")
        if allowed.peak_mb > 4 * size:
            problems.append(f"large: {allowed.peak_mb / size:.2f} times the page, not 4")
        refused = cost([str(source_bin() / "source-rest-api"), *task.read(form)], task.folder)
        is_refused = refused.exit_code == 1 and b"max_response_mb (256)" in refused.out.read_bytes()
        print(f"large: under the default: {'refused' if is_refused else 'NOT REFUSED'}, peak {refused.peak_mb:.0f} MB")
        problems += [] if is_refused else ["large: not refused under the default"]
    return problems


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*ALL, []])
    parser.add_argument("--records", type=int, default=200_000)
    arguments = parser.parse_args()
    parts, records = arguments.parts or ALL, arguments.records
    runs: dict[str, Callable[[], list[str]]] = {
        kind: lambda kind=kind, least=least: compare(  # type: ignore[misc]  # mypy knows no defaults of lambdas
            kind, records, 1000, {"stock CDK": least[0], "dlt": least[1]}
        )
        for kind, least in TARGETS.items()
    }
    runs |= {
        "small": lambda: compare("plain", records, 100, {"stock CDK": STOCK_IN_SMALL_PAGES}),
        "slow": lambda: [*slow(4), *slow(8)],
        "memory": lambda: memory(records),
        "large": large,
    }
    problems: list[str] = []
    for part in parts:
        problems += runs[part]()
        sys.stdout.flush()
    print("\n".join(problems) or "Every target is met.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
