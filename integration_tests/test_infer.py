"""``infer`` against APIs of many shapes over real sockets: what it concludes, on what evidence, what it leaves open.

Each configuration is then read by the connector itself: it must give every record of the API.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_rest_api import commands

from integration_tests.rest_api import Answer, Api, InProcess, Request, Response, kept, records, serving

SECRET = "s3cr3t-t0k3n-9876543210"
Row = dict[str, Any]


def row(number: int) -> Row:
    """Made in one order and changed in another one, so that the two times can be told apart."""
    return {
        "id": number,
        "name": f"name {number % 4}",
        "created_at": f"2024-01-{number % 28 + 1:02d}T00:00:00Z",
        "updated_at": f"2024-03-{(number * 11) % 28 + 1:02d}T{number % 24:02d}:00:00Z",
    }


ROWS = [row(number) for number in range(1, 26)]


def inferred(url: str, *arguments: str) -> tuple[int, Any, str, str]:
    """Exit code, configuration, stream's settings as JSON text, and what was said."""
    out, said = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", said)
        patch.setenv("COLUMNS", "1000")
        code = commands.main(["infer", url, *arguments], out)
    config = json.loads(out.getvalue()) if out.getvalue() else None
    return code, config, json.dumps(config["streams"][0]) if config else "", said.getvalue()


def stream_of(config: Any) -> Row:
    (stream,) = config["streams"]
    return dict(stream)


def numbered(param: str, size_param: str, *, first: int = 1, default: int = 10, most: int = 50) -> Answer:
    """Pages by number; what is behind the end is empty."""

    def answer(request: Request) -> Any:
        size = min(most, int(request.query.get(size_param, default)))
        at = (int(request.query.get(param, first)) - first) * size
        return ROWS[max(0, at) : max(0, at + size)]

    return answer


def offset(request: Request) -> Any:
    at, size = int(request.query.get("offset", "0")), int(request.query.get("limit", "10"))
    return {"items": ROWS[at : at + size], "total": len(ROWS)}


def offset_from_one(request: Request) -> Any:
    at, size = int(request.query.get("offset", "1")) - 1, int(request.query.get("limit", "10"))
    return {"items": ROWS[at : at + size]}


def linked(request: Request) -> Response:
    at, size = int(request.query.get("page", "1")), int(request.query.get("per_page", "10"))
    link = f'<{request.path}?page={at + 1}&per_page={size}>; rel="next"'
    headers = {"Link": link} if at * size < len(ROWS) else {}
    return Response(json.dumps(ROWS[(at - 1) * size : at * size]).encode(), headers=headers)


def next_url(request: Request) -> Any:
    at = int(request.query.get("after_row", "0"))
    more = f"/things?after_row={at + 10}" if at + 10 < len(ROWS) else None
    return {"data": ROWS[at : at + 10], "meta": {"next": more}}


def token(place: str, param: str) -> Answer:
    def answer(request: Request) -> Any:
        at = int(request.query.get(param, "t0")[1:])
        more = f"t{at + 10}" if at + 10 < len(ROWS) else None
        return {"data": ROWS[at : at + 10], place: more}

    return answer


def everything(_: Request) -> Any:
    return {"things": ROWS, "count": len(ROWS)}


def only(names: Sequence[str], inner: Answer) -> Answer:
    """An API that refuses parameters it does not know."""

    def answer(request: Request) -> Any:
        if set(request.query) - set(names):
            return Response(b'{"message": "unknown parameter"}', 400)
        return inner(request)

    return answer


def behind_the_last(param: str, **around: Callable[[int], Any]) -> Answer:
    """As Stripe pages."""

    def answer(request: Request) -> Any:
        at = int(request.query.get(param, "0"))  # ids count from 1
        size = int(request.query.get("limit", "10"))
        return {"data": ROWS[at : at + size], **{name: value(at + size) for name, value in around.items()}}

    return answer


