"""Pasted manifests: they give what the CDK's own declarative source gives, on the same stand-in, and nothing in silence.

``STAND_INS`` has the API of each manifest under ``manifests/``; each is asked by our source and by the CDK's
``ConcurrentDeclarativeSource``, as its ``source-declarative-manifest`` runs it, in a first sync and in a second one.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from source_rest_api.form import Form
from source_rest_api.manifest import describe

from integration_tests.harness import Result
from integration_tests.rest_api import (
    Api,
    InProcess,
    Request,
    Response,
    Source,
    kept,
    own_stdout,
    records,
    serving,
    statuses,
    traced,
)

# What the CDK warns of in its own code and in manifests of its older versions, and its caches of parents leave open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Component type"),
    pytest.mark.filterwarnings("ignore:`cache_name` cannot be set"),
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]
MANIFESTS = Path(__file__).with_name("manifests")
SECRET = "s3cr3t-t0k3n-9876543210"

Answers = Mapping[str, Callable[[Request], Any]]


@dataclass(frozen=True)
class StandIn:
    """The API of one manifest.

    Attributes:
        answers: makes the API of the first (1) or the second (2) sync.
        config: of the manifest, but for ``base``.
        counts: records of each stream, of the first and of the second sync.
    """

    answers: Callable[[int], Answers]
    config: dict[str, Any]
    counts: dict[str, tuple[int, int]]


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def paste(name: str, **config: Any) -> dict[str, Any]:
    text = (MANIFESTS / f"{name}.yaml").read_text("utf-8")
    return {"manifest": text, "manifest_config": json.dumps(config)}


def catalog(found: Result) -> list[dict[str, Any]]:
    (message,) = found.of("CATALOG")
    return message["catalog"]["streams"]


def configured(streams: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "streams": [
            {
                "stream": stream,
                "sync_mode": stream["supported_sync_modes"][-1],
                "destination_sync_mode": "append",
            }
            for stream in streams
        ]
    }


def stock(folder: Path, command: str, manifest: str, config: Mapping[str, Any], **documents: Any) -> Result:
    """The CDK's own source, as its source-declarative-manifest makes and launches it."""
    from airbyte_cdk.entrypoint import AirbyteEntrypoint
    from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

    whole = {**config, "__injected_declarative_manifest": yaml.safe_load(manifest)}
    files = {"config": whole, **documents}
    arguments = [command]
    for name, document in files.items():
        path = folder / f"stock-{name}.json"
        path.write_text(json.dumps(document))
        arguments += [f"--{name}", str(path)]
    out = io.BytesIO()
    with own_stdout(out):
        made = ConcurrentDeclarativeSource(
            config=deepcopy(whole),
            catalog=ConcurrentDeclarativeSource.read_catalog(str(folder / "stock-catalog.json"))
            if "catalog" in documents
            else None,
            state=ConcurrentDeclarativeSource.read_state(str(folder / "stock-state.json"))
            if "state" in documents
            else [],
            source_config=whole["__injected_declarative_manifest"],
            custom_components_trusted=False,
        )
        lines = list(AirbyteEntrypoint(made).run(AirbyteEntrypoint.parse_args(arguments)))
    return Result(0, "".join(f"{line}\n" for line in lines).encode(), b"")


# --- the stand-ins --------------------------------------------------------------------------------------------------


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "at": f"2024-0{1 + number % 6}-1{number % 10}T00:00:00Z", **more} for number in range(count)]


def page_numbers(sync: int) -> Answers:
    def content(request: Request) -> Any:
        assert request.query["api-key"] == SECRET
        first = (int(request.query["page"]) - 1) * 3
        found = [{**row, "Hidden": row["id"] % 4 == 0, "Body": "long", "WebTitle": "x"} for row in rows(8)]
        return {"response": {"results": found[first : first + 3]}}

    return {"/content": content}


def offsets(sync: int) -> Answers:
    def listed(name: str) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            first = int(request.query.get("offset", "0"))
            found = [row for row in rows(9 + sync) if row["at"] >= request.query.get("since", "")]
            return {name: found[first : first + int(request.query["count"])]}

        return answer

    return {f"/3.0/{name}": listed(name) for name in ("campaigns", "lists")}


def cursor_in_body(sync: int) -> Answers:
    def search(request: Request) -> Any:
        assert request.headers["Notion-Version"] == "2022-06-28"
        first = int(request.json.get("start_cursor", "0"))
        found = [
            {"id": n, "last_edited_time": f"2024-01-{10 + n}T00:00:00{'.000' if n % 2 else ''}Z"}
            for n in range(6 + sync)
        ]
        more = first + 3 < len(found)
        return {"results": found[first : first + 3], "has_more": more, "next_cursor": str(first + 3) if more else None}

    return {"/v1/search": search}


