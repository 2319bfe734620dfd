"""Pasted manifests: what the CDK's own declarative source gives, on the same stand-in, and nothing in silence.

``STAND_INS`` has the API of each manifest under ``manifests/``; each is asked by our source and by the CDK's
``ConcurrentDeclarativeSource``, as its ``source-declarative-manifest`` runs it, in a first sync and in a second one.
"""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

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

Answers = dict[str, Callable[[Request], Any]]


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
    streams: list[dict[str, Any]] = message["catalog"]["streams"]
    return streams


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
    trouble = [Response(b'{"busy": true}', 400), Response(b"{}", 503, {"Retry-After": "0"})] if sync == 1 else []

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
            headers["Link"] = '<http://x/>; rel="prev"'
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
    boards: list[dict[str, Any]] = [{"id": n, "at": f"2024-01-{10 + n * sync}T00:00:00Z"} for n in (1, 2, 3)]

    def since(found: list[dict[str, Any]]) -> Callable[[Request], Any]:
        return lambda request: {"data": [row for row in found if row["at"] >= request.query.get("since", "")]}

    def cards(board: int) -> Callable[[Request], Any]:
        def answer(request: Request) -> Any:
            found: list[dict[str, Any]] = [
                {"id": board * 10 + n, "at": f"2024-02-{10 + n}T00:00:00Z"} for n in range(2 + sync)
            ]
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
        "/export/events": lambda request: Response(
            gzip.compress(lines, mtime=0), 200, {"Content-Type": "application/gzip"}
        ),
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


# --- what the destination relies on, and what the CDK does in silence -------------------------------------------------


def plain_stream(name: str = "items", **more: Any) -> dict[str, Any]:
    return {
        "type": "DeclarativeStream",
        "name": name,
        "primary_key": ["id"],
        "retriever": {
            "type": "SimpleRetriever",
            "requester": {
                "type": "HttpRequester",
                "url": "{{ config['base'] }}/" + name,
                "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['token'] }}"},
                **more.pop("requester", {}),
            },
            "record_selector": {
                "type": "RecordSelector",
                "extractor": {"type": "DpathExtractor", "field_path": []},
                **more.pop("record_selector", {}),
            },
            **more.pop("retriever", {}),
        },
        "schema_loader": {"type": "InlineSchemaLoader", "schema": {"properties": {"id": {}}}},
        **more,
    }


def since() -> dict[str, Any]:
    return {
        "type": "DatetimeBasedCursor",
        "cursor_field": "at",
        "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
        "start_datetime": "2024-01-01T00:00:00Z",
        "start_time_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "since"},
    }


def plain(api: Api, *streams: dict[str, Any], more: Mapping[str, Any] | None = None, **form: Any) -> dict[str, Any]:
    document = {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["items"]},
        "spec": {
            "type": "Spec",
            "connection_specification": {
                "type": "object",
                "properties": {"base": {"type": "string"}, "token": {"type": "string", "airbyte_secret": True}},
            },
        },
        "streams": list(streams or (plain_stream(),)),
        **(more or {}),
    }
    config = json.dumps({"base": api.url, "token": SECRET})
    return {"manifest": json.dumps(document), "manifest_config": config, **form}


