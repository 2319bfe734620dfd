"""What many partitions in one sync cost: time, requests and memory, on the embedded lake.

    python -m benchmarks.partitions [--partitions 10000] [--rows 30000]

The same rows first without partitions, then each partition new, then again into partitions that are there, then as an
overwrite that moves all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

from local_runner.lake import running_lake

from benchmarks.processes import finished
from integration_tests.acceptance_cases import point, row, stream
from integration_tests.harness import DESTINATION, FINAL, House, Message, as_lines, plain_environment, state

OVERWRITE: dict[str, Any] = {"sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}


def synced(house: House, what: str, messages: list[Message], configured: Message, config: dict[str, Any]) -> None:
    """One sync in a process of its own, and a line about it."""
    files = house.save(config=config, catalog=configured)
    command = [str(DESTINATION), "write", "--config", files["config"], "--catalog", files["catalog"]]
    before = len(house.lake.requests())
    with tempfile.TemporaryFile() as lines, tempfile.TemporaryFile() as printed:
        lines.write(as_lines(messages))
        lines.seek(0)
        process = subprocess.Popen(
            command, stdin=lines, stdout=printed, stderr=subprocess.STDOUT, env=plain_environment()
        )
        used = finished(process)
        printed.seek(0)
        if process.returncode:
            sys.exit(printed.read().decode())
    asked = Counter(request["action"] for request in house.lake.requests()[before:])
    glue = ", ".join(f"{count} {action[5:]}" for action, count in sorted(asked.items()) if "Partition" in action)
    print(
        f"{what:32}{used.wall:8.1f} s{used.cpu:8.1f} s CPU"
        f"{used.peak_mb:6} MB peak{sum(asked.values()):8} requests   {glue}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=30_000)
    arguments = parser.parse_args()
    rows = [row(id=n, name=f"name {n}", c=n % arguments.partitions) for n in range(arguments.rows)]
    key = {"stream": "s", "field": "c", "transform": "identity", "name": "key"}
    with running_lake() as lake:
        plain, house = House(lake, "plain", "plain"), House(lake, "parted", "parted")
        config = house.config(partitioning=[key])
        append: Message = {"streams": [stream()]}
        print(f"{arguments.rows} rows, {arguments.partitions} partitions")
        synced(plain, "without partitions", [*rows, point(1)], append, plain.config())
        synced(house, "every partition is new", [*rows, point(1)], append, config)
        synced(house, "every partition is there", [point(1), *rows, point(2)], append, config)
        last = state({**FINAL, "run_id": "1"}, "s")
        synced(house, "overwrite: every partition moves", [*rows, last], {"streams": [stream(**OVERWRITE)]}, config)
        found = house.partitions("s")
        root = house.table("s")["StorageDescriptor"]["Location"]
        moved = sum(each["StorageDescriptor"]["Location"].startswith(root) for each in found)
        print(f"{len(found)} partitions in Glue, {moved} of them in the live folder")


if __name__ == "__main__":
    main()
