"""A campaign of kills: every named step of the commit protocol, before and after, in every mode, on a faulty lake.

    python -m integration_tests.chaos [--rounds 3] [--seed 1]      (make chaos)

Each trial has a table, kills the destination at one step of a run (asserted to have hit), forgets the last 0-5 STATE
lines that were printed, sometimes aborts pending uploads as a lifecycle rule would, and lets the platform try again
until a run ends well, in another order and with new state ids. A reader looks through Glue all the while. Then rows are
compared with what the source has, and what lies in the bucket with what the log says.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from local_runner.lake import running_lake

from integration_tests.acceptance_cases import INCOMPLETE, dedup, row, stream
from integration_tests.harness import (
    DESTINATION,
    House,
    Message,
    Result,
    Watcher,
    as_lines,
    complete,
    plain_environment,
    state,
)

FAULTS = {"reject": 0.05, "lose": 0.02, "glue": 0.1}
NO_FAULTS = {"reject": 0.0, "lose": 0.0, "glue": 0.0}
CONFIG: dict[str, Any] = {"max_commit_interval_s": 1, "retain_replaced_hours": 0, "target_file_mb": 1}
OLD, NEW = range(1, 6), range(11, 23)
IDLE: Message = {"streams": [stream()]}
FIRST: Message = {"streams": [stream(generation_id=4, minimum_generation_id=0, sync_id=8)]}
TRUNCATE: dict[str, Any] = {"generation_id": 5, "minimum_generation_id": 5, "sync_id": 9}


@dataclass(frozen=True)
class Step:
    """A named place in the protocol. ``skip`` is how many such requests pass first."""

    name: str
    action: str
    match: str = ""
    body: str | None = None
    skip: int = 0


def entry(kind: str) -> Step:
    return Step(kind, "s3:PutObject", "/log/0", body=f'"type":"{kind}"')


COMMON = (
    entry("open"),
    Step("heartbeat", "s3:PutObject", "/writers/"),
    Step("create upload", "s3:CreateMultipartUpload"),
    Step("upload part", "s3:UploadPart"),
    entry("commit"),
    Step("first complete", "s3:CompleteMultipartUpload"),
    entry("garbage"),
    Step("first delete", "s3:DeleteObjects"),
    entry("close"),
    Step("checkpoint", "s3:PutObject", "/log/checkpoint-"),
    Step("STATE flush", "stdout"),
)
REPLAY = Step("replay hashes", "s3:PutObject", "/replay/")
SWAP = (entry("swap"), Step("UpdateTable", "glue:UpdateTable"), entry("published"))
VOID = (
    entry("void"),
    Step("void: abort", "s3:AbortMultipartUpload"),
    Step("void: file", "s3:DeleteObject", "/db"),
    Step("void: hashes", "s3:DeleteObject", "/replay/"),
)
REGISTER = Step("partitions", "glue:BatchCreatePartition")
HALF = Step("half a folder", "s3:UploadPart", "/s/0000")
MODES: dict[str, tuple[Step, ...]] = {
    "append": (*COMMON, REPLAY, *VOID),
    "append, several files": (Step("last complete", "s3:CompleteMultipartUpload", skip=1), entry("commit")),
    "overwrite": (*COMMON, *SWAP),
    "refresh": (*COMMON, REPLAY, *SWAP),
    "dedup": (*COMMON, Step("stage", "s3:UploadPart", "/stage/"), HALF, *SWAP),
    "cancelled refresh": (*COMMON, REPLAY, *SWAP),
    "partitioned append": (entry("commit"), Step("second complete", "s3:CompleteMultipartUpload", skip=1), REGISTER),
    "partitioned overwrite": (
        Step("UpdateTable", "glue:UpdateTable"),
        Step("partitions moved", "glue:BatchUpdatePartition"),
        REGISTER,
        entry("published"),
    ),
}
KEYS = {"partitioned append": "truncate[4]", "partitioned overwrite": "bucket[5]"}


@dataclass
class Trial:
    """One table, one kill, and the retries behind it."""

    house: House
    mode: str
    step: Step
    when: str
    dice: random.Random
    kills: int = 0
    earlier_kills: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kind = self.mode.removeprefix("partitioned ")
        self.config = dict(CONFIG)
        if self.mode in KEYS:
            key = {"stream": "s", "field": "id", "transform": KEYS[self.mode], "name": "key"}
            self.config["partitioning"] = [key]
        self.kept: list[int] = []
        self.tries = 0
        self.says_where = self.dice.random() < 0.7 or self.mode == "cancelled refresh"
        self.ids = itertools.count(1)
        self.next_generation = self.dice.choice((5, 6, None))

    def run(self) -> Trial:
        house = self.house
        self._expect_end(self._write(self._first(), FIRST))
        reader = Reader(self)
        with Watcher(reader.look, pause=0.1):
            self._prepare()
            self._took(self._write(self._input(), self._catalog(), arm=True))
            house.lake.faults(at=None)
            if self.kills == 0:
                return self  # the step was not reached in this trial: not counted
            if self.step not in VOID and self.dice.random() < 0.2:
                house.abort_uploads()
            for _ in range(6):
                result = self._write(self._input(), self._catalog())
                self._took(result)
                if result.exit_code == 0:
                    break
            else:
                self.problems.append(f"no try ended well: {[e['message'] for e in result.errors]}")
        self.problems += reader.problems[:1]
        found, wanted = sorted(self.seen()), sorted(self._wanted())
        if found != wanted:
            self.problems.append(f"rows {found} and not {wanted}")
        self._check_leftovers()
        return self

    def seen(self) -> list[tuple[Any, Any]]:
        return [(r["id"], r["c"]) for r in self.house.rows("s")]

    def location(self) -> str:
        return str(self.house.table("s")["StorageDescriptor"]["Location"])

    def seen_by_partition(self) -> dict[str, set[int]]:
        """The ids in each partition."""
        found: dict[str, set[int]] = {}
        for r in self.house.rows("s"):
            found.setdefault(r["key"], set()).add(r["id"])
        return found

    def _first(self) -> list[Message]:
        return [*(row(id=n, c=1) for n in OLD), state({"done": "old"}, "s"), complete("s")]

    def _wanted(self) -> list[tuple[int, int]]:
        old, new = [(n, 1) for n in OLD], [(n, 1) for n in NEW]
        match self.kind:
            case "overwrite" | "refresh":
                return new
            case "dedup":
                return [(n, 1 if n not in (3, 4, 5) else 2) for n in OLD] + new
            case _:
                return old + new

    def _rows(self) -> list[tuple[int, int]]:
        """What the source has to send from the kept STATE on."""
        everything = [(n, 1) for n in NEW]
        if self.mode == "dedup":
            everything = [(n, 2) for n in (3, 4, 5)] + everything
        left = [pair for pair in everything if pair[0] not in self.kept]
        if self.tries and self.kind in ("append", "dedup", "refresh"):
            self.dice.shuffle(left)
        return left

    def _input(self) -> list[Message]:
        out = [self._state()] if self.kept and self.says_where and self.kind != "overwrite" else []
        if self.kind == "append" and not self.kept and self.says_where:
            out = [state({"done": "old"}, "s")]
        text: dict[str, Any] = (
            {"name": random.Random(7).randbytes(400_000).hex()} if self.mode == "append, several files" else {}
        )
        done = list(self.kept)
        if self.kind == "overwrite" and self.kept:  # the platform has its last STATE: the source resumes there
            return [self._state(), complete("s")]
        for number, (identity, cursor) in enumerate(self._rows(), start=1):
            out.append(row(id=identity, c=cursor, **text))
            done.append(identity)
            if number % 3 == 0 and not text:
                out.append(self._state(done))
        self.tries += 1
        return [*out, self._state(done), complete("s")]

    def _state(self, done: list[int] | None = None) -> Message:
        made = state({"done": sorted(self.kept if done is None else done)}, "s")
        made["state"]["id"] = next(self.ids)
        return made

    def _prepare(self) -> None:
        """What the step needs to be reached: a refresh to join, something to clean, a commit to void."""
        if self.mode == "cancelled refresh":
            part = [m for m in self._input()[:-1] if m["type"] == "RECORD"][:4]
            done = [m["record"]["data"]["id"] for m in part]
            self._took(self._write([*part, self._state(done), INCOMPLETE], {"streams": [stream(**TRUNCATE)]}))
            self.kept = done
        if self.step.name in ("garbage", "first delete"):
            self._die_at(REPLAY if self.mode != "dedup" else Step("", "s3:UploadPart"), "after")
        if self.step in VOID:
            self._die_at(Step("", "s3:CompleteMultipartUpload"), "before")
            self.house.abort_uploads()

    def _catalog(self) -> Message:
        match self.kind:
            case "overwrite":
                return {"streams": [stream(sync_mode="full_refresh", destination_sync_mode="overwrite")]}
            case "refresh":
                return {"streams": [stream(**TRUNCATE)]}
            case "dedup":
                return {"streams": [stream(**dedup())]}
            case "cancelled refresh" if self.next_generation is not None:
                later: dict[str, Any] = {"generation_id": self.next_generation, "minimum_generation_id": 0}
                return {"streams": [stream(**later, sync_id=10)]}
            case "append" | "append, several files":
                return {"streams": [stream(generation_id=4, minimum_generation_id=0, sync_id=9)]}
            case _:
                return {"streams": [stream()]}

    def _write(self, messages: list[Message], configured: Message, *, arm: bool = False) -> Result:
        house = self.house
        files = house.save(config=house.config(**self.config), catalog=configured)
        command = [str(DESTINATION), "write", "--config", files["config"], "--catalog", files["catalog"]]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=plain_environment())
        if arm:
            house.lake.faults(**FAULTS, seed=self.dice.randrange(1 << 30))
            self._arm(process.pid)
        try:
            result = _talk(process, as_lines(messages), kills_at_state=arm and self.step.action == "stdout")
        finally:
            house.lake.faults(**NO_FAULTS)
        if arm:
            self.kills += result.exit_code == -signal.SIGKILL
        return result

    def _arm(self, pid: int) -> None:
        step = self.step
        if step.action == "stdout":
            if self.when == "before":  # everything is done but the line
                self.house.lake.faults(
                    at={"step": "s3:CompleteMultipartUpload", "when": "after", "do": "kill", "pid": pid}
                )
            return
        shot = {
            "step": step.action,
            "match": step.match,
            "skip": step.skip,
            "when": self.when,
            "do": "kill",
            "pid": pid,
        }
        self.house.lake.faults(at=shot | ({"body": step.body} if step.body else {}))

    def _die_at(self, step: Step, when: str) -> None:
        """A death before the one that counts."""
        mine, self.step, self.when = (self.step, self.when), step, when
        self._took(self._write(self._input(), self._catalog(), arm=True))
        self.house.lake.faults(at=None)
        self.earlier_kills += self.kills
        self.kills, (self.step, self.when) = 0, mine

    def _took(self, result: Result) -> None:
        """The platform keeps the STATEs but the last few; after a run that ended well it has them all."""
        reached = [data["done"] for data in result.states if data and data["done"] != "old"]
        lost = self.dice.randint(0, 5) if result.exit_code else 0
        for done in reached[: len(reached) - lost]:
            if len(done) >= len(self.kept):
                self.kept = list(done)

    def _expect_end(self, result: Result) -> None:
        if result.exit_code:
            raise RuntimeError(result.stdout.decode())

    def _check_leftovers(self) -> None:
        """Two runs that bring nothing, so that everything that may go is gone; then the bucket is what the log says."""
        for _ in range(2):
            self._expect_end(self._write([], IDLE))
        house = self.house
        data = {key for key in house.keys("lake/db") if "/_airbyte/" not in key}
        if data != self._files_of_the_log():
            self.problems.append(f"objects {sorted(data ^ self._files_of_the_log())}")
        if self.mode in KEYS:
            shown = {p["StorageDescriptor"]["Location"] for p in house.partitions("s")}
            if shown != {f"s3://{house.bucket}/{key.rpartition('/')[0]}/" for key in data}:
                self.problems.append(f"partitions {sorted(shown)}")
        if house.uploads():
            self.problems.append(f"uploads {house.uploads()}")
        staged = [key for key in house.keys("lake/_airbyte/") if "/stage/" in key]
        if staged:
            self.problems.append(f"staged {staged}")

    def _files_of_the_log(self) -> set[str]:
        """Read from the entries alone, without the product's fold."""
        house = self.house
        entries = [
            json.loads(house.s3.get_object(Bucket=house.bucket, Key=key)["Body"].read())
            for key in sorted(house.log_entries())
        ]
        void = {found["commit_seq"] for found in entries if found["type"] == "void"}
        swap = [found for found in entries if found["type"] == "swap"][-1]
        commits = [found for found in entries if found["type"] == "commit" and found["seq"] not in void]
        files = {file["key"] for file in swap["files"] or ()}
        for commit in commits:
            if commit["folder"] == swap["folder"]:
                files |= {file["key"] for file in commit["files"]}
        return files


