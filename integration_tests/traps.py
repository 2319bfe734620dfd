"""Traps that a generic REST source must not fall into, each with the fix that keeps it out, and what the fix prevents.

    python -m integration_tests.traps      (make traps)

Each trap is a stream of one form (a few need a run of their own), answers of an API, and a check of what came out. On
the product every check passes (``test_rest_traps.py``). Here each fix is taken away in turn, in a copy of the package
(the product has no switch), and the trap's check must fail; otherwise nobody would notice that the fix is gone.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from integration_tests.harness import TIMEOUT, Result, plain_environment
from integration_tests.rest_api import Answer, Api, Request, Response, Source, configured, serving

PACKAGE = Path(__file__).parent.parent / "source-rest-api" / "source_rest_api"
SECRET = "s3cr3t-t0k3n-9876543210"
USER, PASSWORD = "0x10", "1e5"
ENDLESS = 30  # requests after which an API of a test stops a loop that would go on for ever
EVALUATE = "__import__('airbyte_cdk.sources.declarative.interpolation.jinja', fromlist=['x']).JinjaInterpolation().eval"
FIVE = [{"id": number} for number in range(1, 6)]
PAGES = {"pagination_type": "page"}


@dataclass(frozen=True)
class Edit:
    """A fix taken away: a text of one module replaced. It stands there exactly once."""

    module: str
    old: str
    new: str

    def is_possible(self, package: Path = PACKAGE) -> bool:
        return (package / self.module).read_text().count(self.old) == 1

    def apply(self, package: Path) -> None:
        assert self.is_possible(package), f"{self.module} does not hold {self.old!r} once"
        path = package / self.module
        path.write_text(path.read_text().replace(self.old, self.new))


@dataclass
class Seen:
    """What a run printed and what the API was asked."""

    result: Result
    api: Api

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        return self.result.messages

    @property
    def logs(self) -> list[str]:
        return [message["log"]["message"] for message in self.messages if message["type"] == "LOG"]

    def rows(self, stream: str) -> list[Any]:
        return [m["record"]["data"] for m in self.messages if m["type"] == "RECORD" and m["record"]["stream"] == stream]

    def lines(self, stream: str) -> list[bytes]:
        head = b'{"type":"RECORD","record":{"stream":"%b"' % stream.encode()
        return [line for line in self.result.stdout.splitlines() if line.startswith(head)]

    def states(self, stream: str) -> list[Any]:
        found = [m["state"]["stream"] for m in self.messages if m["type"] == "STATE"]
        return [state["stream_state"] for state in found if state["stream_descriptor"]["name"] == stream]

    def kinds(self, stream: str) -> list[str]:
        """The stream's messages in their order; a status by its name."""
        found = []
        for message in self.messages:
            match message:
                case {"type": "RECORD", "record": {"stream": name}} if name == stream:
                    found.append("RECORD")
                case {"type": "STATE", "state": {"stream": {"stream_descriptor": {"name": name}}}} if name == stream:
                    found.append("STATE")
                case {"trace": {"stream_status": {"stream_descriptor": {"name": name}, "status": status}}}:
                    found += [status] if name == stream else []
        return found

    def error(self, stream: str) -> str:
        """The words of a stream's error; empty if it has none."""
        for message in self.messages:
            error = message.get("trace", {}).get("error", {})
            if (error.get("stream_descriptor") or {}).get("name") == stream:
                return str(error["message"])
        return ""

    def asked(self, path: str) -> list[Request]:
        return self.api.of(path)

    @property
    def has_run(self) -> bool:
        """Whether the source came so far as to do its work."""
        return b'"LOG"' in self.result.stdout and b"Traceback" not in self.result.stderr


@dataclass
class Runner:
    """Runs the source, or a copy of it."""

    folder: Path
    package: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        copy = {"PYTHONPATH": str(self.package.parent)} if self.package else {}
        return {**plain_environment(), **copy}

    def read(self, form: Mapping[str, Any], names: Sequence[str] = (), **environment: str) -> Result:
        done = subprocess.run(
            self.arguments(form, names),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            env={**self.environment, **environment},
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, form: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.arguments(form), stdout=subprocess.PIPE, env=self.environment)

    def arguments(self, form: Mapping[str, Any], names: Sequence[str] = ()) -> list[str]:
        streams = {stream["name"]: stream for stream in form["streams"]}
        catalog = {"streams": [configured(streams.get(name, {"name": name})) for name in names or streams]}
        return Source(self.folder).arguments("read", form, catalog=catalog)


