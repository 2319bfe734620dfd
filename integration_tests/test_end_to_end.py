"""Both connectors as real processes, joined by the runner: every event and every country, field by field."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import awswrangler as wr
import boto3
import pytest
from local_runner.api import PublicApis, running_apis
from local_runner.run import Connection, Connector, Outcome, sync

from integration_tests.harness import BIN, DESTINATION, KEY_ID, SECRET, House
from integration_tests.rest_api import SOURCE, Source, records

EXAMPLES = Path(__file__).parents[1] / "source-rest-api" / "examples"


def connection(example: str, url: str, house: House, folder: Path, *, mode: str) -> Connection:
    config = {**json.loads((EXAMPLES / f"{example}.json").read_bytes()), "base_url": url}
    folder.mkdir(exist_ok=True)
    found = Source(folder).run("discover", config).of("CATALOG")[0]["catalog"]
    entry = {
        "stream": found["streams"][0],
        "sync_mode": "incremental" if mode == "append" else "full_refresh",
        "destination_sync_mode": mode,
    }
    files = {"source": config, "destination": house.config(), "catalog": {"streams": [entry]}}
    for name, document in files.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return Connection(
        source=Connector((str(SOURCE),), folder / "source.json"),
        destination=Connector((str(DESTINATION),), folder / "destination.json"),
        catalog=folder / "catalog.json",
        state=folder / "state.json",
    )


def succeeded(outcome: Outcome) -> Outcome:
    assert outcome.is_success, outcome.errors
    return outcome


def as_moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms // 1000, UTC).replace(microsecond=epoch_ms % 1000 * 1000, tzinfo=None)


def plain(value: Any) -> Any:
    """What a reader gave, without zones and array types."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def as_event(event: dict[str, Any]) -> dict[str, Any]:
    """What the table must hold of an event of the API."""
    facts = {name.lower(): value for name, value in event["properties"].items()}
    facts |= {name: as_moment(facts[name]) for name in ("time", "updated")}
    return {"id": event["id"], "type": event["type"], "geometry": event["geometry"], "properties": facts}


@pytest.fixture
def apis():
    made = PublicApis()
    made.now = made.last_update(0.8)
    return made


def test_every_event_arrives_once_and_the_second_sync_brings_exactly_the_new_ones(house, apis, tmp_path):
    with running_apis(apis) as url:
        earthquakes = connection("usgs", url, house, tmp_path / "usgs", mode="append")
        first = succeeded(sync(earthquakes))
        before = {event["id"] for event in apis.events()}
        assert first.records == {"earthquakes": len(before)} == {"earthquakes": 1366}
        assert {row["id"] for row in house.rows("earthquakes")} == before
        apis.now = apis.last_update(1.0)
        second = succeeded(sync(earthquakes))
        assert second.records == {"earthquakes": 1707 - 1366}
        third = succeeded(sync(earthquakes))
        assert third.records == {}
        wanted = {event["id"]: as_event(event) for event in apis.events()}
    rows = house.rows("earthquakes")
    assert len(rows) == len(wanted) == 1707
    for row in rows:
        assert {name: plain(row[name]) for name in ("id", "type", "geometry", "properties")} == wanted[row["id"]]


def test_glue_says_what_the_columns_of_the_events_are(house, apis, tmp_path):
    with running_apis(apis) as url:
        succeeded(sync(connection("usgs", url, house, tmp_path / "usgs", mode="append")))
    columns = house.columns("earthquakes")
    assert {name: kind for name, kind in columns.items() if name != "properties"} == {
        "geometry": "struct<coordinates:array<double>,type:string>",
        "id": "string",
        "type": "string",
        "_airbyte_raw_id": "string",
        "_airbyte_extracted_at": "timestamp",
        "_airbyte_generation_id": "bigint",
        "_airbyte_meta": columns["_airbyte_meta"],
    }
    inside = columns["properties"].removeprefix("struct<").removesuffix(">")
    fields = dict(field.split(":") for field in inside.split(","))
    strings = [
        "alert",
        "code",
        "detail",
        "ids",
        "magtype",
        "net",
        "place",
        "sources",
        "status",
        "title",
        "type",
        "types",
        "url",
    ]
    assert fields == {
        **dict.fromkeys(strings, "string"),
        **dict.fromkeys(["time", "updated"], "timestamp"),
        **dict.fromkeys(["cdi", "dmin", "gap", "mag", "mmi", "rms"], "double"),
        **dict.fromkeys(["felt", "nst", "sig", "tsunami", "tz"], "bigint"),
    }


