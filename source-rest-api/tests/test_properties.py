"""True of all inputs: paging brings every record once, projections touch what is named, formats lose nothing."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from source_rest_api.body import RecordFinder, clean
from source_rest_api.conditions import Condition
from source_rest_api.form import (
    AutoPages,
    LinkHeader,
    NextUrl,
    Offsets,
    PageNumbers,
    Pagination,
    Stream,
    Tokens,
)
from source_rest_api.formats import TooLarge, from_csv, from_lines, unzipped
from source_rest_api.pagination import Answer, Request, pager_of
from source_rest_api.projection import Projection

BASE = "https://api.example.com/v1"
URL = f"{BASE}/items"


class FakeApi:
    """Pages of at most ``cap`` records, in the way that a kind of pagination expects."""

    def __init__(self, kind: str, count: int, cap: int, *, with_total: bool):
        self._kind, self._count, self._cap, self._with_total = kind, count, cap, with_total

    def answer(self, request: Request) -> Answer:
        begin = self._begin(request)
        rows = [{"id": number} for number in range(begin, min(self._count, begin + self._cap))]
        end = begin + len(rows)
        more = end < self._count
        body: dict[str, Any] = {"data": rows, **({"total": self._count} if self._with_total else {})}
        link = None
        match self._kind:
            case "next_url":
                body["next"] = f"{URL}?at={end}" if more else None
            case "cursor":
                body["next_cursor"] = f"t{end}" if more else None
            case "link_header":
                link = f"/v1/items?at={end}" if more else None
        text = json.dumps(body).encode()
        records = RecordFinder.of("data").find(clean(text), is_first=True)
        edges = (records[-1], records[0]) if records else (None, None)
        return Answer(request.url or URL, text, len(rows), link, {}, *edges)

    def _begin(self, request: Request) -> int:
        if request.url is not None:
            return int(request.url.partition("at=")[2])
        match self._kind:
            case "page":
                return (int(request.params["page"]) - 1) * self._cap
            case "offset":
                return int(request.params["offset"])
            case _:
                return int(request.params.get("cursor", "t0")[1:])


def brought(kind: str, pagination: Pagination, api: FakeApi, most: int) -> list[int]:
    pager = pager_of(pagination, BASE)
    request: Request | None = pager.first()
    found: list[int] = []
    for _ in range(most):
        if request is None:
            return found
        answer = api.answer(request)
        found += [row["id"] for row in json.loads(answer.body)["data"]]
        request = pager.next(answer)
    raise AssertionError(f"{kind} does not end")


KINDS: dict[str, Pagination] = {
    "page": PageNumbers(page_size=3),
    "offset": Offsets(page_size=3),
    "cursor": Tokens(token_path="next_cursor"),
    "next_url": NextUrl(),
    "link_header": LinkHeader(),
}


@pytest.mark.parametrize("kind", KINDS)
@given(count=st.integers(0, 40), cap=st.integers(1, 12), with_total=st.booleans())
def test_every_record_is_brought_once_however_the_api_caps_its_pages(kind, count, cap, with_total):
    api = FakeApi(kind, count, cap, with_total=with_total)
    pagination = KINDS[kind]
    if with_total:
        pagination = msgspec.structs.replace(pagination, total_path="total")
    assert brought(kind, pagination, api, most=count + 3) == list(range(count))


@pytest.mark.parametrize("kind", ["cursor", "next_url", "link_header"])
@given(count=st.integers(0, 40), cap=st.integers(1, 12))
def test_what_is_detected_brings_every_record_once(kind, count, cap):
    api = FakeApi(kind, count, cap, with_total=False)
    assert brought(kind, AutoPages(), api, most=count + 3) == list(range(count))


# --- projections ----------------------------------------------------------------------------------------------------

names = st.sampled_from("abc")
scalars = st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.text(max_size=3)
records = st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=10)
paths = st.lists(st.lists(names, min_size=1, max_size=3).map(".".join), min_size=1, max_size=3, unique=True)


def leaves(value: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every scalar and empty object by its path."""
    if isinstance(value, dict) and value:
        return {path: leaf for name, inner in value.items() for path, leaf in leaves(inner, (*above, name)).items()}
    return {above: value}


def apart(chosen: list[str]) -> bool:
    return not any(one != other and other.startswith(f"{one}.") for one in chosen for other in chosen)


def projected(record: dict[str, Any], **stream: Any) -> Any:
    made = Projection(Stream(name="s", path="", **stream))
    (found,) = made.records([msgspec.Raw(json.dumps(record).encode())], {})
    return json.loads(found)


