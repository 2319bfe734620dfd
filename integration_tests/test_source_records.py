"""What becomes of records: formats, places, filters, projections, schemas, counters, errors with status 200."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import pytest

from integration_tests.rest_api import Api, InProcess, Response, kept, records, serving, statuses, traced

FIVE = [{"id": number} for number in range(1, 6)]


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def form(api: Api, *streams, **more):
    return {"base_url": api.url, "streams": list(streams), "max_retries": 0, **more}


def listing(**more):
    return {"name": "items", "path": "/items", **more}


def read(source, body, *, kind="application/json", headers=(), config=(), **stream):
    answer = Response(body, headers={"Content-Type": kind, **dict(headers)})
    with serving(Api({"/items": lambda request: answer})) as api:
        return source.read(form(api, listing(**stream), **dict(config)))


# --- formats --------------------------------------------------------------------------------------------------------

LINES = b'{"id": 1, "x": 1.50}\n\n{"id": 12345678901234567890123, "t": "a\\nb"}\r\n7\n'


def test_lines_of_json_are_records_with_the_text_of_the_api(source):
    result = read(source, LINES, kind="application/x-ndjson", format="jsonl")
    assert records(result) == [{"id": 1, "x": 1.5}, {"id": 12345678901234567890123, "t": "a\nb"}, {"value": 7}]
    assert b'"x": 1.50' in result.stdout


def test_csv_is_records_of_texts(source):
    body = b'\xef\xbb\xbfid;name;note\r\n1;"a;b\nc";\r\n2;"say ""x"""\r\n\r\n3;\xc3\xa9;0010\r\n'
    result = read(source, body, kind="text/csv", format="csv", csv_delimiter=";")
    assert records(result) == [
        {"id": "1", "name": "a;b\nc", "note": ""},
        {"id": "2", "name": 'say "x"', "note": None},
        {"id": "3", "name": "é", "note": "0010"},
    ]


@pytest.mark.parametrize(
    ("body", "format_"),
    [(json.dumps({"data": FIVE}).encode(), "json"), (b"\n".join(json.dumps(row).encode() for row in FIVE), "jsonl"),
     (b"id\n1\n2\n3\n4\n5\n", "csv")],
)  # fmt: skip
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("is_encoded", [False, True])
def test_gzip_is_detected_as_a_file_and_as_an_encoding(source, body, format_, members, is_encoded):
    half = len(body) // members
    packed = b"".join(map(gzip.compress, (body[:half], body[half:]) if members == 2 else (body,)))
    headers = {"Content-Encoding": "gzip"} if is_encoded else {}
    result = read(source, packed, kind="application/octet-stream", headers=headers, format=format_)
    assert [int(row["id"]) for row in records(result)] == [1, 2, 3, 4, 5]


def test_a_gzip_bomb_is_refused_in_little_memory(source):
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join([packer.compress(b"["), *(packer.compress(b" " * (1 << 20)) for _ in range(100)), packer.flush()])
    for headers in ({}, {"Content-Encoding": "gzip"}):
        result = read(source, bomb, headers=headers, config={"max_response_mb": 2})
        assert "larger than max_response_mb (2)" in traced(result)[0]["message"]


@pytest.mark.parametrize(
    ("body", "stream", "words"),
    [
        (b'{"a": 1}\n{"b": \n', {"format": "jsonl"}, "has a line that is no JSON"),
        (b"a,a\n1,2\n", {"format": "csv"}, "a CSV header with a name twice"),
        (b"a,b\n1,2,3\n", {"format": "csv"}, "a CSV row (2) with 3 values; the header has 2"),
        (b'a,b\n1,"2\n', {"format": "csv"}, "is no CSV"),
        (b"a\n\xff\n", {"format": "csv"}, "is not UTF-8"),
        (gzip.compress(b'[{"id": 1}]', mtime=0)[:-12], {}, "a gzip file that is cut off"),
        (gzip.compress(b'[{"id": 1}]', mtime=0)[:-8] + b"\xff" * 8, {}, "a gzip file that is broken"),
    ],
    ids=["lines", "header", "row", "quote", "utf-8", "cut", "broken"],
)
def test_a_body_that_is_not_of_its_format_is_an_error(source, body, stream, words):
    result = read(source, body, **stream)
    (error,) = traced(result)
    assert words in error["message"]
    assert error["failure_type"] == "config_error"