PAGING: Mapping[str, tuple[Answer, Mapping[str, Any]]] = {
    "link header": (linked, {"pagination_type": "link_header", "size_param": "per_page", "page_size": 100}),
    "next URL": (next_url, {"pagination_type": "next_url", "next_path": "meta.next"}),
    "token": (token("next_cursor", "cursor"),
              {"pagination_type": "cursor", "token_path": "next_cursor", "token_param": "cursor"}),
    "token by another name": (token("next_cursor", "page_token"),
                              {"pagination_type": "cursor", "token_path": "next_cursor", "token_param": "page_token"}),
    "token in an unusual place": (token("bookmark", "bookmark"),
                                  {"pagination_type": "cursor", "token_path": "bookmark", "token_param": "bookmark"}),
    "numbers from 1": (numbered("page", "per_page"), {"pagination_type": "page", "page_param": "page", "start_page": 1,
                                                      "size_param": "per_page", "page_size": 100}),
    "numbers from 0": (numbered("page", "size", first=0), {"pagination_type": "page", "page_param": "page",
                                                           "start_page": 0, "size_param": "size", "page_size": 100}),
    "numbers without a size": (numbered("page", "no size"),
                               {"pagination_type": "page", "page_param": "page", "start_page": 1}),
    "numbers of one page": (numbered("page", "no size", default=50),
                            {"pagination_type": "page", "page_param": "page", "start_page": 1}),
    "offset": (offset, {"pagination_type": "offset", "offset_param": "offset", "start_offset": 0,
                        "size_param": "limit", "page_size": 100}),
    "offset from 1": (offset_from_one, {"pagination_type": "offset", "offset_param": "offset", "start_offset": 1,
                                        "size_param": "limit", "page_size": 100}),
    "key of the last record": (behind_the_last("starting_after", has_more=lambda end: end < len(ROWS)),
                               {"pagination_type": "cursor", "token_field": "id", "token_param": "starting_after",
                                "has_more_path": "has_more", "size_param": "limit", "page_size": 100}),
    "key of the last record alone": (behind_the_last("after_id"),
                                     {"pagination_type": "cursor", "token_field": "id", "token_param": "after_id",
                                      "size_param": "limit", "page_size": 100}),
    "unknown parameters refused": (only(["page", "per_page"], numbered("page", "per_page")),
                                   {"pagination_type": "page", "page_param": "page", "start_page": 1,
                                    "size_param": "per_page", "page_size": 100}),
}  # fmt: skip