@dataclass(frozen=True)
class Trap:
    """Attributes:
    name: what happens without the fix.
    fix: how to take it away.
    check: raises AssertionError if the trap snapped.
    streams, answers: of the form and the API.
    act: a run of its own in place of the joint one.
    """

    name: str
    fix: Edit
    check: Callable[[Seen], None]
    streams: Sequence[Mapping[str, Any]] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    act: Callable[[Runner, Api], Seen] | None = None


TRAPS: list[Trap] = []


def trap(
    fix: tuple[str, str, str],
    streams: Sequence[Mapping[str, Any]] = (),
    answers: Mapping[str, Answer] | None = None,
    act: Callable[[Runner, Api], Seen] | None = None,
) -> Callable[[Callable[[Seen], None]], Callable[[Seen], None]]:
    """The decorated check becomes a trap; its name says what would happen."""

    def added(check: Callable[[Seen], None]) -> Callable[[Seen], None]:
        name = check.__name__.replace("_", " ")
        TRAPS.append(Trap(name, Edit(*fix), check, streams, answers or {}, act))
        return check

    return added


def form_of(api: Api, traps: Iterable[Trap]) -> dict[str, Any]:
    return {
        "base_url": api.url,
        "credentials": {"auth_type": "basic", "username": USER, "password": PASSWORD},
        "max_retries": 0,
        "streams": [stream for one in traps for stream in one.streams],
    }


def seen_in(runner: Runner, traps: Sequence[Trap]) -> Seen:
    """One run of these traps' streams; or the run of a single trap that has one of its own."""
    answers = {path: answer for one in traps for path, answer in one.answers.items()}
    with serving(Api(dict(answers))) as api:
        own = traps[0].act if len(traps) == 1 else None
        return own(runner, api) if own else Seen(runner.read(form_of(api, traps)), api)


def once(first: Any, rest: Any = ()) -> Answer:
    """An API that ignores its paging parameters would loop: this one gives up at last."""
    count = iter(range(ENDLESS))
    return lambda request: first if next(count, None) is not None else rest


def elsewhere(request: Request, path: str) -> str:
    """The same server under another name, and so another host."""
    return f"http://localhost:{request.headers['Host'].rpartition(':')[2]}{path}"


# --- values that the CDK would evaluate -----------------------------------------------------------------------------


@trap(
    ("credentials.py", "match credentials:\n        case Basic(username=username, password=password):\n",
     "match credentials:\n        case Basic(username=username, password=password):\n"
     f"            username, password = ({EVALUATE}(text, {{}}) for text in (username, password))\n"),
    [{"name": "credential", "path": "/credential"}],
    {"/credential": lambda request: FIVE},
)  # fmt: skip
def a_credential_that_looks_like_a_number_is_rewritten(seen: Seen) -> None:
    (request,) = seen.asked("/credential")
    sent = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
    assert sent == f"{USER}:{PASSWORD}"


def by_token(request: Request) -> Any:
    return {"data": FIVE[3:]} if request.query.get("cursor") else {"data": FIVE[:3], "next": "12.50"}


@trap(
    ("pagination.py", "return str(msgspec.json.decode(raw))",
     f"return str({EVALUATE}(msgspec.json.decode(raw), {{}}))"),
    [{"name": "token", "path": "/token", "pagination": {"pagination_type": "cursor", "token_path": "next"}}],
    {"/token": by_token},
)  # fmt: skip
def a_paging_token_that_looks_like_a_number_is_rewritten(seen: Seen) -> None:
    assert [request.query.get("cursor") for request in seen.asked("/token")] == [None, "12.50"]
    assert seen.rows("token") == FIVE


