"""docs/first-minutes.md is what a new user sees: its commands are run on json-server and Datasette.

``make transcripts`` writes the document anew from what is printed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from integration_tests.harness import BIN
from integration_tests.servers import free_port, running
from integration_tests.transcripts import commands, comparable, played, section

DOCUMENT = Path(__file__).parents[1] / "docs" / "first-minutes.md"
WRITE = "WRITE_TRANSCRIPTS"
ORDERS = [
    {
        "id": number,
        "customer": f"customer {number % 7}",
        "total": number / 8,
        "updated_at": f"2024-01-{number % 28 + 1:02d}T00:00:{number % 60:02d}Z",
    }
    for number in range(1, 251)
]


def compare(title: str, folder: Path, written: str, real: str) -> None:
    """Or write anew."""
    document = DOCUMENT.read_text("utf-8")
    before = section(document, title)
    after = played(before, folder, {written: real})
    if os.environ.get(WRITE):
        DOCUMENT.write_text(document.replace(before, after), "utf-8")
    else:
        assert comparable(after) == comparable(before), "make transcripts writes it anew"


def test_the_first_minutes_with_json_server_are_as_documented(json_server: str, tmp_path: Path):
    data, port = tmp_path / "shop.json", free_port()
    data.write_text(json.dumps({"orders": ORDERS}))
    with running(
        [json_server, "--host", "127.0.0.1", "--port", str(port), "--quiet", str(data)], "/orders/1", port
    ) as url:
        compare("json-server", tmp_path, "http://localhost:3000", url)


def test_the_first_minutes_with_datasette_are_as_documented(tmp_path: Path):
    port = free_port()
    shop: Any = sqlite3.connect(tmp_path / "shop.db")
    with shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, total REAL, updated_at TEXT)")
        shop.executemany("INSERT INTO orders VALUES (:id, :customer, :total, :updated_at)", ORDERS)
    shop.close()
    with running([str(BIN / "datasette"), str(tmp_path / "shop.db"), "--port", str(port)], "/shop.json", port) as url:
        compare("Datasette", tmp_path, "http://localhost:8001", url)


def test_the_document_tries_the_commands_that_a_new_user_needs():
    text = DOCUMENT.read_text("utf-8")
    for title in ("json-server", "Datasette"):
        tried = [command.split()[:2] for command in commands(section(text, title))]
        for name in ("infer", "validate", "preview"):
            assert ["source-rest-api", name] in tried, title