@pytest.mark.parametrize("shape", PAGING)
def test_paging_is_proved_and_the_configuration_reads_every_record(shape: str, tmp_path: Path):
    answer, wanted = PAGING[shape]
    with serving(Api({"/things": answer})) as api:
        code, config, _, said = inferred(f"{api.url}/things")
        assert code == 0, said
        assert len(api.requests) <= 25
        assert stream_of(config)["pagination"] == wanted, said
        assert stream_of(config)["primary_key"] == ["id"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert commands.main(["validate", str(tmp_path / "config.json")], io.StringIO()) == 0
        result = InProcess(tmp_path).read(config)
    assert sorted(found["id"] for found in records(result)) == [found["id"] for found in ROWS]


@dataclass(frozen=True)
class Drawn:
    """An API as somebody may have built it."""

    kind: str
    param: str
    size_param: str
    default: int
    rows: int
    refuses: bool

    def __call__(self, request: Request) -> Any:
        if self.refuses and set(request.query) - {self.param, self.size_param}:
            return Response(b"{}", 400)
        size = max(1, int(request.query.get(self.size_param, self.default)))
        number = int(request.query.get(self.param, {"page": "1"}.get(self.kind, "0")))
        at = {"page": (number - 1) * size, "page from 0": number * size, "none": 0}.get(self.kind, number)
        found = ROWS[: self.rows][max(0, at) :][:size]
        if self.kind == "none":
            return ROWS[: self.rows]
        if self.kind == "token":
            return {"data": found, "next_cursor": at + size if at + size < self.rows else None}
        return found


APIS = st.builds(
    Drawn,
    kind=st.sampled_from(["page", "page from 0", "offset", "token", "last key", "none"]),
    param=st.sampled_from(
        ["page", "p", "offset", "skip", "start", "cursor", "after", "starting_after", "mine", "from"]
    ),
    size_param=st.sampled_from(["limit", "per_page", "size", "_limit", "count", "my_size"]),
    default=st.integers(1, 12),
    rows=st.integers(0, len(ROWS)),
    refuses=st.booleans(),
)


@given(api=APIS)
@settings(max_examples=20)
def test_whatever_the_api_a_configuration_that_says_how_it_pages_reads_every_record(api: Drawn):
    with serving(Api({"/things": api})) as served, tempfile.TemporaryDirectory() as folder:
        code, config, _, said = inferred(f"{served.url}/things")
        assert code == 0, said
        assert len(served.requests) <= 25
        result = InProcess(Path(folder)).read(config)
    if api.kind == "none" or "pagination" in stream_of(config):
        assert [found["id"] for found in records(result)] == [found["id"] for found in ROWS[: api.rows]], said


def test_an_api_without_pages_is_one_answer_and_what_was_tried_is_said():
    with serving(Api({"/things": everything})) as api:
        _, config, text, said = inferred(f"{api.url}/things")
    assert stream_of(config)["record_path"] == "things"
    assert "pagination_type" not in text
    assert "  pagination: not set\n    no other page was found" in said
    assert "  page, page_number, pageNumber," in said
    assert "= 2: nothing changed" in said
    assert "offset, skip, start," in said


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_few_records_of_an_api_that_ignores_everything_prove_nothing(count: int):
    with serving(Api({"/things": lambda _: ROWS[:count]})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "pagination_type" not in text, said
    assert "start_param" not in text, said


def test_an_answer_that_says_there_is_more_leaves_a_gap():
    def first_page_only(_: Request) -> Any:
        return {"data": ROWS[:10], "total": 25}

    with serving(Api({"/things": first_page_only})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "pagination_type" not in text
    assert "  pagination: the answer says that there is more (total): look into the API's documentation" in said


def test_a_size_alone_is_no_paging_and_is_said():
    with serving(Api({"/things": lambda request: ROWS[: int(request.query.get("limit", "10"))]})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "pagination_type" not in text
    assert "pagination: 'limit' is known and nothing that leads on: these 10 records may not be all" in said


def test_names_that_do_something_together_only_are_no_parameter():
    def answer(request: Request) -> Any:
        return ROWS[:2] if {"limit", "size"} <= request.query.keys() else ROWS

    with serving(Api({"/things": answer})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "size_param" not in text
    assert "limit = 2: nothing changed" in said


def test_a_next_page_that_is_the_first_one_proves_nothing():
    def circle(request: Request) -> Any:
        return {"data": ROWS, "next": f"/things?n={int(request.query.get('n', '0')) + 1}"}

    with serving(Api({"/things": circle})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "pagination_type" not in text
    assert "next URL at 'next': it leads to no other records" in said


@pytest.mark.parametrize(
    ("behind", "body", "wanted"),
    [
        (Response(b'{"detail": "no such page"}', 404), {"has_more": True}, {"has_more_path": "has_more"}),
        (Response(b'{"detail": "no such page"}', 404), {"total_pages": 3}, {"total_pages_path": "total_pages"}),
        (None, {"total": 250}, {"total_path": "total"}),
        (None, {"is_last": True}, {"is_last_path": "is_last"}),
        (None, {}, {"stop_when_shorter": True}),
    ],
    ids=["has_more", "total_pages", "total, the last page again", "is_last", "a shorter page"],
)
def test_an_api_without_an_empty_page_behind_its_last_one_ends_by_a_stop_rule(
    behind: Response | None, body: Row, wanted: Row, tmp_path: Path
):
    rows = [row(number) for number in range(1, 251)]

    def answer(request: Request) -> Any:
        size, number = int(request.query.get("limit", "10")), int(request.query.get("page", "1"))
        last = -(-len(rows) // size)
        if number > last and behind is not None:
            return behind
        at = min(number, last) * size
        now = {"has_more": at < len(rows), "is_last": at >= len(rows), "total_pages": last}
        around = {name: now.get(name, value) for name, value in body.items()}
        return {"data": rows[at - size : at], **around}

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
        assert wanted.items() <= stream_of(config)["pagination"].items(), said
        result = InProcess(tmp_path).read(config)
    assert [found["id"] for found in records(result)] == [found["id"] for found in rows]


def test_an_end_that_cannot_be_known_is_a_gap():
    def answer(request: Request) -> Any:
        number = int(request.query.get("page", "1"))
        return ROWS[(number - 1) * 10 : number * 10] if number <= 3 else Response(b"{}", 404)

    with serving(Api({"/things": answer})) as api:
        _, _, _, said = inferred(f"{api.url}/things")
    assert "page=4000 was refused with 404: find out how the last page is known, and set a stop rule" in said


def test_random_records_prove_nothing():
    dice = random.Random(7)

    def answer(_: Request) -> Any:
        return dice.sample(ROWS, 5)

    with serving(Api({"/things": answer})) as api:
        _, _, text, said = inferred(f"{api.url}/things", "--requests", "60")
    assert "pagination_type" not in text, said
    assert "start_param" not in text, said


def test_records_without_a_key_that_are_others_each_time_cannot_be_told_apart():
    ticks = itertools.count()
    with serving(Api({"/things": lambda _: [{"kind": "a", "age": next(ticks)} for _ in range(4)]})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "pagination_type" not in text
    assert "records are others each time they are asked for" in said


def test_numbers_that_do_not_begin_with_the_first_page_prove_nothing():
    def answer(request: Request) -> Any:  # the last page unless asked otherwise
        number = int(request.query.get("page", "5"))
        return ROWS[(number - 1) * 5 : number * 5] if number else Response(b"{}", 400)

    with serving(Api({"/things": answer})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert "pagination_type" not in text
    assert "page = 0, 1, 2: they are not the first pages" in said


def test_a_page_that_is_there_however_far_one_goes_needs_no_end():
    def answer(request: Request) -> Any:
        at, size = int(request.query.get("page", "1")) - 1, int(request.query.get("per_page", "10"))
        return [{"id": number} for number in range(at * size, (at + 1) * size)]

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["pagination"]["page_param"] == "page"
    assert "ends reading" not in said


def test_a_large_size_that_is_refused_is_not_set():
    def answer(request: Request) -> Any:
        if int(request.query.get("per_page", "10")) > 50:
            return Response(b"{}", 422)
        return numbered("page", "per_page")(request)

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["pagination"] == {"pagination_type": "page", "page_param": "page", "start_page": 1}
    assert "per_page=2 gave 2 records, and per_page=100 refused with 422: the API's own size is taken" in said


def test_what_the_user_asks_for_is_not_replaced_by_what_is_tried():
    with serving(Api({"/things": everything})) as api:
        _, config, _, _ = inferred(f"{api.url}/things?from=EUR&after=b&start=c&begin=d")
        assert {request.query["from"] for request in api.requests} == {"EUR"}
    assert len(stream_of(config)["query_params"]) == 4


def test_what_the_url_says_of_paging_is_tried_first_and_becomes_the_pagination():
    with serving(Api({"/things": numbered("p", "count")})) as api:
        _, config, _, said = inferred(f"{api.url}/things?p=2&count=5&kind=a&page_token=abc")
        shown = [request.query for request in api.requests]
    assert stream_of(config)["pagination"] == {"pagination_type": "page", "page_param": "p", "start_page": 1,
                                               "size_param": "count", "page_size": 5}  # fmt: skip
    assert stream_of(config)["query_params"] == [{"name": "kind", "value": "a"}]
    assert shown[0] == {"kind": "a", "count": "5"}
    assert "page_token of the URL led to one page and is left out" in said


def test_what_looks_like_paging_and_is_none_stays_a_parameter():
    with serving(Api({"/things": everything})) as api:
        _, config, _, _ = inferred(f"{api.url}/things?page=7&limit=5")
    assert stream_of(config)["query_params"] == [{"name": "limit", "value": "5"}, {"name": "page", "value": "7"}]


# --- where the records are ------------------------------------------------------------------------------------------


PLACES: Mapping[str, tuple[Any, str, str]] = {
    "the answer": (ROWS, ".", "the answer is the list itself"),
    "the only list": ({"things": ROWS, "took": 3}, "things", "the only list in the answer"),
    "well known": ({"tags": [{"a": 1}] * 30, "data": ROWS}, "data", "the one whose name APIs give to their records"),
    "deep": ({"response": {"body": {"things": ROWS}}, "x": [1]}, "response.body.things", "the only list of objects"),
    "longest": ({"errors": [{"a": 1}], "things": ROWS}, "things", "the one that is least deep, or longest; also there: "
                                                                  "errors (1)"),
    "map": ({"rates": {found["updated_at"]: found for found in ROWS}}, "rates.*", "25 objects that are alike"),
    "one record": ({"id": 7, "things": ROWS}, ".", "so that it is one record; also there: things (25)"),
    "no list": ({"name": "x", "size": 3}, ".", "there is no list in it"),
    "a list of texts": ({"name": "x", "words": ["a", "b"]}, ".", "its lists hold no objects; also there: words (2)"),
    "empty": ({"things": [], "total": 0}, "things", "the only list in the answer, and it is empty"),
    "in a list": ([{"page": 1, "pages": 1}, ROWS], "1", "the only list of objects in the answer; also there: . (2)"),
    "texts": (["a", "b"], ".", "the answer is the list itself; its entries are no objects"),
    "links are no map": ({"_links": {"self": {"href": "x"}, "next": {"href": None}}, "things": ROWS}, "things", "only"),
}  # fmt: skip


@pytest.mark.parametrize("shape", PLACES)
def test_the_place_of_the_records_is_found_with_its_reason(shape: str):
    body, wanted, reason = PLACES[shape]
    with serving(Api({"/things": lambda _: body})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["record_path"] == wanted
    (at,) = [at for at, line in enumerate(said.splitlines()) if line == f"  record_path: {wanted}"]
    assert reason in said.splitlines()[at + 1]


@pytest.mark.parametrize(
    ("kind", "body", "format_"),
    [
        ("text/csv", b"id,name\n1,a\n2,b\n3,c\n", "csv"),
        ("application/x-ndjson", b'{"id": 1}\n{"id": 2}\n{"id": 3}\n', "jsonl"),
    ],
)
def test_lines_are_known_by_the_type_of_the_answer(kind: str, body: bytes, format_: str, tmp_path: Path):
    with serving(Api({"/things": lambda _: Response(body, headers={"Content-Type": kind})})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
        assert stream_of(config)["format"] == format_, said
        assert len(records(InProcess(tmp_path).read(config))) == 3


def test_one_record_shows_a_key_and_nothing_else():
    with serving(Api({"/things/7": lambda _: ROWS[7]})) as api:
        _, config, _, said = inferred(f"{api.url}/things/7")
        assert len(api.requests) == 2
    assert stream_of(config) == {"name": "things", "path": "/things/7", "record_path": ".", "primary_key": ["id"]}
    assert "unique and never null in the only record: no proof" in said
    assert "less than two records show no cursor" in said


def test_an_api_that_cannot_be_reached_was_tried_twice():
    _, _, _, said = inferred("http://127.0.0.1:9/things")
    assert said == (
        "error: Stream 'things': GET http://127.0.0.1:9/things cannot be reached. Check base_url and the network. "
        "Tried 2 times.\n"
    )


def test_entries_that_are_no_objects_leave_a_gap():
    with serving(Api({"/things": lambda _: {"rows": [[1, "a"], [2, "b"]]}})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["record_path"] == "rows"
    assert "primary_key" not in stream_of(config)
    assert "pagination" not in stream_of(config)
    assert "record_path: its entries are no objects: look for a parameter of the API" in said


def test_an_empty_list_leaves_open_what_cannot_be_seen():
    with serving(Api({"/things": lambda _: []})) as api:
        code, config, _, said = inferred(f"{api.url}/things")
        assert len(api.requests) == 2
    assert code == 0
    assert stream_of(config) == {"name": "things", "path": "/things", "record_path": "."}
    assert "it has no records: how it pages, its key and its cursor can be seen when it has" in said


# --- what is new ----------------------------------------------------------------------------------------------------


def since(param: str, field: str = "updated_at", *, rows: Sequence[Row] = ROWS, strict: bool = False) -> Answer:
    """All rows, or those from a moment on."""

    def answer(request: Request) -> Any:
        after = request.query.get(param, "")
        return [found for found in rows if (found[field] > after if strict else found[field] >= after)]

    return answer


@pytest.mark.parametrize(
    "param", ["since", "updated_after", "updated_at_gte", "updated_at__gte", "updated_at[gte]", "from"]
)
def test_a_parameter_for_what_is_new_is_proved_and_used_by_the_second_sync(param: str, tmp_path: Path):
    with serving(Api({"/things": since(param)})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
        assert len(api.requests) <= 25
        assert stream_of(config)["incremental"] == {"incremental_type": "datetime", "cursor_field": "updated_at",
                                                    "start_param": param}, said  # fmt: skip
        assert f"asked with {param}=2024-03-" in said
        source = InProcess(tmp_path)
        first = source.read(config)
        second = source.read(config, state=kept(first))
        assert api.requests[-1].query[param] == max(found["updated_at"] for found in ROWS)
    assert len(records(first)) == len(ROWS)
    assert records(second) == []


@pytest.mark.parametrize(
    ("change", "param", "wanted"),
    [
        (lambda text: text[:10], "start_date", {"request_format": "%Y-%m-%d"}),
        (lambda text: text.rstrip("Z"), "since", {"request_format": "%Y-%m-%dT%H:%M:%S"}),
        (lambda text: text.replace("T", " ").rstrip("Z"), "since", {"request_format": "%Y-%m-%d %H:%M:%S"}),
        (lambda text: int(text[5:7]) * 2_592_000 + int(text[8:10]) * 86_400 + 1_700_000_000, "since",
         {"cursor_format": "epoch_s"}),
    ],
    ids=["dates", "times without a zone", "times with a space", "epochs"],
)  # fmt: skip
def test_the_parameter_is_written_as_the_field_is(change: Callable[[str], Any], param: str, wanted: Row):
    rows = [{**found, "updated_at": change(found["updated_at"])} for found in ROWS]

    def answer(request: Request) -> Any:
        after = request.query.get(param)
        if after is None:
            return rows
        return [found for found in rows if found["updated_at"] >= type(found["updated_at"])(after)]

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["incremental"] == {"incremental_type": "datetime", "cursor_field": "updated_at",
                                                "start_param": param, **wanted}, said  # fmt: skip


def test_a_parameter_that_takes_dates_only_gets_dates():
    def answer(request: Request) -> Any:
        after = request.query.get("updated_since")
        if after and len(after) != 10:
            return Response(b'{"message": "no date"}', 400)
        return [found for found in ROWS if found["updated_at"] >= (after or "")]

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things", "--requests", "60")
    assert stream_of(config)["incremental"]["request_format"] == "%Y-%m-%d", said


def test_an_api_that_leaves_out_the_very_moment_is_asked_from_a_second_before():
    with serving(Api({"/things": since("since", strict=True)})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["incremental"]["lookback"] == "PT1S"
    assert "and none of that very moment, so that PT1S is asked for again" in said


def test_a_parameter_that_filters_by_another_time_is_no_proof():
    # Old records that changed would be left out: since means when they were made.
    with serving(Api({"/things": since("since", "created_at")})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["incremental"] == {"incremental_type": "datetime", "cursor_field": "updated_at"}
    assert "no parameter is known that asks for what is new: all are read, and old ones left out here" in said


def test_a_parameter_that_leaves_out_newer_ones_is_no_proof():
    # It means when they were made, which the records do not show.
    def answer(request: Request) -> Any:
        since = request.query.get("since", "")
        shown = [{name: found[name] for name in ("id", "updated_at")} for found in ROWS if found["updated_at"] >= since]
        return shown[1:] if since else shown

    with serving(Api({"/things": answer})) as api:
        _, _, text, _ = inferred(f"{api.url}/things")
    assert "updated_at" in text
    assert "start_param" not in text


@pytest.mark.parametrize("means", ["changed", "made", "changed, and many are new"])
def test_a_full_page_of_new_ones_is_looked_behind_by_a_later_value(means: str):
    """When they were made is not shown; what was made long ago and changed lately must be in the answers too."""
    made = [n + 8 if n <= 20 else 15 + n % 10 for n in range(1, 201)]
    changed = [31 if n == 2 or (n >= 20 and "many" in means) else day for n, day in enumerate(made)]
    days = made if means == "made" else changed

    def answer(request: Request) -> Any:
        since = request.query.get("since", "")
        chosen = [n for n, day in enumerate(days) if f"2024-03-{day:02d}T00:00:00Z" >= since]
        return [{"id": n, "updated_at": f"2024-03-{changed[n]:02d}T00:00:00Z"} for n in chosen][:20]

    with serving(Api({"/things": answer})) as api:
        _, _, text, said = inferred(f"{api.url}/things")
    assert ("start_param" in text) is (means != "made"), said
    assert ("always a full page: see in the documentation that since means updated_at" in said) is ("many" in means)
    assert ("newer records are missing, so that it means another time" in said) is (means == "made")


def test_newest_first_ends_at_the_first_old_record_if_it_is_the_change_that_orders():
    rows = sorted(ROWS, key=lambda found: str(found["updated_at"]), reverse=True)
    with serving(Api({"/things": lambda _: rows})) as api:
        _, config, _, _ = inferred(f"{api.url}/things")
    assert stream_of(config)["incremental"]["newest_first"] is True


def test_an_order_that_may_be_that_of_creation_is_no_reason_to_stop_early():
    rows = [{"id": n, "updated_at": f"2024-03-{n:02d}T00:00:00Z"} for n in range(25, 0, -1)]
    with serving(Api({"/things": lambda _: rows})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["incremental"] == {"incremental_type": "datetime", "cursor_field": "updated_at"}
    assert "newest records come first, but by when they were made as well" in said


def test_a_field_that_some_records_lack_is_proposed_and_not_written():
    rows = [{"id": n, "created_at": ROWS[n]["created_at"], **({"updated_at": ROWS[n]["updated_at"]} if n % 3 else {})}
            for n in range(20)]  # fmt: skip

    def answer(request: Request) -> Any:  # as a database does: what has no value is not newer than any
        since = request.query.get("since")
        return [found for found in rows if since is None or found.get("updated_at", "") >= since]

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert "incremental" not in stream_of(config)
    assert "'updated_at' is a time, but not all records have it: one without may never come again." in said
    assert '"start_param": "since"' in said


def test_times_that_are_all_the_same_show_no_parameter():
    rows = [{"id": n, "updated_at": "2024-01-01T00:00:00Z"} for n in range(4)]
    with serving(Api({"/things": lambda _: rows})) as api:
        _, config, _, _ = inferred(f"{api.url}/things")
        assert not [request for request in api.requests if "since" in request.query]
    assert stream_of(config)["incremental"] == {"incremental_type": "datetime", "cursor_field": "updated_at"}


@pytest.mark.parametrize("more", [0, 9], ids=["a short answer", "a full page of them"])
def test_a_parameter_that_means_that_very_moment_is_no_proof(more: int):
    days = [1, 2, 5, 3, 4, *[3] * more]
    rows = [{"id": number, "updated_at": f"2024-03-0{day}T00:00:00Z"} for number, day in enumerate(days)]

    def answer(request: Request) -> Any:
        at = request.query.get("since")
        return [found for found in rows if at is None or found["updated_at"] == at][:5]

    with serving(Api({"/things": answer})) as api:
        _, _, text, _ = inferred(f"{api.url}/things")
    assert "start_param" not in text


def test_a_time_that_does_not_move_is_a_cursor_of_what_is_written_once_only():
    rows = [{"id": found["id"], "created_at": found["created_at"]} for found in ROWS]
    with serving(Api({"/things": lambda _: rows, "/events": lambda _: rows})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
        assert "incremental" not in stream_of(config)
        assert "  incremental: 'created_at' is a time, but its name does not say that it moves" in said
        _, config, _, _ = inferred(f"{api.url}/events")
    assert stream_of(config)["incremental"]["cursor_field"] == "created_at"


# --- keys -----------------------------------------------------------------------------------------------------------


def test_what_is_unique_by_chance_is_no_key():
    with serving(Api({"/things": lambda _: [{"name": f"n{n}"} for n in range(5)]})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert "primary_key" not in stream_of(config)
    assert "name (unique and never null in 5 of 5 records), but no name says so" in said


def test_a_key_that_repeats_on_the_next_page_is_none():
    def answer(request: Request) -> Any:
        number = int(request.query.get("page", "1"))
        return [{"id": n, "page": number} for n in range(10)] if number < 4 else []

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert "primary_key" not in stream_of(config) or "pagination" not in stream_of(config), said


# --- limits, errors, secrets ----------------------------------------------------------------------------------------


def test_requests_are_counted_and_end_at_the_limit():
    answer = only(["q"], lambda _: ROWS)  # refuses everything that could be tried
    with serving(Api({"/things": answer})) as api:
        code, config, _, said = inferred(f"{api.url}/things?q=x", "--requests", "8")
        assert len(api.requests) <= 8
    assert code == 0
    assert "all 6 requests were made" in said  # two are kept for reading by the configuration
    assert stream_of(config)["incremental"]["cursor_field"] == "updated_at"


@pytest.mark.parametrize("count", range(5, 12))
def test_wherever_the_requests_end_what_was_found_is_kept_and_the_limit_holds(count: int):
    with serving(Api({"/things": numbered("page", "per_page")})) as api:
        code, config, _, said = inferred(f"{api.url}/things?page=1&per_page=5", "--requests", str(count))
        assert len(api.requests) <= count
    assert code == 0, said
    assert stream_of(config)["primary_key"] == ["id"]


def test_requests_that_end_behind_a_proof_do_not_undo_it():
    with serving(Api({"/things": only(["page", "per_page"], linked)})) as api:
        _, config, _, said = inferred(f"{api.url}/things", "--requests", "8")
    assert stream_of(config)["pagination"] == {"pagination_type": "link_header"}
    assert "nothing more about pages: all 6 requests were made" in said


def test_an_api_that_asks_to_wait_is_waited_for():
    seen: list[str] = []

    def answer(request: Request) -> Any:
        seen.append(request.target)
        return Response(b"{}", 429, {"Retry-After": "0"}) if len(seen) == 3 else numbered("page", "per_page")(request)

    with serving(Api({"/things": answer})) as api:
        _, config, _, said = inferred(f"{api.url}/things")
    assert stream_of(config)["pagination"]["page_param"] == "page", said


def test_what_the_api_says_of_its_limit_holds_for_the_next_request_too(tmp_path: Path):
    """One look hands it to the next: otherwise each would begin with a full quota in mind."""

    def nothing_left(request: Request) -> Any:
        headers = {"Content-Type": "application/json", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600"}
        return Response(json.dumps(ROWS).encode(), headers=headers)

    with serving(Api({"/things": nothing_left})) as api:
        code, _, _, said = inferred(f"{api.url}/things")
        assert len(api.requests) == 1
    assert code == 0
    assert "nothing more about pages: Stream 'things': the API has no requests left for 3600 seconds" in said


@pytest.mark.parametrize("good", [1, 3])
def test_an_api_that_refuses_everything_from_some_point_on_ends_the_search(good: int):
    count = iter(range(100))

    def answer(request: Request) -> Any:
        return ROWS if next(count) < good else Response(b'{"message": "who are you?"}', 401)

    with serving(Api({"/things": answer})) as api:
        code, _, _, said = inferred(f"{api.url}/things")
        assert len(api.requests) <= 6
    assert code == 0
    assert "the API answered 401" in said
    assert "the stream: reading it by this configuration ended with:" in said


@pytest.mark.parametrize(
    ("answer", "said_of_it"),
    [
        (Response(b"<html>", 200, {"Content-Type": "text/html"}), "This is a page for people: take the address"),
        (Response(b"<html>", 200, {"Content-Type": "text/html",
                                   "Link": '</things.json>; rel="alternate"; type="application/json"'}),
         "the same is to be had as JSON at {url}/things.json."),
        (Response(b'{"message": "no"}', 401), "Check credentials: the API does not accept them. They are given by "),
        (Response(b"{}", 404), "answered 404. Check base_url and path."),
        (Response(b"", 204), "answered 204 without a body"),
        (Response(b"{", 200, {"Content-Type": "application/x-ndjson"}), "a line that is no JSON"),
        (Response(b"7"), "a single value"),
    ],
    ids=["html", "html with json beside it", "401", "404", "204", "broken lines", "a number"],
)  # fmt: skip
def test_an_answer_that_is_no_stream_is_one_error_and_no_configuration(answer: Response, said_of_it: str):
    with serving(Api({"/things": lambda _: answer})) as api:
        code, config, _, said = inferred(f"{api.url}/things")
        assert len(api.requests) <= 2
    assert (code, config) == (1, None)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said_of_it.format(url=api.url) in error


CREDENTIALS = {
    "bearer": (["--bearer-env", "TOKEN_OF_TEST"], {"auth_type": "bearer", "token": "<token>"}),
    "key": (["--api-key-env", "TOKEN_OF_TEST", "--api-key-name", "k", "--api-key-in", "query"],
            {"auth_type": "api_key", "name": "k", "inject_into": "query", "api_key": "<api key>"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("as_json", [False, True])
def test_credentials_reach_the_api_and_nothing_else(kind: str, as_json: bool, monkeypatch: pytest.MonkeyPatch):
    arguments, wanted = CREDENTIALS[kind]
    monkeypatch.setenv("TOKEN_OF_TEST", SECRET)

    def echo(request: Request) -> Any:
        assert SECRET in str(request.headers) + request.target
        return [{"id": n, "echo": f"{request.headers} {request.target}"} for n in range(3)]

    with serving(Api({"/things": echo})) as api:
        code, config, _, said = inferred(f"{api.url}/things", *arguments, *(["--json"] if as_json else []))
    assert code == 0
    assert config["credentials"] == wanted
    assert SECRET not in json.dumps(config) + said
    assert list(wanted.values())[-1] in said
    if as_json:
        assert json.loads(said)["requests"][0]["records"] == 3


def test_one_token_is_fetched_for_all_requests_and_a_rotated_one_is_kept(tmp_path: Path):
    asked: list[str] = []

    def give(request: Request) -> Any:
        asked.append(request.body.decode())
        return {"access_token": f"access-{len(asked)}-123456", "refresh_token": "rotated-1234567", "expires_in": 3600}

    with serving(Api({"/token": give, "/things": numbered("page", "per_page")})) as api:
        credentials = {"auth_type": "oauth_refresh_token", "token_url": f"{api.url}/token", "client_id": "me",
                       "refresh_token": SECRET,
                       "extra_params": [{"name": "tenant", "value": "our-tenant-7"}]}  # fmt: skip
        (tmp_path / "credentials.json").write_text(json.dumps(credentials))
        _, config, _, said = inferred(f"{api.url}/things", "--credentials", str(tmp_path / "credentials.json"))
    assert len(asked) == 1
    assert json.loads((tmp_path / "credentials.json").read_text())["refresh_token"] == "rotated-1234567"
    assert config["credentials"]["refresh_token"] == "<refresh token>"
    assert config["credentials"]["extra_params"] == [{"name": "tenant", "value": "<tenant>"}]
    shown = json.dumps(config) + said
    assert not [secret for secret in (SECRET, "rotated-1234567", "access-1-123456", "our-tenant-7") if secret in shown]


def test_a_login_is_shown_by_the_names_of_its_fields(tmp_path: Path):
    answers: dict[str, Answer] = {"/login": lambda _: {"token": "session-123456"}, "/things": lambda _: ROWS}
    with serving(Api(answers)) as api:
        credentials = {"auth_type": "session_token", "login_url": f"{api.url}/login",
                       "login_body": json.dumps({"user": "me", "password": SECRET})}  # fmt: skip
        (tmp_path / "credentials.json").write_text(json.dumps({"credentials": credentials}))
        _, config, _, said = inferred(f"{api.url}/things", "--credentials", str(tmp_path / "credentials.json"))
    assert json.loads(config["credentials"]["login_body"]) == {"user": "<user>", "password": "<password>"}
    assert SECRET not in json.dumps(config) + said


def test_headers_go_along_and_into_the_configuration():
    with serving(Api({"/things": lambda _: ROWS})) as api:
        _, config, _, _ = inferred(f"{api.url}/things", "--header", "Accept: application/vnd.things+json")
        assert {request.headers["Accept"] for request in api.requests} == {"application/vnd.things+json"}
    assert config["headers"] == [{"name": "Accept", "value": "application/vnd.things+json"}]


def test_the_configuration_goes_into_a_new_file_only(tmp_path: Path):
    file = tmp_path / "new.json"
    with serving(Api({"/things": lambda _: ROWS})) as api:
        code, config, _, said = inferred(f"{api.url}/things", "--output", str(file), "--name", "mine")
        assert (code, config) == (0, None)
        assert json.loads(file.read_text())["streams"][0]["name"] == "mine"
        assert f"Next: source-rest-api validate {file}" in said
        count = len(api.requests)
        code, _, _, said = inferred(f"{api.url}/things", "--output", str(file))
        assert (code, said) == (1, f"error: {file} is there already. Give --output a new file.\n")
        code, _, _, said = inferred(f"{api.url}/things", "--output", str(tmp_path / "no" / "folder.json"))
        assert code == 1
        assert "cannot be written: No such file or directory." in said
        assert len(api.requests) > count
    assert inferred("http://127.0.0.1:9/", "--requests", "2")[3].startswith("error: --requests is at least 5")


def test_bodies_of_failed_requests_are_not_printed():
    def answer(request: Request) -> Any:
        return ROWS if not request.query else Response(b'{"rows": "a-value-nobody-may-see"}', 400)

    with serving(Api({"/things": answer})) as api:
        _, _, _, said = inferred(f"{api.url}/things")
    assert "refused with 400" in said
    assert "a-value-nobody-may-see" not in said
