"""How time and memory grow with the input: 100,000 to 10 million records, many streams, wide and large records.

    python -m benchmarks.memory [growth streams wide large] [--rows 10000000] [--megabytes 5120] [--plot growth.png]

Each sync is a process of its own, whose highest memory (VmHWM) is read while it runs, and writes into the embedded
lake. Lines come through a pipe, made as they are read. The limit of each is its ``memory_limit_mb`` plus the memory of
a run without records. Ends with 1 if one is above its limit, if a row is missing, or if a run without records takes
more than 200 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from local_runner.lake import running_lake

from benchmarks.ingest import ENVIRONMENT, INTEGER, NARROW, NUMBER, STATE_EVERY, STRING, narrow, state
from benchmarks.processes import Used, finished
from integration_tests.harness import BIN, House, catalog

DEFAULT_MB = 512  # of memory_limit_mb
MOST_EMPTY_MB = 200
STREAMS, COLUMNS = 200, 1000
RECORD_MB = 20
GROWTH = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
SAMPLE = 50_000  # records that are made; more of them differ by their id


@dataclass(frozen=True)
class Sync:
    """Lines of these streams, with a STATE for each behind every ``STATE_EVERY`` lines and at the end."""

    schemas: Mapping[str, Any]
    lines: Iterable[bytes]
    rows: int
    config: Mapping[str, Any]

    def body(self) -> Iterator[bytes]:
        states = b"".join(state(1, name) for name in self.schemas)
        lines, first = iter(self.lines), True
        while part := list(islice(lines, 1000 if first else STATE_EVERY)):
            yield b"".join(part)
            yield states
            first = False
        if first:
            yield states


def line(stream: str, data: bytes) -> bytes:
    return b'{"type":"RECORD","record":{"stream":"%s","data":%s,"emitted_at":1780000000000}}\n' % (
        stream.encode(),
        data,
    )


def encoded(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def numbered(stream: str, samples: Sequence[bytes], rows: int) -> Iterator[bytes]:
    """Lines whose data are those samples, in turn, with the number of the row as their ``id``, which comes first."""
    head, tail = line(stream, b"\x00").split(b"\x00")
    tails = [sample[sample.index(b",") :] + tail for sample in samples]
    for number in range(rows):
        yield b'%s{"id":%d%s' % (head, number, tails[number % len(tails)])


def growth(rows: int) -> Sync:
    dice = random.Random(1)
    samples = [encoded(narrow(number, dice)) for number in range(min(rows, SAMPLE))]
    return Sync({"t": schema(NARROW)}, numbered("t", samples, rows), rows, {})


def streams(megabytes: int) -> Sync:
    """Records of many streams in turn, a kilobyte each: no two lines of a stream in a row."""
    dice = random.Random(1)
    samples = [
        encoded(
            {"id": 0, "name": f"customer {dice.randrange(10**6)}", "amount": dice.random(), "text": text(dice, 860)}
        )
        for _ in range(2000)
    ]
    fields = schema({"id": INTEGER, "name": STRING, "amount": NUMBER, "text": STRING})
    names = [f"s{number}" for number in range(STREAMS)]
    rows = (megabytes << 20) // len(line("s100", samples[0])) // STREAMS * STREAMS
    each = [numbered(name, samples, rows // STREAMS) for name in names]
    lines = (one for turn in zip(*each, strict=True) for one in turn)
    return Sync(dict.fromkeys(names, fields), lines, rows, {"memory_limit_mb": 512})


def wide(rows: int) -> Sync:
    dice = random.Random(1)
    fields = {"id": INTEGER, **{f"column_{n}": (INTEGER, NUMBER, STRING)[n % 3] for n in range(COLUMNS - 1)}}

    def value(number: int) -> Any:
        return (dice.randrange(10**6), dice.random(), f"text {dice.randrange(10**4)}")[number % 3]

    samples = [encoded({"id": 0, **{f"column_{n}": value(n) for n in range(COLUMNS - 1)}}) for _ in range(200)]
    return Sync({"t": schema(fields)}, numbered("t", samples, rows), rows, {"memory_limit_mb": 512})


def large(rows: int) -> Sync:
    dice = random.Random(1)
    sample = encoded({"id": 0, "text": text(dice, 1 << 20) * (RECORD_MB - 1)})
    return Sync({"t": schema({"id": INTEGER, "text": STRING})}, numbered("t", [sample], rows), rows, {})


def schema(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(fields)}


def text(dice: random.Random, length: int) -> str:
    return "".join(dice.choices("abcdefghijklmnopqrstuvwxyz 0123456789", k=length))


def synced(house: House, sync: Sync) -> Used:
    """Write it; the rows that the tables have must be those that were sent."""
    entries = [catalog(name, schema=fields)["streams"][0] for name, fields in sync.schemas.items()]
    files = house.save(config=house.config(**sync.config), catalog={"streams": entries})
    command = [str(BIN / "destination-s3-datalake"), "write", "--config", files["config"], "--catalog",
               files["catalog"]]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT)
    printed: list[bytes] = []
    threads = [threading.Thread(target=_feed, args=(process, sync)),
               threading.Thread(target=lambda: printed.append(_all_of(process)))]  # fmt: skip
    for thread in threads:
        thread.start()
    used = finished(process)
    for thread in threads:
        thread.join()
    if process.returncode:
        raise SystemExit(printed[0][-2000:].decode())
    stored = sum(map(int, re.findall(rb" rows received, (\d+) stored, ", printed[0])))
    if stored != sync.rows:
        raise SystemExit(f"{stored} rows are stored, not {sync.rows}")
    return used


def _feed(process: subprocess.Popen[bytes], sync: Sync) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # it says why it ended
        for part in sync.body():
            process.stdin.write(part)


def _all_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.read()


def show(what: str, sync: Sync, used: Used, base: int) -> list[str]:
    limit = int(sync.config.get("memory_limit_mb", DEFAULT_MB)) + base
    print(f"{what:32}{sync.rows:10} records{used.wall:8.1f} s{used.cpu:8.1f} s CPU{used.peak_mb:7} MB of {limit}",
          flush=True)  # fmt: skip
    return [f"{what}: {used.peak_mb} MB, not {limit}"] if used.peak_mb > limit else []


def draw(points: Mapping[int, Used], limit: int, path: Path) -> None:
    """How wall time, CPU and memory grow with the records."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), dpi=120, layout="constrained")
    rows = list(points)
    left.plot(rows, [used.wall for used in points.values()], marker="o", label="wall")
    left.plot(rows, [used.cpu for used in points.values()], marker="s", label="CPU")
    left.set(xscale="log", yscale="log", xlabel="records of 8 columns", ylabel="seconds", title="Time")
    right.plot(rows, [used.peak_mb for used in points.values()], marker="o", label="highest memory")
    right.axhline(limit, color="firebrick", linestyle="--", label="memory_limit_mb plus an empty run")
    right.set(xscale="log", xlabel="records of 8 columns", ylabel="MB", ylim=(0, limit * 1.1), title="Memory")
    left.set_yticks([1, 2, 5, 10, 20, 50, 100])
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    for axes in (left, right):
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["growth", "streams", "wide", "large"])
    parser.add_argument("--rows", type=int, default=GROWTH[-1], help="the most records of growth")
    parser.add_argument("--megabytes", type=int, default=5120, help="lines of all streams together")
    parser.add_argument("--plot", type=Path, default=Path("growth.png"))
    arguments = parser.parse_args()
    problems: list[str] = []
    with running_lake() as lake:
        number = 0

        def run(what: str, sync: Sync, base: int = 0) -> Used:
            nonlocal number, problems
            number += 1
            used = synced(House(lake, f"memory-{number}", f"memory_{number}"), sync)
            problems += show(what, sync, used, base)
            return used

        base = run("no records", Sync({"t": schema(NARROW)}, [], 0, {})).peak_mb
        problems += [f"a run without records takes {base} MB, not {MOST_EMPTY_MB}"] if base > MOST_EMPTY_MB else []
        if "growth" in arguments.parts:
            sizes = [rows for rows in GROWTH if rows <= arguments.rows]
            points = {rows: run("8 columns", growth(rows), base) for rows in sizes}
            draw(points, DEFAULT_MB + base, arguments.plot)
            print(f"the plot is {arguments.plot}")
        if "streams" in arguments.parts:
            run(f"{STREAMS} streams in turn", streams(arguments.megabytes), base)
        if "wide" in arguments.parts:
            run(f"{COLUMNS} columns", wide(20_000), base)
        if "large" in arguments.parts:
            run(f"records of {RECORD_MB} MB", large(50), base)
    print("\n".join(problems) or "Every limit holds.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
