"""REST servers that we did not write, read by the source, written by the destination, read back by others' tools.

Datasette (token and next-URL paging over SQLite) and json-server (page numbers, Link headers, nested paths).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import awswrangler as wr
import boto3
import pyarrow as pa
import pytest
import requests
from local_runner.run import Connection, Connector, Outcome, sync

from integration_tests.harness import BIN, DESTINATION, KEY_ID, SECRET, House
from integration_tests.rest_api import SOURCE, Source
from integration_tests.servers import free_port, running

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
ORDERS, CUSTOMERS = 1500, 60
APPEND, OVERWRITE, DEDUP = "append", "overwrite", "append_dedup"
Row = dict[str, Any]


def order(number: int, *, at: int | None = None, **more: Any) -> Row:
    """Seven orders share each second, so that pages and syncs end amid equal cursors."""
    moment = BEGIN + timedelta(seconds=number // 7 if at is None else at)
    return {
        "id": number,
        "customerId": number % CUSTOMERS + 1,
        "total": number / 8,
        "big": 2**53 + number if number % 3 else None,
        "note": f'"quoted", line\nbreak, \N{SNOWMAN} {number}' if number % 5 else None,
        "updated_at": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **more,
    }


def customer(number: int) -> Row:
    return {"id": number, "name": f"customer {number}"}


def connection(form: Row, modes: Mapping[str, str], house: House, folder: Path) -> Connection:
    """The pair for some streams of a form, as ``discover`` describes them."""
    catalog = Source(folder).run("discover", form).of("CATALOG")[0]["catalog"]
    entries = [
        {
            "stream": stream,
            "sync_mode": "full_refresh" if modes[stream["name"]] == OVERWRITE else "incremental",
            "destination_sync_mode": modes[stream["name"]],
            "primary_key": stream.get("source_defined_primary_key", []),
            "cursor_field": stream.get("default_cursor_field", []),
        }
        for stream in catalog["streams"]
        if stream["name"] in modes
    ]
    files = {"source": form, "destination": house.config(), "catalog": {"streams": entries}}
    for name, document in files.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return Connection(
        source=Connector((str(SOURCE),), folder / "source.json"),
        destination=Connector((str(DESTINATION),), folder / "destination.json"),
        catalog=folder / "catalog.json",
        state=folder / "state.json",
        supports_refreshes=True,
    )


def succeeded(outcome: Outcome) -> dict[str, int]:
    assert outcome.is_success, outcome.errors
    return outcome.records


def in_glue(house: House, table: str) -> list[Row]:
    """The table as awswrangler reads it through Glue, in the form of the API's rows."""
    session = boto3.Session(aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET, region_name="us-east-1")
    wr.config.s3_endpoint_url = wr.config.glue_endpoint_url = house.lake.url
    # pandas' own types would read a column of large integers with a NULL as floats.
    frame = wr.s3.read_parquet_table(
        database=house.database, table=table, boto3_session=session, dtype_backend="pyarrow"
    )
    return [as_api(row) for row in pa.Table.from_pandas(frame, preserve_index=False).to_pylist()]


def as_api(row: Row) -> Row:
    """A row of a table as the API would answer it."""
    found = {}
    for name, value in row.items():
        if not name.startswith("_airbyte"):
            is_time = hasattr(value, "strftime")
            found["customerId" if name == "customerid" else name] = (
                value.strftime("%Y-%m-%dT%H:%M:%SZ") if is_time else value
            )
    return found


def by_id(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["id"])


# --- Datasette ------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(tmp_path / "shop.db")
    found.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customerId INTEGER, total REAL, big INTEGER,"
                  " note TEXT, updated_at TEXT)")  # fmt: skip
    found.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)")
    found.executemany("INSERT INTO customers VALUES (:id, :name)", map(customer, range(1, CUSTOMERS + 1)))
    put(found, [order(number) for number in range(ORDERS)])
    yield found
    found.close()


def put(database: sqlite3.Connection, rows: list[Row]) -> None:
    with database:
        database.executemany("REPLACE INTO orders VALUES (:id, :customerId, :total, :big, :note, :updated_at)", rows)


def datasette_form(url: str) -> Row:
    size = {"size_param": "_size", "page_size": 300}
    return {
        "base_url": f"{url}/shop",
        "query_params": [{"name": "_shape", "value": "objects"}],
        "streams": [
            {"name": "customers", "path": "/customers.json", "record_path": "rows", "primary_key": ["id"],
             "pagination": {"pagination_type": "next_url", "next_path": "next_url", "size_param": "_size",
                            "page_size": 50}},
            {"name": "orders", "path": "/orders.json", "record_path": "rows", "primary_key": ["id"],
             "query_params": [{"name": "_sort", "value": "updated_at"}],
             "pagination": {"pagination_type": "cursor", "token_path": "next", "token_param": "_next", **size},
             "incremental": {"incremental_type": "datetime", "cursor_field": "updated_at", "is_ascending": True,
                             "start_param": "updated_at__gte", "request_format": "%Y-%m-%dT%H:%M:%SZ"}},
        ],
    }  # fmt: skip


