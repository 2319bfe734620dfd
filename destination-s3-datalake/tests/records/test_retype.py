"""Converted values are what the exact path would have written; no type change loses one."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from destination_s3_datalake.config import TypeOptions
from destination_s3_datalake.errors import ConfigError
from destination_s3_datalake.records import values
from destination_s3_datalake.records.database import duck_type
from destination_s3_datalake.records.evolution import changes, common, plan_columns
from destination_s3_datalake.records.exact import arrow_type
from destination_s3_datalake.records.retype import converted, is_exact
from destination_s3_datalake.records.schema import (
    Array,
    BigInt,
    Boolean,
    Column,
    ColumnType,
    Date,
    Decimal,
    Double,
    GlueColumn,
    Json,
    Struct,
    StructField,
    Text,
    Timestamp,
    from_glue,
    glue_column,
    glue_type,
    stored_type,
)
from hypothesis import given, settings
from hypothesis import strategies as st

SCALARS: list[ColumnType] = [Boolean(), BigInt(), Double(), Decimal(38, 9), Decimal(38, 0), Text(), Json(), Date(),
           Timestamp(zoned=True), Timestamp(zoned=False), Timestamp(zoned=True, unit="ms")]  # fmt: skip
kinds = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        st.builds(Array, inner),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda types: Struct(tuple(StructField(f"f{n}", f'F.{n}"', kind) for n, kind in enumerate(types)))
        ),
    ),
    max_leaves=4,
)
plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(11, 32)))))


def json_of(kind: ColumnType) -> st.SearchStrategy[str]:
    """JSON texts of values that the type holds exactly, written as a converted value is."""
    match kind:
        case Boolean():
            return st.sampled_from(["true", "false"])
        case BigInt():
            return st.integers(-(2**63), 2**63 - 1).map(str)
        case Double():
            return st.floats(allow_nan=False, allow_infinity=False).map(repr)
        case Decimal(_, 0):
            return st.integers(-(10**38) + 1, 10**38 - 1).map(str)
        case Decimal():
            return st.tuples(st.integers(0, 10**29 - 1), st.integers(1, 9)).map(lambda parts: f"{parts[0]}.{parts[1]}")
        case Text():
            return plain_text.map(lambda text: json.dumps(text, ensure_ascii=False))
        case Json():
            return (
                st.recursive(
                    st.none() | st.booleans() | st.integers() | plain_text,
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(plain_text, inner, max_size=2),
                    max_leaves=4,
                )
                .map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
                .filter(lambda t: t != "null")
            )
        case Date():
            return st.dates().map(lambda day: f'"{day.isoformat()}"')
        case Timestamp(zoned, unit):
            step = 1000 if unit == "ms" else 1
            return st.datetimes().map(
                lambda at: json.dumps(
                    _iso(at.replace(microsecond=at.microsecond // step * step)) + ("Z" if zoned else "")
                )
            )
        case Struct(fields):
            parts = [json_of(field.type) | st.just("null") for field in fields]
            keys = [json.dumps(field.field) for field in fields]
            return st.tuples(*parts).map(
                lambda found: "{" + ",".join(f"{key}:{text}" for key, text in zip(keys, found, strict=True)) + "}"
            )
        case Array(item):
            return st.lists(json_of(item) | st.just("null"), max_size=3).map(lambda found: f"[{','.join(found)}]")


def _iso(at: Any) -> str:
    text = at.strftime("%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{at.date().isoformat()}T{text}"


def stored(kind: ColumnType, text: str) -> Any:
    """What the exact path stores of a JSON text."""
    row = values.row_of({"f": values.read_json(text)}, (Column("f", "f", kind),), "keep")
    assert row.changes == []
    return row.values["f"]


def in_sql(kind: ColumnType, value: Any, expression: str) -> Any:
    """A DuckDB expression over the column ``f`` that holds a value of a type."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.register("arrived", pa.table({"f": pa.array([value, None], arrow_type(kind))}))
        database.execute("CREATE TABLE rows AS FROM arrived")
        [[found], [nothing]] = database.execute(f"SELECT {expression} FROM rows").fetchall()
    assert nothing in (None, True)
    return found


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("target", [Text(), Json()], ids=["text", "JSON"])
def test_a_value_as_text_is_what_the_exact_path_writes(target: ColumnType, data: st.DataObject):
    kind = data.draw(kinds)
    text = data.draw(json_of(kind))
    assert in_sql(kind, stored(kind, text), converted("f", kind, target)) == stored(target, text)