def link_header(sync: int) -> Answers:
    trouble = [
        Response(b'{"busy": true}', 400),
        Response(b"{}", 503, {"Retry-After": "0"}),
    ]

    def events(request: Request) -> Any:
        if trouble:
            return trouble.pop()
        page = int(request.query.get("cursor", "0"))
        days = range(20 + sync * 2, 10, -1)
        body = [{"id": day, "dateCreated": f"2024-01-{day}T00:00:00Z"} for day in days][page * 3 : page * 3 + 3]
        headers = {"Content-Type": "application/json"}
        if (page + 1) * 3 < len(days):
            host = request.headers["Host"]
            headers["Link"] = f'<http://{host}/api/0/events?cursor={page + 1}>; rel="next"'
        else:
            headers["Link"] = f'<http://x/>; rel="prev"'
        return Response(json.dumps(body).encode(), 200, headers)

    return {"/api/0/events": events}


def windows(sync: int) -> Answers:
    def bounces(request: Request) -> Any:
        start, end = int(request.query["start_time"]), int(request.query["end_time"])
        first = 1704067200
        made = [first + day * 86400 for day in range(0, 45 + 3 * sync, 2)]
        events = [
            {"email": f"a{at}@x", "created": str(at), "score": "1.25", "ok": "true", "code": 7, "nested": {"a": [1]}}
            for at in made
            if start <= at <= end
        ]
        return {"eu": {"events": events}, "us": {"events": []}}

    return {"/v3/suppression/bounces": bounces}


def parents(sync: int) -> Answers:
    boards = [{"id": n, "at": f"2024-01-{10 + n * sync}T00:00:00Z"} for n in (1, 2, 3)]

    def since(found: list[dict[str, Any]]) -> Callable[[Request], Any]:
        return lambda request: {"data": [row for row in found if row["at"] >= request.query.get("since", "")]}

    def cards(board: int) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            found = [{"id": board * 10 + n, "at": f"2024-02-{10 + n}T00:00:00Z"} for n in range(2 + sync)]
            found = [row for row in found if row["at"] >= request.query.get("since", "")]
            first = 2 * int(request.query.get("page", "0"))
            return {"data": found[first : first + 2]}

        return answer

    comments = {
        f"/cards/{b * 10 + n}/comments": lambda request: {"data": [{"id": 1}, {"id": 2}]}
        for b in (1, 2, 3)
        for n in range(4)
    }
    return {"/boards": since(boards), **{f"/boards/{n}/cards": cards(n) for n in (1, 2, 3)}, **comments}


def lists(sync: int) -> Answers:
    def prices(request: Request) -> Any:
        assert request.headers["X-Key"] == SECRET
        return {"prices": {"a": [{"price": 1.5, "vs": request.query["vs"]}], "b": [{"price": 2}, {"price": 3}]}}

    return {f"/coins/{coin}/prices": prices for coin in ("bitcoin", "doge")}


def graphql(sync: int) -> Answers:
    def issues(request: Request) -> Any:
        assert request.headers["Authorization"] == SECRET
        first = int(request.json["variables"].get("after", "0"))
        nodes = [{"id": n, "assignedTo": {"userName": f"u{n}", "teams": [1]}} for n in range(5)][first : first + 2]
        return {
            "data": {
                "issues": {"nodes": nodes, "pageInfo": {"hasNextPage": first + 2 < 5, "endCursor": str(first + 2)}}
            }
        }

    return {"/graphql": issues}


def files(sync: int) -> Answers:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows(7))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.jsonl", lines)
        made.writestr("b.jsonl", lines)
    xml = b"<feed><entry><id>1</id></entry><entry><id>2</id></entry></feed>"
    return {
        "/export/events": lambda request: Response(gzip.compress(lines), 200, {"Content-Type": "application/gzip"}),
        "/export/installs": lambda request: Response(b"id;name\n1;a\n2;\xc3\xa9\n", 200, {"Content-Type": "text/csv"}),
        "/export/archive": lambda request: Response(archive.getvalue(), 200, {"Content-Type": "application/zip"}),
        "/export/feed": lambda request: Response(xml, 200, {"Content-Type": "text/xml"}),
        "/export/items": lambda request: {"data": {"items": [{"id": 1, "x": 1.5}, {"id": 2, "y": {"z": [0.1, "t"]}}]}},
    }


def session(sync: int) -> Answers:
    def cards(request: Request) -> Any:
        return rows(3) if request.headers.get("X-Metabase-Session") == "session-9" else Response(b"{}", 401)

    return {"/api/session": lambda request: {"id": "session-9"}, "/api/card": cards}


def oauth(sync: int) -> Answers:
    def token(request: Request) -> Any:
        return {"access_token": "access-0123456789", "refresh_token": f"rotated-{sync}-0123456789", "expires_in": 3600}

    def accounts(request: Request) -> Any:
        return (
            rows(3) if request.headers.get("Authorization", "").startswith("Bearer access-") else Response(b"{}", 401)
        )

    return {"/token": token, "/accounts": accounts}