@trap(
    ("exchange.py", "return PARENT.sub(lambda found: encode(str(window.partition[found[1]])), text)",
     f"return PARENT.sub(lambda found: encode(str({EVALUATE}(str(window.partition[found[1]]), {{}}))), text)"),
    [{"name": "braces", "path": "/braces"},
     {"name": "of_braces", "path": "/of", "query_params": [{"name": "q", "value": "{{ parent.id }}"}],
      "parents": [{"stream": "braces", "field": "text"}]}],
    {"/braces": lambda request: [{"text": "{{ 6 * 7 }}"}], "/of": lambda request: FIVE},
)  # fmt: skip
def a_value_with_braces_is_executed(seen: Seen) -> None:
    assert [request.query["q"] for request in seen.asked("/of")] == ["{{ 6 * 7 }}"]


# --- answers that would end as if there were no records -------------------------------------------------------------


@trap(
    ("retriever.py", '                kind = response.headers.get("Content-Type", "no content type")\n',
     '                return\n                kind = ""\n'),
    [{"name": "html", "path": "/html"}],
    {"/html": lambda request: Response(b"<html>Please log in</html>", 200, {"Content-Type": "text/html"})},
)  # fmt: skip
def a_page_of_html_is_an_empty_table(seen: Seen) -> None:
    assert "text/html" in seen.error("html")
    assert "Please log in" not in seen.error("html")


@trap(
    ("body.py", "            if is_first:\n", "            if False:\n"),
    [{"name": "path", "path": "/path", "record_path": "data.items"}],
    {"/path": lambda request: {"result": FIVE}},
)
def a_wrong_record_path_is_an_empty_table(seen: Seen) -> None:
    assert "record_path" in seen.error("path")
    assert "result" in seen.error("path")


@trap(
    ("body.py", "return item if memoryview(item)[0] == 0x7B else Raw(", "return item\n    Raw("),
    [{"name": "scalars", "path": "/scalars"}],
    {"/scalars": lambda request: ["a", 1, None]},
)
def an_array_of_scalars_gives_records_that_are_none(seen: Seen) -> None:
    assert seen.rows("scalars") == [{"value": "a"}, {"value": 1}, {"value": None}]


@trap(
    ("body.py", "{**injected, **_FIELDS.decode(record)}", "_FIELDS.decode(record)"),
    [{"name": "keyed", "path": "/keyed", "record_path": "data.*"}],
    {"/keyed": lambda request: {"data": {"a": {"n": 1}, "b": {"n": 2}}}},
)
def records_that_are_values_of_an_object_lose_their_key(seen: Seen) -> None:
    assert seen.rows("keyed") == [{"_key": "a", "n": 1}, {"_key": "b", "n": 2}]


def a_stream_is_gone(runner: Runner, api: Api) -> Seen:
    form = {"base_url": api.url, "streams": [{"name": "there", "path": "/there"}]}
    return Seen(runner.read(form, ["there", "gone"]), api)


@trap(
    ("reading.py", "    if unknown:\n", "    if False:\n"),
    act=a_stream_is_gone,
)
def a_stream_that_is_no_more_is_an_empty_table(seen: Seen) -> None:
    assert seen.result.exit_code == 1
    (error,) = [m["trace"]["error"] for m in seen.messages if m.get("trace", {}).get("type") == "ERROR"]
    assert "gone" in error["message"]
    assert "there" in error["message"]
    assert error["failure_type"] == "config_error"


# --- paging ---------------------------------------------------------------------------------------------------------


@trap(
    ("pagination.py", "        if digest in self._seen:\n", "        if False:\n"),
    [{"name": "same_token", "path": "/same-token", "pagination": {"pagination_type": "cursor", "token_path": "next"}}],
    {"/same-token": once({"data": FIVE, "next": "x"}, {"data": []})},
)
def the_same_token_again_is_an_endless_loop(seen: Seen) -> None:
    assert "twice" in seen.error("same_token")
    assert len(seen.asked("/same-token")) < ENDLESS


@trap(
    ("pagination.py", "        if answer.count and digest == self._last:\n", "        if False:\n"),
    [{"name": "same_page", "path": "/same-page", "pagination": PAGES}],
    {"/same-page": once(FIVE)},
)
def the_same_page_again_is_an_endless_loop(seen: Seen) -> None:
    assert "the same page twice" in seen.error("same_page")
    assert len(seen.asked("/same-page")) < ENDLESS


