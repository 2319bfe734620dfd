"""From bodies to pages: what is found, what is left out, what travels in STATE."""

from __future__ import annotations

import json
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_rest_api.body import BodyError, RecordFinder, clean
from source_rest_api.boundary import BoundaryTracker, Known, known_of
from source_rest_api.form import DatetimeCursor, Stream, Timestamp
from source_rest_api.page import PAGE, Boundary, Budget
from source_rest_api.rows import PageMaker, Window, digest
from source_rest_api.times import to_moment

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), max_size=6)


def raw(*records):
    return [msgspec.Raw(json.dumps(record).encode()) for record in records]


@given(rows, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_record_is_found_with_its_text_whatever_the_layout(records, indent, has_mark):
    body = json.dumps({"page": {"data": records}, "next": None}, indent=indent, ensure_ascii=False)
    data = body.encode("utf-8", "surrogatepass")
    found = RecordFinder.of("page.data").find(clean(b"\xef\xbb\xbf" * has_mark + data), is_first=True)
    assert [json.loads(bytes(item)) for item in found] == records
    assert all(b"\n" not in bytes(item) for item in found)


@pytest.mark.parametrize(
    ("record_path", "body", "count"),
    [
        ("", b"[1, {}]", 2),
        ("", b'{"meta": {}, "features": [{}], "links": []}', 1),
        ("", b'{"meta": 1, "things": [{}, {}]}', 2),
        ("", b'{"response": 1, "data": {"items": [{}]}}', 1),
        ("", b'{"page": {"size": 2}, "_embedded": {"orders": [{}, {}]}}', 2),
        (".", b'{"id": 1}', 1),
        ("data", b'{"data": null}', 0),
        ("data", b'{"data": {"id": 1}}', 1),
        ("data.*", b'{"data": {"a": {}, "b": 2}}', 2),
        ("*", b'{"a": {}, "b": {}}', 2),
        ("a.b.c", b'{"a": {"b": {"c": []}}}', 0),
        ("1", b'[{"page": 1}, [{}, {}, {}], "rest"]', 3),
        ("1", b'[{"page": 1}, null]', 0),
        ("1", b'{"0": [], "1": [{}, {}]}', 2),
        ("data.0.rows", b'{"data": [{"rows": [{}, {}]}, {"rows": [{}]}]}', 2),
        ("data.*.1", b'{"data": [[[{}], [{}, {}]], [[{}]], [0, [{}]]]}', 3),
        ("data.1200", b'{"data": {"1200": [{}]}}', 1),
    ],
)
def test_records_are_found_where_the_form_says_or_where_apis_put_them(record_path, body, count):
    assert len(RecordFinder.of(record_path).find(clean(body), is_first=True)) == count


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,]", b'{"data": [NaN]}', b'{"data": 7}', b'{"other": []}', b'{"data": [{"a": "x\ny"}]}',
     b'{"data": [\xff]}']
)  # fmt: skip
def test_a_body_that_is_not_what_the_form_says_is_an_error(body):
    with pytest.raises(BodyError):
        RecordFinder.of("data").find(clean(body), is_first=True)


def test_a_path_that_is_missing_later_is_an_empty_page():
    finder = RecordFinder.of("data")
    assert len(finder.find(b'{"data": [1]}', is_first=True)) == 1
    assert finder.find(b'{"done": true}', is_first=False) == []


def test_keys_of_an_object_of_records_become_a_field():
    found = RecordFinder.of("data.*").find(b'{"data": {"x": {"n": 1.50}, "y": 7}}', is_first=True)
    assert [bytes(item) for item in found] == [b'{"_key":"x","n":1.50}', b'{"_key":"y","value":7}']
    with pytest.raises(BodyError, match="neither a list nor an object at 'data'"):
        RecordFinder.of("data.*").find(b'{"data": 1}', is_first=True)


@pytest.mark.parametrize("body", [b'[{"message": "no"}]', b"[]", b"[1, 2]"])
def test_a_place_that_a_list_has_not_is_an_error(body):
    with pytest.raises(BodyError, match=r"it has a list at its root|has a single value at '1'"):
        RecordFinder.of("1").find(body, is_first=True)


@given(st.lists(st.text(max_size=4), max_size=4, unique=True), st.integers(0, 4), st.data())
def test_lists_beside_each_other_become_rows_with_the_text_of_the_api(names, count, data):
    rows = [{name: data.draw(json_values) for name in names} for _ in range(count)] if names else []
    columns = {name: [row[name] for row in rows] for name in names}
    body = json.dumps({"hourly": columns, "units": {}}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    found = RecordFinder.of("hourly", in_columns=True).find(clean(body), is_first=True)
    assert [json.loads(bytes(item)) for item in found] == rows


def test_columns_keep_the_digits_of_numbers_and_the_keys_above_them():
    body = b'{"berlin": {"t": [1.50, 12345678901234567890123]}, "rome": {"t": []}, "oslo": null}'
    found = RecordFinder.of("*", in_columns=True).find(body, is_first=True)
    assert [bytes(item) for item in found] == [
        b'{"_key":"berlin","t":1.50}',
        b'{"_key":"berlin","t":12345678901234567890123}',
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'{"time": [1, 2, 3], "a": [1], "b": [1, 2]}',
            "different lengths at its root: 'a' has 1 values, 'time' has 3",
        ),
        (b'{"time": [1, 2], "unit": "s"}', "no object of lists at its root"),
        (b"[1, 2]", "no object of lists at its root"),
    ],
)
def test_columns_that_are_no_rows_are_an_error_and_never_padded_or_cut(body, words):
    with pytest.raises(BodyError, match=words):
        RecordFinder.of(".", in_columns=True).find(body, is_first=True)


