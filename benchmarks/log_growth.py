"""What the log of a table costs as it grows: hourly syncs, one after another, in one process on the embedded lake.

    python -m benchmarks.log_growth [--syncs 8760] [--rows-every 1]

The lake's clock goes an hour ahead with each sync; each brings a row, or one in so many does. Prints what lies under
``_airbyte/``, and what a real process asks of S3 to open the table: after a sync that ended well, and after one that
was killed behind its commit (with ``takeover_after_seconds: 0``). Ends with 1 if one of the two is not ready within
5 s, if the first takes more than 6 requests, or if a row is missing or doubled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter

from local_runner.lake import running_lake

from integration_tests.harness import BIN, House, Message, as_lines, catalog, plain_environment, record, state
from integration_tests.in_process import write_in_process
from integration_tests.test_crashes import killer


def messages(number: int, *, has_row: bool = True) -> list[Message]:
    return [state({"c": number - 1}), *([record(number)] if has_row else []), state({"c": number})]


def counted(house: House) -> str:
    kinds: Counter[str] = Counter()
    for key in house.keys("lake/_airbyte/"):
        name = key.split("/")[4] if "/writers/" not in key else "writers"
        kinds["checkpoint" if "checkpoint-" in key else name] += 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def opened(house: House, number: int) -> tuple[int, float]:
    """Start a process and send it one row: its requests to S3 up to its open entry, and the seconds up to that."""
    begun, started = len(house.lake.requests()), time.monotonic()
    files = house.save(config=house.config(max_commit_interval_s=1), catalog=catalog())
    command = [
        str(BIN / "destination-s3-datalake"),
        "write",
        "--config",
        files["config"],
        "--catalog",
        files["catalog"],
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=plain_environment()) as process:
        assert process.stdin is not None
        process.stdin.write(as_lines(messages(number)[:2]))
        process.stdin.flush()
        while (asked := _until_open(house.lake.requests()[begun:])) is None:
            time.sleep(0.01)
        ready = time.monotonic() - started
        process.stdin.write(as_lines(messages(number)[2:]))
        process.stdin.close()
        process.wait()
    return asked, ready


def _until_open(requests: list[Message]) -> int | None:
    asked = [r for r in requests if r["action"].startswith("s3:") and "/writers/" not in r["on"]]
    entries = (n for n, r in enumerate(asked, 1) if r["action"] == "s3:PutObject" and "/log/0" in r["on"])
    return next(entries, None)


def sync(house: House, number: int, *, has_row: bool) -> None:
    house.lake.faults(clock_ahead_seconds=3600 * number)
    lines = as_lines(messages(number, has_row=has_row))
    done = write_in_process(house.config(compact_files_over=64), catalog(), lines)
    if done.exit_code:
        raise SystemExit(f"sync {number}: {done.errors}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--syncs", type=int, default=8760)
    parser.add_argument("--rows-every", type=int, default=1)
    arguments = parser.parse_args()
    count, every = arguments.syncs, arguments.rows_every
    problems = []
    with running_lake() as lake:
        house = House(lake, "bench-log", "bench")
        house.write(messages(1))
        for number in range(2, count + 1):
            sync(house, number, has_row=number % every == 0)
            if number in (count // 10, count):
                print(f"{number} syncs, under _airbyte/: {counted(house)}", flush=True)
        last = max(key for key in house.keys("lake/_airbyte/") if "checkpoint-" in key)
        print(f"checkpoint: {house.s3.head_object(Bucket=house.bucket, Key=last)['ContentLength']} bytes")
        well = opened(house, count + 1)
        house.write(messages(count + 2), on_start=killer(house, "s3:CompleteMultipartUpload", "", "before"))
        house.lake.faults(at=None)
        killed = opened(house, count + 2)
        for name, (asked, ready) in {"a sync that ended well": well, "a kill": killed}.items():
            print(f"behind {name}: {asked} S3 requests up to its open entry, {ready:.2f} s after the process started")
            problems += [f"behind {name}: {ready:.2f} s, not 5"] if ready > 5 else []
        problems += [f"{well[0]} requests, not 6"] if well[0] > 6 else []
        wanted = {1, *(number for number in range(2, count + 1) if number % every == 0), count + 1, count + 2}
        if house.ids() != sorted(wanted):
            problems.append("rows are missing or doubled")
    print("\n".join(problems) or "Every target is met.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
