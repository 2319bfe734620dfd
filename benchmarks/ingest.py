"""What writing costs: ours against bare DuckDB, the CDK's loop, dlt, and pandas with awswrangler, as ratios in one run.

    python -m benchmarks.ingest [narrow wide nested hostile] [--rows 1000000] [--runs 5]      (make bench-ingest)

All take the same RECORD lines, with a STATE every 10,000, and write Parquet with zstd; ours writes them into the
embedded lake, which is another process, with row hashes on. CPU is that of the whole process, start-up included, with
compiled bytecode; the median of the runs (slow peers run once). "bare" reads the same fields with DuckDB and proves
nothing; "CDK" is the Python CDK's own loop, and throws every record away. Ends with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_runner.lake import running_lake

from benchmarks.processes import Used, finished
from benchmarks.source_peers import python_with
from integration_tests.harness import BIN, House, catalog

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
STATE_EVERY = 10_000
INTEGER, NUMBER, STRING, BOOLEAN = ({"type": kind} for kind in ("integer", "number", "string", "boolean"))
TIME, DAY = {**STRING, "format": "date-time"}, {**STRING, "format": "date"}
PLACE = {"type": "object", "properties": {"street": STRING, "zip": STRING, "lat": NUMBER, "lon": NUMBER}}
LINE = {"type": "object", "properties": {"sku": STRING, "count": INTEGER, "price": NUMBER}}
NARROW: dict[str, Any] = {
    "id": INTEGER,
    "name": STRING,
    "email": STRING,
    "amount": NUMBER,
    "score": NUMBER,
    "active": BOOLEAN,
    "created_at": TIME,
    "day": DAY,
}
KINDS: tuple[Any, ...] = (INTEGER, NUMBER, STRING, STRING, TIME, BOOLEAN)
WIDE: dict[str, Any] = {"id": INTEGER, **{f"column_{n}": KINDS[n % len(KINDS)] for n in range(59)}}
NESTED: dict[str, Any] = {"id": INTEGER, "name": STRING, "place": PLACE, "tags": {"type": "array", "items": STRING},
          "lines": {"type": "array", "items": LINE}, "updated_at": TIME}  # fmt: skip
DLT = ["dlt[filesystem,parquet]==1.31.0", "orjson"]
# At most so many times the CPU of bare DuckDB, at most such a share of the CDK's loop.
TARGETS = {"narrow": (2.0, 0.5), "wide": (1.6, 2 / 3), "nested": (1.6, None), "hostile": (3.5, None)}
DLT_TIMES = 10


@dataclass(frozen=True)
class Input:
    """Lines of one kind. ``bare`` is the type that DuckDB reads ``data`` as."""

    name: str
    schema: dict[str, Any]
    lines: Path
    rows: int
    bare: str


def moment(dice: random.Random) -> str:
    day = f"2026-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}"
    return f"{day}T{dice.randrange(24):02d}:00:{dice.randrange(60):02d}Z"


def narrow(number: int, dice: random.Random) -> dict[str, Any]:
    return {"id": number, "name": f"customer {dice.randrange(10**6)}", "email": f"user{number}@example.com",
            "amount": round(dice.random() * 1000, 2), "score": 0.1 + dice.random(), "active": dice.random() < 0.5,
            "created_at": moment(dice), "day": moment(dice)[:10]}  # fmt: skip


def wide(number: int, dice: random.Random) -> dict[str, Any]:
    makers: Sequence[Callable[[], Any]] = (
        lambda: dice.randrange(10**9), lambda: round(dice.random() * 1000, 3), lambda: f"text {dice.randrange(10**5)}",
        lambda: "one of a few" if dice.random() < 0.5 else "another", lambda: moment(dice), lambda: dice.random() < 0.5,
    )  # fmt: skip
    return {"id": number, **{f"column_{n}": makers[n % 6]() if dice.random() < 0.7 else None for n in range(59)}}


def nested(number: int, dice: random.Random) -> dict[str, Any]:
    lines = [{"sku": f"sku-{dice.randrange(1000)}", "count": dice.randrange(10), "price": round(dice.random() * 99, 2)}
             for _ in range(dice.randrange(1, 4))]  # fmt: skip
    place = {"street": f"street {dice.randrange(999)}", "zip": f"{dice.randrange(10**5):05d}",
             "lat": round(dice.uniform(-90, 90), 5), "lon": round(dice.uniform(-180, 180), 5)}  # fmt: skip
    return {"id": number, "name": f"customer {dice.randrange(10**6)}", "place": place,
            "tags": [f"tag {dice.randrange(50)}" for _ in range(dice.randrange(4))], "lines": lines,
            "updated_at": moment(dice)}  # fmt: skip


def hostile(number: int, dice: random.Random) -> dict[str, Any]:
    """One row in fifty has something that only the exact path can store."""
    row = narrow(number, dice)
    if dice.random() < 0.02:
        row |= dice.choice(({"amount": "12.5"}, {"id": 2**70}, {"created_at": "2026-02-30T00:00:00Z"}, {"email": 5},
                            {"undeclared": [1, 2]}, {"created_at": "2026-01-01T00:00:00.1234567Z"}))  # fmt: skip
    return row


MAKERS = {"narrow": (NARROW, narrow), "wide": (WIDE, wide), "nested": (NESTED, nested), "hostile": (NARROW, hostile)}


def state(number: int, stream: str = "t") -> bytes:
    body = {"stream_descriptor": {"name": stream}, "stream_state": {"c": number}}
    return json.dumps({"type": "STATE", "state": {"type": "STREAM", "stream": body}}).encode() + b"\n"


def make(name: str, rows: int, folder: Path) -> Input:
    """Write the lines of an input."""
    fields, maker = MAKERS[name]
    path, dice = folder / f"{name}.jsonl", random.Random(1)
    with path.open("wb") as file:
        for number in range(rows):
            record = {"stream": "t", "data": maker(number, dice), "emitted_at": 1_780_000_000_000 + number}
            file.write(json.dumps({"type": "RECORD", "record": record}, separators=(",", ":")).encode() + b"\n")
            if number % STATE_EVERY == STATE_EVERY - 1:
                file.write(state(number))
        file.write(state(rows))
    return Input(name, {"type": "object", "properties": fields}, path, rows, _bare_type(fields))


def _bare_type(fields: Mapping[str, Any]) -> str:
    return f"STRUCT({', '.join(f'{name} {_duck(kind)}' for name, kind in fields.items())})"


def _duck(kind: dict[str, Any]) -> str:
    match kind:
        case {"properties": dict(inner)}:
            return _bare_type(inner)
        case {"items": dict(item)}:
            return f"{_duck(item)}[]"
        case {"format": "date-time"}:
            return "TIMESTAMPTZ"
        case {"format": "date"}:
            return "DATE"
    return {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN", "string": "VARCHAR"}[kind["type"]]


BARE = """
import duckdb, sys
lines, kind, out = sys.argv[1:]
db = duckdb.connect(config={"threads": 2})
record = f"STRUCT(emitted_at BIGINT, data {kind})"
db.execute(f\"\"\"COPY (SELECT record.emitted_at, unnest(record.data) FROM read_json('{lines}',
  format = 'newline_delimited', ignore_errors = true, columns = {{type: 'VARCHAR', record: '{record}'}})
  WHERE type = 'RECORD') TO '{out}' (FORMAT parquet, COMPRESSION zstd)\"\"\")