def test_lists_beside_each_other_are_records_with_the_text_of_the_api(source):
    columns = b'{"time": ["a", "b"], "t": [1.50, null], "n": [1, 99999999999999999999]}'
    body = b'{"hourly_units": {"t": "C"}, "hourly": %b}' % columns
    result = read(source, body, format="columns", record_path="hourly")
    assert [row["time"] for row in records(result)] == ["a", "b"]
    assert b'{"time":"a","t":1.50,"n":1}' in result.stdout
    assert b'{"time":"b","t":null,"n":99999999999999999999}' in result.stdout


def test_lists_of_different_lengths_are_an_error_and_no_records(source):
    body = b'{"hourly": {"time": ["a", "b", "c"], "t": [1, 2]}}'
    result = read(source, body, format="columns", record_path="hourly")
    (error,) = traced(result)
    assert "Stream 'items'" in error["message"]
    assert "lists of different lengths at 'hourly': 't' has 2 values, 'time' has 3" in error["message"]
    assert records(result) == []


def test_a_number_in_a_path_is_a_place_in_a_list(source):
    def answer(request):
        page = int(request.query["page"])
        return [{"page": page, "pages": 3}, FIVE[page * 2 - 2 : page * 2]]

    with serving(Api({"/items": answer})) as api:
        pages = {"pagination_type": "page", "total_pages_path": "0.pages"}
        assert records(source.read(form(api, listing(record_path="1", pagination=pages)))) == FIVE
        assert len(api.requests) == 3
        failing = {"error_when": "body[0].message", "error_message_path": "0.message.0.value"}
        api.answers["/items"] = lambda request: [{"message": [{"id": "120", "value": "no such indicator"}]}]
        (error,) = traced(source.read(form(api, listing(record_path="1", pagination=pages, errors=failing))))
    assert "answered 200 with an error: no such indicator" in error["message"]


def test_lines_can_be_paged(source):
    def answer(request):
        at = int(request.query["offset"])
        return Response(b"\n".join(json.dumps(row).encode() for row in FIVE[at : at + 2]))

    with serving(Api({"/items": answer})) as api:
        stream = listing(format="jsonl", pagination={"pagination_type": "offset"})
        assert records(source.read(form(api, stream))) == FIVE


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        ("data.*", {"data": {"a": {"n": 1}, "b": 2}}, [{"_key": "a", "n": 1}, {"_key": "b", "value": 2}]),
        ("*.rows", [{"rows": [{"n": 1}]}, {"other": 1}, {"rows": [{"n": 2}, {"n": 3}]}],
         [{"n": 1}, {"n": 2}, {"n": 3}]),
        ("data.*.rows", {"data": {"a": {"rows": [{"n": 1}, 5]}, "b": {"rows": None}}},
         [{"_key": "a", "n": 1}, {"_key": "a", "value": 5}]),
        ("*.*", {"a": {"x": {"n": 1}}, "b": {"y": {"n": 2}}},
         [{"_key": "x", "_key_2": "a", "n": 1}, {"_key": "y", "_key_2": "b", "n": 2}]),
        ("list.*.item", {"list": [{"item": {"n": 1}}, {"item": {"n": 2}}]}, [{"n": 1}, {"n": 2}]),
    ],
)  # fmt: skip
def test_a_star_in_the_record_path_takes_all_values_and_keeps_the_keys(source, path, body, found):
    assert records(read(source, json.dumps(body).encode(), record_path=path)) == found


def test_a_key_may_lie_in_objects_and_is_reported_as_paths(source):
    rows = [{"country": {"id": "DE"}, "date": "2024"}, {"country": {"id": "FR"}, "date": "2024"}]
    with serving(Api({"/items": lambda request: rows})) as api:
        config = form(api, listing(primary_key=["country.id", "date"]))
        assert records(source.read(config)) == rows
        (stream,) = source.run("discover", config).of("CATALOG")[0]["catalog"]["streams"]
        assert source.run("check", config).of("CONNECTION_STATUS")[0]["connectionStatus"]["status"] == "SUCCEEDED"
    assert stream["source_defined_primary_key"] == [["country", "id"], ["date"]]


# --- filter and projection ------------------------------------------------------------------------------------------

