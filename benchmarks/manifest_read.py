"""What a pasted manifest costs to run: ours against the CDK's own source with the same manifest, as a ratio of CPU.

    python -m benchmarks.manifest_read [--records N] [--rounds N]      (make bench-manifest)

Both read the same pages, which another process serves, and the records are counted. CPU is that of the whole reading
process, start-up included, with compiled bytecode; of several rounds, one after the other, the least. Ends with 1 if a
target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.source_peers import Task, source_bin, stock, stock_manifest
from benchmarks.source_read import costs, serving

# How many times less CPU than the CDK's own source ours must take. The rows hold decimals of 16 digits and more, which
# the CDK rounds and ours keeps, by a slower parser (DECISIONS.md, "Numbers are looked at before they are parsed").
TARGETS: Mapping[str, float] = {"plain": 1.15, "incremental": 1.15}
PAGE = 1000


def pasted(task: Task) -> list[str]:
    """Our command with the manifest that the CDK's own source gets as a file."""
    config = {"manifest": json.dumps(stock_manifest(task)), "manifest_config": "{}"}
    return [str(source_bin() / "source-rest-api"), *task.read(config)]


def compare(kind: str, records: int, rounds: int) -> list[str]:
    """Print the costs of one kind of reading; the target if it is missed."""
    peers: Mapping[str, Callable[[Task], list[str]]] = {"ours": pasted, "stock CDK": stock}
    with serving(records, PAGE) as url, tempfile.TemporaryDirectory() as folder:
        found = [costs(Task(url, kind, PAGE, Path(folder)), records, peers) for _ in range(rounds)]
    cpu = {name: min(one[name].cpu for one in found) for name in peers}
    peak = {name: max(one[name].peak_mb for one in found) for name in peers}
    ratio = cpu["stock CDK"] / cpu["ours"]
    print(f"manifest, {kind}: {records} records in pages of {PAGE}")
    for name in peers:
        times = cpu[name] / cpu["ours"]
        print(f"  {name:<12} CPU {cpu[name]:6.2f} s   {times:5.2f} times ours   peak {peak[name]:.0f} MB")
    return [f"manifest, {kind}: {ratio:.2f} times less CPU, not {TARGETS[kind]}"] if ratio < TARGETS[kind] else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    problems = []
    for kind in TARGETS:
        problems += compare(kind, arguments.records, arguments.rounds)
        sys.stdout.flush()
    print("\n".join(problems) or "Every target is met.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
