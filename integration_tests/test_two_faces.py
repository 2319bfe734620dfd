"""The command line and the CDK's class print the same messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from integration_tests.harness import DESTINATION, House, Message, Result, as_lines, catalog, record, state

CLI = (str(DESTINATION),)
CDK = (sys.executable, "-W", "ignore", "-m", "destination_s3_datalake.destination")


def comparable(result: Result) -> list[Message]:
    """Messages without LOG, and without what differs between any two runs."""
    out = []
    for message in result.messages:
        if message["type"] == "LOG":
            continue
        if message["type"] == "TRACE":
            message["trace"]["emitted_at"] = 0
            message["trace"]["error"]["stack_trace"] = ""
        out.append(message)
    return out


def test_spec_is_the_same(house: House):
    both = [subprocess.run([*command, "spec"], capture_output=True, check=True).stdout for command in (CLI, CDK)]
    assert json.loads(both[0]) == json.loads(both[1])


@pytest.mark.parametrize("changes", [{}, {"s3_bucket_name": "no-such-bucket-here"}, {"credentials": 7}])
def test_check_is_the_same(house: House, changes: Message):
    cli, cdk = (house.check(house.config(**changes), command=command) for command in (CLI, CDK))
    assert comparable(cli) == comparable(cdk)
    assert cli.exit_code == cdk.exit_code == 0


BIG = {"c": 123456789012345678901234567890, "d": 1.10}
INPUTS = {
    "good": as_lines([record(1), state({"c": 1}), record(2), state({"c": 2})]),
    "a cut line": as_lines([record(1), state({"c": 1}), record(2)])[:-9],
    "big integers and an unknown key in STATE": as_lines([record(1), {**state(BIG), "unknown": [1]}]).replace(
        b'"type": "STREAM"', b'"type": "STREAM", "novel": 1e2'
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_write_is_the_same(house: House, name: str):
    results: list[Result] = []
    for command in (CLI, CDK):
        config = house.config(s3_bucket_path=f"p{len(results)}", glue_database=f"{house.database}_{len(results)}")
        results.append(house.write(INPUTS[name], config=config, command=command))
    cli, cdk = results
    assert comparable(cli) == comparable(cdk)
    assert cli.exit_code == cdk.exit_code
    raw_states = [re.findall(rb'^\{"type":\s?"STATE".*$', result.stdout, re.M) for result in results]
    assert raw_states[0] == raw_states[1] != []


def test_the_class_can_be_driven_with_the_cdks_own_messages(house: House):
    from airbyte_cdk.models import AirbyteMessageSerializer, ConfiguredAirbyteCatalogSerializer, Type
    from destination_s3_datalake import DestinationS3Datalake

    messages = [AirbyteMessageSerializer.load(message) for message in (record(1), state({"c": 1}))]
    configured = ConfiguredAirbyteCatalogSerializer.load(catalog())
    out = list(DestinationS3Datalake().write(house.config(), configured, messages))
    assert [message.state.stream.stream_state.c for message in out if message.type is Type.STATE] == [1]  # type: ignore[union-attr]
    assert house.ids() == [1]


def test_the_command_line_imports_neither_the_cdk_nor_pandas_and_spec_is_fast():
    code = (
        "import sys, resource; sys.argv = ['x', 'spec']\n"
        "from destination_s3_datalake import run\n"
        "try: run.main()\n"
        "except SystemExit: pass\n"
        "assert not {'airbyte_cdk', 'pandas', 'boto3', 'duckdb'} & set(sys.modules), sorted(sys.modules)\n"
        "assert sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) < 0.3\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (message,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert message["type"] == "SPEC"


def test_a_sync_of_ordinary_rows_loads_neither_pyarrow_nor_pandas(house):
    files = house.save(config=house.config(), catalog=catalog())
    code = (
        "import sys\n"
        f"sys.argv = ['x', 'write', '--config', {files['config']!r}, '--catalog', {files['catalog']!r}]\n"
        "from destination_s3_datalake import run\n"
        "try: run.main()\n"
        "except SystemExit as ended: assert not ended.code\n"
        "loaded = {'airbyte_cdk', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    messages = [*(record(number) for number in range(1, 21)), state({"c": 20})]
    done = subprocess.run([sys.executable, "-c", code], input=as_lines(messages), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert house.ids() == list(range(1, 21))