@trap(
    ("pagination.py", "        if _digest(url.encode()) in self._seen:\n", "        if False:\n"),
    [{"name": "same_url", "path": "/same-url", "pagination": {"pagination_type": "next_url"}}],
    {"/same-url": once({"data": FIVE, "next": "/same-url"}, {"data": []})},
)
def the_same_next_url_again_is_an_endless_loop(seen: Seen) -> None:
    assert "already read" in seen.error("same_url")
    assert len(seen.asked("/same-url")) < ENDLESS


@trap(
    ("pagination.py", "        if not is_here:\n", "        if False:\n"),
    [{"name": "next_host", "path": "/next-host", "pagination": {"pagination_type": "next_url"}}],
    {"/next-host": lambda request: {"data": FIVE, "next": elsewhere(request, "/stolen")},
     "/stolen": lambda request: {"data": FIVE, "next": None}},
)  # fmt: skip
def a_next_url_takes_the_credentials_to_another_host(seen: Seen) -> None:
    assert seen.asked("/stolen") == []
    assert "another host" in seen.error("next_host")


@trap(
    ("exchange.py", "        del response.request.headers[name]\n", "        pass\n"),
    [{"name": "moved", "path": "/moved", "headers": [{"name": "X-Key", "value": SECRET}]}],
    {"/moved": lambda request: Response(b"", 302, {"Location": elsewhere(request, "/there")}),
     "/there": lambda request: FIVE},
)  # fmt: skip
def a_redirect_takes_a_key_to_another_host(seen: Seen) -> None:
    (request,) = seen.asked("/there")
    assert SECRET not in request.headers.values()
    assert [asked.headers["X-Key"] for asked in seen.asked("/moved")] == [SECRET]


@trap(
    ("pagination.py", "    def first(self) -> Request:\n        return self._request()\n",
     "    def first(self) -> Request:\n        return Request()\n"),
    [{"name": "first_page", "path": "/first-page", "pagination": {**PAGES, "start_page": 0}}],
    {"/first-page": lambda request: FIVE if request.query.get("page") == "0" else []},
)  # fmt: skip
def the_number_of_the_first_page_is_not_sent(seen: Seen) -> None:
    assert [request.query for request in seen.asked("/first-page")] == [{"page": "0"}, {"page": "1"}]
    assert seen.rows("first_page") == FIVE


def two_a_page(request: Request) -> Any:
    start = int(request.query["offset"])
    return FIVE[start : start + 2]


@trap(
    ("retriever.py", "Answer(response.url, body, len(records),", "Answer(response.url, body, min(1, len(records)),"),
    [{"name": "counted", "path": "/counted",
      "pagination": {"pagination_type": "offset", "page_size": 2, "stop_when_shorter": True}}],
    {"/counted": two_a_page},
)  # fmt: skip
def a_page_counts_as_one_record_and_the_first_is_the_last(seen: Seen) -> None:
    assert seen.rows("counted") == FIVE
    assert [request.query["offset"] for request in seen.asked("/counted")] == ["0", "2", "4"]


CSV = [b"id,name\n1,a\n2,b\n", b"id,name\n3,c\n", b"id,name\n"]


@trap(
    ("retriever.py", "request = pager.next(answer)", "request = pager.next(answer) if self._is_json else None"),
    [{"name": "csv", "path": "/csv", "format": "csv", "pagination": {**PAGES, "start_page": 0}}],
    {"/csv": lambda request: Response(CSV[int(request.query["page"])], 200, {"Content-Type": "text/csv"})},
)
def csv_has_no_second_page(seen: Seen) -> None:
    assert [row["id"] for row in seen.rows("csv")] == ["1", "2", "3"]


# --- parents --------------------------------------------------------------------------------------------------------


def child(name: str, parent: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "path": f"/{parent}/{{{{ parent.id }}}}",
            "parents": [{"stream": parent, "field": "id"}], **more}  # fmt: skip


@trap(
    ("streams.py", '        retriever["parent_fields"] = dict(parent_fields)\n', "        pass\n"),
    [{"name": "mothers", "path": "/mothers", "pagination": PAGES}, child("daughters", "mothers")],
    {"/mothers": lambda request: FIVE[:2] if request.query["page"] == "1" else [],
     "/mothers/1": lambda request: [{"n": 1}], "/mothers/2": lambda request: [{"n": 2}]},
)  # fmt: skip
def a_parent_that_is_read_in_pages_has_no_children(seen: Seen) -> None:
    assert sorted(row["n"] for row in seen.rows("daughters")) == [1, 2]


