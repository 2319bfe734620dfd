"""One million changes merged by key into a table of twenty million rows, beside bare DuckDB doing the same.

    python -m benchmarks.merge [--rows 20000000] [--changes 1000000] [--memory 1500]

Ours: the real process on the embedded lake; the changes are staged before, so that what is measured is opening,
downloading, merging, uploading and publishing. Bare DuckDB: the same join of the same files, which are on the local
disk already, to one file sorted by key, under the same limit. CPU is that of the process tree (the lake's is apart), in
seconds; only the ratio means anything. Ends with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from local_runner.lake import running_lake

from integration_tests.harness import BIN, House, Watcher, peak_of

FILES = 16
CPU_TARGET = 1.6
FIELDS = ["id", "a", "b", "c", "d", "e", "f", "g", "h"]


@dataclass(frozen=True)
class Cost:
    """What a process took. Seconds and MB."""

    wall: float
    cpu: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.wall:6.1f} s wall {self.cpu:6.1f} s CPU {self.peak_mb:7.0f} MB peak"


def row(number: str, name: str) -> str:
    """One row of ten columns in SQL: integers, doubles, texts of some entropy, a time."""
    return (
        f"{number} AS id, {name} AS a, hash({number})::VARCHAR AS b, (hash({number} + 1) % 100000)::BIGINT AS c, "
        f"(hash({number} + 2) % 1000000) / 100.0 AS d, 'city ' || (hash({number} + 3) % 5000) AS e, "
        f"(hash({number} + 4) % 2) = 0 AS f, hash({number} + 5)::DOUBLE AS g, 'x' || ({number} % 97) AS h"
    )


def make_files(folder: Path, rows: int, changes: int) -> None:
    """The table's files, and the changes as RECORD lines: four fifths updates, one fifth new."""
    database = duckdb.connect()
    share = rows // FILES
    for number in range(FILES):
        first = number * share
        database.execute(
            f"COPY (SELECT {row('i', repr('old'))}, "
            f"TIMESTAMP '2026-01-01 00:00:00' AS _airbyte_extracted_at FROM range({first}, {first + share}) t(i)) "
            f"TO '{folder}/part-{number:02d}.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
    step = rows // (changes * 4 // 5)
    database.execute(
        f"COPY (SELECT {row('n', repr('new'))} FROM (SELECT CASE WHEN i % 5 < 4 THEN ((i * {step}) % {rows})::BIGINT "
        f"ELSE ({rows} + i)::BIGINT END AS n FROM range({changes}) t(i))) "
        f"TO '{folder}/changes.parquet' (FORMAT parquet)"
    )
    names = ", ".join(f"{name}: {name}" for name in FIELDS)
    database.execute(
        f"""COPY (SELECT '{{"type":"RECORD","record":{{"stream":"t","emitted_at":1780000000000,"data":'
        || to_json({{{names}}})::VARCHAR || '}}}}' FROM '{folder}/changes.parquet')
        TO '{folder}/changes.jsonl' (FORMAT csv, HEADER false, QUOTE '', DELIMITER '\\t', ESCAPE '')"""
    )


def measured(command: list[str], stdin: Any, environment: dict[str, str] | None = None) -> Cost:
    """Run to the end; its CPU and the highest memory of its tree."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, env=environment)
    peaks = [0]
    with Watcher(lambda: peaks.append(peak_of(process.pid)), pause=0.05):
        output, _ = process.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(output.decode()[-3000:])
    for line in output.splitlines():
        if b"merged" in line:
            print("  ", json.loads(line)["log"]["message"])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, cpu, max(peaks))


BARE = """
import duckdb, sys
folder, limit = sys.argv[1:]
db = duckdb.connect(config={"memory_limit": limit, "threads": 2, "temp_directory": folder + "/spill"})
db.execute(f\"\"\"COPY (SELECT * FROM (
  SELECT o.* FROM '{folder}/live/*.parquet' o ANTI JOIN '{folder}/staged/*.parquet' n ON o.id IS NOT DISTINCT FROM n.id
  UNION ALL BY NAME SELECT * FROM '{folder}/staged/*.parquet') ORDER BY id)
  TO '{folder}/bare.parquet' (FORMAT parquet, COMPRESSION zstd)\"\"\")
