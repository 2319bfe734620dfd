"""JSONL and CSV tables through the real process, read as their SerDe in Glue reads them; changes of the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from integration_tests.acceptance_cases import INCOMPLETE, dedup, generation, point, row, stream
from integration_tests.harness import FINAL, House, Message, catalog, complete, state
from integration_tests.test_schedules import ended

HOSTILE = [
    "quote \" and '",
    "comma, and\ttab",
    "line\nbreak\r\nand back\\slash\\n",
    "",
    r"\N",
    "NULL",
    "ä\u2028€",
    None,
]
FIELDS = {"id": "integer", "name": "string"}
JSONL, CSV = {"format_type": "jsonl", "compression": "gzip"}, {"format_type": "csv", "compression": "zstd"}
OVERWRITE: dict[str, Any] = {"mode": "overwrite", "sync_mode": "full_refresh"}


def texts(house: House, table: str = "s") -> list[Any]:
    return [found["name"] for found in sorted(house.rows(table), key=lambda found: int(found["id"]))]


def hostile(first: int = 0, **more: Any) -> list[Message]:
    return [row(id=first + number, name=text, **more) for number, text in enumerate(HOSTILE)]


@pytest.mark.parametrize("form", [JSONL, CSV], ids=["jsonl", "csv"])
def test_a_text_table_keeps_every_value_while_columns_come_and_go(house: House, form: dict[str, str]):
    config = house.config(format=form)
    ended(house, [*hostile(odd=[1]), point(1)], {"streams": [stream(fields=FIELDS)]}, config=config)
    more = {"id": "integer", "added": "number", "nested": "object"}
    ended(house, [point(1), row(id=90, added=1.5, nested={"a": [1, "x"]}), point(2)],
          {"streams": [stream(fields=more)]}, config=config)  # fmt: skip
    ended(house, [point(2), row(id=91, name="last"), point(3)], {"streams": [stream(fields=FIELDS)]}, config=config)
    assert texts(house) == [*HOSTILE, None, "last"]
    found = {int(each["id"]): each for each in house.rows("s")}
    assert [found[number]["added"] for number in (0, 90, 91)] in ([None, 1.5, None], [None, "1.5", None])
    assert json.loads(found[90]["nested"]) == {"a": [1, "x"]}
    assert json.loads(found[0]["_airbyte_extra"]) == {"odd": [1]}
    meta = found[90]["_airbyte_meta"]
    assert (json.loads(meta) if isinstance(meta, str) else meta) == {"sync_id": 0, "changes": []}
    assert len(found[90]["_airbyte_raw_id"]) == 36
    assert found[90]["_airbyte_extracted_at"] == "1970-01-01 00:00:01"


def test_duckdb_reads_both(house: House, tmp_path: Path):
    configured = catalog(schema={"properties": {"id": {"type": "integer"}, "text": {"type": "string"}}})
    for number, form in enumerate((JSONL, CSV)):
        this = House(house.lake, f"{house.bucket}-{number}", f"{house.database}_{number}")
        lines = [{"type": "RECORD", "record": {"stream": "orders", "emitted_at": 1, "data": {"id": n, "text": text}}}
                 for n, text in enumerate(HOSTILE)]  # fmt: skip
        ended(this, [*lines, state(1)], configured, config=this.config(format=form))
        (key,) = this.live_keys()
        path = tmp_path / key.rpartition("/")[2]
        this.s3.download_file(this.bucket, key, str(path))
        with duckdb.connect() as database:
            read = {"jsonl": f"SELECT id, text FROM read_json('{path}')", "csv": CSV_IN_DUCKDB.format(path=path)}
            found = database.execute(f"{read[form['format_type']]} ORDER BY id").fetchall()
        assert found == list(enumerate(HOSTILE)), form


# The README's words: commas that are not escaped split, \N is NULL, then escapes are taken back.
CSV_IN_DUCKDB = r"""
WITH lines AS (SELECT regexp_extract_all(line || ',', '((?:[^\\,]|\\.)*),', 1) AS f
               FROM read_csv('{path}', columns = {{'line': 'VARCHAR'}}, delim = '', quote = '', escape = '',
                             header = false, nullstr = '')),
     raw AS (SELECT f[1]::BIGINT AS id, nullif(f[2], '\N') AS text FROM lines)