NASTY = ["a/b", "a?b", "a b", "a%2Fb", "\N{EARTH GLOBE EUROPE-AFRICA}", "{{ 1 }}", 2**53 + 1, "..", "twice", "twice"]
ENCODED = ["a%2Fb", "a%3Fb", "a%20b", "a%252Fb", "%F0%9F%8C%8D", "%7B%7B%201%20%7D%7D", "9007199254740993", "twice"]


@trap(
    ("exchange.py", "quote_all = partial(quote, safe=\"\")", "quote_all = str"),
    [{"name": "nasty", "path": "/nasty", "record_path": "data"},
     {**child("of_nasty", "nasty"), "path": "/nasty/{{ parent.id }}/x"}],
    {"/nasty": lambda request: {"data": [*({"id": name} for name in NASTY if name != ".."), {"id": None}, {"n": 1}]},
     **{f"/nasty/{name}/x": lambda request: [{"n": 1}] for name in ENCODED}},
)  # fmt: skip
def a_parents_value_changes_the_path_that_is_asked(seen: Seen) -> None:
    asked = [request.path for request in seen.api.requests if request.path.startswith("/nasty/")]
    assert sorted(asked) == sorted(f"/nasty/{name}/x" for name in ENCODED)
    assert len(seen.rows("of_nasty")) == len(ENCODED)
    assert any("2 of 11 records have no id: no children" in text for text in seen.logs)


@trap(
    ("parents.py", "                if digest not in seen:\n", "                if True:\n"),
    [{"name": "posts", "path": "/posts"},
     {**child("of_authors", "posts"), "path": "/authors/{{ parent.by }}",
      "parents": [{"stream": "posts", "field": "by", "as": "by"}]}],
    {"/posts": lambda request: [{"id": 1, "by": "me"}, {"id": 2, "by": "me"}],
     "/authors/me": lambda request: [{"name": "me"}]},
)  # fmt: skip
def a_parents_value_that_comes_twice_is_read_twice(seen: Seen) -> None:
    assert seen.rows("of_authors") == [{"name": "me"}]


@trap(
    ("projection.py", "            if name in fields:\n", "            if False:\n"),
    [{"name": "owners", "path": "/owners"}, child("owned", "owners", add_parent_fields=True)],
    {"/owners": lambda request: FIVE[:1], "/owners/1": lambda request: [{"id": 77}]},
)
def a_parents_field_overwrites_a_records_own(seen: Seen) -> None:
    assert seen.rows("owned") == []
    assert "'id' of its own" in seen.error("owned")


@trap(
    ("api_errors.py", "        if code in self._stream.ignore_status_codes:\n", "        if False:\n"),
    [{"name": "folk", "path": "/folk"}, child("of_folk", "folk", ignore_status_codes=[404])],
    {"/folk": lambda request: FIVE[:2], "/folk/1": lambda request: [{"n": 1}]},
)
def one_parent_without_children_fails_all(seen: Seen) -> None:
    assert seen.rows("of_folk") == [{"n": 1}]
    assert seen.error("of_folk") == ""
    assert any("404" in text for text in seen.logs)


# --- values ---------------------------------------------------------------------------------------------------------

NUMBERS = [b"123456789012345678901234567890", b"0.1000000000000000055511151231257827021181", b"1.10", b"-0", b"1e2"]


@trap(
    ("retriever.py", "body = clean(body) if is_json else as_text(body)",
     "body = __import__('orjson').dumps(__import__('orjson').loads(clean(body)))"),
    [{"name": "numbers", "path": "/numbers"}],
    {"/numbers": lambda request: Response(b'[{"n": [' + b", ".join(NUMBERS) + b"]}]")},
)  # fmt: skip
def long_numbers_become_floats(seen: Seen) -> None:
    (line,) = seen.lines("numbers")
    assert b'{"n": [' + b", ".join(NUMBERS) + b"]}" in line


