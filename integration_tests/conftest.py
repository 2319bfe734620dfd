"""One embedded lake for the whole session; every test gets a bucket and a database of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from local_runner.lake import RunningLake, running_lake

from integration_tests.harness import House
from integration_tests.servers import installed_json_server

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def lake() -> Iterator[RunningLake]:
    with running_lake() as running:
        yield running


@pytest.fixture(scope="session")
def json_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of json-server's program."""
    return installed_json_server(tmp_path_factory.mktemp("npm"))


@pytest.fixture
def house(lake: RunningLake) -> Iterator[House]:
    number = next(_numbers)
    made = House(lake, bucket=f"lake-{number}", database=f"db_{number}")
    yield made
    lake.faults(reject=0.0, lose=0.0, glue=0.0, deny=[], at=None, role_session_seconds=None, clock_ahead_seconds=0.0)
