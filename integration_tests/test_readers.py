"""Tools that we did not write read a table, and all see the same: what was sent, to the last digit.

pyarrow and polars read through S3 what Glue names as Location, awswrangler through Glue itself, DuckDB and Spark read a
copy of the folder. Spark needs a JRE and pyspark (400 MB), which nothing else here does; where one is not there, its
test is skipped and says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from integration_tests.harness import KEY_ID, SECRET, House, catalog, state
from integration_tests.in_process import write_in_process

Row = dict[str, Any]
NUMBER = {"type": ["null", "number"]}
SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "price": NUMBER,
        "is_open": {"type": "boolean"},
        "name": {"type": "string"},
        "total": {"type": "string", "airbyte_type": "big_number"},
        "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"},
        "wall": {"type": "string", "format": "date-time", "airbyte_type": "timestamp_without_timezone"},
        "place": {"type": "object", "properties": {"lon": NUMBER, "on": {"type": "boolean"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "stops": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "any": {"type": "object"},
    },
}
FULL: Row = {
    "id": 2**53 + 1, "price": 0.1, "is_open": True, "name": "ä😀 \"'\\", "day": "2024-02-29",
    "total": "12345678901234567890123456789.123456789", "at": "2024-02-29T23:59:59.123456+01:00",
    "wall": "2024-02-29T00:00:00.5", "place": {"lon": -0.5, "on": False}, "tags": ["a", None, ""],
    "stops": [{"n": 1}, None], "any": {"k": [1]},
}  # fmt: skip
ROWS: list[Row] = [
    FULL,
    {"id": 1},
    *({**FULL, "id": number, "price": number / 4, "tags": []} for number in range(2, 200)),
]
STORED: Row = {
    **FULL, "total": Decimal(str(FULL["total"])), "day": date(2024, 2, 29), "any": '{"k":[1]}',
    "at": datetime(2024, 2, 29, 22, 59, 59, 123456, UTC), "wall": datetime(2024, 2, 29, 0, 0, 0, 500_000),
}  # fmt: skip
EXPECTED = [
    {**STORED, "id": row["id"], "price": row["price"], "tags": row["tags"]} if len(row) > 1
    else {**dict.fromkeys(STORED), **row}
    for row in ROWS
]  # fmt: skip
"""What every reader must see."""


def plain(value: Any) -> Any:
    """A value in one form for all readers: moments in UTC without zone, decimals as text, no NaN and no NaT."""
    match value:
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case Decimal():
            return f"{value:f}"
        case datetime() if value == value:  # NaT is not itself
            moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            return moment.isoformat(timespec="microseconds")
        case date():
            return value.isoformat()
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value else None
        case _ if hasattr(value, "tolist"):  # of numpy
            return plain(value.tolist())
        case _ if type(value).__name__ in ("NAType", "NaTType"):
            return None
        case _:
            raise TypeError(type(value).__name__)


def of_records(rows: list[Row]) -> list[Row]:
    """The columns that were sent, in order of id."""
    return sorted(({name: plain(row[name]) for name in STORED} for row in rows), key=lambda row: row["id"])


def by_pyarrow(house: House, folder: Path) -> list[Row]:
    return of_records(house.rows())


def by_polars(house: House, folder: Path) -> list[Row]:
    import polars

    options = {"aws_endpoint_url": house.lake.url, "aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET,
               "aws_region": "us-east-1", "aws_allow_http": "true"}  # fmt: skip
    location = house.table()["StorageDescriptor"]["Location"]
    return of_records(polars.scan_parquet(f"{location}*.parquet", storage_options=options).collect().to_dicts())


def by_duckdb(house: House, folder: Path) -> list[Row]:
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        found = database.read_parquet(f"{copied(house, folder)}/*.parquet")
        return of_records([dict(zip(found.columns, row, strict=True)) for row in found.fetchall()])


# awswrangler takes its endpoints from the environment and patches pandas; Spark is a JVM: each in its own process.
WRANGLER = """
import awswrangler as wr, sys
table = wr.s3.read_parquet_table(database=sys.argv[1], table="orders", dtype_backend="pyarrow")
rows = table.to_dict("records")
"""
SPARK = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false") \\
    .config("spark.sql.session.timeZone", "UTC").config("spark.driver.memory", "512m").getOrCreate()
rows = [row.asDict(recursive=True) for row in spark.read.parquet(sys.argv[1]).collect()]
spark.stop()
"""


def by_awswrangler(house: House, folder: Path) -> list[Row]:
    environment = {"AWS_ENDPOINT_URL": house.lake.url, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET,
                   "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    return by_script(WRANGLER, house.database, environment)


def by_spark(house: House, folder: Path) -> list[Row]:
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("pyspark is not installed: .make/uv/bin/uv pip install --python .venv/bin/python pyspark")
    if shutil.which("java") is None:
        pytest.skip("there is no JRE")
    return by_script(SPARK, str(copied(house, folder)), {"TZ": "UTC"})


def by_script(script: str, argument: str, environment: dict[str, str]) -> list[Row]:
    ending = "import json\nfrom integration_tests.test_readers import of_records\nprint(json.dumps(of_records(rows)))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{script}\n{ending}", argument],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return found


def copied(house: House, folder: Path) -> Path:
    """A copy of the folder that the table's Location names."""
    for number, key in enumerate(house.live_keys()):
        house.s3.download_file(house.bucket, key, str(folder / f"{number}.parquet"))
    return folder


@pytest.mark.parametrize(
    "read", [by_pyarrow, by_duckdb, by_polars, by_awswrangler, by_spark], ids=lambda read: read.__name__
)
def test_readers_see_what_was_sent(house: House, tmp_path: Path, read: Callable[[House, Path], list[Row]]):
    messages = [{"type": "RECORD", "record": {"stream": "orders", "emitted_at": 1, "data": row}} for row in ROWS]
    body = b"".join(json.dumps(message).encode() + b"\n" for message in [*messages, state({"c": 1})])
    assert write_in_process(house.config(), catalog(schema=SCHEMA), body).exit_code == 0
    assert read(house, tmp_path) == of_records(EXPECTED)
