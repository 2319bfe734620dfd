"""The search finds what it is for; the permissions are those that are needed, and a denied one is named."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from destination_s3_datalake import iam
from destination_s3_datalake.output import Output
from destination_s3_datalake.run import run_check
from local_runner import lake

from integration_tests import evidence
from integration_tests.evidence import Keeper, Kept
from integration_tests.harness import KEY_ID, SECRET, House, catalog, complete, record, state
from integration_tests.in_process import write_in_process

ROOT = Path(__file__).parents[1]
PLANTED = 'pl4nted/"and" never+registered'
LEAKS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": json.dumps,
    "in a URL": lambda text: f"https://x/?a={quote(text, safe='')}",
    "in Basic": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "in base64, one further": lambda text: base64.b64encode(f"users:{text}!".encode()).decode(),
}


@pytest.mark.parametrize("form", LEAKS.values(), ids=LEAKS.keys())
def test_a_planted_leak_of_a_child_is_found_and_not_shown(form: Callable[[str], str], tmp_path: Path):
    kept = Kept(tmp_path)
    child = [sys.executable, "-c", f"import sys; print('all well'); print({form(PLANTED)!r}, file=sys.stderr)"]
    with subprocess.Popen(child, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    kept.output(out)
    kept.output(err)
    (leak,) = kept.leaks(PLANTED)
    assert "<LEAK>" in leak
    assert PLANTED not in leak
    assert Kept(tmp_path).leaks() == []


def test_records_and_states_may_hold_anything_and_nothing_else_may(tmp_path: Path):
    kept = Kept(tmp_path)
    kept.secrets_of({"credentials": [{"token": "t0ken-of-a-config"}]})
    keeper = Keeper(kept)
    for line in (record(1, text="t0ken-of-a-config"), state("t0ken-of-a-config")):
        keeper.feed(json.dumps(line).encode() + b"\n")
    assert kept.leaks() == []
    keeper.feed(b'{"type":"LOG","log":{"message":"t0ken-of-')
    keeper.feed(b'a-config"}}')
    keeper.close()
    assert len(kept.leaks()) == 1


def test_what_the_children_of_this_very_run_print_is_kept():
    from integration_tests.evidence import current

    kept = current()
    assert kept is not None
    code = "import sys; print('mark-of-a-pipe'); print('mark-of-stderr', file=sys.stderr)"
    for streams in ({"stdout": subprocess.PIPE}, {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}):
        with subprocess.Popen([sys.executable, "-c", code], **streams) as process:  # type: ignore[call-overload]
            assert process.stdout is not None
            if len(streams) == 1:
                assert list(process.stdout) == [b"mark-of-a-pipe\n"]
            else:
                process.communicate()
    printed = b"".join(path.read_bytes() for path in kept.folder.glob(f"{os.getpid()}-*.printed"))
    assert printed.count(b"mark-of-a-pipe") >= 2
    assert b"mark-of-stderr" in printed


def test_the_policies_in_the_repository_are_made_from_the_table():
    for name, document in iam.files().items():
        kept = (ROOT / "destination-s3-datalake" / "iam" / name).read_text("utf-8")
        assert json.loads(kept) == document, f"{name}: make spec"


def test_the_lake_denies_calls_under_the_names_of_the_table():
    by_call = {call: permission.action for permission in reversed(iam.PERMISSIONS) for call in permission.calls}
    assert {call: by_call[call] for call in lake.IAM} == lake.IAM


def test_a_writer_without_options_needs_the_smallest_policy_only(house: House):
    house.glue.create_database(DatabaseInput={"Name": house.database})
    always = {call for permission in iam.PERMISSIONS if permission.needed_for == "always" for call in permission.calls}
    before = len(house.lake.requests())
    for mode in ("append", "overwrite", "append_dedup"):
        configured = catalog(mode, mode=mode)
        if mode == "append_dedup":
            configured["streams"][0]["primary_key"] = [["id"]]
        messages = [record(1, mode), state({"c": 1}, mode), record(2, mode), state({"c": 2}, mode), complete(mode)]
        body = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        assert write_in_process(house.config(), configured, body).exit_code == 0
    ours = {request["action"] for request in house.lake.requests()[before:]}
    assert ours <= always


@pytest.mark.parametrize(
    "action", [permission.action for permission in iam.PERMISSIONS if permission.calls], ids=lambda action: action
)
def test_an_action_that_is_denied_is_named_by_check(house: House, action: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", house.lake.url)
    config = house.config(partitioning=[{"stream": "s", "field": "f", "transform": "identity", "name": "k"}])
    if action.startswith("sts:"):
        config["credentials"] = {"auth_type": "assume_role", "role_arn": "arn:aws:iam::123456789012:role/writer",
                                 "access_key_id": KEY_ID, "secret_access_key": SECRET}  # fmt: skip
    house.lake.faults(deny=[action])
    read_end, write_end = os.pipe()
    run_check(config, Output(write_end))
    os.close(write_end)
    status = json.loads(Path(f"/dev/fd/{read_end}").read_bytes())["connectionStatus"]
    os.close(read_end)
    assert status["status"] == "FAILED"
    assert action in status["message"]


def test_a_proof_that_did_not_run_is_named():
    named = evidence.unproved(set())
    assert len(named) > 60
    passed = {name.removesuffix(" is named as a proof by a README, and did not run") for name in named[1:]}
    assert evidence.unproved(passed) == named[:1]
