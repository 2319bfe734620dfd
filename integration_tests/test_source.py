"""The source against a real HTTP server: paging, cursors, parents, credentials, states, bad input.

Most cases call the command line's own functions in this process (``source``); some of each kind start the real one
(``process``), which costs seconds each time.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from integration_tests.harness import plain_environment
from integration_tests.rest_api import (
    Api,
    InProcess,
    Response,
    Source,
    configured,
    kept,
    records,
    serving,
    statuses,
    traced,
)

FIVE = [{"id": number} for number in range(1, 6)]
SECRET = "s3cr3t-t0k3n-9876543210"
LONG_AGO = "2024-01-01T00:00:00Z"


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


@pytest.fixture
def process(tmp_path: Path) -> Source:
    return Source(tmp_path)


def form(api: Api, *streams, **more):
    return {"base_url": api.url, "streams": list(streams), "max_retries": 0, **more}


def listing(**more):
    return {"name": "items", "path": "/items", "primary_key": ["id"], **more}


# --- paging ---------------------------------------------------------------------------------------------------------


def test_page_numbers_go_on_to_the_first_empty_page(source):
    def answer(request):
        start = (int(request.query["page"]) - 1) * 2
        return {"data": FIVE[start : start + 2]}

    with serving(Api({"/items": answer})) as api:
        pages = {"pagination_type": "page", "size_param": "per_page", "page_size": 2}
        result = source.read(form(api, listing(pagination=pages)))
        assert records(result) == FIVE
        assert [request.query for request in api.requests] == [{"page": str(n), "per_page": "2"} for n in (1, 2, 3, 4)]


def test_a_shorter_page_is_the_last_if_the_form_says_so(source):
    with serving(Api({"/items": lambda request: FIVE[: 2 if request.query["page"] == "0" else 1]})) as api:
        pages = {
            "pagination_type": "page",
            "start_page": 0,
            "size_param": "n",
            "page_size": 2,
            "stop_when_shorter": True,
        }
        result = source.read(form(api, listing(pagination=pages)))
        assert (len(records(result)), len(api.requests)) == (3, 2)


def test_offsets_count_what_came_so_that_a_capped_page_size_loses_nothing(source):
    def answer(request):
        start = int(request.query["offset"])
        return {"data": FIVE[start : start + 2]}  # asked for 100

    with serving(Api({"/items": answer})) as api:
        pages = {"pagination_type": "offset", "page_size": 100}
        assert records(source.read(form(api, listing(pagination=pages)))) == FIVE
        assert [request.query["offset"] for request in api.requests] == ["0", "2", "4", "5"]


def test_link_headers_are_followed(source):
    def answer(request):
        page = int(request.query.get("page", "1"))
        more = {"Link": f'<{api.url}/items?page={page + 1}>; rel="next"'} if page < 3 else {}
        return Response(
            json.dumps(FIVE[page - 1 : page]).encode(), headers={"Content-Type": "application/json", **more}
        )

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(pagination={"pagination_type": "link_header"})))
        assert records(result) == FIVE[:3]


@pytest.mark.parametrize("is_absolute", [True, False])
def test_next_urls_in_the_answer_are_followed_also_relative_ones(source, is_absolute):
    def answer(request):
        page = int(request.query.get("cursor", "0"))
        url = f"{api.url if is_absolute else ''}/items?cursor={page + 1}"
        return {"data": FIVE[page : page + 1], "links": {"next": url if page < 2 else None}}

    with serving(Api({"/items": answer})) as api:
        pages = {"pagination_type": "next_url", "next_path": "links.next"}
        credentials = {"auth_type": "api_key", "inject_into": "query", "name": "key", "api_key": SECRET}
        result = source.read(form(api, listing(pagination=pages), credentials=credentials))
        assert records(result) == FIVE[:3]
        assert all(request.query["key"] == SECRET for request in api.requests)


@pytest.mark.parametrize("token", ["12.50", "1_0", "{{ 1 + 1 }}", "a b&c=d", 123456789012345678901234567890])
def test_tokens_of_the_answer_lead_on_as_the_api_wrote_them(source, token):
    def answer(request):
        if "cursor" not in request.query:
            return {"data": FIVE[:2], "meta": {"next": token}}
        return {"data": FIVE[2:], "meta": {"next": None}}

    with serving(Api({"/items": answer})) as api:
        pages = {"pagination_type": "cursor", "token_path": "meta.next", "size_param": "limit", "page_size": 2}
        assert records(source.read(form(api, listing(pagination=pages)))) == FIVE
        assert [request.query.get("cursor") for request in api.requests] == [None, str(token)]
        assert [request.query["limit"] for request in api.requests] == ["2", "2"]


def test_tokens_may_come_in_a_header_or_be_the_last_records_field(source):
    def by_header(request):
        last = int(request.headers.get("X-After", "0"))
        more = {"X-Next": str(last + 2)} if last < 3 else {}
        return Response(
            json.dumps(FIVE[last : last + 2]).encode(), headers={"Content-Type": "application/json", **more}
        )

    def by_field(request):
        start = int(request.query.get("after", "0"))
        return {"data": FIVE[start : start + 2], "has_more": start < 3}

    with serving(Api({"/header": by_header, "/field": by_field})) as api:
        first = {
            "pagination_type": "cursor",
            "token_header": "X-Next",
            "token_param": "X-After",
            "inject_into": "header",
        }
        second = {"pagination_type": "cursor", "token_field": "id", "token_param": "after", "has_more_path": "has_more"}
        streams = [{"name": "header", "path": "/header", "pagination": first},
                   {"name": "field", "path": "/field", "pagination": second}]  # fmt: skip
        result = source.read(form(api, *streams))
        assert records(result, "header") == FIVE
        assert records(result, "field") == FIVE
        assert [request.query.get("after") for request in api.of("/field")] == [None, "2", "4"]


def test_a_token_that_comes_again_is_an_error(source):
    with serving(Api({"/items": lambda request: {"data": FIVE, "next": "x"}})) as api:
        result = source.read(form(api, listing(pagination={"pagination_type": "cursor", "token_path": "next"})))
    assert result.exit_code == 1
    assert "the same token for 'cursor' twice" in traced(result)[0]["message"]


def test_a_post_carries_the_body_with_paging_and_parents_values(source):
    names = ['a"b', "c"]

    def search(request):
        assert request.method == "POST"
        asked = request.json
        rows = [{"user": asked["filter"]["user"], "n": n} for n in range(3)]
        start = asked["page"]["offset"]
        return {"rows": rows[start : start + asked["page"]["limit"]]}

    users = {"name": "users", "path": "/users", "primary_key": ["name"]}
    orders = {
        "name": "orders", "path": "/search", "method": "POST", "record_path": "rows",
        "body": '{"filter": {"user": "{{ parent.user }}", "since": 1.50}}',
        "parents": [{"stream": "users", "field": "name", "as": "user"}],
        "pagination": {"pagination_type": "offset", "offset_param": "page.offset", "size_param": "page.limit",
                       "page_size": 2, "inject_into": "body"},
    }  # fmt: skip
    with serving(Api({"/users": lambda request: [{"name": name} for name in names], "/search": search})) as api:
        result = source.read(form(api, users, orders), "orders")
        assert {request.headers["Content-Type"] for request in api.of("/search")} == {"application/json"}
    assert sorted((row["user"], row["n"]) for row in records(result)) == [(name, n) for name in names for n in range(3)]


def test_ignored_status_codes_are_no_records_and_no_error(source):
    answers = {
        "/users": lambda request: {"data": [{"id": n} for n in (1, 2, 3)] if request.query["page"] == "1" else []}
    }
    with serving(Api({**answers, "/users/2/orders": lambda request: [{"n": 1}]})) as api:
        result = source.read(form(api, *family(ignore_status_codes=[404])), "orders")
    assert result.exit_code == 0
    assert records(result) == [{"n": 1, "user_id": 2}]
    logged = [message["log"]["message"] for message in result.of("LOG")]
    assert len([text for text in logged if "answered 404" in text]) == 1
    assert "Ignored 2 answers with status 404 in stream 'orders'" in logged


def test_a_next_url_on_another_host_is_refused_before_credentials_go_there(source):
    with serving(Api({"/items": lambda request: FIVE})) as other:

        def answer(request):
            return {"data": FIVE, "next": f"{other.url}/items"}

        with serving(Api({"/items": answer})) as api:
            pages = {"pagination_type": "next_url"}
            result = source.read(
                form(api, listing(pagination=pages), credentials={"auth_type": "bearer", "token": SECRET})
            )
        assert result.exit_code == 1
        assert "another host" in traced(result)[0]["message"]
        assert other.requests == []


def test_a_redirect_to_another_host_takes_no_credentials_along(source):
    with serving(Api({"/items": lambda request: FIVE})) as other:
        moved = Response(b"", 302, {"Location": f"{other.url}/items"})
        with serving(Api({"/items": lambda request: moved})) as api:
            credentials = {"auth_type": "api_key", "name": "X-Token", "api_key": SECRET}
            headers = [{"name": "X-Tenant", "value": "tenant-secret"}]
            result = source.read(form(api, listing(), credentials=credentials, headers=headers))
            assert records(result) == FIVE
            assert api.requests[0].headers["X-Token"] == SECRET
        assert {name.lower() for name in other.requests[0].headers} <= {
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "connection",
        }


def test_a_next_url_behind_a_redirect_to_another_host_takes_no_credentials_there(source):
    with serving(Api({"/items": lambda request: {"data": FIVE, "next": "/items?page=2"}})) as other:
        moved = Response(b"", 302, {"Location": f"{other.url}/items"})
        with serving(Api({"/items": lambda request: moved})) as api:
            pages = {"pagination_type": "next_url"}
            credentials = {"auth_type": "api_key", "name": "X-Token", "api_key": SECRET}
            result = source.read(form(api, listing(pagination=pages), credentials=credentials))
        assert "another host" in traced(result)[0]["message"]
        assert ["X-Token" in request.headers for request in other.requests] == [False]


@pytest.mark.parametrize(
    ("pagination", "body", "words"),
    [
        ({"pagination_type": "page"}, {"data": FIVE}, "the same page twice"),
        ({"pagination_type": "offset"}, {"data": FIVE}, "the same page twice"),
        ({"pagination_type": "next_url"}, {"data": FIVE, "next": "/items"}, "already read"),
        ({"pagination_type": "next_url"}, {"data": FIVE, "next": 7}, "no URL at 'next'"),
    ],
)
def test_paging_that_would_never_end_is_an_error(source, pagination, body, words):
    with serving(Api({"/items": lambda request: body})) as api:
        result = source.read(form(api, listing(pagination=pagination)))
    assert result.exit_code == 1
    assert words in traced(result)[0]["message"]
    assert statuses(result, "items")[-1] == "INCOMPLETE"


# --- exactness ------------------------------------------------------------------------------------------------------


def test_numbers_and_texts_keep_the_text_of_the_api(source):
    numbers = b'"id": 123456789012345678901234567890, "price": 0.10000000000000000555, "e": 1e2'
    record = b"{" + numbers + b', "t": "a\\nb \\u00e9 \xc3\xa9"}'
    body = b'{"data": [\n ' + record + b"\r\n]}"
    with serving(Api({"/items": lambda request: Response(body)})) as api:
        result = source.read(form(api, listing()))
    line = next(line for line in result.stdout.splitlines() if b'"RECORD"' in line)
    for text in (b"123456789012345678901234567890", b"0.10000000000000000555", b"1e2", b'"a\\nb \\u00e9 \xc3\xa9"'):
        assert text in line


def test_scalars_become_records_and_an_object_is_one(source):
    with serving(Api({"/tags": lambda request: ["a", 1, None], "/me": lambda request: {"id": 7}})) as api:
        result = source.read(
            form(api, {"name": "tags", "path": "/tags"}, {"name": "me", "path": "me", "record_path": "."})
        )
    assert records(result, "tags") == [{"value": "a"}, {"value": 1}, {"value": None}]
    assert records(result, "me") == [{"id": 7}]


def test_timestamps_become_text_in_the_record_only(source):
    body = {"data": [{"id": 1, "p": {"time": 1517966773840, "x": 1.50}, "day": "31/01/2018", "none": None}]}
    stamps = [
        {"field": "p.time", "format": "epoch_ms"},
        {"field": "day", "format": "%d/%m/%Y"},
        {"field": "none", "format": "epoch_s"},
    ]
    with serving(Api({"/items": lambda request: body})) as api:
        result = source.read(form(api, listing(timestamps=stamps)))
    assert records(result) == [
        {"id": 1, "p": {"time": "2018-02-07T01:26:13.840Z", "x": 1.5}, "day": "2018-01-31T00:00:00Z", "none": None}
    ]


# --- cursors and states ---------------------------------------------------------------------------------------------


def changes(**more):
    cursor = {"incremental_type": "datetime", "cursor_field": "meta.updated", "start_param": "since", **more}
    return {"name": "changes", "path": "/changes", "primary_key": ["id"], "incremental": cursor}


def change(number, moment):
    return {"id": number, "meta": {"updated": moment}}


def test_the_second_sync_brings_what_is_new_and_nothing_twice(process):
    known = [
        change(1, "2024-01-01T00:00:00Z"),
        change(2, "2024-01-03T10:00:00.5+02:00"),
        change(3, "2024-01-03T08:00:00.500Z"),
    ]
    with serving(Api({"/changes": lambda request: known})) as api:
        config = form(api, changes())
        first = process.read(config)
        assert records(first) == known
        assert "since" not in api.requests[0].query
        # a third record at the same moment, one that changed there, and a new one
        changed = {**known[1], "text": "changed"}
        known += [change(4, "2024-01-03T08:00:00.5Z"), changed, change(5, "2024-02-01T00:00:00Z")]
        second = process.read(config, state=kept(first))
        assert records(second) == known[3:]
        assert api.requests[-1].query["since"] == "2024-01-03T08:00:00Z"
        third = process.read(config, state=kept(second))
        assert records(third) == []
        assert kept(third) == kept(second)


def test_the_input_state_comes_first_verbatim_and_once(source):
    with serving(Api({"/changes": lambda request: []})) as api:
        given = {
            "meta.updated": "2024-01-01T00:00:00.000000Z",
            "boundary": [{"partition": {}, "at": 1704067200000000, "records": ["x"]}],
        }
        state = [{"type": "STREAM", "stream": {"stream_descriptor": {"name": "changes"}, "stream_state": given}}]
        result = source.read(form(api, changes()), state=state)
    assert result.messages[0]["type"] in ("LOG", "STATE")
    protocol = [message for message in result.messages if message["type"] != "LOG"]
    assert protocol[0]["state"]["stream"]["stream_state"] == given
    assert kept(result)[0]["stream"]["stream_state"]["meta.updated"] == given["meta.updated"]


def test_no_state_leaves_before_the_first_record_and_complete_comes_last(source):
    with serving(Api({"/changes": lambda request: [change(1, LONG_AGO)], "/items": lambda request: FIVE})) as api:
        result = source.read(form(api, changes(), listing()))
    for name in ("changes", "items"):
        kinds = [
            message["type"] if message["type"] != "TRACE" else message["trace"]["stream_status"]["status"]
            for message in result.messages
            if message["type"] != "LOG" and f'"{name}"' in json.dumps(message)
        ]
        assert kinds.index("RECORD") < kinds.index("STATE")
        assert kinds[-2:] == ["STATE", "COMPLETE"]


def test_epoch_cursors_in_records_and_requests(source):
    rows = [{"id": 1, "at": 1704067200}, {"id": 2, "at": 1704067260.25}]
    with serving(Api({"/changes": lambda request: rows})) as api:
        stream = changes(cursor_field="at", cursor_format="epoch_s", request_format="epoch_ms")
        first = source.read(form(api, stream))
        rows.append({"id": 3, "at": 1704067260.5})
        second = source.read(form(api, stream), state=kept(first))
        assert [row["id"] for row in records(second)] == [3]
        assert api.requests[-1].query["since"] == "1704067260250"


def test_without_a_start_parameter_old_records_are_left_out_here(source):
    rows = [change(1, LONG_AGO), change(2, "2024-03-01T00:00:00Z"), {"id": 3}]
    with serving(Api({"/changes": lambda request: rows})) as api:
        result = source.read(form(api, changes(start_param="", start="2024-02-01")))
        assert [row["id"] for row in records(result)] == [2, 3]
        assert api.requests[0].query == {}


def test_windows_have_start_and_end_and_lose_nothing_between_them(source):
    rows = [change(n, f"{date(2024, 1, 1) + timedelta(30 * (n - 1))}T23:59:59.5Z") for n in range(1, 10)]

    def answer(request):
        since, until = request.query["since"], request.query["until"]
        return [row for row in rows if since <= row["meta"]["updated"][:10] <= until]

    with serving(Api({"/changes": answer})) as api:
        stream = changes(start="2024-01-01", end_param="until", step="P90D", request_format="%Y-%m-%d")
        first = source.read(form(api, stream))
        assert sorted(row["id"] for row in records(first)) == list(range(1, 10))
        windows = sorted((request.query["since"], request.query["until"]) for request in api.requests)
        assert windows[:2] == [("2024-01-01", "2024-03-30"), ("2024-03-31", "2024-06-28")]
        assert records(source.read(form(api, stream), state=kept(first))) == []


def test_newest_first_reads_no_further_than_the_state(source):
    rows = [change(n, f"2024-01-{n:02d}T00:00:00Z") for n in range(1, 11)]

    def answer(request):
        start = int(request.query["offset"])
        return rows[::-1][start : start + 2]

    with serving(Api({"/changes": answer})) as api:
        stream = {**changes(start_param="", newest_first=True), "pagination": {"pagination_type": "offset"}}
        first = source.read(form(api, stream))
        assert len(records(first)) == 10
        rows += [change(n, f"2024-01-{n:02d}T00:00:00Z") for n in (11, 12, 13)]
        api.requests.clear()
        second = source.read(form(api, stream), state=kept(first))
        assert sorted(row["id"] for row in records(second)) == [11, 12, 13]
        assert len(api.requests) == 3  # 13 and 12; 11 and the known 10; 9 and 8 are behind
        rows.sort(key=lambda row: row["id"] % 3)
        broken = source.read(form(api, stream))
    assert "newest first" in traced(broken)[0]["message"]


def test_a_rate_limit_of_the_form_is_kept_over_all_streams(source):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        streams = [{"name": f"s{number}", "path": "/items"} for number in range(5)]
        begun = time.monotonic()
        result = source.read(form(api, *streams, rate_limit={"requests_per_second": 2}))
        assert time.monotonic() - begun > 2
    assert result.exit_code == 0
    assert len(records(result)) == 25


def test_a_state_in_the_future_is_read_on(source):
    rows = [change(1, "2999-01-01T00:00:00Z")]
    with serving(Api({"/changes": lambda request: rows})) as api:
        first = source.read(form(api, changes()))
        rows.append(change(2, "2999-01-02T00:00:00Z"))
        second = source.read(form(api, changes()), state=kept(first))
        assert [row["id"] for row in records(second)] == [2]
        assert records(source.read(form(api, changes()), state=kept(second))) == []


def test_a_cursor_that_no_record_has_is_an_error_and_not_everything_again_each_time(source):
    with serving(Api({"/changes": lambda request: FIVE})) as api:
        result = source.read(form(api, changes()))
    assert result.exit_code == 1
    assert "none of 5 records has the cursor 'meta.updated'" in traced(result)[0]["message"]


def test_ascending_answers_save_their_state_on_the_way(source):
    rows = [change(n, f"2024-01-01T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z") for n in range(25_000)]

    def answer(request):
        start = int(request.query["offset"])
        return rows[start : start + 5000]

    with serving(Api({"/changes": answer})) as api:
        stream = {**changes(is_ascending=True), "pagination": {"pagination_type": "offset"}}
        result = source.read(form(api, stream))
    seen, checked = 0, 0
    for message in result.messages:
        seen += message["type"] == "RECORD"
        if message["type"] == "STATE":
            checked += 1
            at = message["state"]["stream"]["stream_state"]["meta.updated"]
            assert at[:19] + "Z" == rows[seen - 1]["meta"]["updated"]  # all before it are out
    assert (seen, checked) == (25_000, 3)
    assert sum(message["state"]["sourceStats"]["recordCount"] for message in result.of("STATE")) == 25_000


def test_an_answer_that_breaks_the_promised_order_is_an_error(source):
    with serving(Api({"/changes": lambda request: [change(1, "2024-01-02T00:00:00Z"), change(2, LONG_AGO)]})) as api:
        result = source.read(form(api, changes(is_ascending=True)))
    assert result.exit_code == 1
    assert "ascending" in traced(result)[0]["message"]
    assert result.of("STATE") == []


def test_a_full_refresh_ends_with_its_mark_and_given_back_is_that_state_alone(source):
    with serving(Api({"/items": lambda request: [], "/changes": lambda request: [change(1, LONG_AGO)]})) as api:
        config = form(api, listing(), changes())
        first = source.read(config, mode="full_refresh")
        marks = {s["stream"]["stream_descriptor"]["name"]: s["stream"]["stream_state"] for s in kept(first)}
        assert all(mark["__ab_full_refresh_sync_complete"] is True for mark in marks.values())
        assert len({mark["run_id"] for mark in marks.values()}) == 1
        api.requests.clear()
        again = source.read(config, state=kept(first), mode="full_refresh")
    assert api.requests == []
    assert again.exit_code == 0
    assert again.of("RECORD") == []
    assert {s["stream"]["stream_descriptor"]["name"]: s["stream"]["stream_state"] for s in kept(again)} == marks
    assert len(again.of("STATE")) == 2
    assert statuses(again, "items") == ["STARTED", "COMPLETE"]


def test_a_stream_that_fails_never_says_that_its_refresh_is_complete(source):
    def answer(request):
        return {"data": FIVE} if request.query["page"] == "1" else Response(b"oops", 500)

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(pagination={"pagination_type": "page"})))
    assert result.exit_code == 1
    assert records(result) == FIVE
    assert result.of("STATE") == []
    assert statuses(result, "items") == ["STARTED", "RUNNING", "INCOMPLETE"]
    (error,) = traced(result)
    assert error["failure_type"] == "transient_error"
    assert error["message"] == f"Stream 'items': GET {api.url}/items answered 500."


def test_one_stream_that_fails_does_not_stop_the_others(process):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        result = process.read(form(api, {"name": "gone", "path": "/gone"}, listing()))
    assert result.exit_code == 1
    assert records(result, "items") == FIVE
    assert statuses(result, "items")[-1] == "COMPLETE"
    errors = traced(result)
    assert [error["stream_descriptor"]["name"] for error in errors] == ["gone"]
    assert "404" in errors[0]["message"]
    assert "no such thing" in errors[0]["message"]
    assert "Check base_url and path" in errors[0]["message"]


# --- parents --------------------------------------------------------------------------------------------------------


def family(**more):
    users = {"name": "users", "path": "/users", "record_path": "data", "primary_key": ["id"],
             "pagination": {"pagination_type": "page"}}  # fmt: skip
    orders = {
        "name": "orders",
        "path": "/users/{{ parent.user_id }}/orders",
        "parents": [{"stream": "users", "field": "id", "as": "user_id"}],
        "add_parent_fields": True,
        **more,
    }
    return users, orders


def test_children_are_read_for_every_page_of_the_parent(source):
    ids = ["a/b", "c d", "é", "4", "5"]

    def users(request):
        page = int(request.query["page"])
        return {"data": [{"id": name} for name in ids[(page - 1) * 2 : page * 2]]}

    answers = {f"/users/{quoted}/orders": lambda request: [{"n": 1}] for quoted in ("a%2Fb", "c%20d", "%C3%A9", "4")}
    answers["/users/5/orders"] = lambda request: []
    with serving(Api({"/users": users, **answers})) as api:
        result = source.read(form(api, *family()), "orders")
    assert result.exit_code == 0
    assert sorted(row["user_id"] for row in records(result)) == sorted(ids[:4])


def test_children_with_a_cursor_have_a_state_per_parent(source):
    rows = {"1": [change(1, "2024-01-01T00:00:00Z")], "2": [change(2, "2024-05-01T00:00:00Z")]}
    answers = {f"/users/{n}/orders": (lambda request, n=n: rows[n]) for n in rows}
    users = {"name": "users", "path": "/users", "primary_key": ["id"]}
    orders = family(incremental=changes()["incremental"])[1]
    with serving(Api({"/users": lambda request: [{"id": 1}, {"id": 2}], **answers})) as api:
        config = form(api, users, orders)
        first = source.read(config, "orders")
        assert len(records(first)) == 2
        rows["1"].append(change(3, "2024-02-01T00:00:00Z"))
        second = source.read(config, "orders", state=kept(first))
        assert [row["id"] for row in records(second)] == [3]
        assert api.of("/users/1/orders")[-1].query["since"] == "2024-01-01T00:00:00Z"
        assert api.of("/users/2/orders")[-1].query["since"] == "2024-05-01T00:00:00Z"


def test_a_parent_field_that_no_record_has_is_an_error_and_not_an_empty_table(source):
    users = {"name": "users", "path": "/users"}
    with serving(Api({"/users": lambda request: [{"uid": 1}]})) as api:
        result = source.read(form(api, users, family()[1]), "orders")
    assert result.exit_code == 1
    assert "parents[].field" in traced(result)[0]["message"]


# --- credentials ----------------------------------------------------------------------------------------------------


def test_credentials_and_headers_go_along_and_a_stream_overrides_the_connector(source):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        stream = listing(headers=[{"name": "x-tenant", "value": "8"}], query_params=[{"name": "b", "value": "2"}])
        config = form(api, stream, credentials={"auth_type": "basic", "username": "u", "password": SECRET})
        config |= {"headers": [{"name": "X-Tenant", "value": "7"}], "query_params": [{"name": "a", "value": "1 é"}]}
        assert records(source.read(config)) == FIVE
        request = api.requests[0]
    sent = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
    assert sent == f"u:{SECRET}"
    assert request.headers["x-tenant"] == "8"
    assert request.query == {"a": "1 é", "b": "2"}


def oauth(api, **more):
    return {"auth_type": "oauth_client_credentials", "token_url": f"{api.url}/token", "client_id": "me",
            "client_secret": SECRET, **more}  # fmt: skip


def token_form(request):
    return dict(parse_qsl(request.body.decode()))


def test_client_credentials_fetch_a_token_and_renew_one_that_is_refused(source):
    tokens = iter(["first-access-token", "second-access-token"])

    def items(request):
        if request.headers["Authorization"] != "Bearer second-access-token":
            return Response(b'{"message": "expired"}', 401)
        return FIVE

    answers = {"/token": lambda request: {"access_token": next(tokens), "expires_in": 3600}, "/items": items}
    with serving(Api(answers)) as api:
        streams = [listing(), {"name": "again", "path": "/items"}]  # which share the token
        config = form(api, *streams, credentials=oauth(api, scopes="a b", audience="x"), max_retries=1, num_workers=2)
        result = source.read(config)
        assert records(result, "items") == records(result, "again") == FIVE
        assert token_form(api.of("/token")[0]) == {
            "grant_type": "client_credentials", "scope": "a b", "audience": "x", "client_id": "me",
            "client_secret": SECRET,
        }  # fmt: skip
        assert len(api.of("/token")) == 2
    assert b"access-token" not in result.stdout


def test_client_credentials_by_http_basic_and_a_secret_that_is_refused(source):
    refused = Response(b'{"error": "invalid_client", "error_description": "unknown client"}', 401)
    with serving(Api({"/token": lambda request: refused})) as api:
        result = source.run("check", form(api, listing(), credentials=oauth(api, client_auth="basic")))
        sent = api.of("/token")[0].headers["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(sent).decode() == f"me:{SECRET}"
        assert len(api.requests) == 1
    message = failed(result)
    assert "401: unknown client" in message
    assert "Check credentials" in message
    assert SECRET.encode() not in result.stdout


def test_a_token_that_is_refused_again_asks_for_other_credentials(source):
    answers = {"/token": lambda request: {"access_token": "tok-1234567"}, "/items": lambda request: Response(b"", 401)}
    with serving(Api(answers)) as api:
        result = source.read(form(api, listing(), credentials=oauth(api), max_retries=3))
    (error,) = traced(result)
    assert error["failure_type"] == "config_error"
    assert len(api.of("/items")) == 2


# --- check, discover ------------------------------------------------------------------------------------------------


def failed(result):
    status = result.of("CONNECTION_STATUS")[0]["connectionStatus"]
    assert status["status"] == "FAILED"
    assert result.exit_code == 0
    assert result.stderr == b""
    return status["message"]


def test_check_reads_the_first_page_of_the_first_stream_without_a_parent(process):
    users, orders = family()
    with serving(Api({"/users": lambda request: {"data": [{"id": 1}]}})) as api:
        result = process.run("check", form(api, orders, users))
    assert result.of("CONNECTION_STATUS")[0]["connectionStatus"]["status"] == "SUCCEEDED"
    assert [request.path for request in api.requests] == ["/users"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Response(b'{"message": "bad token"}', 401), ["401", "bad token", "Check credentials"]),
        (Response(b"", 403), ["403", "credentials may read"]),
        (Response(b"<html>login</html>", 200, {"Content-Type": "text/html"}), ["text/html", "no JSON"]),
        (Response(b'{"data": [{"id": 1}'), ["no JSON"]),
        (Response(b""), ["no JSON"]),
        (Response(b'{"data": "\xff"}'), ["not UTF-8"]),
        (Response(b'{"meta": 1, "page": 2}'), ["no list of records", "meta, page", "record_path"]),
        (Response(b'{"a": [1], "b": [2]}'), ["several lists (a, b)", "record_path"]),
        (Response(b"7"), ["neither a list nor an object"]),
    ],
)
def test_check_says_what_is_wrong_and_what_to_change(source, answer, words):
    with serving(Api({"/items": lambda request: answer})) as api:
        credentials = {"auth_type": "bearer", "token": SECRET}
        result = source.run("check", form(api, listing(), credentials=credentials))
    message = failed(result)
    assert all(word in message for word in words), message
    assert SECRET.encode() not in result.stdout
    assert b"Traceback" not in result.stdout


def test_a_record_path_that_is_not_there_names_what_is(source):
    with serving(Api({"/items": lambda request: {"results": [], "next": None}})) as api:
        message = failed(source.run("check", form(api, listing(record_path="data.items"))))
    assert "no 'data.items'" in message
    assert "next, results" in message


def test_an_unreachable_host_fails_the_check_soon(source):
    message = failed(source.run("check", {"base_url": "http://127.0.0.1:9", "streams": [listing()]}))
    assert "cannot be reached" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"credentials": {"auth_type": "bearer", "token": 12345}}, "credentials.token"),
        ({"streams": [{"name": "x"}]}, "missing required field `path`"),
    ],
)
def test_a_wrong_form_is_refused_with_the_place(source, change, words):
    result = source.run("check", {"base_url": "http://127.0.0.1:9", "streams": [listing()], **change})
    assert words in failed(result)
    assert b"12345" not in result.stdout


def test_discover_infers_schemas_and_lists_what_cannot_be_sampled(process):
    rows = [{"id": 1, "at": LONG_AGO, "p": {"time": 1517966773840}, "x": None}]
    users, orders = family()
    with serving(
        Api({"/items": lambda request: rows, "/users": lambda request: {"data": []}, "/changes": lambda request: []})
    ) as api:
        items = listing(timestamps=[{"field": "p.time", "format": "epoch_ms"}])
        result = process.run("discover", form(api, items, users, orders, changes(), {"name": "gone", "path": "/gone"}))
    streams = {stream["name"]: stream for stream in result.of("CATALOG")[0]["catalog"]["streams"]}
    assert list(streams) == ["items", "users", "orders", "changes", "gone"]
    properties = streams["items"]["json_schema"]["properties"]
    assert properties["id"] == {"type": ["null", "integer"]}
    assert properties["at"]["airbyte_type"] == "timestamp_with_timezone"
    assert properties["p"]["properties"]["time"]["format"] == "date-time"
    assert properties["x"] == {"type": ["null", "string"]}
    assert streams["items"]["source_defined_primary_key"] == [["id"]]
    assert streams["items"]["supported_sync_modes"] == ["full_refresh"]
    assert streams["changes"]["default_cursor_field"] == ["meta", "updated"]
    assert streams["changes"]["source_defined_cursor"] is True
    assert "updated" in streams["changes"]["json_schema"]["properties"]["meta"]["properties"]
    warnings = [message["log"]["message"] for message in result.of("LOG") if message["log"]["level"] == "WARN"]
    assert any("gone" in text and "404" in text for text in warnings)
    assert any("users" in text and "no records" in text for text in warnings)


def test_discover_fails_if_no_stream_can_be_read(source):
    with serving(Api({})) as api:
        result = source.run("discover", form(api, listing()))
    assert result.exit_code == 1
    assert "No stream can be read" in traced(result)[0]["message"]
    assert len(traced(result)) == 1


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_connection_that_breaks_inside_of_an_answer_is_tried_again(source):
    broken = iter([Response(b'[{"id": 1}', claimed_length=500)])
    with serving(Api({"/items": lambda request: next(broken, FIVE)})) as api:
        result = source.read(form(api, listing(), max_retries=1))
    assert result.exit_code == 0
    assert records(result) == FIVE


def test_a_rate_limit_is_waited_for(source):
    limited = iter([Response(b"{}", 429, {"Retry-After": "1"})])
    with serving(Api({"/items": lambda request: next(limited, FIVE)})) as api:
        result = source.read(form(api, listing(), max_retries=2))
    assert records(result) == FIVE
    assert len(api.requests) == 2
    assert any("answered 429; trying again in" in message["log"]["message"] for message in result.of("LOG"))


def test_a_rate_limit_that_stays_ends_the_stream_with_words_and_tries(source):
    limited = Response(b'{"message": "slow down"}', 429, {"Retry-After": "0"})
    with serving(Api({"/items": lambda request: limited})) as api:
        result = source.read(form(api, listing(), max_retries=1))
    (error,) = traced(result)
    assert error["failure_type"] == "transient_error"
    assert "429: slow down. It limits the rate. Tried 2 times." in error["message"]


def test_an_answer_larger_than_the_limit_ends_the_stream(source):
    body = json.dumps([{"id": 1, "text": "x" * 2_000_000}]).encode()
    with serving(Api({"/items": lambda request: Response(body)})) as api:
        result = source.read(form(api, listing(), max_response_mb=1))
    assert "max_response_mb (1)" in traced(result)[0]["message"]


def test_no_content_is_an_empty_page(source):
    with serving(Api({"/items": lambda request: Response(b"", 204, {})})) as api:
        result = source.read(form(api, listing()))
    assert result.exit_code == 0
    assert records(result) == []


@pytest.mark.parametrize("order", [{}, {"is_ascending": True}, {"newest_first": True}])
def test_a_cursor_of_another_format_is_an_error_without_its_value(source, order):
    with serving(Api({"/changes": lambda request: [change(1, "secret value")]})) as api:
        result = source.read(form(api, changes(**order)))
    assert result.exit_code == 1
    assert "Set cursor_format" in traced(result)[0]["message"]
    assert b"secret value" not in result.stdout


def test_an_unknown_stream_of_the_catalog_is_an_error(source):
    with serving(Api({"/items": lambda request: FIVE})) as api:
        result = source.read(form(api, listing()), "items", "nope")
    assert result.exit_code == 1
    assert "nope" in traced(result)[0]["message"]
    assert result.of("RECORD") == []


def test_secrets_in_headers_are_masked_and_no_body_is_logged(source):
    def answer(request):
        return Response(json.dumps({"message": f"no {SECRET}", "email": "jane@example.com"}).encode(), 400)

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(headers=[{"name": "X-Secret", "value": SECRET}])))
    assert result.exit_code == 1
    assert SECRET.encode() not in result.stdout + result.stderr
    assert b"jane@example.com" not in result.stdout + result.stderr
    assert re.search(r"400: no \*+", traced(result)[0]["message"])


@pytest.mark.parametrize("name", ["config", "catalog", "state"])
def test_a_file_that_is_no_json_is_named(process, name):
    documents = {
        "config": {"base_url": "http://127.0.0.1:9", "streams": [listing()]},
        "catalog": {"streams": [configured(listing())]},
        "state": [],
    }
    documents[name] = "{broken"
    result = process.run("read", documents["config"], catalog=documents["catalog"], state=documents["state"])
    assert result.exit_code == 1
    assert name in traced(result)[0]["message"]
    assert result.stderr == b""


def test_an_api_that_does_not_answer_in_time_is_an_error_that_may_pass(source):
    def answer(request):
        time.sleep(3)
        return FIVE

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(), timeout_seconds=1))
    assert result.exit_code == 1
    (error,) = traced(result)
    assert error["failure_type"] == "transient_error"
    assert "did not answer in time" in error["message"]
    assert "timeout_seconds" in error["message"]


def test_the_source_ends_at_once_when_nobody_reads_any_more(process):
    rows = [{"id": number, "text": "x" * 1000} for number in range(1000)]
    with serving(Api({"/items": lambda request: [*rows, {"page": request.query["page"]}]})) as api:
        config = form(api, listing(pagination={"pagination_type": "page"}))
        arguments = process.arguments("read", config, catalog={"streams": [configured(listing())]})
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain_environment())
        assert process.stdout is not None
        while b"RECORD" not in process.stdout.readline():
            pass
        process.stdout.close()
        stderr = process.stderr.read() if process.stderr else b""
        assert process.wait(timeout=10) == 1
        assert process.stderr is not None
        process.stderr.close()
    assert stderr == b""


def test_lines_stay_whole_when_stdout_has_no_buffer(process):
    rows = [{"id": number, "text": "x" * 2000} for number in range(3000)]
    streams = [{"name": f"s{number}", "path": "/items"} for number in range(6)]
    with serving(Api({"/items": lambda request: rows})) as api:
        config = form(api, *streams)
        arguments = process.arguments("read", config, catalog={"streams": [configured(stream) for stream in streams]})
        done = subprocess.run(
            arguments, capture_output=True, check=True, env={**plain_environment(), "PYTHONUNBUFFERED": "1"}
        )
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(message["type"] == "RECORD" for message in messages) == 18_000