def chosen(*names: str, mode: str = "full_refresh") -> dict[str, Any]:
    return {
        "streams": [
            {
                "stream": {"name": name, "json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]},
                "sync_mode": mode,
                "destination_sync_mode": "append",
            }
            for name in names or ("items",)
        ]
    }


ONCE = {"type": "DefaultErrorHandler", "max_retries": 0}
TOO_LONG = b'[{"id": 12345678901234567890123, "d": 0.12345678901234567890, "e": 1e400, "f": 1.10, "g": 5}]'
EXACT = b'{"id":12345678901234567890123,"d":0.12345678901234567890,"e":1e400,"f":1.1,"g":5}'


@pytest.mark.parametrize(
    ("retriever", "schema", "answer", "line"),
    [
        ({}, {}, TOO_LONG, EXACT),
        ({"decoder": {"type": "JsonlDecoder"}}, {}, TOO_LONG[1:-1] + b"\n\n", EXACT),
        ({"decoder": {"type": "JsonItemsDecoder", "items_path": "a"}}, {},
         b'{"a": ' + TOO_LONG.replace(b"1e400", b"2") + b"}", EXACT.replace(b"1e400", b"2")),
        ({"decoder": {"type": "GzipDecoder", "decoder": {"type": "JsonDecoder"}}}, {},
         gzip.compress(TOO_LONG, mtime=0), EXACT),
        ({}, {"id": {"type": "number"}, "d": {"type": "number"}, "g": {"type": "number"}}, TOO_LONG,
         EXACT.replace(b'"g":5', b'"g":5.0')),
        ({}, {"d": {"type": "string"}, "id": {"type": "string"}}, TOO_LONG,
         EXACT.replace(b":12345678901234567890123", b':"12345678901234567890123"').replace(
             b":0.12345678901234567890", b':"0.12345678901234567890"')),
    ],
)  # fmt: skip
def test_numbers_keep_their_digits_through_every_decoder_and_normalization(
    source: InProcess, retriever: dict[str, Any], schema: dict[str, Any], answer: bytes, line: bytes
) -> None:
    stream = plain_stream(retriever=retriever)
    if schema:
        stream["schema_loader"]["schema"]["properties"] = schema
        stream["retriever"]["record_selector"]["schema_normalization"] = "Default"
    with serving(Api({"/items": lambda request: Response(answer)})) as api:
        result = source.run("read", plain(api, stream), catalog=chosen())
    assert result.exit_code == 0, traced(result)
    assert b'"data":' + line in result.stdout


@pytest.mark.parametrize(
    ("retriever", "answer", "words"),
    [
        ({}, Response(b"<html>log in</html>", 200, {"Content-Type": "text/html"}), ["200, text/html", "is no JSON"]),
        ({}, Response(b'[{"id": 1}'), ["is no JSON"]),
        ({}, Response(b'[{"id": NaN}]'), ["is no JSON"]),
        ({"decoder": {"type": "JsonlDecoder"}}, Response(b'{"id": 1}\n{"id": private'), ["Line 2", "no JSON"]),
        ({"decoder": {"type": "XmlDecoder"}}, Response(b"<a>private"), ["is no XML"]),
        ({"decoder": {"type": "CsvDecoder"}}, Response(b"id\n\xff"), ["no file of the kind"]),
        ({"decoder": {"type": "JsonItemsDecoder", "items_path": "a"}}, Response(b'{"a": [{},'), ["ends too early"]),
        ({"decoder": {"type": "GzipDecoder", "decoder": {"type": "JsonlDecoder"}}},
         Response(gzip.compress(b'{"id": 1}\n', mtime=0)[:-9]), ["ends too early"]),
        ({"decoder": {"type": "GzipDecoder", "decoder": {"type": "JsonDecoder"}}},
         Response(gzip.compress(b"[" + b" " * 2_000_000 + b"]", mtime=0)), ["max_response_mb (1)"]),
        ({"decoder": {"type": "ZipfileDecoder", "decoder": {"type": "JsonlDecoder"}}}, Response(b"P"), ["no zip file"]),
        ({}, Response(b"[" + b" " * 2_000_000 + b"]"), ["max_response_mb (1)"]),
    ],
)  # fmt: skip
def test_an_answer_that_the_decoder_cannot_read_is_an_error_and_not_zero_records(
    source: InProcess, retriever: dict[str, Any], answer: Response, words: list[str]
) -> None:
    stream = plain_stream(retriever=retriever, requester={"error_handler": ONCE})
    with serving(Api({"/items": lambda request: answer})) as api:
        result = source.run("read", plain(api, stream, max_response_mb=1), catalog=chosen())
    assert result.exit_code == 1
    message = traced(result)[0]["message"]
    assert all(word in message for word in words), message
    assert b"private" not in result.stdout


def test_an_error_that_the_manifest_ignores_holds_no_records_whatever_its_body(source: InProcess) -> None:
    ignoring = {"type": "DefaultErrorHandler", "response_filters": [
        {"type": "HttpResponseFilter", "http_codes": [404], "action": "IGNORE"}]}  # fmt: skip
    streams = [
        plain_stream(requester={"error_handler": ignoring}),
        plain_stream("lines", requester={"error_handler": ignoring}, retriever={"decoder": {"type": "JsonlDecoder"}}),
    ]
    page = Response(b"<html>gone</html>", 404, {"Content-Type": "text/html"})
    with serving(Api({"/items": lambda request: page, "/lines": lambda request: page})) as api:
        result = source.run("read", plain(api, *streams), catalog=chosen("items", "lines"))
    assert result.exit_code == 0, traced(result)
    assert records(result) == []


def test_no_content_is_an_empty_page_of_a_manifest(source: InProcess) -> None:
    with serving(Api({"/items": lambda request: Response(b"", 204, {})})) as api:
        result = source.run("read", plain(api), catalog=chosen())
    assert (result.exit_code, records(result)) == (0, [])


def test_the_input_state_comes_first_and_the_last_one_before_complete(source: InProcess) -> None:
    found = [{"id": n, "at": f"2024-05-{n:02}T00:00:00Z"} for n in range(1, 9)]
    given = [{"type": "STREAM", "stream": {"stream_descriptor": {"name": "items"},
                                           "stream_state": {"at": "2024-05-06T00:00:00Z"}}}]  # fmt: skip
    answers = {"/items": lambda request: [row for row in found if row["at"] >= request.query["since"]]}
    with serving(Api(answers)) as api:
        config = plain(api, plain_stream(incremental_sync=since()))
        result = source.run("read", config, catalog=chosen(mode="incremental"), state=given)
        again = source.run("read", config, catalog=chosen(mode="incremental"), state=kept(result))
    lines = [message for message in result.messages if message["type"] in ("RECORD", "STATE")]
    assert lines[0]["state"]["stream"] == given[0]["stream"]
    assert [row["id"] for row in records(result)] == [6, 7, 8]
    assert lines[-1]["state"]["stream"]["stream_state"] == {"at": "2024-05-08T00:00:00Z"}
    assert lines[-1]["state"]["sourceStats"] == {"recordCount": 3.0}
    ends = [json.dumps(message) for message in result.messages if message["type"] in ("STATE", "TRACE")]
    assert "COMPLETE" in ends[-1]
    assert [row["id"] for row in records(again)] == [8]  # the CDK's lower bound is inclusive


def test_a_full_refresh_ends_with_the_mark_of_its_run_and_is_not_read_twice(source: InProcess) -> None:
    with serving(Api({"/items": lambda request: rows(3)})) as api:
        config = plain(api, plain_stream(incremental_sync=since()))
        result = source.run("read", config, catalog=chosen())
        (mark,) = kept(result)
        asked_before = len(api.requests)
        again = source.run("read", config, catalog=chosen(), state=[mark])
        assert len(api.requests) == asked_before
        later = source.run("read", config, catalog=chosen(mode="incremental"), state=[mark])
    body = mark["stream"]["stream_state"]
    assert body["__ab_full_refresh_sync_complete"] is True
    assert "run_id" in body
    assert kept(again) == [mark]
    assert (records(again), statuses(again, "items")) == ([], ["STARTED", "COMPLETE"])
    assert len(records(later)) == 3


def test_a_stream_that_fails_stops_no_other_and_is_blamed_once(source: InProcess) -> None:
    streams = [
        plain_stream("bad", requester={"error_handler": ONCE}, incremental_sync=since()),
        plain_stream("good"),
    ]
    refused = Response(json.dumps({"message": f"no {SECRET}", "email": "jane@example.com"}).encode(), 400)
    with serving(Api({"/bad": lambda request: refused, "/good": lambda request: rows(5)})) as api:
        result = source.run("read", plain(api, *streams), catalog=chosen("bad", "good"))
    assert result.exit_code == 1
    assert len(records(result, "good")) == 5
    assert statuses(result, "bad")[-1] == "INCOMPLETE"
    assert statuses(result, "good")[-1] == "COMPLETE"
    assert [state["stream"]["stream_descriptor"]["name"] for state in kept(result)] == ["good"]
    blamed = [error for error in traced(result) if (error.get("stream_descriptor") or {}).get("name") == "bad"]
    assert len(blamed) == 1
    assert "400" in blamed[0]["message"]
    assert "Check manifest_config" in blamed[0]["message"]
    assert blamed[0]["failure_type"] == "config_error"
    for private in (SECRET, "jane@example.com", "since="):
        assert private.encode() not in result.stdout


def test_records_that_came_before_a_failure_are_passed_on_and_no_state_covers_them(source: InProcess) -> None:
    def answer(request: Request) -> Any:
        page = int(request.query.get("page", "0"))
        return rows(2) if page < 2 else Response(b"{}", 400)

    paginator = {
        "type": "DefaultPaginator",
        "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "page"},
        "pagination_strategy": {"type": "PageIncrement", "page_size": 2},
    }
    stream = plain_stream(
        retriever={"paginator": paginator}, requester={"error_handler": ONCE}, incremental_sync=since()
    )
    with serving(Api({"/items": answer})) as api:
        result = source.run("read", plain(api, stream), catalog=chosen(mode="incremental"))
    assert result.exit_code == 1
    assert len(records(result)) == 4
    # The CDK says where the stream began: nothing of what was read is covered.
    assert [state["stream"]["stream_state"] for state in kept(result)] == [{"at": "2024-01-01T00:00:00Z"}]


def test_pages_of_many_records_lose_none_and_their_cursor_is_the_highest(source: InProcess) -> None:
    found = [{"id": n, "at": f"2024-05-{1 + n % 28:02}T00:00:00Z"} for n in range(5003)]
    with serving(Api({"/items": lambda request: found})) as api:
        stream = plain_stream(incremental_sync=since())
        result = source.run("read", plain(api, stream), catalog=chosen(mode="incremental"))
    assert records(result) == found
    (last,) = kept(result)
    assert last["stream"]["stream_state"] == {"at": "2024-05-28T00:00:00Z"}


def test_a_stream_without_a_schema_gets_that_of_a_sample(source: InProcess) -> None:
    bare = plain_stream()
    del bare["schema_loader"]
    streams = [bare, {**plain_stream("gone", incremental_sync=since()), "schema_loader": bare.get("schema_loader")}]
    streams[1].pop("schema_loader")
    streams[1]["retriever"]["requester"]["error_handler"] = ONCE
    with serving(Api({"/items": lambda request: rows(3)})) as api:
        result = source.run("discover", plain(api, *streams))
    found = {stream["name"]: stream["json_schema"]["properties"] for stream in catalog(result)}
    assert found["items"]["id"] == {"type": ["null", "integer"]}
    assert found["items"]["at"]["airbyte_type"] == "timestamp_with_timezone"
    assert set(found["gone"]) == {"id", "at"}
    warnings = [message["log"]["message"] for message in result.of("LOG") if message["log"]["level"] == "WARN"]
    assert any("'gone'" in text and "404" in text for text in warnings)


def test_a_refresh_token_that_the_api_rotates_is_written_back_as_manifest_config(source: InProcess) -> None:
    with serving(Api(oauth(1))) as api:
        given = paste("oauth", **{**STAND_INS["oauth"].config, "base": api.url})
        result = source.run("read", {**given, "timeout_seconds": 20}, catalog=chosen("accounts"))
    (control,) = result.of("CONTROL")
    whole = control["control"]["connectorConfig"]["config"]
    assert whole.keys() == {"manifest", "manifest_config", "timeout_seconds"}
    assert whole["manifest"] == given["manifest"]
    inner = json.loads(whole["manifest_config"])
    assert inner["credentials"]["refresh_token"] == "rotated-1-0123456789"
    assert inner["base"] == api.url


def test_a_configuration_that_the_manifest_migrates_is_written_back_as_manifest_config(source: InProcess) -> None:
    rename = {
        "config_migrations": [{"type": "ConfigMigration", "transformations": [
            {"type": "ConfigAddFields", "fields": [
                {"type": "AddedFieldDefinition", "path": ["token"], "value": "{{ config['old_token'] }}"}]}]}]
    }  # fmt: skip
    with serving(Api({"/items": lambda request: rows(1)})) as api:
        config = plain(api)
        document = json.loads(config["manifest"])
        document["spec"]["config_normalization_rules"] = {"type": "ConfigNormalizationRules", **rename}
        given = {
            "manifest": json.dumps(document),
            "manifest_config": json.dumps({"base": api.url, "old_token": SECRET}),
        }
        result = source.run("read", given, catalog=chosen())
        assert api.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    (control,) = result.of("CONTROL")
    whole = control["control"]["connectorConfig"]["config"]
    assert whole.keys() == given.keys()
    assert json.loads(whole["manifest_config"])["token"] == SECRET


@pytest.mark.parametrize(
    ("path", "words"), [("/items", "no public address"), ("/token", "token refresh request failed")]
)
def test_private_hosts_are_refused_to_manifests_too_also_where_tokens_are_fetched(
    source: InProcess, path: str, words: str
) -> None:
    with serving(Api(oauth(1))) as api:
        given = paste("oauth", **{**STAND_INS["oauth"].config, "base": api.url})
        config = plain(api, plain_stream(requester={"error_handler": ONCE})) if path == "/items" else given
        result = source.run("check", {**config, "allow_private_hosts": False})
        assert api.requests == []
    (status,) = result.of("CONNECTION_STATUS")
    assert status["connectionStatus"]["status"] == "FAILED"
    assert words in status["connectionStatus"]["message"]


def test_a_redirect_to_another_host_takes_no_credentials_of_a_manifest_along(source: InProcess) -> None:
    keyed = {"authenticator": {"type": "ApiKeyAuthenticator", "header": "X-Key", "api_token": "{{ config['token'] }}"}}
    with serving(Api({"/items": lambda request: rows(1)})) as other:
        away = Response(b"", 302, {"Location": f"{other.url.replace('127.0.0.1', 'localhost')}/items"})
        with serving(Api({"/items": lambda request: away})) as api:
            result = source.run("read", plain(api, plain_stream(requester=keyed)), catalog=chosen())
            assert api.requests[0].headers["X-Key"] == SECRET
        assert "X-Key" not in other.requests[0].headers
    assert len(records(result)) == 1


def test_a_body_that_breaks_off_is_asked_for_again(source: InProcess) -> None:
    broken = [Response(b'[{"id": 1}', claimed_length=500)]
    with serving(Api({"/items": lambda request: broken.pop() if broken else rows(2)})) as api:
        soon = {"type": "ConstantBackoffStrategy", "backoff_time_in_seconds": 0.01}
        handler = {"type": "DefaultErrorHandler", "backoff_strategies": [soon]}
        result = source.run("read", plain(api, plain_stream(requester={"error_handler": handler})), catalog=chosen())
        assert len(api.requests) == 2
    assert len(records(result)) == 2


def test_limits_and_names_of_the_form_hold_for_a_manifest(source: InProcess) -> None:
    def answer(request: Request) -> Any:
        assert request.headers["User-Agent"] == "acme/1"
        return rows(1)

    routers = {"partition_router": {"type": "ListPartitionRouter", "values": list("abc"), "cursor_field": "x"}}
    with serving(Api({"/items": answer})) as api:
        form: dict[str, Any] = {"rate_limit": {"requests_per_second": 2}, "num_workers": 2, "user_agent": "acme/1"}
        begun = time.monotonic()
        result = source.run("read", plain(api, plain_stream(retriever=routers), **form), catalog=chosen())
        assert time.monotonic() - begun > 0.5
    assert len(records(result)) == 3


def test_an_api_that_does_not_answer_a_manifest_in_time_is_an_error(source: InProcess) -> None:
    def answer(request: Request) -> Any:
        time.sleep(2.5)
        return rows(1)

    with serving(Api({"/items": answer})) as api:
        stream = plain_stream(requester={"error_handler": ONCE})
        result = source.run("read", plain(api, stream, timeout_seconds=1), catalog=chosen())
    assert result.exit_code == 1
    assert traced(result)[0]["failure_type"] == "transient_error"
    assert "timed out" in traced(result)[0]["message"].lower()
    assert "Try later" in traced(result)[0]["message"]


def test_a_cursor_that_the_cdk_cannot_parse_is_logged_without_its_value(source: InProcess) -> None:
    routers = {"partition_router": {"type": "ListPartitionRouter", "values": ["a"], "cursor_field": "x"}}
    stream = plain_stream(retriever=routers, incremental_sync=since())
    with serving(Api({"/items": lambda request: [{"id": 1, "at": "private-value"}]})) as api:
        result = source.run("read", plain(api, stream), catalog=chosen(mode="incremental"))
    texts = [message["log"]["message"] for message in result.of("LOG")]
    assert any("Skipping cursor update" in text for text in texts)
    assert not any("private-value" in text for text in texts)
    assert records(result) == [{"id": 1, "at": "private-value"}]


def test_a_stream_that_cannot_be_made_is_named_without_values_of_state_or_configuration(source: InProcess) -> None:
    given = [{"type": "STREAM", "stream": {"stream_descriptor": {"name": "items"},
                                           "stream_state": {"at": "private-value"}}}]  # fmt: skip
    with serving(Api({"/items": lambda request: rows(1)})) as api:
        config = plain(api, plain_stream(incremental_sync=since()))
        result = source.run("read", config, catalog=chosen(mode="incremental"), state=given)
    assert result.exit_code == 1
    (error,) = traced(result)
    assert "stream 'items' cannot be made" in error["message"]
    assert "reset the stream" in error["message"]
    assert error["failure_type"] == "config_error"
    assert b"private-value" not in result.stdout


def test_an_unknown_stream_of_the_catalog_is_an_error_of_a_manifest(source: InProcess) -> None:
    with serving(Api({"/items": lambda request: rows(1)})) as api:
        result = source.run("read", plain(api), catalog=chosen("items", "nope"))
    assert result.exit_code == 1
    assert "nope" in traced(result)[0]["message"]
    assert records(result) == []


def test_custom_code_is_refused_also_where_the_environment_allows_it(
    source: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRBYTE_ENABLE_UNSAFE_CODE", "true")
    custom = {"type": "CustomTransformation", "class_name": "subprocess.Popen"}
    by_name = {
        "type": "DynamicDeclarativeStream",
        "stream_template": plain_stream("made"),
        "components_resolver": {
            "type": "ConfigComponentsResolver",
            "stream_config": {"type": "StreamConfig", "configs_pointer": ["rows"]},
            "components_mapping": [
                {"type": "ComponentMappingDefinition", "field_path": ["transformations"], "create_or_update": True,
                 "value": "[{'type': 'CustomTransformation', 'class_name': 'subprocess.Popen'}]"},
            ],
        },
    }  # fmt: skip
    with serving(Api({"/items": lambda request: rows(1)})) as api:
        for config in (
            plain(api, plain_stream(transformations=[custom])),
            plain(api, more={"dynamic_streams": [by_name], "check": {"type": "CheckDynamicStream", "stream_count": 2}}),
        ):
            config["manifest_config"] = json.dumps({"base": api.url, "token": SECRET, "rows": [{"a": 1}]})
            (status,) = source.run("check", config).of("CONNECTION_STATUS")
            assert "is a custom component" in status["connectionStatus"]["message"]
            assert source.run("discover", config).exit_code == 1
        assert api.requests == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest": "version: 6\nstreams:\n - {a"}, "line 3"),
        ({"base_url": "https://x", "streams": [{"name": "a", "path": "/a"}]}, "or a manifest"),
        ({"manifest_config": "{}"}, "needs 'base'"),
        ({"manifest_config": '{"base": "http://127.0.0.1:9", "token": 1234567}'}, "token must be a text"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_fails_the_check_with_its_place(source: InProcess, change: dict[str, Any], words: str) -> None:
    with serving(Api({})) as api:
        config = plain(api)
        document = json.loads(config["manifest"])
        document["spec"]["connection_specification"]["required"] = ["base"]
        result = source.run("check", {**config, "manifest": json.dumps(document), **change})
    (status,) = result.of("CONNECTION_STATUS")
    assert words in status["connectionStatus"]["message"]
    assert b"1234567" not in result.stdout


def test_a_manifest_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    process = Source(tmp_path)
    with serving(Api(parents(1))) as api:
        config = paste("parents", base=api.url)
        done = process.run("read", config, catalog=chosen("boards", "cards", "comments"))
        bad = process.run("check", {**config, "manifest": "a: ["})
    assert (done.exit_code, done.stderr) == (0, b"")
    assert Counter(message["record"]["stream"] for message in done.of("RECORD")) == {
        "boards": 3, "cards": 9, "comments": 18,
    }  # fmt: skip
    assert (bad.exit_code, bad.stderr) == (0, b"")
    assert bad.of("CONNECTION_STATUS")[0]["connectionStatus"]["status"] == "FAILED"