"""


def state(number: int) -> bytes:
    """A STATE line."""
    body = {"stream_descriptor": {"name": "t"}, "stream_state": {"c": number}}
    return json.dumps({"type": "STATE", "state": {"type": "STREAM", "stream": body}}).encode() + b"\n"


def foreign_table(house: House, folder: Path) -> None:
    """The files as a table that the destination will adopt."""
    kinds = {"id": "bigint", "a": "string", "b": "string", "c": "bigint", "d": "double", "e": "string",
             "f": "boolean", "g": "double", "h": "string", "_airbyte_extracted_at": "timestamp"}  # fmt: skip
    for path in sorted(folder.glob("part-*.parquet")):
        house.s3.upload_file(str(path), house.bucket, f"elsewhere/t/{path.name}")
    house.glue.create_database(DatabaseInput={"Name": house.database})
    serde = {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"}
    storage = {
        "Columns": [{"Name": name, "Type": kind} for name, kind in kinds.items()],
        "Location": f"s3://{house.bucket}/elsewhere/t",
        "SerdeInfo": serde,
    }
    house.glue.create_table(
        DatabaseName=house.database,
        TableInput={"Name": "t", "StorageDescriptor": storage, "PartitionKeys": [], "Parameters": {}},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--changes", type=int, default=1_000_000)
    parser.add_argument("--memory", type=int, default=1500)
    arguments = parser.parse_args()
    kinds = {"id": "integer", "a": "string", "b": "string", "c": "integer", "d": "number", "e": "string",
             "f": "boolean", "g": "number", "h": "string"}  # fmt: skip
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
    entry = {
        "stream": {"name": "t", "json_schema": schema},
        "sync_mode": "incremental",
        "destination_sync_mode": "append_dedup",
        "primary_key": [["id"]],
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory(prefix="merge-", dir="/var/tmp") as name, running_lake() as lake:
        folder, house = Path(name), House(lake, "bench-merge", "bench")
        make_files(folder, arguments.rows, arguments.changes)
        foreign_table(house, folder)
        config = house.config(memory_limit_mb=arguments.memory, existing_table="adopt", merge_every_mb=100_000)
        files = house.save(config=config, catalog={"streams": [entry]})
        command = [str(BIN / "destination-s3-datalake"), "write", "--config", files["config"], "--catalog",
                   files["catalog"]]  # fmt: skip
        (folder / "one.jsonl").write_bytes(
            (folder / "changes.jsonl").read_bytes().partition(b"\n")[0] + b"\n" + state(1)
        )
        print("first merge of an adopted table: every row competes (not counted)")
        with (folder / "one.jsonl").open("rb") as lines:
            print("  ", measured(command, lines, environment))
        base = measured(command, subprocess.DEVNULL, environment)
        print(f"a run without records\n   {base}")
        print("staging the changes (not counted)")
        with (folder / "changes.jsonl").open("ab") as lines:
            lines.write(state(2))
        _stage(house, command, folder, environment)
        _download(house, folder)
        print("ours")
        ours = measured(command, subprocess.DEVNULL, environment)
        print("  ", ours)
        print("bare DuckDB")
        limit = f"{arguments.memory}MB"
        bare = measured([sys.executable, "-c", BARE, str(folder), limit], subprocess.DEVNULL, environment)
        print("  ", bare)
        ratio, peak = ours.cpu / bare.cpu, ours.peak_mb - base.peak_mb
        print(f"CPU ours / bare: {ratio:.2f}; peak above a run without records: {peak:.0f} MB of {arguments.memory}")
        live = house.live_keys("t")
        print(f"{len(live)} files in the table, {len(house.uploads())} uploads left")
        _download(house, folder / "merged")
        [[rows]] = duckdb.execute(f"SELECT count(*) FROM '{folder}/merged/live/*.parquet'").fetchall()
    wanted = arguments.rows + arguments.changes // 5
    problems = {
        f"{ratio:.2f} times the CPU of bare DuckDB, not {CPU_TARGET}": ratio > CPU_TARGET,
        f"{peak:.0f} MB above a run without records, not {arguments.memory}": peak > arguments.memory,
        f"{rows} rows, not {wanted}": rows != wanted,
    }
    missed = [text for text, is_missed in problems.items() if is_missed]
    print("\n".join(missed) or "Every target is met.")
    sys.exit(bool(missed))


def _download(house: House, folder: Path) -> None:
    """The table's files and the staged ones, for bare DuckDB."""
    keys = {"live": house.live_keys("t"), "staged": house.keys(f"lake/_airbyte/{house.database}/t/stage/")}
    for name, found in keys.items():
        (folder / name).mkdir(parents=True)
        for key in found:
            house.s3.download_file(house.bucket, key, str(folder / name / key.rpartition("/")[2]))


def _stage(house: House, command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Ingest and commit the changes, and die where the merge begins to read them."""
    with (folder / "changes.jsonl").open("rb") as lines:
        process = subprocess.Popen(command, stdin=lines, stdout=subprocess.DEVNULL, env=environment)
        house.lake.faults(
            at={"step": "s3:GetObject", "match": "lake/bench/t/0", "when": "before", "do": "kill", "pid": process.pid}
        )
        process.wait()
    house.lake.faults(at=None)


if __name__ == "__main__":
    main()