"""

CDK = """
import sys
from airbyte_cdk.destinations import Destination
from airbyte_cdk.models import ConnectorSpecification
class Nothing(Destination):
    def check(self, logger, config): ...
    def spec(self, *args): return ConnectorSpecification(connectionSpecification={})
    def write(self, config, configured_catalog, input_messages):
        for message in input_messages:
            if message.type.value == "STATE":
                yield message
Nothing().run(sys.argv[1:])
"""

DLT_SCRIPT = """
import sys
import dlt, orjson
lines, folder = sys.argv[1:]
dlt.config["runtime.dlthub_telemetry"] = False
def records():
    for line in open(lines, "rb"):
        message = orjson.loads(line)
        if message["type"] == "RECORD":
            yield message["record"]["data"]
destination = dlt.destinations.filesystem(bucket_url="file://" + folder + "/out")
pipeline = dlt.pipeline("bench", pipelines_dir=folder, destination=destination, dataset_name="bench")
pipeline.run(dlt.resource(records, name="t"), loader_file_format="parquet")
"""

PANDAS = """
import sys
import awswrangler as wr, orjson, pandas as pd
lines, out = sys.argv[1:]
rows = [orjson.loads(line)["record"]["data"] for line in open(lines, "rb") if line.startswith(b'{"type":"RECORD"')]
frame = pd.DataFrame(rows)
from awswrangler._data_types import pyarrow_schema_from_pandas
import pyarrow as pa, pyarrow.parquet as pq
schema = pyarrow_schema_from_pandas(frame, index=False, ignore_cols=None, dtype={})
pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False, safe=False), out, compression="zstd")
"""


def cost(command: Sequence[str], stdin: Path | None = None) -> Used:
    """Run to the end."""
    with tempfile.TemporaryFile() as out, open(stdin or os.devnull, "rb") as lines:
        process = subprocess.Popen(command, stdin=lines, stdout=out, stderr=subprocess.STDOUT, env=ENVIRONMENT)
        used = finished(process)
        if process.returncode:
            out.seek(0)
            raise RuntimeError(out.read()[-3000:].decode(errors="replace"))
        return used


def ours(given: Input, house: House, **config: Any) -> Callable[[], Used]:
    numbers = iter(range(1000))

    def run() -> Used:
        made = catalog("t", schema=given.schema)
        changed = house.config(**{"glue_database": f"{given.name}_{next(numbers)}", **config})
        files = house.save(config=changed, catalog=made)
        command = [str(BIN / "destination-s3-datalake"), "write", "--config", files["config"], "--catalog",
                   files["catalog"]]  # fmt: skip
        return cost(command, given.lines)

    return run


def peers(given: Input, house: House, folder: Path) -> Iterator[tuple[str, Callable[[], Used], bool]]:
    """Name, what to run, and whether it is slow."""
    python = [sys.executable, "-c"]
    files = house.save(config={}, catalog=catalog("t", schema=given.schema))
    arguments = ["write", "--config", files["config"], "--catalog", files["catalog"]]
    yield "bare", lambda: cost([*python, BARE, str(given.lines), given.bare, str(folder / "bare.parquet")]), False
    yield "ours", ours(given, house), False
    yield "CDK", lambda: cost([*python, CDK, *arguments], given.lines), True
    if given.name != "hostile":
        yield "pandas", lambda: cost([*python, PANDAS, str(given.lines), str(folder / "pandas.parquet")]), True
        yield (
            "dlt",
            lambda: cost([str(python_with("bench-dlt-files", *DLT)), "-c", DLT_SCRIPT, str(given.lines), _new(folder)]),
            True,
        )


def _new(folder: Path) -> str:
    return tempfile.mkdtemp(dir=folder)


def measure(given: Input, house: House, folder: Path, runs: int) -> bool:
    """Print the table of one input; whether all targets are met."""
    print(f"\n{given.name}: {given.rows} records, {given.lines.stat().st_size >> 20} MB of lines")
    print(f"  {'':8} {'CPU s':>8} {'to bare':>8} {'wall s':>8} {'peak MB':>8}")
    found: dict[str, Used] = {}
    for name, run, is_slow in peers(given, house, folder):
        costs = sorted((run() for _ in range(1 if is_slow else runs)), key=lambda one: one.cpu)
        found[name] = costs[len(costs) // 2]
        ratio = found[name].cpu / found["bare"].cpu
        print(f"  {name:8} {found[name].cpu:8.2f} {ratio:8.2f} {found[name].wall:8.1f} {found[name].peak_mb:8.0f}",
              flush=True)  # fmt: skip
    most, share = TARGETS[given.name]
    checks = [("CPU of ours to bare", found["ours"].cpu / found["bare"].cpu, most)]
    if share is not None:
        checks.append(("CPU of ours to the CDK's loop", found["ours"].cpu / found["CDK"].cpu, share))
    if "dlt" in found:
        checks.append(("CPU of ours to dlt", found["ours"].cpu / found["dlt"].cpu, 1 / DLT_TIMES))
    for what, value, limit in checks:
        print(f"  {what}: {value:.2f} (at most {limit:.2f}) {'' if value <= limit else 'MISSED'}")
    return all(value <= limit for _, value, limit in checks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="*", default=list(TARGETS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-", dir="/var/tmp") as name, running_lake() as lake:
        folder, house = Path(name), House(lake, "bench-ingest", "bench")
        empty = statistics.median(
            cost_of_nothing.cpu for cost_of_nothing in (ours(make("narrow", 1, folder), house)() for _ in range(3))
        )
        print(f"one record: {empty:.2f} s of CPU")
        met = []
        for kind in arguments.inputs:
            rows = arguments.rows * 3 // 10 if kind == "wide" else arguments.rows
            met.append(measure(make(kind, rows, folder), house, folder, arguments.runs))
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