def test_datasette_by_tokens_and_next_urls_in_full_and_what_is_new(
    house: House, database: sqlite3.Connection, tmp_path: Path
):
    port = free_port()
    command = [str(BIN / "datasette"), str(tmp_path / "shop.db"), "--port", str(port)]
    with running(command, "/shop.json", port) as url:
        modes = {"customers": OVERWRITE, "orders": APPEND}
        pair = connection(datasette_form(url), modes, house, tmp_path)
        assert succeeded(sync(pair)) == {"customers": CUSTOMERS, "orders": ORDERS}
        assert by_id(in_glue(house, "customers")) == [customer(number) for number in range(1, CUSTOMERS + 1)]
        assert by_id(in_glue(house, "orders")) == [order(number) for number in range(ORDERS)]
        # more at the very second where the first sync ended, and later ones
        last = (ORDERS - 1) // 7
        new = [
            *(order(ORDERS + n, at=last) for n in range(3)),
            *(order(ORDERS + n, at=last + n) for n in range(3, 400)),
        ]
        put(database, new)
        assert succeeded(sync(pair)) == {"customers": CUSTOMERS, "orders": len(new)}
        assert by_id(in_glue(house, "orders")) == [*(order(number) for number in range(ORDERS)), *new]
        assert [row["id"] for row in by_id(house.rows("orders"))] == list(range(ORDERS + 400))
        assert succeeded(sync(pair)) == {"customers": CUSTOMERS}


# --- json-server ----------------------------------------------------------------------------------------------------


def json_server_form(url: str) -> Row:
    return {
        "base_url": url,
        "streams": [
            {"name": "customers", "path": "/customers", "primary_key": ["id"],
             "pagination": {"pagination_type": "page", "page_param": "_page", "size_param": "_limit",
                            "page_size": 50}},
            {"name": "orders", "path": "/orders", "primary_key": ["id"],
             "query_params": [{"name": "_sort", "value": "updated_at"}, {"name": "_page", "value": "1"}],
             "pagination": {"pagination_type": "link_header", "size_param": "_limit", "page_size": 300},
             "incremental": {"incremental_type": "datetime", "cursor_field": "updated_at", "is_ascending": True,
                             "start_param": "updated_at_gte", "request_format": "%Y-%m-%dT%H:%M:%SZ"}},
            {"name": "orders_of_customers", "path": "/customers/{{ parent.customer }}/orders", "primary_key": ["id"],
             "parents": [{"stream": "customers", "field": "id", "as": "customer"}], "add_parent_fields": True},
        ],
    }  # fmt: skip


def test_json_server_by_pages_links_and_parents_in_full_and_what_is_new(house: House, json_server: str, tmp_path: Path):
    rows = [order(number, big=number) for number in range(ORDERS)]  # JavaScript has no integers beyond 2^53
    customers = [customer(number) for number in range(1, CUSTOMERS + 1)]
    file, port = tmp_path / "shop.json", free_port()
    file.write_text(json.dumps({"orders": rows, "customers": customers}))
    command = [json_server, "--host", "127.0.0.1", "--port", str(port), "--quiet", str(file)]
    with running(command, "/customers/1", port) as url:
        modes = {"customers": OVERWRITE, "orders": DEDUP, "orders_of_customers": OVERWRITE}
        pair = connection(json_server_form(url), modes, house, tmp_path)
        all_three = {"customers": CUSTOMERS, "orders": ORDERS, "orders_of_customers": ORDERS}
        assert succeeded(sync(pair)) == all_three
        assert by_id(in_glue(house, "customers")) == customers
        assert by_id(in_glue(house, "orders")) == rows
        children = by_id(in_glue(house, "orders_of_customers"))
        assert children == [{**row, "customer": row["customerId"]} for row in rows]
        # through the server itself: a new order, and two that change
        last = (ORDERS - 1) // 7
        new = order(ORDERS, at=last + 5, note="new", big=0)
        requests.post(f"{url}/orders", json=new, timeout=10).raise_for_status()
        changed = [{**rows[number], "note": "changed", "updated_at": new["updated_at"]} for number in (3, ORDERS - 1)]
        for row in changed:
            requests.put(f"{url}/orders/{row['id']}", json=row, timeout=10).raise_for_status()
        assert succeeded(sync(pair))["orders"] == 3
    kept = {row["id"]: row for row in [*rows, new, *changed]}
    assert by_id(in_glue(house, "orders")) == by_id(list(kept.values()))
    assert by_id([as_api(row) for row in house.rows("orders")]) == by_id(list(kept.values()))
