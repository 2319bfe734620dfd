"""Tools that we did not write read the table: awswrangler through Glue, DuckDB from the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb

from integration_tests.harness import KEY_ID, SECRET, House, catalog, state

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "price": {"type": "number"},
        "at": {"type": "string", "format": "date-time"},
        "place": {"type": "object", "properties": {"lon": {"type": "number"}, "name": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
ROWS = [
    {
        "id": number,
        "price": number / 4,
        "at": f"2026-01-{number + 1:02d}T00:00:00Z",
        "place": {"lon": -number / 2, "name": f"ä{number}"},
        "tags": [f"t{number}", "x"],
    }
    for number in range(20)
]
# In a process of its own: awswrangler takes its endpoints from the environment and patches pandas.
WRANGLER = """
import awswrangler as wr, json, sys
table = wr.s3.read_parquet_table(database=sys.argv[1], table="orders")
table = table.sort_values("id")
print(table[["id", "price", "place", "tags"]].to_json(orient="records"))
print(json.dumps([moment.isoformat() for moment in table["at"]]))
"""


def write(house: House) -> None:
    messages = [{"type": "RECORD", "record": {"stream": "orders", "emitted_at": 1, "data": row}} for row in ROWS]
    assert house.write([*messages, state({"c": 1})], catalog(schema=SCHEMA)).exit_code == 0


def test_awswrangler_reads_the_table_through_glue(house: House):
    write(house)
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": house.lake.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WRANGLER, house.database],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, moments = (json.loads(line) for line in done.stdout.splitlines())
    assert rows == [{name: row[name] for name in ("id", "price", "place", "tags")} for row in ROWS]
    assert [moment[:19] for moment in moments] == [str(row["at"])[:19] for row in ROWS]


def test_duckdb_reads_the_files(house: House, tmp_path: Path):
    write(house)
    for number, key in enumerate(house.live_keys()):
        house.s3.download_file(house.bucket, key, str(tmp_path / f"{number}.parquet"))
    with duckdb.connect() as database:
        found = database.execute(
            f"SELECT id, price, place, tags FROM '{tmp_path}/*.parquet' ORDER BY id"
        ).fetchall()  # fmt: skip
    assert found == [(row["id"], row["price"], row["place"], row["tags"]) for row in ROWS]
