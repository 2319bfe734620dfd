"""Writes, in the style of the CDK's suite: scenarios of ``acceptance-test-config.yml``, run in the same command.

    airbyte-cdk connector test --pytest-arg=acceptance/test_writes.py      (make test-cdk; make test-images)

The CDK's suite for destinations has ``spec`` and ``check`` only. An entry of our section ``write`` names a folder with
the messages of each sync, the rows that a reader sees behind it, and the STATEs that left. Each scenario is written by
the CDK's class in this process and, with ``--connector-image``, by the image. What is read back is read by a reader
that shares no code with the destination.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from airbyte_cdk.models import AirbyteMessageSerializer, ConfiguredAirbyteCatalogSerializer, Type
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from destination_s3_datalake import DestinationS3Datalake
from local_runner.lake import RunningLake

from integration_tests.harness import House, Message

FOLDER = Path(__file__).parents[1]
SUCCEED, FAILED = "succeed", "failed"


@dataclass(frozen=True)
class Written:
    """How a sync ended, and the STATEs that left."""

    status: str
    states: list[Message]


@dataclass(frozen=True)
class WriteScenario:
    """Syncs into one place of the lake, one after another.

    Attributes:
        config_path: the configuration, as in the other sections.
        folder: ``1.messages.jsonl``, ``1.records.jsonl``, ``1.states.jsonl`` for the first sync, and so on;
            ``catalog.json`` for all, or ``1.catalog.json`` for one.
        statuses: how each sync is to end: ``succeed`` or ``failed``.
    """

    config_path: Path
    folder: Path
    statuses: tuple[str, ...]
    requires_creds: bool = False

    def __str__(self) -> str:
        return f"'{self.folder.name}' Test Scenario"

    def lines(self, sync: int, what: str) -> list[Message]:
        text = (FOLDER / self.folder / f"{sync}.{what}.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def catalog(self, sync: int) -> Message:
        own = FOLDER / self.folder / f"{sync}.catalog.json"
        path = own if own.exists() else FOLDER / self.folder / "catalog.json"
        return dict(json.loads(path.read_text("utf-8")))

    def config(self, way: str) -> Message:
        """The configuration, with a path and a database of this scenario's own."""
        config = json.loads((FOLDER / self.config_path).read_text("utf-8"))
        name = f"{self.folder.name}_{way}"
        return {**config, "s3_bucket_path": name, "glue_database": name}


class TestWrites:
    """Collected by ``airbyte-cdk connector test``, whose plugin asks a class for its scenarios."""

    @classmethod
    def get_scenarios(cls) -> list[WriteScenario]:
        entries = yaml.safe_load((FOLDER / "acceptance-test-config.yml").read_text("utf-8"))["acceptance_tests"][
            "write"
        ]
        return [
            WriteScenario(Path(entry["config_path"]), Path(entry["scenario_path"]), tuple(entry["statuses"]))
            for entry in entries["tests"]
        ]

    def test_write(self, scenario: WriteScenario) -> None:
        """By the CDK's class."""
        config = scenario.config("class")
        for sync, status in enumerate(scenario.statuses, 1):
            written = by_class(config, scenario.catalog(sync), scenario.lines(sync, "messages"))
            assert_written(scenario, sync, written, status, config)

    @pytest.mark.image_tests
    def test_docker_image_write(
        self, scenario: WriteScenario, connector_image_override: str | None, tmp_path: Path
    ) -> None:
        """By a container of the image."""
        assert connector_image_override, "give --connector-image"
        config = scenario.config("image")
        for sync, status in enumerate(scenario.statuses, 1):
            written = by_image(
                connector_image_override, tmp_path, config, scenario.catalog(sync), scenario.lines(sync, "messages")
            )
            assert_written(scenario, sync, written, status, config)


def by_class(config: Message, catalog: Message, messages: Iterable[Message]) -> Written:
    states: list[Message] = []
    inputs = [AirbyteMessageSerializer.load(message) for message in messages]
    configured = ConfiguredAirbyteCatalogSerializer.load(catalog)
    try:
        for message in DestinationS3Datalake().write(config, configured, inputs):
            if message.type is Type.STATE:
                raw = orjson.dumps(AirbyteMessageSerializer.dump(message))
                states.append(orjson.loads(raw))  # what came before an error counts
    except AirbyteTracedException:
        return Written(FAILED, states)
    return Written(SUCCEED, states)


def by_image(image: str, folder: Path, config: Message, catalog: Message, messages: Iterable[Message]) -> Written:
    for name, document in (("config", config), ("catalog", catalog)):
        (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
        (folder / f"{name}.json").chmod(0o644)  # the container is another user
    mounts = [f"--volume={folder}/{name}.json:/secrets/{name}.json:ro" for name in ("config", "catalog")]
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", *mounts, image,
         "write", "--config", "/secrets/config.json", "--catalog", "/secrets/catalog.json"],
        input=b"".join(orjson.dumps(message) + b"\n" for message in messages), capture_output=True, check=False,
    )  # fmt: skip
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    return Written(FAILED if done.returncode else SUCCEED, [each for each in printed if each["type"] == "STATE"])


def assert_written(scenario: WriteScenario, sync: int, written: Written, status: str, config: Message) -> None:
    where = f"{scenario.folder.name}, sync {sync}"
    assert written.status == status, where
    assert without_nulls(written.states) == without_nulls(scenario.lines(sync, "states")), where
    expected = scenario.lines(sync, "records")
    for entry in scenario.catalog(sync)["streams"]:
        name, namespace = entry["stream"]["name"], entry["stream"].get("namespace")
        wanted = [each["data"] for each in expected if (each["stream"], each.get("namespace")) == (name, namespace)]
        found = read(config, namespace or config["glue_database"], name)
        assert in_order(found) == in_order(wanted), f"{where}, table {name}"


def read(config: Message, database: str, table: str) -> list[Message]:
    """Every row of a table as JSON has it, without the ids that are new each time."""
    house = House(RunningLake(config["s3_endpoint"]), config["s3_bucket_name"], database)
    return [{name: plain(value) for name, value in row.items() if name != "_airbyte_raw_id"}
            for row in house.rows(table)]  # fmt: skip


def without_nulls(value: Any) -> Any:
    """The CDK's classes do not tell a null from nothing."""
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value


def in_order(rows: list[Message]) -> list[Message]:
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
