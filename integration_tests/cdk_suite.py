"""The CDK's own test suite on both connectors, as its command line runs it, against stand-ins that this starts.

    python -m integration_tests.cdk_suite      (make test-cdk)

``acceptance-test-config.yml`` of each connector names the configurations; they hold the addresses of servers on free
ports, and so are written into ``build/cdk`` when the servers are up. A suite that skips passes too: every skip must be
one that is expected here with its reason, and the tests that prove something must have passed. The suite has no write:
ours, in its style, runs in the same command (``destination-s3-datalake/acceptance``).

With an engine, ``make test-images`` runs the tests on images too (``run`` with an image).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_runner.api import PublicApis, running_apis
from local_runner.lake import running_lake

from integration_tests.harness import BIN, House
from integration_tests.rest_api import Answer, Api, Request, Response, serving

ROOT = Path(__file__).parent.parent
TOKEN = "a-token-that-the-suite-must-not-print"
NO_DISCOVER = "a configuration that must fail has nothing to discover"
NO_SOURCE = "a destination has no such command"
NOT_PUBLISHED = "the registry has no version of it, or cannot be asked"
EVERY_COMMAND = ("test_check", "test_config_matches_spec", "test_discover", "test_basic_read",
                 "test_fail_read_with_bad_catalog")  # fmt: skip
WARNS = "Skipping the spec backward-compatibility"
"""Where the CDK skips, it warns, and a warning is an error in this repository."""
IN_IMAGE = "test_docker_image_build_and_"
COMPATIBILITY = "test_docker_image_spec_backward_compatibility"
WRITES = ("append", "overwrite", "append_dedup", "refresh", "values", "schema_change", "global_state", "partitioned")

Configurations = Mapping[str, Any]


@dataclass(frozen=True)
class Expected:
    """What must pass, and what may be skipped, and why."""

    must_pass: Set[str]
    may_skip: Mapping[str, str]


@dataclass(frozen=True)
class Suite:
    """One connector: who serves its configurations, what is expected of the tests in this process and on an image.

    ``more`` are test modules of our own that run in the same command, ``on_image`` further arguments there.
    """

    connector: str
    configurations: Callable[[], Any]
    here: Expected
    in_image: Expected
    more: tuple[str, ...] = ()
    on_image: tuple[str, ...] = ()


def named(test: str, scenario: str) -> str:
    return f"{test}['{scenario}' Test Scenario]"


@contextmanager
def source_configurations() -> Iterator[Configurations]:
    """A stand-in with a token, pages, a cursor and children; and the two public APIs of the examples."""
    with ExitStack() as stack:
        api = stack.enter_context(serving(Api(stand_in())))
        apis = PublicApis()
        apis.now = apis.last_update(1.0)  # the event service answers with the last 30 days
        public = stack.enter_context(running_apis(apis))
        examples = {
            path.stem: {**json.loads(path.read_text()), "base_url": public}
            for path in (ROOT / "source-rest-api" / "examples").glob("*.json")
            if path.stem in ("usgs", "countries")
        }
        good = stand_in_form(api.url, TOKEN)
        yield {"config": good, "wrong-token": stand_in_form(api.url, "another"), "manifest": as_manifest(api.url),
               **examples}  # fmt: skip


def stand_in() -> dict[str, Answer]:
    users = [{"id": n, "name": f"user {n}", "updated_at": f"2024-01-{n:02d}T00:00:00Z"} for n in range(1, 8)]

    def with_token(answer: Answer) -> Answer:
        def checked(request: Request) -> Any:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return Response(b'{"message": "who are you?"}', 401)
            return answer(request)

        return checked

    def page(request: Request) -> Any:
        start = (int(request.query["page"]) - 1) * 3
        return {"data": users[start : start + 3]}

    def changes(request: Request) -> Any:
        return [user for user in users if str(user["updated_at"]) >= request.query.get("since", "")]

    def orders(request: Request) -> Any:
        return [{"id": int(request.path.split("/")[2]) * 10, "total": 1.5}]

    children = {f"/users/{user['id']}/orders": with_token(orders) for user in users}
    return {"/users": with_token(page), "/changes": with_token(changes), **children}


def stand_in_form(url: str, token: str) -> dict[str, Any]:
    cursor = {"incremental_type": "datetime", "cursor_field": "updated_at", "start_param": "since"}
    return {
        "base_url": url,
        "credentials": {"auth_type": "bearer", "token": token},
        "streams": [
            {"name": "users", "path": "/users", "record_path": "data", "primary_key": ["id"],
             "pagination": {"pagination_type": "page"}},
            {"name": "changes", "path": "/changes", "primary_key": ["id"], "incremental": cursor},
            {"name": "orders", "path": "/users/{{ parent.user }}/orders", "primary_key": ["id"],
             "parents": [{"stream": "users", "field": "id", "as": "user"}]},
        ],
    }  # fmt: skip


def as_manifest(url: str) -> dict[str, Any]:
    """The same API by a Connector Builder manifest: pages, a cursor, a token of its own form."""
    text = {"type": "string"}
    schema = {"type": "object", "properties": {"id": {"type": "integer"}, "name": text, "updated_at": text}}

    def stream(name: str, path: list[str], **retriever: Any) -> dict[str, Any]:
        bearer = {"type": "BearerAuthenticator", "api_token": "{{ config['token'] }}"}
        return {
            "type": "DeclarativeStream", "name": name, "primary_key": "id",
            "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {"type": "HttpRequester", "url_base": url, "path": name, "authenticator": bearer},
                "record_selector": {
                    "type": "RecordSelector", "extractor": {"type": "DpathExtractor", "field_path": path},
                },
                **retriever,
            },
        }  # fmt: skip

    pages = {
        "type": "DefaultPaginator",
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"},
        "pagination_strategy": {"type": "PageIncrement", "page_size": 3, "start_from_page": 1,
                                "inject_on_first_request": True},
    }  # fmt: skip
    cursor = {
        "type": "DatetimeBasedCursor", "cursor_field": "updated_at", "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
        "start_datetime": "2024-01-01T00:00:00Z",
        "start_time_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "since"},
    }  # fmt: skip
    token = {"type": "string", "airbyte_secret": True}
    manifest = {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["users"]},
        "streams": [stream("users", ["data"], paginator=pages), stream("changes", []) | {"incremental_sync": cursor}],
        "spec": {"type": "Spec", "connection_specification": {"type": "object", "properties": {"token": token}}},
    }
    return {"manifest": json.dumps(manifest), "manifest_config": json.dumps({"token": TOKEN})}


@contextmanager
def destination_configurations() -> Iterator[Configurations]:
    """A lake of this machine; and a bucket that is not in it."""
    with running_lake() as lake:
        house = House(lake, bucket="lake", database="db")
        by_day = [{"stream": "visits", "field": "at", "transform": "day", "name": "visited_on"}]
        yield {"config": house.config(), "partitioned": house.config(partitioning=by_day),
               "no-bucket": house.config(s3_bucket_name="no-such-bucket-here")}  # fmt: skip


def each(*tests: str, of: tuple[str, ...]) -> frozenset[str]:
    return frozenset(named(test, scenario) for test in tests for scenario in of)


GOOD = ("config", "manifest", "usgs", "countries")
SUITES = (
    Suite(
        "source-rest-api",
        source_configurations,
        here=Expected(
            {"test_spec"}
            | each(*EVERY_COMMAND, of=GOOD)
            | each(*(test for test in EVERY_COMMAND if test != "test_discover"), of=("wrong-token",)),
            {named("test_discover", "wrong-token"): NO_DISCOVER},
        ),
        in_image=Expected(
            {f"{IN_IMAGE}spec"}
            | each(f"{IN_IMAGE}check", f"{IN_IMAGE}config_matches_spec", of=("wrong-token", *GOOD))
            | each(f"{IN_IMAGE}discover", f"{IN_IMAGE}read", of=GOOD),
            {
                COMPATIBILITY: NOT_PUBLISHED,
                named(f"{IN_IMAGE}discover", "wrong-token"): NO_DISCOVER,
                named(f"{IN_IMAGE}read", "wrong-token"): NO_DISCOVER,
            },
        ),
        on_image=("--read-from-streams=all", f"--read-scenarios={','.join(GOOD)}"),
    ),
    Suite(
        "destination-s3-datalake",
        destination_configurations,
        here=Expected(each(*EVERY_COMMAND[:2], of=("config", "no-bucket")) | each("test_write", of=WRITES), {}),
        in_image=Expected(
            {f"{IN_IMAGE}spec"}
            | each(f"{IN_IMAGE}check", f"{IN_IMAGE}config_matches_spec", of=("config", "no-bucket"))
            | each("test_docker_image_write", of=WRITES),
            {
                COMPATIBILITY: NOT_PUBLISHED,
                **dict.fromkeys(each(f"{IN_IMAGE}discover", f"{IN_IMAGE}read", of=("config", "no-bucket")), NO_SOURCE),
            },
        ),
        more=("acceptance/test_writes.py",),
    ),
)


def run(suite: Suite, image: str | None = None, path: str = "", say: Callable[[str], None] = print) -> list[str]:
    """Run one connector's suite and print each test's outcome; what is wrong with that, if anything.

    Args:
        image: run the tests on this image instead.
        path: where commands are looked for first.
    """
    folder = ROOT / suite.connector
    made, results = folder / "build" / "cdk", folder / "build" / "test-results" / "standard-tests-junit.xml"
    results.unlink(missing_ok=True)
    on_image = ("-m", "image_tests", "--connector-image", f"{image}", "-W", f"default:{WARNS}:UserWarning")
    chosen = ("-m", "not image_tests") if image is None else (*on_image, *suite.on_image)
    expected = suite.here if image is None else suite.in_image
    with suite.configurations() as configurations:
        made.mkdir(parents=True, exist_ok=True)
        for name, configuration in configurations.items():
            (made / f"{name}.json").write_text(json.dumps(configuration))
        arguments = [f"--pytest-arg={argument}" for argument in (*chosen, *suite.more)]
        command = [str(BIN / "airbyte-cdk"), "connector", "test", *arguments]
        places = os.pathsep.join(filter(None, (path, str(BIN), os.environ["PATH"])))
        environment = {**os.environ, "PATH": places}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    shutil.rmtree(made)
    shutil.rmtree(folder / ".tmp", ignore_errors=True)
    problems = [] if done.returncode == 0 else [f"exit code {done.returncode}"]
    outcomes = outcomes_of(results) if results.exists() else {}
    say(f"{suite.connector}: {' '.join(command[1:])}: exit code {done.returncode}")
    for test, (outcome, why) in outcomes.items():
        say(f"  {outcome:7} {test}{f': {expected.may_skip.get(test, why)}' if why else ''}")
    passed = {test for test, (outcome, _) in outcomes.items() if outcome == "passed"}
    skipped = {test for test, (outcome, _) in outcomes.items() if outcome == "skipped"}
    problems += [f"did not pass: {test}" for test in sorted(expected.must_pass - passed)]
    problems += [f"skipped without a reason of ours: {test}" for test in sorted(skipped - expected.may_skip.keys())]
    if problems:
        say(f"{done.stdout[-5000:]} {done.stderr[-2000:]}")
    return problems


def outcomes_of(results: Path) -> dict[str, tuple[str, str]]:
    """By test: passed, failed, error or skipped; and the words of what is not passed."""
    found = {}
    for case in ET.parse(results).getroot().iter("testcase"):  # pytest's own file
        trouble = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if trouble is None else trouble.tag.replace("failure", "failed")
        found[case.attrib["name"]] = (outcome, "" if trouble is None else trouble.attrib.get("message", ""))
    return found


def main() -> None:
    chosen = sys.argv[1:]
    problems = [
        f"{suite.connector}: {problem}"
        for suite in SUITES
        if not chosen or suite.connector in chosen
        for problem in run(suite)
    ]
    print("\n".join(problems) or "Everything that must pass has passed.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