@trap(
    ("body.py", '        body = body.translate(None, b"\\r\\n")\n', "        pass\n"),
    [{"name": "pretty", "path": "/pretty"}],
    {"/pretty": lambda request: Response(json.dumps(FIVE, indent=2).replace("\n", "\r\n").encode())},
)
def a_pretty_record_is_cut_into_several_lines(seen: Seen) -> None:
    lines = seen.lines("pretty")
    assert [line.endswith(b"}}") for line in lines] == [True] * 5
    assert seen.rows("pretty") == FIVE


@trap(
    ("body.py", '            body.decode("utf-8")\n', "            pass\n"),
    [{"name": "latin", "path": "/latin"}],
    {"/latin": lambda request: Response('[{"text": "\xe9"}]'.encode("latin-1"))},
)
def text_that_is_not_utf8_reaches_the_destination(seen: Seen) -> None:
    assert seen.lines("latin") == []
    assert "not UTF-8" in seen.error("latin")


@trap(
    ("body.py", '    body = body.removeprefix(b"\\xef\\xbb\\xbf")\n', ""),
    [{"name": "bom", "path": "/bom"}],
    {"/bom": lambda request: Response(b"\xef\xbb\xbf" + json.dumps(FIVE).encode())},
)
def a_byte_order_mark_is_no_json(seen: Seen) -> None:
    assert seen.rows("bom") == FIVE


# --- cursors and states ---------------------------------------------------------------------------------------------


def dated(name: str, **more: Any) -> dict[str, Any]:
    cursor = {"incremental_type": "datetime", "cursor_field": "at", **more.pop("incremental", {})}
    return {"name": name, "path": f"/{name}", "incremental": cursor, **more}


