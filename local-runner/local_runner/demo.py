"""The demo: two public APIs and a lake on this machine, the real connectors between them.

    check -> discover -> sync -> the APIs' clock moves on -> incremental sync -> tables, read through Glue -> a map

Nothing outlives it: servers are threads and children of this process, files lie in a temporary folder. Its last line
is JSON: ``{"tables": {name: rows}, "picture": path}``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from local_runner.api import PublicApis
    from local_runner.run import Connection, Outcome

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "source-rest-api" / "examples"
BUCKET, DATABASE, REGION = "demo-lake", "demo", "us-east-1"
KEY_ID, SECRET = "demo-key", "demo-secret-0123456789"  # of the embedded lake, which takes any
FIRST_SHARE = 0.8  # of the events have happened when the demo begins
INTERRUPTED = 130
WIDEST_TYPE = 70
QUIET_PLACE = (40, 70)  # longitude and latitude where nothing is drawn


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the demo's configurations and states lie."""

    path: Path

    def save(self, name: str, document: object) -> Path:
        path = self.path / name
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path


def main() -> None:
    """Run the demo; exit code 1 if a step fails, 130 on Ctrl-C."""
    try:
        _demo(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output"))
    except KeyboardInterrupt:
        print("\nStopped; nothing is left running.", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)
    except DemoError as problem:
        print(f"\nThe demo failed: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


class DemoError(Exception):
    """A step did not do what it should."""


def _demo(output: Path) -> None:
    from local_runner.api import PublicApis, running_apis
    from local_runner.lake import running_lake

    _say("Starting the lake (S3 and Glue on this machine) and two public APIs with a week of real data")
    apis = PublicApis()
    apis.now = apis.last_update(FIRST_SHARE)
    with running_lake() as lake, running_apis(apis) as url, tempfile.TemporaryDirectory(prefix="demo-") as temporary:
        reader = Reader(lake.url)
        reader.s3.create_bucket(Bucket=BUCKET)
        folder = Folder(Path(temporary))
        destination = folder.save("destination.json", _destination_config(lake.url))
        _say("check: destination-s3-datalake")
        _check("destination-s3-datalake", destination)
        earthquakes = _connect("usgs", url, destination, folder, destination_mode="append", sync_mode="incremental")
        countries = _connect(
            "countries", url, destination, folder, destination_mode="overwrite", sync_mode="full_refresh"
        )
        _say(f"First sync; the API's clock says {apis.now:%Y-%m-%d %H:%M}")
        _sync("earthquakes (incremental, append)", earthquakes)
        _sync("countries (full refresh, overwrite)", countries)
        apis.now = apis.last_update(1.0)
        _say(f"Second sync; the clock says {apis.now:%Y-%m-%d %H:%M}, and more earthquakes have been reported")
        _sync("earthquakes (incremental, append)", earthquakes)
        _say("The tables, read through Glue")
        tables = {name: reader.table(name) for name in ("countries", "earthquakes")}
        for name, table in tables.items():
            _show(name, table, reader.columns(name))
        _expect(tables, apis)
        picture = output / "earthquakes.png"
        _draw(tables["earthquakes"], tables["countries"], picture)
        _say(f"A map of the earthquakes: {picture}")
    rows = {name: table.num_rows for name, table in tables.items()}
    print(json.dumps({"tables": rows, "picture": str(picture.resolve())}), flush=True)  # noqa: T201


def _connect(
    example: str, url: str, destination: Path, folder: Folder, *, destination_mode: str, sync_mode: str
) -> Connection:
    """Check the source and discover its catalog; the configuration is the example's but for the base URL."""
    from local_runner.run import Connection, Connector

    config = {**json.loads((EXAMPLES / f"{example}.json").read_bytes()), "base_url": url}
    source = folder.save(f"{example}.source.json", config)
    _say(f"check and discover: source-rest-api with examples/{example}.json")
    _check("source-rest-api", source)
    found = _messages("source-rest-api", "discover", source, "CATALOG")[0]["catalog"]
    streams = [
        {
            "stream": stream,
            "sync_mode": sync_mode,
            "destination_sync_mode": destination_mode,
            "cursor_field": stream.get("default_cursor_field") or [],
            "primary_key": stream.get("source_defined_primary_key") or [],
        }
        for stream in found["streams"]
    ]
    for stream in found["streams"]:
        print(f"  {stream['name']}: {len(stream['json_schema'].get('properties', {}))} top-level fields")  # noqa: T201
    state = folder.path / f"{example}.state" / "state.json"
    state.parent.mkdir()
    return Connection(
        source=Connector((str(BIN / "source-rest-api"),), source),
        destination=Connector((str(BIN / "destination-s3-datalake"),), destination),
        catalog=folder.save(f"{example}.catalog.json", {"streams": streams}),
        state=state,
    )


def _sync(title: str, connection: Connection) -> None:
    from local_runner.run import sync

    begun = time.monotonic()
    outcome: Outcome = sync(connection, progress=True)
    if not outcome.is_success:
        raise DemoError(
            "; ".join(outcome.errors) or f"{title}: exit codes {outcome.source_exit}, {outcome.destination_exit}"
        )
    records = ", ".join(f"{count} records" for count in outcome.records.values()) or "nothing new"
    took = time.monotonic() - begun
    print(f"  {title}: {records}, {outcome.states} states kept, {took:.1f} s", flush=True)  # noqa: T201


def _check(connector: str, config: Path) -> None:
    status = _messages(connector, "check", config, "CONNECTION_STATUS")[0]["connectionStatus"]
    if status["status"] != "SUCCEEDED":
        raise DemoError(f"check of {connector}: {status.get('message')}")
    print(f"  {connector}: {status['status']}", flush=True)  # noqa: T201


def _messages(connector: str, command: str, config: Path, kind: str) -> list[dict[str, Any]]:
    from local_runner.lake import end_with_parent

    done = subprocess.run(
        [str(BIN / connector), command, "--config", str(config)],
        stdout=subprocess.PIPE,
        check=False,
        start_new_session=True,  # a Ctrl-C of the terminal is for the demo, which ends its children
        preexec_fn=end_with_parent,
    )
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    found = [message for message in messages if message["type"] == kind]
    if not found:
        errors = [message["trace"]["error"]["message"] for message in messages if message["type"] == "TRACE"]
        raise DemoError(f"{command} of {connector}: {'; '.join(errors) or f'exit code {done.returncode}'}")
    return found


def _destination_config(url: str) -> dict[str, Any]:
    return {
        "s3_bucket_name": BUCKET,
        "s3_bucket_path": "lake",
        "s3_bucket_region": REGION,
        "glue_database": DATABASE,
        "s3_endpoint": url,
        "glue_endpoint": url,
        "s3_addressing": "path",
        "credentials": {"auth_type": "access_key", "access_key_id": KEY_ID, "secret_access_key": SECRET},
    }


class Reader:
    """Reads tables as Athena would: columns and location from Glue, then every file that lies there."""

    def __init__(self, url: str):
        import boto3

        access: dict[str, Any] = {
            "endpoint_url": url,
            "aws_access_key_id": KEY_ID,
            "aws_secret_access_key": SECRET,
            "region_name": REGION,
        }
        self.s3 = boto3.client("s3", **access)
        self.glue = boto3.client("glue", **access)

    def columns(self, name: str) -> dict[str, str]:
        """Column names and Glue types."""
        return {column["Name"]: column["Type"] for column in self._storage(name)["Columns"]}

    def table(self, name: str) -> pa.Table:
        """All rows."""
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        prefix = self._storage(name)["Location"].removeprefix(f"s3://{BUCKET}/").rstrip("/") + "/"
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        bodies = [self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys]
        return pa.concat_tables([pq.read_table(io.BytesIO(body)) for body in bodies], promote_options="default")

    def _storage(self, name: str) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self.glue.get_table(DatabaseName=DATABASE, Name=name)["Table"]["StorageDescriptor"]
        return table


def _show(name: str, table: pa.Table, columns: Mapping[str, str]) -> None:
    print(f"\n  {DATABASE}.{name}: {table.num_rows} rows")  # noqa: T201
    own = {column: kind for column, kind in columns.items() if not column.startswith("_airbyte")}
    for column, kind in own.items():
        _show_column(column, kind, "    ")
    print(f"    and {', '.join(column for column in columns if column not in own)}")  # noqa: T201
    for row in table.select([column for column in own if column in table.column_names]).slice(0, 3).to_pylist():
        shown = {column: value for column, value in row.items() if value is not None}
        text = ", ".join(f"{column}={value}" for column, value in shown.items())
        print(f"    - {_short(text, 110)}")  # noqa: T201


def _expect(tables: Mapping[str, pa.Table], apis: PublicApis) -> None:
    """Every event once."""
    ids = [str(found) for found in tables["earthquakes"].column("id").to_pylist()]
    wanted = sorted(event["id"] for event in apis.events())
    if sorted(ids) != wanted:
        raise DemoError(f"the table has {len(ids)} rows, {len(set(ids))} events; the API has {len(wanted)}")


def _draw(earthquakes: pa.Table, countries: pa.Table, path: Path) -> None:
    """A map: every earthquake by place, size and depth; the countries' centres for orientation."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    places, facts = (earthquakes.column(name).to_pylist() for name in ("geometry", "properties"))
    events: list[tuple[list[float], dict[str, Any]]] = [
        (dict(place or {})["coordinates"], dict(fact or {})) for place, fact in zip(places, facts, strict=True)
    ]
    centres: list[Any] = countries.column("latlng").to_pylist()
    figure, axes = plt.subplots(figsize=(12, 5.9), dpi=120, layout="constrained", facecolor="#0e1726")
    axes.set_facecolor("#0e1726")
    axes.scatter([c[1] for c in centres], [c[0] for c in centres], s=9, c="#51617d", marker="+", linewidths=0.8,
                 label=f"{len(centres)} countries")  # fmt: skip
    events.sort(key=lambda event: event[1].get("mag") or 0)
    dots = axes.scatter(
        [point[0] for point, _ in events],
        [point[1] for point, _ in events],
        s=[3 + max(0.0, fact.get("mag") or 0.0) ** 2.6 for _, fact in events],
        c=[point[2] or 0.0 for point, _ in events],
        cmap="autumn_r",
        vmin=0,
        vmax=300,
        alpha=0.75,
        linewidths=0,
        label=f"{len(events)} earthquakes, by magnitude",
    )
    largest = events[-1]
    axes.annotate(
        f"M {largest[1]['mag']} {largest[1]['place']}",
        (largest[0][0], largest[0][1]),
        xytext=QUIET_PLACE,
        color="white",
        fontsize=9,
        arrowprops={"arrowstyle": "-", "color": "#c8d2e4", "lw": 0.7},
    )
    axes.set(xlim=(-180, 180), ylim=(-75, 85), aspect="equal")
    axes.set_title("Earthquakes of one week, from the USGS API to Parquet tables", color="white", fontsize=14, pad=12)
    axes.set_axisbelow(True)
    axes.grid(color="#1d2a42", linewidth=0.6)
    axes.tick_params(colors="#7f8ea8", labelsize=8)
    for side in axes.spines.values():
        side.set_color("#1d2a42")
    bar = figure.colorbar(dots, ax=axes, shrink=0.7, pad=0.015, extend="max")
    bar.set_label("depth in km", color="#c8d2e4")
    bar.ax.tick_params(colors="#7f8ea8", labelsize=8)
    axes.legend(loc="lower left", facecolor="#16223a", edgecolor="#1d2a42", labelcolor="#c8d2e4", fontsize=9)
    figure.supxlabel("Data: U.S. Geological Survey (public domain); mledoze/countries (ODbL 1.0)",
                     color="#7f8ea8", fontsize=7)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=figure.get_facecolor())
    plt.close(figure)


def _show_column(name: str, kind: str, indent: str) -> None:
    """One line per column; a wide struct of the table's first level by its fields."""
    if len(kind) <= WIDEST_TYPE or not kind.startswith("struct<") or len(indent) > 4:
        print(f"{indent}{name:<16} {_short(kind, WIDEST_TYPE)}")  # noqa: T201
        return
    fields = struct_fields(kind)
    print(f"{indent}{name:<16} struct of {len(fields)} fields:")  # noqa: T201
    for field, inner in fields:
        _show_column(field, inner, indent + "  ")


def struct_fields(kind: str) -> list[tuple[str, str]]:
    """Names and types of the fields of a Glue struct type."""
    fields, depth, begin = [], 0, len("struct<")
    for at, letter in enumerate(kind):
        depth += (letter in "<(") - (letter in ">)")
        if (letter == "," and depth == 1) or (letter == ">" and depth == 0):
            name, _, inner = kind[begin:at].partition(":")
            fields.append((name, inner))
            begin = at + 1
    return fields


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
