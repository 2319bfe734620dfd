"""Streams of every name: tables of their own that stay theirs, whatever comes first, in both syncs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from integration_tests.acceptance_cases import dedup, point, row, stream
from integration_tests.harness import House, complete

LONG = "l" * 300
PLAIN = {  # stream -> table (testFunkyCharacters, AmbiguousFilepath)
    "camelCase": "camelcase", "ALL_CAPS": "all_caps", "spécial": "special", "operator+1": "operator_1",
    "1st": "1st", "a'b\"c/d[e]`f": "a_b_c_d_e__f", "groups": "groups", "order": "order",
    "authorization": "authorization",
    "foo": "foo", "foo_bar": "foo_bar", "foo/bar/": "foo_bar_", "_hidden": "_hidden", ".dot": "_dot",
    LONG: f"{LONG[:246]}_{hashlib.sha256(LONG.encode()).hexdigest()[:8]}",
}  # fmt: skip
SPACED = [("_spøcial", "s"), ("_operator-1", "s"), ("bar-1", "foo-1"), ("bar_1", "foo_1")]


def completed(name: str, namespace: str | None) -> dict[str, Any]:
    message = complete(name)
    descriptor = message["trace"]["stream_status"]["stream_descriptor"]
    return message if namespace is None else (descriptor.update(namespace=namespace) or message)


def test_streams_of_every_name_have_tables_that_stay_theirs(house: House):
    ids = [*((None, name) for name in PLAIN), *SPACED]
    for number, order in enumerate((ids, ids[::-1])):
        lines = [
            message
            for namespace, name in order
            for message in (
                row(name, id=number, name=f"{namespace} {name}", namespace=namespace),
                completed(name, namespace),
            )
        ]
        entries = [stream(name, namespace=namespace) for namespace, name in order]
        assert house.write(lines, {"streams": entries}).exit_code == 0
    for name, table in PLAIN.items():
        assert sorted((r["id"], r["name"]) for r in house.rows(table)) == [(n, f"None {name}") for n in (0, 1)]
        assert json.loads(house.table(table)["Parameters"]["airbyte_stream"]) == [None, name]
    found = {}
    for database in ("_sp_cial", "_operator_1", "bar_1"):
        there = House(house.lake, house.bucket, database, house.folder)
        for table in house.glue.get_tables(DatabaseName=database)["TableList"]:
            location = table["StorageDescriptor"]["Location"].removeprefix(f"s3://{house.bucket}/")
            assert not any(part.startswith(("_", ".")) for part in location.split("/"))
            namespace, name = json.loads(table["Parameters"]["airbyte_stream"])
            found[namespace, name] = sorted((r["id"], r["name"]) for r in there.rows(table["Name"]))
    assert found == {(space, name): [(n, f"{space} {name}") for n in (0, 1)] for space, name in SPACED}


def test_keys_and_cursors_of_odd_names(house: House):
    """testFunkyCharactersDedup."""
    key, cursor = "Schlüssel.1", "c u r[0]"
    fields = {key: "integer", cursor: "integer", "order": "string"}
    entry = stream(fields=fields, **dedup([[key]], cursor))
    for number, value in ((1, "old"), (2, "new")):
        data: dict[str, Any] = {key: 7, cursor: number, "order": value}
        lines = [row(**data), point(number), complete("s")]
        assert house.write(lines, {"streams": [entry]}).exit_code == 0
    [found] = house.rows("s")
    assert (found["schlussel_1"], found["c_u_r_0_"], found["order"]) == (7, 2, "new")
    comments = {c["Name"]: c.get("Comment") for c in house.table("s")["StorageDescriptor"]["Columns"]}
    assert (comments["schlussel_1"], comments["c_u_r_0_"]) == (key, cursor)
    names = json.loads(house.table("s")["Parameters"]["airbyte_columns"])
    assert names == {key: "schlussel_1", cursor: "c_u_r_0_", "order": "order"}


def test_columns_keep_their_names_when_others_of_the_same_name_come(house: House):
    for number, fields in enumerate(({"Id": "integer"}, {"ID": "integer", "id": "integer", "Id": "integer"})):
        data: dict[str, Any] = {name: 10 * number + len(fields) for name in fields}
        lines = [row(**data), point(number), complete("s")]
        assert house.write(lines, {"streams": [stream(fields=fields)]}).exit_code == 0
    names = json.loads(house.table("s")["Parameters"]["airbyte_columns"])
    assert names["Id"] == "id"
    assert sorted(r["id"] for r in house.rows("s")) == [1, 13]
    assert len(set(names.values())) == 3