CURSOR = DatetimeCursor(cursor_field="at")
STREAM = Stream(name="s", path="/s", incremental=CURSOR)
T1, T2 = "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"


def ids(items):
    return [record["data"]["id"] for item in items for record in item[PAGE].records()]


def test_only_what_the_state_knows_is_left_out():
    known = raw({"id": 1, "at": T1})
    moment = to_moment(T1, "rfc3339")
    window = Window(lower=moment, known={moment: frozenset(map(digest, known))})
    new = raw(
        {"id": 2, "at": T1}, {"id": 1, "at": T1, "x": "changed"}, {"id": 3}, {"id": 4, "at": T2}, {"id": 5, "at": None}
    )
    old = raw({"id": 6, "at": "2023-12-31T23:59:59.999999Z"})
    items = list(PageMaker(STREAM).pages([*known, *new, *old], window, 1))
    assert ids(items) == [2, 1, 3, 4, 5]
    assert (items[0][PAGE].count, items[0][PAGE].left_out) == (5, 2)
    assert items[0]["at"] == "2024-01-02T00:00:00.000000Z"


def test_a_page_holds_at_most_a_thousand_records():
    items = list(PageMaker(Stream(name="s", path="")).pages(raw(*({"id": n} for n in range(2500))), Window(), 1))
    assert [item[PAGE].count for item in items] == [1000, 1000, 500]
    assert ids(items) == list(range(2500))


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_a_timestamp_changes_nothing_but_its_field(record):
    stream = Stream(name="s", path="", timestamps=[Timestamp(field="at.ms", format="epoch_ms")])
    given_record = {**record, "at": {"ms": 1000, "other": record}}
    (item,) = PageMaker(stream).pages(raw(given_record), Window(), 1)
    (found,) = item[PAGE].records()
    wanted = {**given_record, "at": {"ms": "1970-01-01T00:00:01.000Z", "other": record}}
    assert found["data"] == json.loads(json.dumps(wanted))


def boundary(at, *records, window="w", partition="{}"):
    return Boundary(partition, window, to_moment(at, "rfc3339"), records)


def test_a_state_names_the_records_at_its_own_value():
    tracker = BoundaryTracker(CURSOR, {})
    tracker.take(boundary(T1, "a"))
    tracker.take(boundary(T1, "b"))
    assert known_of(tracker.annotate({"at": T1})) == {"{}": Known(to_moment(T1, "rfc3339"), frozenset("ab"))}
    tracker.take(boundary(T2, "c"))
    tracker.take(boundary(T1, "d"))
    assert known_of(tracker.annotate({"at": T2})) == {"{}": Known(to_moment(T2, "rfc3339"), frozenset("c"))}


def test_a_state_that_did_not_move_keeps_what_it_knew_and_adds_what_came():
    tracker = BoundaryTracker(CURSOR, {"{}": Known(to_moment(T1, "rfc3339"), frozenset({"old"}))})
    assert known_of(tracker.annotate({"at": T1}))["{}"].records == {"old"}
    tracker.take(boundary(T1, "new"))
    assert known_of(tracker.annotate({"at": T1}))["{}"].records == {"old", "new"}


def test_windows_that_are_read_at_the_same_time_keep_their_own_boundaries():
    tracker = BoundaryTracker(CURSOR, {})
    tracker.take(boundary(T2, "late", window="2"))
    tracker.take(boundary(T1, "early", window="1"))
    assert known_of(tracker.annotate({"at": T1}))["{}"].records == {"early"}
    assert known_of(tracker.annotate({"at": T2}))["{}"].records == {"late"}


def test_boundaries_are_bounded():
    tracker = BoundaryTracker(CURSOR, {})
    for number in range(3):
        tracker.take(boundary(T1, *(f"{number}-{n}" for n in range(600))))
    assert len(known_of(tracker.annotate({"at": T1}))["{}"].records) == 1000


def test_a_boundary_that_is_not_ours_is_ignored():
    assert known_of({"at": T1, "boundary": [7, {"partition": 1}, {"at": "x"}]}) == {}
    assert known_of({"boundary": None}) == {}


def test_bytes_in_flight_wait_for_room_and_pass_when_nobody_reads_any_more():
    budget = Budget(limit=10)
    budget.open()
    budget.take(8)
    waiting = threading.Thread(target=budget.take, args=(5,))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    budget.give(8)
    waiting.join(5)
    assert not waiting.is_alive()
    stuck = threading.Thread(target=budget.take, args=(50,))
    stuck.start()
    budget.close()
    stuck.join(5)
    assert not stuck.is_alive()


@pytest.mark.parametrize("key", ["\x1f", 'a"b', "a\\b", "\u2028", "é"])
def test_records_stand_below_any_key(key: str):
    body = json.dumps({"page": {key: [{"id": 1}]}}).encode()
    found = RecordFinder.of(f"page.{key}").find(body, is_first=True)
    assert [bytes(record) for record in found] == [b'{"id": 1}']
