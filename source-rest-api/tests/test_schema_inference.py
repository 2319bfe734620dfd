"""Schemas from samples: exact about types, independent of order, stable between runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_rest_api.schema_inference import MOST_KEYS, infer_schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.dates().map(str) | st.datetimes().map(lambda moment: moment.isoformat()),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)  # fmt: skip
RECORDS = st.lists(st.dictionaries(st.sampled_from("abcd"), JSON), max_size=6)


def field(*values: Any) -> Any:
    """The schema of a field that had these values."""
    return infer_schema([{"f": value} for value in values])["properties"]["f"]


@given(records=RECORDS, data=st.data())
def test_the_order_of_records_makes_no_difference(records: list[dict[str, Any]], data: st.DataObject):
    shuffled = data.draw(st.permutations(records))
    assert json.dumps(infer_schema(records)) == json.dumps(infer_schema(shuffled))


@given(records=RECORDS)
def test_seeing_a_record_again_makes_no_difference(records: list[dict[str, Any]]):
    assert infer_schema(records) == infer_schema(records + records)


@given(records=RECORDS)
def test_the_order_of_keys_makes_no_difference(records: list[dict[str, Any]]):
    turned = [dict(reversed(record.items())) for record in records]
    assert json.dumps(infer_schema(records)) == json.dumps(infer_schema(turned))


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        ([1, 2], {"type": ["null", "integer"]}),
        ([1, 2.5], {"type": ["null", "number"]}),
        ([2.0], {"type": ["null", "number"]}),
        ([10**30], {"type": ["null", "integer"]}),
        ([True], {"type": ["null", "boolean"]}),
        ([None], {"type": ["null", "string"]}),
        (["x", None], {"type": ["null", "string"]}),
        (["2026-02-28"], {"type": ["null", "string"], "format": "date"}),
        (["2026-02-30"], {"type": ["null", "string"]}),
        (["2026-01-01", "soon"], {"type": ["null", "string"]}),
        (["2026-01-01", "2026-01-01T00:00:00Z"], {"type": ["null", "string"]}),
        (["20260101"], {"type": ["null", "string"]}),
        (["2026-01-01T00:00:00"], {"type": ["null", "string"], "format": "date-time",
                                   "airbyte_type": "timestamp_without_timezone"}),
        (["2026-01-01T00:00:00.5+02:00", "2026-01-01T00:00:00Z"],
         {"type": ["null", "string"], "format": "date-time", "airbyte_type": "timestamp_with_timezone"}),
        (["2026-01-01T24:00:00Z"], {"type": ["null", "string"]}),
        (["2026-01-01T00:00:00+25:00"], {"type": ["null", "string"]}),
        ([1, "a"], {"oneOf": [{"type": "null"}, {"type": "integer"}, {"type": "string"}]}),
        ([[1, None], []], {"type": ["null", "array"], "items": {"type": ["null", "integer"]}}),
        ([[]], {"type": ["null", "array"], "items": {"type": ["null", "string"]}}),
        ([{"a": 1}], {"type": ["null", "object"], "additionalProperties": True,
                      "properties": {"a": {"type": ["null", "integer"]}}}),
        ([{}], {"type": ["null", "object"], "additionalProperties": True}),
    ],
)  # fmt: skip
def test_what_is_seen_is_what_is_declared(values: list[Any], schema: Any):
    assert field(*values) == schema


def test_an_object_with_very_many_keys_is_an_open_object():
    one_map = {f"k{number}": number for number in range(MOST_KEYS + 1)}
    assert field(one_map) == {"type": ["null", "object"], "additionalProperties": True}
    assert field({"late": 1}, one_map) == field(one_map, {"late": 1})


def test_key_and_cursor_are_declared_even_if_no_record_had_them():
    schema = infer_schema([], always=[("id",), ("properties", "updated")])
    assert schema["properties"]["id"] == {"type": ["null", "string"]}
    assert schema["properties"]["properties"]["properties"] == {"updated": {"type": ["null", "string"]}}


def test_an_empty_sample_gives_a_valid_open_schema():
    assert infer_schema([]) == {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": True,
    }


def test_many_keys_of_one_kind_of_which_a_record_has_a_few_are_a_map():
    records = [{"names": {f"key{n}": "x", f"key{n + 1}": "y"}} for n in range(60)]
    names = infer_schema(records)["properties"]["names"]
    assert "properties" not in names
    assert names["additionalProperties"] is True


def test_many_keys_that_most_records_have_are_fields():
    records = [{"wide": {f"key{n}": n for n in range(60)}} for _ in range(5)]
    assert len(infer_schema(records)["properties"]["wide"]["properties"]) == 60


def test_few_records_with_different_kinds_under_many_keys_are_fields():
    records = [{"wide": {f"key{n}": n if n % 2 else "text"}} for n in range(60)]
    assert len(infer_schema(records)["properties"]["wide"]["properties"]) == 60
