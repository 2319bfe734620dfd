"""How the source gets from page to page: detection, stop rules, places of parameters, ceilings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration_tests.rest_api import Api, InProcess, Response, kept, records, serving, traced

FIVE = [{"id": number} for number in range(1, 6)]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def source(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def form(api: Api, *streams, **more):
    return {"base_url": api.url, "streams": list(streams), "max_retries": 0, **more}


def listing(**more):
    return {"name": "items", "path": "/items", **more}


def paged(**more):
    return listing(pagination={"pagination_type": "page", **more})


def logs(result):
    return [message["log"]["message"] for message in result.of("LOG")]


# --- detection ------------------------------------------------------------------------------------------------------


def by_link(api, request):
    page = int(request.query.get("page", "1"))
    link = {"Link": f'<{api.url}/items?page={page + 1}>; rel="next"'} if page < 5 else {}
    return Response(json.dumps(FIVE[page - 1 : page]).encode(), headers={**JSON, **link})


def by_url(place):
    def answer(api, request):
        at = int(request.query.get("at", "0"))
        found: Any = f"{api.url}/items?at={at + 2}" if at < 4 else None
        for key in reversed(place):
            found = {key: found}
        return {"data": FIVE[at : at + 2]} | found

    return answer


def by_token(param, place, last=None):
    def answer(api, request):
        at = int(request.query.get(param, "0"))
        found: Any = str(at + 2) if at < 4 else last
        for key in reversed(place):
            found = {key: found}
        return {"data": FIVE[at : at + 2]} | found

    return answer


def by_number(api, request):
    page = int(request.query.get("page", "1"))
    return {"items": FIVE[page * 2 - 2 : page * 2], "next_page": page + 1 if page < 3 else None, "total": 5}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (by_link, "Link header"),
        (by_url(["next"]), "next URL at 'next'"),
        (by_url(["links", "next"]), "next URL at 'links.next'"),
        (by_url(["_links", "next", "href"]), "next URL at '_links.next.href'"),
        (by_url(["@odata.nextLink"]), "next URL at '@odata.nextLink'"),
        (by_token("cursor", ["meta", "next_cursor"]), "token at 'meta.next_cursor', sent as 'cursor'"),
        (by_token("pageToken", ["nextPageToken"], last=""), "token at 'nextPageToken', sent as 'pageToken'"),
        (by_token("after", ["paging", "next", "after"]), "token at 'paging.next.after', sent as 'after'"),
        (by_number, "token at 'next_page', sent as 'page'"),
        (lambda api, request: FIVE, "single page"),
        (lambda api, request: {"data": FIVE, "next": None, "has_more": False, "total": 5}, "single page"),
    ],
)
def test_how_an_api_pages_is_detected_and_said(source, answer, words):
    with serving(Api({"/items": lambda request: answer(api, request)})) as api:
        result = source.read(form(api, listing()))
        assert records(result) == FIVE
        assert f"Pagination of stream 'items': {words} (detected)" in logs(result)
        status = source.run("check", form(api, listing())).of("CONNECTION_STATUS")[0]["connectionStatus"]
    assert status == {"status": "SUCCEEDED", "message": f"Pagination detected: items: {words}."}


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (lambda at: {"next": f"/items?at={at + 2}" if at < 4 else None}, "next URL at '0.next'"),
        (
            lambda at: {"nextPageToken": str(at + 2) if at < 4 else ""},
            "token at '0.nextPageToken', sent as 'pageToken'",
        ),
    ],
)
def test_what_stands_beside_the_records_in_a_list_leads_on(source, head, words):
    def answer(request):
        at = int(request.query.get("at", request.query.get("pageToken", "0")))
        return [head(at), FIVE[at : at + 2]]

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(record_path="1")))
    assert records(result) == FIVE
    assert f"Pagination of stream 'items': {words} (detected)" in logs(result)


def test_a_list_that_says_there_is_more_but_not_where_is_an_error_unless_it_is_the_records(source):
    with serving(Api({"/items": lambda request: [{"pages": 3, "total": 15}, FIVE]})) as api:
        (error,) = traced(source.read(form(api, listing(record_path="1"))))
        assert "there is more (pages)" in error["message"]
        orders = [{"id": 1, "total": 99, "has_more": True}]
        api.answers["/items"] = lambda request: orders
        assert records(source.read(form(api, listing()))) == orders


@pytest.mark.parametrize(
    ("around", "name"),
    [({"has_more": True}, "has_more"), ({"isLast": False}, "isLast"),
     ({"meta": {"total_pages": 3}}, "meta.total_pages"), ({"total": 6}, "total")],
)  # fmt: skip
def test_an_answer_that_says_there_is_more_but_not_where_is_an_error(source, around, name):
    with serving(Api({"/items": lambda request: {"data": FIVE, **around}})) as api:
        (error,) = traced(source.read(form(api, listing())))
        assert f"there is more ({name})" in error["message"]
        assert "Set pagination" in error["message"]
        assert records(source.read(form(api, listing(pagination={"pagination_type": "none"})))) == FIVE


def test_an_empty_page_with_a_next_url_is_not_the_end(source):
    def answer(request):
        at = int(request.query.get("at", "0"))
        return {"data": FIVE if at == 2 else [], "next": f"/items?at={at + 1}" if at < 3 else None}

    with serving(Api({"/items": answer})) as api:
        assert records(source.read(form(api, listing()))) == FIVE


# --- stop rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "around", "asked"),
    [
        ({}, lambda page: {}, 4),
        ({"has_more_path": "more.yes"}, lambda page: {"more": {"yes": page < 3}}, 3),
        ({"is_last_path": "is.last"}, lambda page: {"is": {"last": page >= 3}}, 3),
        ({"stop_on_empty": False, "is_last_path": "last"}, lambda page: {"last": page >= 6}, 6),
        ({"total_path": "meta.total"}, lambda page: {"meta": {"total": 5}}, 3),
        ({"total_path": "total"}, lambda page: {"total": "5"}, 3),
        ({"total_pages_path": "pages"}, lambda page: {"pages": 3}, 3),
        ({"stop_when_shorter": True}, lambda page: {}, 3),
        ({"max_pages": 3}, lambda page: {}, 3),
        ({"stop_on_empty": False, "has_more_path": "more"}, lambda page: {"more": page < 6}, 6),
    ],
)
def test_reading_ends_by_the_stop_rule_of_the_form(source, rules, around, asked):
    def answer(request):
        page = int(request.query["page"])
        return {"data": FIVE[page * 2 - 2 : page * 2], **around(page)}

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, paged(size_param="n", page_size=2, **rules)))
        assert records(result) == FIVE
        assert len(api.requests) == asked
    assert any("max_pages is reached" in text for text in logs(result)) == ("max_pages" in rules)


@pytest.mark.parametrize(
    ("last", "rules", "count", "is_said"),
    [
        ({"next_cursor": "t3"}, {}, 2, True),  # an empty page on the way, or an API that never stops giving tokens
        ({"next_cursor": "t3"}, {"stop_on_empty": False}, 5, False),
        ({"next_cursor": "t2"}, {}, 2, False),
        ({"next_cursor": ""}, {}, 2, False),
        ({"next_cursor": "t3", "more": False}, {"has_more_path": "more"}, 2, False),
        ({"next_cursor": "t3"}, {"pagination_type": "auto"}, 2, True),
    ],
)
def test_an_empty_page_that_leads_on_is_no_silent_end(source, last, rules, count, is_said):
    answers = {
        "": {"data": FIVE[:2], "next_cursor": "t2", "more": True},
        "t2": {"data": [], **last},
        "t3": {"data": FIVE[2:], "next_cursor": ""},
    }
    pages = {"pagination_type": "cursor", "token_path": "next_cursor", "token_param": "cursor", **rules}
    if pages["pagination_type"] == "auto":
        pages = rules
    with serving(Api({"/items": lambda request: answers[request.query.get("cursor", "")]})) as api:
        result = source.read(form(api, listing(pagination=pages)))
    assert result.exit_code == 0
    assert len(records(result)) == count
    assert any("set stop_on_empty to false" in text for text in logs(result)) == is_said


@pytest.mark.parametrize(("path", "is_more"), [("has_more_path", True), ("is_last_path", False)])
def test_more_that_is_promised_goes_on_behind_an_empty_page(source, path, is_more):
    def answer(request):
        page = int(request.query["page"])
        return {"data": FIVE if page == 2 else [], "flag": is_more if page < 3 else not is_more}

    with serving(Api({"/items": answer})) as api:
        assert records(source.read(form(api, paged(**{path: "flag"})))) == FIVE
        assert len(api.requests) == 3


def test_a_total_that_is_no_number_is_an_error(source):
    with serving(Api({"/items": lambda request: {"data": FIVE, "total": "many"}})) as api:
        (error,) = traced(source.read(form(api, paged(total_path="total"))))
    assert "has no number at 'total'" in error["message"]


@pytest.mark.parametrize("kind", ["cursor", "next_url"])
def test_one_page_for_ever_with_new_tokens_is_an_error(source, kind):
    def answer(request):
        at = len(api.requests)
        return {"data": FIVE, "next": f"/items?at={at}" if kind == "next_url" else f"t{at}"}

    with serving(Api({"/items": answer})) as api:
        pages = {"pagination_type": kind, **({"token_path": "next"} if kind == "cursor" else {})}
        result = source.read(form(api, listing(pagination=pages)))
        assert len(api.requests) == 3
    assert "gave the same page 3 times" in traced(result)[0]["message"]


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["query", "header", "body"])
@pytest.mark.parametrize(
    ("kind", "start"),
    [
        ({"pagination_type": "page", "page_param": "At", "start_page": 0}, "0"),
        ({"pagination_type": "offset", "offset_param": "At"}, "0"),
        ({"pagination_type": "cursor", "token_path": "next", "token_param": "At"}, None),
        ({"pagination_type": "link_header"}, None),
        ({"pagination_type": "next_url"}, None),
        ({"pagination_type": "auto"}, None),
    ],
)
def test_page_parameters_go_into_query_headers_or_body(source, where, kind, start):
    seen = []

    def answer(request):
        place = {"query": request.query, "header": request.headers, "body": json.loads(request.body or b"{}")}[where]
        seen.append((place.get("Size"), place.get("At")))
        is_last = len(seen) > 1
        following = {
            "cursor": {"next": None if is_last else "t1"},
            "next_url": {"next": None if is_last else "/items?p=2"},
        }.get(kind["pagination_type"], {})
        link = {"Link": '</items?p=2>; rel="next"'} if not is_last and "cursor" not in kind.values() else {}
        rows = [] if is_last else FIVE
        return Response(json.dumps({"data": rows, **following}).encode(), headers={**JSON, **link})

    with serving(Api({"/items": answer})) as api:
        pages = {**kind, "size_param": "Size", "page_size": 5, "inject_into": where}
        result = source.read(form(api, listing(method="POST", body='{"q": 1}', pagination=pages)))
        assert records(result) == FIVE
        assert {request.json["q"] for request in api.requests} == {1}
    assert (None if seen[0][1] is None else str(seen[0][1])) == start
    assert str(seen[0][0]) == "5"
    assert len(seen) == 2


# --- ceilings -------------------------------------------------------------------------------------------------------


def searching(rows, most, page_size):
    """An API that serves offsets below ``most`` only, in order of its cursor."""

    def answer(request):
        start = int(request.query["offset"])
        if start + page_size > most:
            return Response(b'{"message": "too deep"}', 400)
        found = [row for row in rows if row["at"][:19] >= request.query.get("since", "")[:19]]
        return {"data": found[start : start + page_size]}

    return answer


def search(most, page_size, **cursor):
    pages = {"pagination_type": "offset", "page_size": page_size, "max_offset": most}
    more = {"incremental": {"incremental_type": "datetime", "cursor_field": "at", **cursor}} if cursor else {}
    return listing(pagination=pages, **more)


def day(number):
    return f"2024-01-{number:02d}T00:00:00Z"


def part_of_second(number):
    return f"2024-01-01T00:00:{number // 3:02d}.{number % 3}Z"


@pytest.mark.parametrize("is_ascending", [False, True])
@pytest.mark.parametrize("moment", [lambda number: day(number // 3 + 1), part_of_second], ids=["days", "parts"])
def test_behind_a_ceiling_a_new_window_begins_at_the_last_value_seen(source, is_ascending, moment):
    # Several records share each value that can be asked for, so that windows meet in the middle of one.
    rows = [{"id": number, "at": moment(number)} for number in range(60)]
    with serving(Api({"/items": searching(rows, most=10, page_size=5)})) as api:
        config = form(api, search(10, 5, start_param="since", is_ascending=is_ascending))
        first = source.read(config)
        assert [row["id"] for row in records(first)] == list(range(60))
        rows += [{"id": 60, "at": moment(59)}, {"id": 61, "at": moment(62)}]
        second = source.read(config, state=kept(first))
    assert [row["id"] for row in records(second)] == [60, 61]


@pytest.mark.parametrize(
    ("rows", "cursor", "words"),
    [
        ([{"id": n, "at": day(1)} for n in range(30)], {}, "Set incremental with a start_param"),
        ([{"id": n, "at": day(1)} for n in range(30)], {"start_param": ""}, "Set incremental with a start_param"),
        ([{"id": n, "at": day(1)} for n in range(30)], {"start_param": "since"}, "at a single value of the cursor"),
        ([{"id": n, "at": day(28 - n)} for n in range(20)], {"start_param": "since"}, "do not come in ascending order"),
    ],
)
def test_a_ceiling_is_never_a_silent_end(source, rows, cursor, words):
    with serving(Api({"/items": searching(rows, most=10, page_size=5)})) as api:
        result = source.read(form(api, search(10, 5, **cursor)))
    assert result.exit_code == 1
    assert words in traced(result)[0]["message"]


def test_a_ceiling_of_page_numbers_counts_records(source):
    pages = {"pagination_type": "page", "size_param": "n", "page_size": 2, "max_offset": 4}

    def answer(request):
        page = int(request.query["page"])
        return {"data": [{"id": page}, {"id": -page}]}

    with serving(Api({"/items": answer})) as api:
        result = source.read(form(api, listing(pagination=pages)))
        assert [request.query["page"] for request in api.requests] == ["1", "2"]
    assert "(max_offset)" in traced(result)[0]["message"]