def _talk(process: subprocess.Popen[bytes], body: bytes, *, kills_at_state: bool) -> Result:
    """Feed a process and read it; or kill it at its first STATE line."""
    if not kills_at_state:
        stdout, stderr = process.communicate(body, timeout=120)
        return Result(process.returncode, stdout, stderr)
    assert process.stdin is not None
    assert process.stdout is not None
    feeder = threading.Thread(target=_feed, args=(process, body))
    feeder.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if b'"type":"STATE"' in line:
            process.kill()
            break
    feeder.join()
    stdout = b"".join(lines)
    process.wait()
    return Result(process.returncode, stdout, b"")


def _feed(process: subprocess.Popen[bytes], body: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(body)
        process.stdin.close()
    except BrokenPipeError:
        return


class Outcome(NamedTuple):
    """What a trial brought: kills at its step, kills that led there, and what was wrong."""

    mode: str
    step: str
    when: str
    kills: int
    earlier_kills: int
    problems: list[str]


class Reader:
    """Looks through Glue again and again; what it must never see is a problem."""

    def __init__(self, trial: Trial):
        self._trial = trial
        self.problems: list[str] = []

    def look(self) -> None:
        old = {(n, 1) for n in OLD}
        try:
            before = self._trial.location()
            view = self._trial.seen()
            if self._trial.location() != before:
                return  # nothing replaced is retained here: the folder went while it was read
        except Exception:  # noqa: BLE001  # a look that fell into a swap, or into an injected fault: not a view
            return
        ids = [identity for identity, _ in view]
        if len(set(ids)) != len(ids):
            self.problems.append(f"a reader saw rows twice: {sorted(view)}")
        if self._trial.mode == "partitioned overwrite":  # atomic for each partition
            self._look_at_partitions()
            return
        replaced = self._trial.mode in ("overwrite", "refresh")
        if replaced and not (set(view) == old or not set(view) & old):
            self.problems.append(f"a reader saw half a replace: {sorted(view)}")
        if replaced and view and set(view) != old and not set(view) >= {(n, 1) for n in NEW}:
            self.problems.append(f"a reader saw a part of the new table: {sorted(view)}")
        if not replaced and not {n for n, _ in old} <= set(ids):
            self.problems.append(f"a reader missed rows: {sorted(view)}")

    def _look_at_partitions(self) -> None:
        try:
            view = self._trial.seen_by_partition()
        except Exception:  # noqa: BLE001  # as above
            return
        for key, ids in view.items():
            if ids not in ({n for n in OLD if bucket(n) == key}, {n for n in NEW if bucket(n) == key}):
                self.problems.append(f"a reader saw a part of partition {key}: {sorted(ids)}")


def bucket(number: int) -> str:
    """``bucket[5]`` of a number, without the product."""
    digest = hashlib.md5(str(number).encode()).digest()
    return str(int.from_bytes(digest[8:], "little") % 5)


def plan(rounds: int) -> list[tuple[str, Step, str, int]]:
    """Every trial: mode, step, before or after, round."""
    return [
        (mode, step, when, number)
        for number in range(rounds)
        for mode, steps in MODES.items()
        for step in steps
        for when in ("before", "after")
    ]


def work(trials: list[tuple[str, Step, str, int]], worker: int, seed: int) -> list[Outcome]:
    """Run trials on a lake of this process."""
    with running_lake() as lake:
        return [_one(House(lake, f"chaos-{worker}-{number}", f"db{worker}x{number}"), trial, seed)
                for number, trial in enumerate(trials)]  # fmt: skip


def _one(house: House, trial: tuple[str, Step, str, int], seed: int) -> Outcome:
    mode, step, when, number = trial
    for again in range(3):  # a fault may end a try before its step
        dice = random.Random(f"{seed}{mode}{step.name}{when}{number}{again}")
        this = house if not again else House(house.lake, f"{house.bucket}-{again}", f"{house.database}a{again}")
        done = Trial(this, mode, step, when, dice).run()
        if done.kills or done.problems:
            break
    return Outcome(mode, step.name, when, done.kills, done.earlier_kills, done.problems)


def table_of(results: list[Outcome]) -> Iterator[str]:
    """Mode, step, kills before and after it, problems."""
    hits: Counter[tuple[str, str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for found in results:
        hits[found.mode, found.step, found.when] += found.kills
        wrong[found.mode, found.step] += bool(found.problems)
    yield f"{'mode':24}{'step':18}{'before':>8}{'after':>8}{'wrong':>8}"
    for mode, steps in MODES.items():
        for name in (step.name for step in steps):
            counts = f"{hits[mode, name, 'before']:8}{hits[mode, name, 'after']:8}{wrong[mode, name]:8}"
            yield f"{mode:24}{name:18}{counts}"
    earlier = sum(found.earlier_kills for found in results)
    yield f"total: {sum(hits.values())} kills at these steps, {earlier} that led there, {sum(wrong.values())} wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill the destination at every step of its protocol.")
    parser.add_argument("--rounds", type=int, default=3, help="kills before and after each step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only steps or modes whose name holds this")
    arguments = parser.parse_args()
    workers = os.cpu_count() or 1
    trials = [t for t in plan(arguments.rounds) if arguments.only in f"{t[0]} | {t[1].name}"]
    started = time.monotonic()
    parts = [(trials[worker::workers], worker, arguments.seed) for worker in range(workers)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        results = [result for part in pool.starmap(work, parts) for result in part]
    lines = list(table_of(results))
    print("\n".join(lines))
    problems = [f"{found.mode} | {found.when} {found.step}: {text}" for found in results for text in found.problems]
    print("\n".join(problems))
    missed = [f"{found.mode} | {found.when} {found.step}: not reached" for found in results if not found.kills]
    print("\n".join(missed))
    print(f"{time.monotonic() - started:.0f} s, seed {arguments.seed}")
    sys.exit(1 if problems or missed else 0)


if __name__ == "__main__":
    main()