def test_every_country_arrives_and_a_refresh_replaces(house, apis, tmp_path):
    with running_apis(apis) as url:
        countries = connection("countries", url, house, tmp_path / "countries", mode="overwrite")
        assert succeeded(sync(countries)).records == {"countries": 250}
        assert succeeded(sync(countries)).records == {"countries": 250}
        sent = {row["cca3"]: row for row in json.loads(apis.answer("/countries.json")[2])}
    rows = house.rows("countries")
    assert sorted(row["cca3"] for row in rows) == sorted(sent)
    for row in rows:
        compare_country(row, sent[row["cca3"]])
    columns = {name: kind for name, kind in house.columns("countries").items() if not name.startswith("_airbyte")}
    strings = ["cca2", "cca3", "ccn3", "cioc", "flag", "region", "status", "subregion", "unregionalgroup"]
    maps = ["currencies", "languages"]  # of which a country has a few keys each: JSON
    assert {name: kind for name, kind in columns.items() if name != "translations"} == {
        **dict.fromkeys([*strings, *maps], "string"),
        **dict.fromkeys(["altspellings", "borders", "capital", "tld"], "array<string>"),
        **dict.fromkeys(["independent", "landlocked", "unmember"], "boolean"),
        "area": "double",
        "latlng": "array<double>",
        "demonyms": "struct<eng:struct<f:string,m:string>,fra:struct<f:string,m:string>>",
        "idd": "struct<root:string,suffixes:array<string>>",
        "name": "struct<common:string,native:string,official:string>",
    }
    assert columns["translations"].startswith("struct<ara:struct<common:string,official:string>,")


def test_awswrangler_reads_every_event_and_country_field_by_field(house, apis, tmp_path):
    with running_apis(apis) as url:
        earthquakes = connection("usgs", url, house, tmp_path / "usgs", mode="append")
        succeeded(sync(earthquakes))
        apis.now = apis.last_update(1.0)
        succeeded(sync(earthquakes))
        countries = connection("countries", url, house, tmp_path / "countries", mode="overwrite")
        succeeded(sync(countries))
        succeeded(sync(countries))  # a refresh replaces
        sent = {row["cca3"]: row for row in json.loads(apis.answer("/countries.json")[2])}
    session = boto3.Session(KEY_ID, SECRET, region_name="us-east-1")
    wr.config.s3_endpoint_url = wr.config.glue_endpoint_url = house.lake.url
    events = wr.s3.read_parquet_table(database=house.database, table="earthquakes", boto3_session=session)
    wanted = {event["id"]: as_event(event) for event in apis.events()}
    assert len(events) == len(wanted)
    for row in events.to_dict("records"):
        found = {name: plain(row[name]) for name in ("id", "type", "geometry", "properties")}
        assert found == wanted[row["id"]]
    rows = wr.s3.read_parquet_table(database=house.database, table="countries", boto3_session=session)
    assert len(rows) == len(sent) == 250
    for row in rows.to_dict("records"):
        compare_country(row, sent[row["cca3"]])


def compare_country(row: dict[str, Any], sent: dict[str, Any]) -> None:
    """Structs by field, whatever their undeclared maps; texts of JSON by their value."""
    for name, value in sent.items():
        found = plain(row[name.lower()])
        if isinstance(found, str) and not isinstance(value, str):
            assert json.loads(found) == value
            continue
        assert same(found, value), f"{sent['cca3']}.{name}: {found!r} is not {value!r}"


def same(found: Any, sent: Any) -> bool:
    """Whether a reader's value is the API's: missing fields of a struct are NULL, its names are lower-case."""
    if isinstance(sent, dict):
        if isinstance(found, str):
            return bool(json.loads(found) == sent)
        present = {name: value for name, value in found.items() if value is not None}
        return present.keys() == {name.lower() for name, value in sent.items() if value is not None} and all(
            same(found[name.lower()], value) for name, value in sent.items()
        )
    if isinstance(sent, list):
        return len(found) == len(sent) and all(same(*pair) for pair in zip(found, sent, strict=True))
    if sent is None or found is None:
        return found is sent or bool(found != found)  # pandas writes a missing number as NaN
    return bool(found == sent)


def test_both_specs_are_one_valid_message_and_cost_less_than_a_third_of_a_second():
    import resource
    import subprocess

    for name in ("source-rest-api", "destination-s3-datalake"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([str(BIN / name), "spec"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        (line,) = done.stdout.splitlines()
        message = json.loads(line)
        assert message["type"] == "SPEC"
        assert message["spec"]["connectionSpecification"]["type"] == "object"
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert cpu < 0.3, f"{name}: {cpu:.2f} s"


def test_what_the_source_reads_does_not_depend_on_the_runner(apis, tmp_path):
    with running_apis(apis) as url:
        config = {**json.loads((EXAMPLES / "countries.json").read_bytes()), "base_url": url}
        assert records(Source(tmp_path).read(config)) == json.loads(apis.answer("/countries.json")[2])
