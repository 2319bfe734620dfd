"""What the log of a table costs as it grows: hourly syncs, one after another, in one process on the embedded lake.

    python -m benchmarks.log_growth [--syncs 300]

Prints what lies under ``_airbyte/``, and what a real process asks of S3 to open the table: after a sync that ended
well, and after one that was killed behind its commit (with ``takeover_after_seconds: 0``). A sync takes a second, since
S3 stamps whole seconds and two processes must not have started in the same one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections import Counter

from destination_s3_datalake.output import Output
from destination_s3_datalake.run import open_sync
from local_runner.lake import running_lake

from integration_tests.harness import BIN, House, Message, as_lines, catalog, plain_environment, record, state
from integration_tests.test_crashes import killer


def messages(number: int) -> list[Message]:
    return [state({"c": number - 1}), record(number), state({"c": number})]


def counted(house: House) -> str:
    kinds: Counter[str] = Counter()
    for key in house.keys("lake/_airbyte/"):
        name = key.split("/")[4] if "/writers/" not in key else "writers"
        kinds["checkpoint" if "checkpoint-" in key else name] += 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def opened(house: House, number: int) -> str:
    """Start a process, send it one row, and see when its commit stands and what it asked for until it had opened."""
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
        while not any(
            f"{r['action']}" == "s3:PutObject" and "/log/0" in r["on"] for r in house.lake.requests()[begun:]
        ):
            time.sleep(0.01)
        ready = time.monotonic() - started
        process.stdin.write(as_lines(messages(number)[2:]))
        process.stdin.close()
        process.wait()
    asked = [r for r in house.lake.requests()[begun:] if r["action"].startswith("s3:") and "/writers/" not in r["on"]]
    until = next(n for n, r in enumerate(asked) if r["action"] == "s3:PutObject" and "/log/0" in r["on"])
    return f"{until + 1} S3 requests up to its open entry, {ready:.2f} s after the process was started"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--syncs", type=int, default=300)
    count = parser.parse_args().syncs
    with running_lake() as lake, open(os.devnull, "wb") as nowhere:
        house = House(lake, "bench-log", "bench")
        house.write(messages(1))
        started = time.monotonic()
        for number in range(2, count + 1):
            with open_sync(house.config(compact_files_over=64), catalog(), Output(nowhere.fileno())) as feeder:
                feeder.feed(as_lines(messages(number)))
                feeder.finish()
        print(f"{count} syncs, {(time.monotonic() - started) / count * 1000:.0f} ms each")
        print(f"under _airbyte/: {counted(house)}")
        last = max(key for key in house.keys("lake/_airbyte/") if "checkpoint-" in key)
        print(f"checkpoint: {house.s3.head_object(Bucket=house.bucket, Key=last)['ContentLength']} bytes")
        print(f"behind a sync that ended well: {opened(house, count + 1)}")
        house.write(messages(count + 2), on_start=killer(house, "s3:CompleteMultipartUpload", "", "before"))
        house.lake.faults(at=None)
        print(f"behind a kill: {opened(house, count + 2)}")
        assert house.ids() == list(range(1, count + 3)), "rows are missing or doubled"


if __name__ == "__main__":
    main()