PEOPLE = [
    {"id": 1, "name": {"first": "A", "last": "B"}, "status": "open", "n": 5, "big": 10**30},
    {"id": 2, "name": {"first": "C", "last": "D"}, "status": "closed", "n": 15},
    {"id": 3, "name": None, "status": "open"},
]


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("record.status == 'open'", [1, 3]),
        ("{{ record.n > 10 or record.id == 3 }}", [2, 3]),
        ("record.name.first in ['A', 'C']", [1, 2]),
        ("record.nothing.at.all", []),
        ("not record.n", [3]),
    ],
)
def test_a_filter_keeps_what_its_condition_holds_for(source, condition, ids):
    if condition.startswith("{{ record.n >"):
        condition = "{{ (record.n or 0) > 10 or record.id == 3 }}"
    result = read(source, json.dumps(PEOPLE).encode(), filter=condition)
    assert result.exit_code == 0
    assert [row["id"] for row in records(result)] == ids


def test_a_filter_takes_fields_for_fields_whatever_their_names(source):
    body = json.dumps([{"id": n, "items": n, "get": n, "__class__": n} for n in range(5)]).encode()
    for name in ("items", "get", "__class__"):
        assert [row["id"] for row in records(read(source, body, filter=f"record.{name} > 2"))] == [3, 4]


def test_a_filter_that_cannot_be_evaluated_is_an_error_without_a_value(source):
    result = read(source, b'[{"id": "secret value"}]', filter="record.id > 3")
    (error,) = traced(result)
    assert "filter cannot be evaluated (TypeError) for a record" in error["message"]
    assert b"secret value" not in result.stdout


@pytest.mark.parametrize(
    "condition",
    ["record.__class__.__mro__", "record.items.__globals__", "().__class__.__bases__[0].__subclasses__()", "range(10)"],
)
def test_a_condition_reaches_nothing_but_its_record(source, condition):
    result = read(source, b'[{"id": 1}]', filter=condition)
    assert records(result) == []


def test_a_filter_does_not_hold_the_cursor_back(source):
    rows = [{"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 2, "at": "2024-01-02T00:00:00Z"}]
    cursor = {"incremental_type": "datetime", "cursor_field": "at", "start_param": "since"}
    with serving(Api({"/items": lambda request: rows})) as api:
        config = form(api, listing(incremental=cursor, filter="record.id == 1"))
        first = source.read(config)
        assert [row["id"] for row in records(first)] == [1]
        source.read(config, state=kept(first))
        assert api.requests[-1].query["since"] == "2024-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        ({"select_fields": ["id", "name.first", "big"]},
         [{"id": 1, "name": {"first": "A"}, "big": 10**30}, {"id": 2, "name": {"first": "C"}}, {"id": 3}]),
        ({"drop_fields": ["name.last", "n", "big"]},
         [{"id": 1, "name": {"first": "A"}, "status": "open"}, {"id": 2, "name": {"first": "C"}, "status": "closed"},
          {"id": 3, "name": None, "status": "open"}]),
        ({"drop_fields": ["name", "status", "big"], "timestamps": [{"field": "n", "format": "epoch_s"}]},
         [{"id": 1, "n": "1970-01-01T00:00:05Z"}, {"id": 2, "n": "1970-01-01T00:00:15Z"}, {"id": 3}]),
    ],
)  # fmt: skip
def test_fields_are_selected_or_dropped_and_all_else_keeps_its_text(source, stream, found):
    assert records(read(source, json.dumps(PEOPLE).encode(), **stream)) == found


# --- schemas --------------------------------------------------------------------------------------------------------


def test_the_forms_schema_wins_over_the_sample_field_by_field(source):
    schema = {"properties": {"zip": {"type": ["null", "string"]}, "more": {"type": ["null", "number"]}}}
    with serving(Api({"/items": lambda request: [{"id": 1, "zip": 12345}]})) as api:
        result = source.run("discover", form(api, listing(schema=json.dumps(schema))))
    (stream,) = result.of("CATALOG")[0]["catalog"]["streams"]
    assert stream["json_schema"]["properties"] == {"id": {"type": ["null", "integer"]}, **schema["properties"]}


# --- counters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("is_ascending", [False, True])
def test_a_counter_asks_for_what_lies_behind_the_last_number(source, as_text, is_ascending):
    rows = [{"seq": {"n": str(n) if as_text else n}} for n in range(1, 31)]

    def answer(request):
        since = int(request.query.get("since_id", "0"))
        at = int(request.query["offset"])
        return {"data": [row for row in rows if int(row["seq"]["n"]) >= since][at : at + 10]}

    cursor = {"incremental_type": "counter", "cursor_field": "seq.n", "start_param": "since_id"}
    with serving(Api({"/items": answer})) as api:
        stream = listing(incremental={**cursor, "is_ascending": is_ascending}, pagination={"pagination_type": "offset"})
        first = source.read(form(api, stream))
        assert records(first) == rows
        assert "since_id" not in api.requests[0].query
        assert kept(first)[0]["stream"]["stream_state"]["seq.n"] == 30
        rows.append({"seq": {"n": "31" if as_text else 31}})
        api.requests.clear()
        second = source.read(form(api, stream), state=kept(first))
        assert [int(row["seq"]["n"]) for row in records(second)] == [31]
        assert api.requests[0].query["since_id"] == "30"
        third = source.read(form(api, stream), state=kept(second))
    assert records(third) == []
    assert kept(third) == kept(second)