@settings(max_examples=80)
@given(st.data())
def test_a_value_is_the_same_in_the_common_type_if_that_is_said_to_be_exact(data: st.DataObject):
    old, new = data.draw(kinds), data.draw(kinds)
    text = data.draw(json_of(old))
    level = data.draw(st.sampled_from([0, 1, 2]))
    target = common(old, new, level)
    value = stored(old, text)
    if in_sql(old, value, is_exact("f", old, target)) is False:
        assert level < 2
        return
    back = in_sql(old, value, converted(converted("f", old, target), target, Json()))
    plain = in_sql(old, value, converted("f", old, Json()))
    assert same(json.loads(back), json.loads(plain))


def same(found: Any, expected: Any) -> bool:
    """Whether two JSON values say the same: a value that became text inside of another is that text."""
    if isinstance(found, str) and not isinstance(expected, str):
        return same(json.loads(found), expected)
    if isinstance(found, str) and found != expected:
        return found in (f"{expected}Z", json.dumps(expected, ensure_ascii=False)) or json.loads(expected) == found
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, dict):
        return all(same(found.get(key), value) for key, value in expected.items())
    return bool(found == expected)


@given(kinds)
def test_a_column_says_its_whole_type(kind: ColumnType):
    column = glue_column("f", kind)
    assert stored_type(column) == kind
    assert stored_type(GlueColumn(Name="f", Type=column.Type)) == from_glue(glue_type(kind))


@given(kinds, kinds)
def test_a_common_type_holds_both_and_is_found_again(old: ColumnType, new: ColumnType):
    for level in (0, 1, 2):
        found = common(old, new, level)
        assert common(found, new, level) == common(found, found, level) == found


@given(kinds)
def test_a_type_is_common_with_itself(kind: ColumnType):
    assert common(kind, kind) == kind
    assert changes([glue_column("f", kind)], [glue_column("f", kind)]) == {}


@pytest.mark.parametrize("glue", ["map<string,int>", "binary", "array<binary>", "struct<a:map<string,string>>"])
def test_a_type_of_others_that_cannot_be_written_is_an_error_that_names_the_column(glue: str):
    there = (GlueColumn(Name="f", Type=glue),)
    schema = {"properties": {"f": {"type": "string"}}}
    with pytest.raises(ConfigError, match="column f"):
        plan_columns(schema, sources=[there], known_names={}, stream="s", options=TypeOptions())
    untouched = plan_columns({}, sources=[there], known_names={}, stream="s", options=TypeOptions())
    assert untouched.glue_columns[0] == there[0]


@pytest.mark.parametrize(
    ("glue", "wanted", "found"),
    [
        ("int", "integer", "bigint"),
        ("float", "number", "double"),
        ("int", "string", "string"),
        ("varchar(10)", "string", "string"),
        ("decimal(10,2)", "number", "double"),
    ],
)
def test_narrow_types_of_others_are_widened(glue: str, wanted: str, found: str):
    schema = {"properties": {"f": {"type": wanted}}}
    there = (GlueColumn(Name="f", Type=glue),)
    plan = plan_columns(schema, sources=[there], known_names={}, stream="s", options=TypeOptions())
    assert plan.glue_columns[0].Type == found


def test_a_column_that_others_added_is_shared_if_it_has_the_type_and_left_alone_if_not():
    theirs = (GlueColumn(Name="f", Type="string"), GlueColumn(Name="g", Type="string"))
    schema = {"properties": {"f": {"type": "string"}, "g": {"type": "integer"}}}
    plan = plan_columns(schema, sources=[()], known_names={}, stream="s", options=TypeOptions(), foreign=theirs)
    assert plan.names["f"] == "f"
    assert plan.names["g"].startswith("g_")


def test_names_inside_of_objects_stay_when_the_table_is_replaced():
    first = {"properties": {"o": {"type": "object", "properties": {"A": {"type": "integer"}}}}}
    then = {"properties": {"o": {"type": "object", "properties": {"a": {"type": "integer"}, "A": {"type": "integer"}}}}}
    options = TypeOptions()
    before = plan_columns(first, sources=(), known_names={}, stream="s", options=options)
    after = plan_columns(
        then, sources=(), known_names=before.names, stream="s", options=options, earlier=before.glue_columns
    )
    [column] = after.columns
    assert isinstance(column.type, Struct)
    assert {field.field: field.name for field in column.type.fields}["A"] == "a"


def test_types_of_sql_are_those_of_the_batches():
    with duckdb.connect() as database:
        for kind in (*SCALARS, Array(BigInt()), Struct((StructField("a", "a", Text()),))):
            database.register("batch", pa.table({"f": pa.array([], arrow_type(kind))}))
            [[found]] = database.execute("SELECT column_type FROM (DESCRIBE batch)").fetchall()
            assert found.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ").replace('"', "") == duck_type(kind).replace(
                '"', ""
            )