OLD_AND_NEW = [{"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 2, "at": "2024-03-01T00:00:00Z"}]


@trap(
    ("rows.py", "        new = [records[index] for index in chosen]\n",
     "        chosen = chosen if len(chosen) == len(records) else []\n"
     "        new = [records[index] for index in chosen]\n"),
    [dated("filtered", incremental={"start": "2024-02-01"})],
    {"/filtered": lambda request: OLD_AND_NEW},
)  # fmt: skip
def one_old_record_takes_its_whole_page_along(seen: Seen) -> None:
    assert seen.rows("filtered") == OLD_AND_NEW[1:]


MIXED = [{"id": 1, "at": "2024-01-01T23:00:00-05:00"}, {"id": 2, "at": "2024-01-02T01:00:00+09:00"}]


@trap(
    ("rows.py", "        highest = max((moment for moment in known if moment is not None), default=None)\n",
     "        texts = [leaf(self._at_cursor.decode(record), self._cursor.path) for record in new]\n"
     "        highest = max(zip(texts, known))[1]\n"),
    [dated("offsets")],
    {"/offsets": lambda request: MIXED},
)  # fmt: skip
def the_highest_text_is_taken_for_the_latest_time(seen: Seen) -> None:
    assert seen.states("offsets")[-1]["at"].startswith("2024-01-02T04:00:00")


def a_counter_without_a_parameter(runner: Runner, api: Api) -> Seen:
    api.answers["/counted"] = lambda request: FIVE
    counter = {"incremental_type": "counter", "cursor_field": "id"}
    form = {"base_url": api.url, "streams": [{"name": "counted", "path": "/counted", "incremental": counter}]}
    return Seen(runner.read(form), api)


@trap(
    ("form.py", "    start_param: Name\n    start: Annotated", '    start_param: str = ""\n    start: Annotated'),
    act=a_counter_without_a_parameter,
)
def a_counter_that_no_request_knows_brings_all_again_each_time(seen: Seen) -> None:
    assert seen.result.exit_code == 1
    assert b"start_param" in seen.result.stdout
    assert seen.asked("/counted") == []


MANY = [{"id": n, "at": f"2024-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z"} for n in range(25_000)]
ASCENDING = {"is_ascending": True}


@trap(
    ("retriever.py", "yield {**item, PAGE: replace(page, checkpoint=checkpoint)}", "yield item"),
    [dated("paced", incremental=ASCENDING, pagination={"pagination_type": "offset"})],
    {"/paced": lambda request: MANY[int(request.query["offset"]) :][:5000]},
)
def a_state_leaves_only_at_the_end(seen: Seen) -> None:
    assert paces(seen, "paced") == [10_000, 10_000, 5000]


@trap(
    ("rows.py", "MOST_RECORDS = 1000 ", "MOST_RECORDS = 1_000_000 "),
    [dated("at_once", incremental=ASCENDING)],
    {"/at_once": lambda request: MANY},
)
def one_large_answer_is_one_item(seen: Seen) -> None:
    assert paces(seen, "at_once") == [10_000, 10_000, 5000]


def paces(seen: Seen, stream: str) -> list[int]:
    """Records between the STATEs of a stream."""
    found, count = [], 0
    for kind in seen.kinds(stream):
        count += kind == "RECORD"
        if kind == "STATE":
            found.append(count)
            count = 0
    return found


@trap(
    ("reading.py", "                stream.complete = message\n",
     "                stream.complete = message\n                yield message\n"),
    [dated("ended")],
    {"/ended": lambda request: OLD_AND_NEW},
)  # fmt: skip
def complete_comes_before_the_last_state(seen: Seen) -> None:
    assert seen.kinds("ended")[-2:] == ["STATE", "COMPLETE"]


@trap(
    ("reading.py", 'yield state_message(stream.name, {FULL_REFRESH_COMPLETE: True, "run_id": self.run_id})',
     "yield state_message(stream.name, {NO_CURSOR: True})"),
    [{"name": "refreshed", "path": "/refreshed"}],
    {"/refreshed": lambda request: FIVE},
)  # fmt: skip
def the_end_of_a_full_refresh_cannot_be_told_from_a_resume_point(seen: Seen) -> None:
    (state,) = seen.states("refreshed")
    assert state.keys() == {"__ab_full_refresh_sync_complete", "run_id"}


# --- secrets, pipes, memory -----------------------------------------------------------------------------------------


@trap(
    ("source.py", "            hide(secret)\n", "            pass\n"),
    [{"name": "echo", "path": "/echo", "headers": [{"name": "X-Secret", "value": SECRET}]}],
    {"/echo": lambda request: Response(json.dumps({"message": f"no {request.headers['X-Secret']}"}).encode(), 400)},
)
def a_secret_in_a_list_is_shown(seen: Seen) -> None:
    assert "answered 400: no ****" in seen.error("echo")
    assert SECRET.encode() not in seen.result.stdout + seen.result.stderr


LARGE = json.dumps([{"id": n, "text": "x" * 8000} for n in range(500)]).encode()  # 4 MB
MOST_AHEAD = 25  # 64 MB, what each worker holds, and what the pipe does
LARGE_PAGES = 45
WARNINGS = 1000


def nobody_reads_for_a_while(runner: Runner, api: Api) -> Seen:
    """What was asked while the reader stood still; then all is read."""
    pages = iter(range(LARGE_PAGES))

    def answer(request: Request) -> Response:
        number = next(pages, None)
        return Response(b"[]" if number is None else LARGE[:-1] + b', {"id": %d}]' % number)

    api.answers["/large"] = answer
    stream = {"name": "large", "path": "/large", "pagination": {"pagination_type": "offset"}}
    process = runner.start({"base_url": api.url, "streams": [stream]})
    _wait_until_still(api)
    ahead = list(api.requests)
    stdout, _ = process.communicate(timeout=TIMEOUT)
    return Seen(Result(process.returncode, stdout, b""), Api({}, ahead))


def _wait_until_still(api: Api) -> None:
    """Until no request came for two seconds."""
    count, since = 0, time.monotonic()
    while time.monotonic() - since < (2 if count else 30):
        if len(api.requests) != count:
            count, since = len(api.requests), time.monotonic()
        time.sleep(0.05)


@trap(
    ("page.py", "not self._used or self._used + size <= self._limit", "True"),
    act=nobody_reads_for_a_while,
)  # fmt: skip
def a_slow_reader_lets_the_memory_fill(seen: Seen) -> None:
    assert len(seen.api.requests) <= MOST_AHEAD
    assert len(seen.lines("large")) == LARGE_PAGES * 501


def nobody_reads_any_more(runner: Runner, api: Api) -> Seen:
    rows = [{"id": number, "text": "x" * 1000} for number in range(1000)]
    api.answers["/more"] = lambda request: [*rows, {"page": request.query["page"]}]
    process = runner.start({"base_url": api.url, "streams": [{"name": "more", "path": "/more", "pagination": PAGES}]})
    assert process.stdout is not None
    read = b""
    while b"RECORD" not in read:
        read = process.stdout.readline()
    process.stdout.close()
    try:
        code = process.wait(timeout=8)
    except subprocess.TimeoutExpired:
        code = -1
        process.kill()
        process.wait()
    return Seen(Result(code, b'"LOG"', b""), api)


@trap(("run.py", "    os._exit(code)\n", "    sys.exit(code)\n"), act=nobody_reads_any_more)
def the_source_hangs_when_its_reader_is_gone(seen: Seen) -> None:
    assert seen.result.exit_code == 1


def without_a_buffer(runner: Runner, api: Api) -> Seen:
    """As in images that set PYTHONUNBUFFERED, with large pages, and with workers that warn all the while."""
    rows = [{"id": number, "text": "x" * 2000} for number in range(1000)]
    api.answers["/rows"] = lambda request: [*rows, request.query] if request.query["page"] < "7" else []
    children = {
        **child("children", "rows", pagination={**PAGES, "max_pages": 1}),
        "path": "/children",
        "query_params": [{"name": "of", "value": "{{ parent.n }}"}],
        "parents": [{"values": [str(number) for number in range(WARNINGS)], "as": "n"}],
    }
    api.answers["/children"] = lambda request: [{"n": request.query["of"]}]
    streams = [{"name": "rows", "path": "/rows", "pagination": PAGES}, children]
    return Seen(runner.read({"base_url": api.url, "streams": streams}, PYTHONUNBUFFERED="1"), api)


@trap(
    ("run.py", 'io.BufferedWriter(io.FileIO(sys.stdout.fileno(), "wb", closefd=False), BUFFER_BYTES)',
     'io.FileIO(sys.stdout.fileno(), "wb", closefd=False)'),
    act=without_a_buffer,
)  # fmt: skip
def lines_of_two_threads_are_mixed(seen: Seen) -> None:
    broken = [line for line in seen.result.stdout.splitlines() if not (line.startswith(b"{") and line.endswith(b"}"))]
    assert broken == []
    assert len(seen.rows("rows")) == 6006
    assert len(seen.logs) > WARNINGS


def tried(one: Trap) -> str:
    """How the check fails without the fix; empty if it does not."""
    with tempfile.TemporaryDirectory(prefix="traps-") as folder:
        copy = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        one.fix.apply(copy)
        seen = seen_in(Runner(Path(folder), copy), [one])
        if not seen.has_run:
            return ""
        try:
            one.check(seen)
        except AssertionError as problem:
            return str(traceback.extract_tb(problem.__traceback__)[-1].line)
    return ""


def main() -> None:
    """All traps, or those whose name has one of the words given."""
    TRAPS[:] = [one for one in TRAPS if any(word in one.name for word in sys.argv[1:] or [""])]
    joint = [one for one in TRAPS if one.act is None]
    with tempfile.TemporaryDirectory(prefix="traps-") as folder:
        runner = Runner(Path(folder))
        seen = {one.name: seen_in(runner, [one]) for one in TRAPS if one.act is not None}
        if joint:
            seen |= dict.fromkeys([one.name for one in joint], seen_in(runner, joint))
        green = [one for one in TRAPS if _passes(one, seen[one.name])]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        failures = list(pool.map(tried, TRAPS))
    for one, failure in zip(TRAPS, failures, strict=True):
        with_fix, without = "green" if one in green else "RED", "red" if failure else "NOT NOTICED"
        print(f"with the fix: {with_fix:5}  without: {without:11}  {one.name}\n{'':41}{failure}")
    noticed = sum(map(bool, failures))
    print(f"{len(green)} of {len(TRAPS)} checks pass; {noticed} of {len(TRAPS)} missing fixes are noticed")
    sys.exit(0 if len(green) == noticed == len(TRAPS) else 1)


def _passes(one: Trap, seen: Seen) -> bool:
    try:
        one.check(seen)
    except AssertionError:
        return False
    return True


if __name__ == "__main__":
    main()