@given(st.dictionaries(names, records, max_size=3), paths)
def test_a_selection_has_what_is_named_and_nothing_else(record, chosen):
    assume(apart(chosen))
    kept = {path: leaf for path, leaf in leaves(projected(record, select_fields=chosen)).items() if leaf != {}}
    wanted = {
        path: leaf
        for path, leaf in leaves(record).items()
        if leaf != {} and any(path[: len(keys)] == keys for keys in (tuple(one.split(".")) for one in chosen))
    }
    assert kept == wanted


@given(st.dictionaries(names, records, max_size=3), paths)
def test_what_is_dropped_is_gone_and_all_else_is_as_it_was(record, dropped):
    assume(apart(dropped))
    kept = {path: leaf for path, leaf in leaves(projected(record, drop_fields=dropped)).items() if leaf != {}}
    wanted = {
        path: leaf
        for path, leaf in leaves(record).items()
        if leaf != {} and not any(path[: len(keys)] == keys for keys in (tuple(one.split(".")) for one in dropped))
    }
    assert kept == wanted


PAGES = st.lists(st.lists(st.dictionaries(names | st.text(max_size=2), records, max_size=4), max_size=3), max_size=8)


@given(PAGES, st.lists(names, min_size=1, max_size=2, unique=True))
def test_a_page_is_projected_as_its_records_are_one_by_one(pages, dropped):
    made = Projection(Stream(name="s", path="", drop_fields=dropped))
    for page in pages:
        texts = [msgspec.Raw(json.dumps(record).encode()) for record in page]
        found = made.records(texts, {})
        assert [json.loads(one) for one in found] == [json.loads(made.record(text, {})) for text in texts]
        assert [json.loads(one) for one in found] == [
            {name: value for name, value in record.items() if name not in dropped} for record in page
        ]


def test_a_field_that_comes_late_or_in_every_record_anew_is_there_like_all_others():
    made = Projection(Stream(name="s", path="", drop_fields=["x"]))
    for number in range(20):
        page = [msgspec.Raw(b'{"x":1,"n":1.10,"new %d":[{"x":1}]}' % number)] * 2
        assert made.records(page, {}) == [b'{"n":1.10,"new %d":[{"x":1}]}' % number] * 2


def test_more_fields_than_are_learned_and_names_that_no_struct_can_have_are_kept():
    for record in ({f"f{number}": number for number in range(300)}, {'a"b': 1, "c\\d": 2, "\x01": 3}):
        made = Projection(Stream(name="s", path="", drop_fields=["x"]))
        page = [msgspec.Raw(json.dumps({**record, "x": 0}).encode())]
        for _ in range(3):
            assert [json.loads(one) for one in made.records(page, {})] == [record]


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False).map(str))
def test_a_projection_keeps_the_text_of_numbers(number):
    made = Projection(Stream(name="s", path="", drop_fields=["x"]))
    text = str(number).replace("E+", "e").replace("E", "e")
    assume(json.loads(text) is not None)
    assert made.record(msgspec.Raw(f'{{"x":1,"n":{text}}}'.encode()), {}) == f'{{"n":{text}}}'.encode()


# --- formats --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4), st.integers(0, 4000))
def test_a_gzip_file_of_any_members_is_unzipped_or_refused_by_its_size(parts, limit):
    whole = b"".join(parts)
    packed = b"".join(gzip.compress(part, mtime=0) for part in parts)
    if len(whole) <= limit:
        assert unzipped(packed, limit) == whole
    else:
        with pytest.raises(TooLarge):
            unzipped(packed, limit)


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@given(st.lists(cells, min_size=2, max_size=4, unique=True), st.data(), st.sampled_from(",;\t|"))
def test_csv_that_any_writer_wrote_is_read_as_it_was(header, data, delimiter):
    rows = data.draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=4))
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([header, *rows])
    found = [json.loads(bytes(record)) for record in from_csv(out.getvalue().encode(), delimiter)]
    assert found == [dict(zip(header, row, strict=True)) for row in rows]


@given(st.lists(st.dictionaries(st.text(max_size=3), records, max_size=3), max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_lines_of_json_are_read_as_they_are(rows, end):
    body = end.join(json.dumps(row) for row in rows).encode()
    assert [json.loads(bytes(record)) for record in from_lines(body)] == rows


@given(st.dictionaries(st.sampled_from(["id", "items", "get", "x"]), st.integers(0, 5), min_size=1))
def test_a_condition_sees_exactly_the_fields_of_its_record(record):
    for name in ("id", "items", "get", "x"):
        assert Condition(f"record.{name} == 3").holds(record=record) is (record.get(name) == 3)
