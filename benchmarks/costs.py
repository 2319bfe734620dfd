"""What hourly syncs cost: requests, bytes, copies that are kept, memory and disk, on the embedded lake.

    python -m benchmarks.costs [--write]

``--write`` puts the tables into ``docs/costs.md``. A test makes the table of requests again and compares it with the
page, so that the page cannot go stale.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from destination_s3_datalake.output import Output
from destination_s3_datalake.run import open_sync
from local_runner.lake import running_lake

from integration_tests.harness import (
    DESTINATION,
    FINAL,
    House,
    Message,
    Watcher,
    as_lines,
    catalog,
    peak_of,
    plain_environment,
    record,
    state,
)

PAGE = Path(__file__).parents[1] / "docs" / "costs.md"
BLOCK = "<!-- {name}: made by python -m benchmarks.costs --write -->\n{text}<!-- end of {name} -->"

WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "ListObjects",
          "ListMultipartUploads")  # fmt: skip
"""S3 bills copies as PUT, and lists at the same price."""
READS = ("GetObject", "HeadObject")
FREE = ("DeleteObject", "DeleteObjects", "AbortMultipartUpload")

APPEND = catalog()
OVERWRITE = catalog(mode="overwrite", sync_mode="full_refresh")
DEDUP = catalog(mode="append_dedup", primary_key=[["id"]])
FEW_COPIES = {"retain_replaced_copies": 1}  # the sooner one goes with each sync, as on any later day
HOURS = 24
ROW_BYTES = 200
CHUNK = 1 << 18


@dataclass(frozen=True)
class Requests:
    """Of one sync, by price."""

    writes: int
    reads: int
    deletes: int
    glue: int

    @classmethod
    def of(cls, requests: Iterable[Message]) -> Requests:
        counts = Counter(request["action"].partition(":")[2] for request in requests)
        glue = sum(count for name, count in counts.items() if name not in {*WRITES, *READS, *FREE})
        writes, reads, deletes = (sum(counts[name] for name in names) for names in (WRITES, READS, FREE))
        return cls(writes, reads, deletes, glue)

    def __sub__(self, other: Requests) -> Requests:
        return Requests(self.writes - other.writes, self.reads - other.reads, self.deletes - other.deletes,
                        self.glue - other.glue)  # fmt: skip

    @property
    def cells(self) -> tuple[str, ...]:
        return tuple(map(str, astuple(self)))


def synced(house: House, configured: Message, *parts: bytes, **config: Any) -> list[Message]:
    """One sync in this process; what it asked. Between two parts a commit becomes due."""
    before = len(house.lake.requests())
    time.sleep(1.05 - time.time() % 1)  # S3 stamps whole seconds: one that starts in that of another starts again
    with (
        Path(os.devnull).open("wb") as nowhere,
        open_sync(house.config(**config), configured, Output(nowhere.fileno())) as feeder,
    ):
        for number, part in enumerate(parts):
            if number:
                time.sleep(1.1)
                feeder.tick()
            for begin in range(0, len(part), CHUNK):
                feeder.feed(part[begin : begin + CHUNK])
        feeder.finish()
    return [request for request in house.lake.requests()[before:] if request["action"] != "other"]


def rows(count: int, first: int = 0) -> bytes:
    """Rows that compress as ordinary ones do."""
    noise = random.Random(first)
    return as_lines(record(first + number, text=noise.randbytes(ROW_BYTES // 4).hex()) for number in range(count))


def last(run: int) -> bytes:
    return as_lines([state({**FINAL, "run_id": str(run)})])


def at(run: int) -> bytes:
    return as_lines([state({"c": run})])


def table_of_requests(new_house: Callable[[], House]) -> str:
    """Requests of a sync of one stream, whose table has had enough syncs before it that copies go as others come."""
    append = new_house()
    first = Requests.of(synced(append, APPEND, rows(1) + at(1)))
    synced(append, APPEND, at(1) + rows(1, 2) + at(2))
    one = Requests.of(synced(append, APPEND, at(2) + rows(1, 3) + at(3)))
    two = Requests.of(synced(append, APPEND, at(3) + rows(1, 4) + at(4), rows(1, 5) + at(5), max_commit_interval_s=1))
    unsaid = Requests.of(synced(append, APPEND, rows(1, 6) + at(6)))  # where it resumes: a STATE would be a commit
    many = Requests.of(synced(append, APPEND, rows(30_000, 10) + at(7), target_file_mb=1))
    assert len(append.live_keys()) == 8, "that was to become two files"
    idle = Requests.of(synced(append, APPEND, at(7)))

    replaced = new_house()
    for run in range(3):
        synced(replaced, OVERWRITE, rows(1) + last(run), **FEW_COPIES)
    overwrite = Requests.of(synced(replaced, OVERWRITE, rows(1) + last(3), **FEW_COPIES))

    keyed = new_house()
    for run in range(3):
        synced(keyed, DEDUP, at(run) + rows(1) + at(run + 1), **FEW_COPIES)
    merged = Requests.of(synced(keyed, DEDUP, at(3) + rows(1) + at(4), **FEW_COPIES))
    synced(keyed, DEDUP, at(4) + rows(1, 1) + at(5), **FEW_COPIES)
    with_a_copy = Requests.of(synced(keyed, DEDUP, at(5) + rows(1, 1) + at(6), **FEW_COPIES))
    lines = [
        ("the first sync of a stream", first),
        ("append, no new rows", idle),
        ("append, one commit of one file", one),
        ("overwrite, one file", overwrite),
        ("append_dedup, one file touched", merged),
        ("*and for each further:*", None),
        ("commit of an append", two - one),
        ("file of a commit (and one more for every 16 MB of it)", many - unsaid),
        ("file that a merge does not touch", with_a_copy - merged),
    ]
    return table(
        ("One sync of one stream", "S3 PUT, COPY, POST, LIST", "S3 GET, HEAD", "S3 DELETE", "Glue"),
        ((what, *(count.cells if count is not None else [""] * 4)) for what, count in lines),
    )


def table_of_storage(new_house: Callable[[], House]) -> str:
    """What lies in the bucket after a day of hourly syncs, and what each uploaded."""

    def appended(run: int) -> bytes:
        return at(run) + rows(10_000, run * 10_000) + at(run + 1)

    def replaced(run: int) -> bytes:
        return rows(100_000) + last(run)

    def changed(run: int) -> bytes:
        return at(run) + rows(1_000 if run else 100_000) + at(run + 1)

    found = []
    for what, configured, sent in (
        ("append, 10,000 new rows an hour", APPEND, appended),
        ("overwrite of 100,000 rows", OVERWRITE, replaced),
        ("append_dedup, 1,000 of 100,000 rows change", DEDUP, changed),
    ):
        house = new_house()
        for run in range(HOURS):
            asked = synced(house, configured, sent(run))
        uploaded = sum(request.get("bytes", 0) for request in asked if request["action"].startswith("s3:"))
        found.append((what, *(f"{size / 1e6:.1f}" for size in (uploaded, *lying(house)))))
    head = ("a sync uploads", "the table", "replaced copies", "log and checkpoints", "row hashes")
    return table((f"{HOURS} hourly syncs, MB", *head), found)


def lying(house: House) -> tuple[int, int, int, int]:
    """Bytes of the table, of copies that are kept, of the log and of row hashes."""
    live = {*house.live_keys()}
    sizes: Counter[str] = Counter()
    for page in house.s3.get_paginator("list_objects_v2").paginate(Bucket=house.bucket):
        for item in page.get("Contents", ()):
            key = item["Key"]
            kind = "live" if key in live else key.split("/")[4] if "/_airbyte/" in key else "copies"
            sizes[kind] += item["Size"]
    return sizes["live"], sizes["copies"], sizes["log"], sizes["replay"]


def table_of_machine(new_house: Callable[[], House], megabytes: int) -> str:
    """Memory, disk and time of a process with the default settings."""
    count = (megabytes << 20) // len(rows(1))
    house, found = new_house(), []
    changed = at(2) + rows(count // 10) + at(3)
    for what, at_house, configured, body in (
        (f"append, {megabytes} MB of input", house, APPEND, rows(count) + at(1)),
        (f"overwrite, {megabytes} MB", new_house(), OVERWRITE, rows(count) + last(1)),
        (f"append_dedup, {megabytes // 10} MB into that table", house, DEDUP, changed),
    ):
        found.append((what, *of_a_process(at_house, configured, body)))
        time.sleep(1)  # two processes must not have started in the same second
    return table(("One sync in a process", "memory, MB", "disk, MB", "CPU, s"), found)


def of_a_process(house: House, configured: Message, body: bytes) -> tuple[str, str, str]:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as lines:
        disk, memory = [0], [0]

        def look() -> None:
            memory.append(peak_of(process.pid))
            with suppress(FileNotFoundError):  # it went between the listing and the look
                disk.append(sum(path.stat().st_size for path in Path(folder).glob("*/*")))

        files = house.save(config=house.config(spool_directory=folder), catalog=configured)
        lines.write(body)
        lines.seek(0)
        command = [str(DESTINATION), "write", "--config", files["config"], "--catalog", files["catalog"]]
        process = subprocess.Popen(command, stdin=lines, stdout=subprocess.DEVNULL, env=plain_environment())
        with Watcher(look, pause=0.02):
            _, status, used = os.wait4(process.pid, 0)
        assert status == 0, "the sync failed"
    return f"{max(memory)}", f"{max(disk) / 1e6:.0f}", f"{used.ru_utime + used.ru_stime:.1f}"


def table(head: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *cells))


def put(name: str, text: str) -> None:
    """The table into its place in the page."""
    place = re.compile(BLOCK.format(name=name, text=".*?"), re.DOTALL)
    page = PAGE.read_text("utf-8")
    assert place.search(page), f"the page has no place for {name}"
    PAGE.write_text(place.sub(lambda _: BLOCK.format(name=name, text=text), page), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/costs.md")
    parser.add_argument("--megabytes", type=int, default=200, help="input of one sync in a process")
    arguments = parser.parse_args()
    with running_lake() as lake:
        numbers = iter(range(1000))

        def new_house() -> House:
            number = next(numbers)
            return House(lake, f"costs-{number}", f"costs_{number}")

        for name, text in (
            ("requests", table_of_requests(new_house)),
            ("storage", table_of_storage(new_house)),
            ("machine", table_of_machine(new_house, arguments.megabytes)),
        ):
            print(text, flush=True)
            if arguments.write:
                put(name, text)


if __name__ == "__main__":
    main()