SELECT id, array_to_string(list_transform(string_split(text, '\\'),
           lambda x: replace(replace(replace(x, '\n', chr(10)), '\r', chr(13)), '\,', ',')), '\') AS text FROM raw"""


def test_another_format_is_refused_for_appends_and_published_by_an_overwrite(house: House):
    ended(house, [*hostile(), point(1)], {"streams": [stream(fields=FIELDS)]})
    before = house.keys("lake/db")
    refused = house.write([point(1), row(id=9), point(2)], {"streams": [stream(fields=FIELDS)]},
                          config=house.config(format=CSV))  # fmt: skip
    assert (refused.exit_code, refused.states) == (1, [])
    assert refused.errors[0]["failure_type"] == "config_error"
    assert "refresh the stream" in refused.errors[0]["message"]
    assert house.keys("lake/db") == before
    table = house.table("s")
    table["StorageDescriptor"]["Columns"].append({"Name": "theirs", "Type": "string"})
    table["Parameters"]["made_by"] = "somebody"
    update(house, table)
    replace: Message = {"streams": [stream(fields=FIELDS, sync_mode="full_refresh", destination_sync_mode="overwrite")]}
    for form, classification in ((CSV, "csv"), (JSONL, "json"), ({"format_type": "parquet"}, "parquet")):
        last = state({**FINAL, "run_id": classification}, "s")
        ended(house, [*hostile(), last], replace, config=house.config(format=form))
        assert texts(house) == HOSTILE
        table = house.table("s")
        assert (table["Parameters"]["classification"], table["Parameters"]["made_by"]) == (classification, "somebody")
        assert ("delimiter" in table["Parameters"]) == (classification == "csv")
        assert [c["Name"] for c in table["StorageDescriptor"]["Columns"]].count("theirs") == 1


def test_dedup_needs_parquet(house: House):
    result = house.write([row(id=1), point(1)], {"streams": [stream(**dedup())]}, config=house.config(format=JSONL))
    assert result.errors[0]["failure_type"] == "config_error"
    assert "Parquet" in result.errors[0]["message"]
    assert house.log_entries() == []


def test_a_cancelled_refresh_of_a_csv_table_is_joined_with_its_fields_in_their_places(house: House):
    config = house.config(format=CSV)
    three = {"dropped": "string", **FIELDS}
    first = [row(id=n, name=text, dropped="d") for n, text in enumerate(HOSTILE)]
    ended(house, [*first, point(1), complete("s")],
          {"streams": [stream(fields=three, **generation(1))]}, config=config)  # fmt: skip
    died = house.write([*hostile(first=20, extra=True), point(2), INCOMPLETE],
                       {"streams": [stream(fields=FIELDS, **generation(2, minimum=2, sync=2))]},
                       config=config)  # fmt: skip
    assert died.exit_code == 1
    parquet = house.write([point(2)], {"streams": [stream(fields=FIELDS, **generation(3, sync=3))]})
    assert "Set the format" in parquet.errors[0]["message"]
    ended(
        house, [point(2), complete("s")], {"streams": [stream(fields=FIELDS, **generation(3, sync=3))]}, config=config
    )
    assert texts(house) == [*HOSTILE, *HOSTILE]
    assert [found["dropped"] for found in house.rows("s")].count("d") == len(HOSTILE)
    assert [found["_airbyte_extra"] for found in house.rows("s")].count('{"extra":true}') == len(HOSTILE)


def test_small_text_files_become_full_ones(house: House):
    config = house.config(format=JSONL, compact_files_over=2)
    configured: Message = {"streams": [stream(fields=FIELDS)]}
    for number in range(3):
        ended(house, [*([point(number)] if number else []), row(id=number, name=HOSTILE[number]), point(number + 1)],
              configured, config=config)  # fmt: skip
    assert len(house.live_keys("s")) == 3
    ended(
        house, [point(3)], configured, config=house.config(format=JSONL | {"compression": "zstd"}, compact_files_over=2)
    )
    assert [key.rpartition(".")[2] for key in house.live_keys("s")] == ["zst"]
    assert texts(house) == HOSTILE[:3]


def test_a_serde_or_an_order_of_columns_that_others_changed_is_put_back(house: House):
    config, configured = house.config(format=CSV), {"streams": [stream(fields=FIELDS)]}
    ended(house, [row(id=1, name="a,b"), point(1)], configured, config=config)
    for said in ("Columns", "SerDe"):
        table = house.table("s")
        storage = table["StorageDescriptor"]
        if said == "Columns":
            storage["Columns"].reverse()
        else:
            storage["SerdeInfo"]["SerializationLibrary"] = "org.apache.hadoop.hive.serde2.OpenCSVSerde"
        update(house, table)
        result = ended(house, [point(1)], configured, config=config)
        warnings = [log["log"]["message"] for log in result.of("LOG") if log["log"]["level"] == "WARN"]
        assert [text for text in warnings if f"{said} of" in text]
        assert [(found["id"], found["name"]) for found in house.rows("s")] == [("1", "a,b")]


def update(house: House, table: dict[str, Any]) -> None:
    """Change a table in Glue by hand."""
    taken = {"Name", "StorageDescriptor", "Parameters", "PartitionKeys", "TableType"}
    house.glue.update_table(DatabaseName=house.database, TableInput={k: v for k, v in table.items() if k in taken})