def test_a_counter_starts_where_the_form_says(source):
    cursor = {"incremental_type": "counter", "cursor_field": "id", "start_param": "after", "start": 4}
    with serving(Api({"/items": lambda request: FIVE})) as api:
        result = source.read(form(api, listing(incremental=cursor)))
        assert api.requests[0].query == {"after": "4"}
    assert [row["id"] for row in records(result)] == [4, 5]


SEARCH = '{"query": {"filters": [{"field": "at", "op": "GTE"}]}, "size": 2}'


@pytest.mark.parametrize(
    ("where", "start_param"), [("query", "since"), ("header", "X-Since"), ("body", "query.filters.0.value")]
)
def test_the_cursor_goes_into_query_headers_or_a_place_of_the_body(source, where, start_param):
    rows = [{"id": n, "at": f"2024-01-0{n}T00:00:00Z"} for n in (1, 2)]
    cursor = {"incremental_type": "datetime", "cursor_field": "at", "start_param": start_param, "inject_into": where}
    with serving(Api({"/items": lambda request: rows})) as api:
        config = form(api, listing(method="POST", body=SEARCH, incremental=cursor))
        first = source.read(config)
        assert records(first) == rows
        assert api.requests[0].json == json.loads(SEARCH)
        assert records(source.read(config, state=kept(first))) == []
        asked = api.requests[-1]
    sent = {"query": asked.query.get("since"), "header": asked.headers.get("X-Since")}
    sent["body"] = asked.json["query"]["filters"][0].get("value")
    assert {place: found for place, found in sent.items() if found} == {where: "2024-01-02T00:00:00Z"}


@pytest.mark.parametrize(
    ("body", "words"), [("[]", "a list without the place 'a'"), ('{"a": 7}', "a single value where 'b' is to be set")]
)
def test_a_body_that_has_no_place_for_a_value_is_an_error(source, body, words):
    pages = {"pagination_type": "offset", "offset_param": "a.b", "inject_into": "body"}
    with serving(Api({"/items": lambda request: FIVE})) as api:
        (error,) = traced(source.read(form(api, listing(method="POST", body=body, pagination=pages))))
        assert api.requests == []
    assert words in error["message"]


def test_streams_inherit_the_cursor_and_may_do_without(source):
    cursor = {"incremental_type": "datetime", "cursor_field": "at", "start_param": "since"}
    none = {"incremental_type": "none"}
    rows = [{"id": 1, "at": "2024-01-01T00:00:00Z"}]
    with serving(Api({"/items": lambda request: rows})) as api:
        streams = [listing(), {"name": "all", "path": "/items", "incremental": none}]
        config = form(api, *streams, incremental=cursor)
        catalog = source.run("discover", config).of("CATALOG")[0]["catalog"]["streams"]
    assert [stream.get("default_cursor_field") for stream in catalog] == [["at"], None]


# --- errors with status 200 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({"error_when": "body.ok == false"}, "answered 200 with an error: bad field"),
        (
            {"error_when": "{{ not body.ok }}", "error_message_path": "why.text"},
            "answered 200 with an error: no such x",
        ),
    ],
)
@pytest.mark.parametrize("is_own", [False, True])
def test_an_error_with_status_200_is_an_error(source, errors, words, is_own):
    bad = {"ok": False, "error": "bad field", "why": {"text": "no such x"}}
    answers = {"/items": lambda request: bad, "/good": lambda request: {"ok": True, "data": FIVE}}
    with serving(Api(answers)) as api:
        good = {"name": "good", "path": "/good"}
        config = form(
            api, listing(errors=errors) if is_own else listing(), good, **({} if is_own else {"errors": errors})
        )
        result = source.read(config)
    (error,) = traced(result)
    assert words in error["message"]
    assert statuses(result, "items")[-1] == "INCOMPLETE"
    assert records(result, "good") == FIVE