def dynamic(sync: int) -> Answers:
    def records_of(count: int) -> Callable[[Request], Any]:
        return lambda request: {"records": rows(count)}

    return {
        "/meta/tables": lambda request: {"tables": [{"id": "t1", "name": "people"}, {"id": "t2", "name": "things"}]},
        "/tables/t1": records_of(3),
        "/tables/t2": records_of(4),
        "/reports/daily": records_of(2),
        "/regions/north": records_of(1),
        "/regions/south": records_of(5),
        "/orders/all": records_of(6),
        "/orders/changed": records_of(2),
    }


STAND_INS = {
    "page_numbers": StandIn(page_numbers, {"api_key": SECRET, "section": "news"}, {"content": (6, 6)}),
    "offsets": StandIn(offsets, {"password": SECRET}, {"campaigns": (10, 1), "lists": (10, 11)}),
    "cursor_in_body": StandIn(cursor_in_body, {"token": SECRET}, {"pages": (7, 2)}),
    "link_header": StandIn(link_header, {"auth_token": SECRET}, {"events": (12, 3), "gone": (0, 0)}),
    "windows": StandIn(windows, {"api_key": SECRET, "start_date": "2024-01-01T00:00:00Z"}, {"bounces": (24, 3)}),
    "parents": StandIn(parents, {}, {"boards": (3, 2), "cards": (9, 4), "comments": (18, 24)}),
    "lists": StandIn(lists, {"coins": ["bitcoin", "doge"], "credentials": {"plan": "paid", "key": SECRET}},
                     {"prices": (12, 12)}),
    "graphql": StandIn(graphql, {"api_key": SECRET}, {"issues": (5, 5)}),
    "files": StandIn(files, {}, {"events": (7, 7), "installs": (2, 2), "archive": (14, 14), "feed": (2, 2),
                                 "items": (2, 2)}),
    "session": StandIn(session, {"username": "me", "password": SECRET}, {"cards": (3, 3)}),
    "oauth": StandIn(oauth, {"credentials": {"client_id": "me", "client_secret": SECRET, "refresh_token": "first-0123",
                                             "access_token": "", "token_expiry_date": ""}}, {"accounts": (3, 3)}),
    "dynamic": StandIn(dynamic, {"reports": [{"title": "daily"}]},
                       {"orders": (6, 2), "people": (3, 3), "things": (4, 4), "daily": (2, 2), "north": (1, 1),
                        "south": (5, 5)}),
}  # fmt: skip


def asked(api: Api) -> set[tuple[str, str, bytes, str]]:
    """What was asked for, each request once: the CDK caches the answers that parents and children share."""
    host = api.url.removeprefix("http://")
    return {
        (request.method, request.target.replace(host, "host"), request.body, request.headers.get("Authorization", ""))
        for request in api.requests
    }


def counted(found: Result, stream: str) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in records(found, stream))


def cursors(found: Result) -> list[Any]:
    """The last states of incremental streams; a full refresh begins anew, and how it ends is ours."""
    states = sorted(kept(found), key=lambda state: json.dumps(state["stream"]["stream_descriptor"]))
    return [state for state in states if not any(key.startswith("__ab") for key in state["stream"]["stream_state"])]


@pytest.mark.parametrize("name", STAND_INS)
def test_a_manifest_gives_what_the_cdk_gives_in_two_syncs(source: InProcess, tmp_path: Path, name: str) -> None:
    case = STAND_INS[name]
    text = paste(name)["manifest"]
    states: tuple[list[Any], list[Any]] = ([], [])
    streams: list[dict[str, Any]] = []
    for sync in (1, 2):
        with serving(Api(case.answers(sync))) as ours, serving(Api(case.answers(sync))) as theirs:
            mine, its = ({**case.config, "base": api.url} for api in (ours, theirs))
            if sync == 1:
                (status,) = source.run("check", paste(name, **mine)).of("CONNECTION_STATUS")
                assert status["connectionStatus"] == {"status": "SUCCEEDED"}
                streams = catalog(source.run("discover", paste(name, **mine)))
                assert streams == catalog(stock(tmp_path, "discover", text, its))
                assert {stream["name"] for stream in streams} == case.counts.keys()
            ours.requests.clear()
            theirs.requests.clear()
            chosen = configured(streams)
            result = source.run("read", paste(name, **mine), catalog=chosen, state=states[0])
            expected = stock(tmp_path, "read", text, its, catalog=chosen, state=states[1])
            assert result.exit_code == 0, traced(result)
            for stream, counts in case.counts.items():
                found = counted(result, stream)
                assert found == counted(expected, stream), stream
                assert found.total() == counts[sync - 1], stream
                assert statuses(result, stream)[-1] == "COMPLETE"
            assert asked(ours) == asked(theirs)
            assert SECRET.encode() not in b"".join(
                line for line in result.stdout.splitlines() if b'"CONTROL"' not in line
            )
            states = (cursors(result), cursors(expected))
            assert states[0] == states[1]
