"""The judge of Glue requests: good ones pass, and a request of each kind of fault does not. And it is asked."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from integration_tests.evidence import Kept, problems
from integration_tests.glue_rules import FORMATS, PARQUET, File, Request
from integration_tests.glue_rules import problems as judged
from integration_tests.harness import House, catalog, complete, record, state
from integration_tests.in_process import write_in_process

Body = dict[str, Any]
STORAGE: Body = {
    "Location": "s3://bucket/lake/db/orders/0000000000-1-abc/",
    "Columns": [{"Name": "id", "Type": "bigint", "Comment": "Id"}, {"Name": "at", "Type": "timestamp"}],
    "InputFormat": f"{PARQUET}.MapredParquetInputFormat",
    "OutputFormat": f"{PARQUET}.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": f"{PARQUET}.serde.ParquetHiveSerDe", "Parameters": {"a": "1"}},
}
TABLE: Body = {
    "Name": "orders",
    "TableType": "EXTERNAL_TABLE",
    "PartitionKeys": [{"Name": "day", "Type": "string"}],
    "Parameters": {"EXTERNAL": "TRUE", "classification": "parquet"},
    "StorageDescriptor": STORAGE,
}
SCOPE = {"DatabaseName": "db", "TableName": "orders"}
PARTITION: Body = {"Values": ["a"], "StorageDescriptor": {**STORAGE, "Location": f"{STORAGE['Location']}day=a/"}}
GOOD: dict[str, Body] = {
    "glue:CreateTable": {"DatabaseName": "db", "TableInput": TABLE},
    "glue:UpdateTable": {"DatabaseName": "db", "TableInput": TABLE, "VersionId": "1", "SkipArchive": True},
    "glue:BatchCreatePartition": {**SCOPE, "PartitionInputList": [PARTITION]},
    "glue:BatchUpdatePartition": {**SCOPE, "Entries": [{"PartitionValueList": ["a"], "PartitionInput": PARTITION}]},
    "glue:BatchDeletePartition": {**SCOPE, "PartitionsToDelete": [{"Values": ["a"]}]},
    "glue:BatchGetPartition": {**SCOPE, "PartitionsToGet": [{"Values": ["a"]}]},
    "glue:CreateDatabase": {"DatabaseInput": {"Name": "db", "Description": "two\nlines"}},
    "glue:GetTable": {"DatabaseName": "db", "Name": "orders"},
}
COLUMN = "TableInput.StorageDescriptor.Columns.0"
WHERE = "TableInput.StorageDescriptor.Location"
OF_PARTITION = "PartitionInputList.0"
TYPES = ["boolean", "int", "decimal(38,9)", "varchar(10)", "array<array<double>>", "map<string,array<int>>", "binary",
         "struct<a:bigint,struct:string,1st:struct<b:date>>", "array<struct<a:decimal(38,0)>>"]  # fmt: skip
BAD_TYPES = [
    "", "time", "integer", "timestamp with time zone", "BIGINT", "struct<>", "struct<a>", "struct<a:>", "array",
    "struct<a b:int>", "struct<a.b:int>", "struct<A:int>", "struct<a:int,a:string>", "struct<é:int>", "struct<a:int,>",
    "struct<a:int", "struct<a:int>>", "array<int,int>", "map<int>", "map<struct<a:int>,int>", "decimal(39,0)",
    "array<>", "decimal", "decimal(3,4)", "decimal(0,0)", "decimal(3)", "varchar", "varchar(0)", "int,int", "uint64",
    "null", "array< int >", f"struct<{'x' * 256}:int>", f"struct<a:{'array<' * 26_000}",
]  # fmt: skip
BAD: list[tuple[str, str, Any, str]] = [
    ("glue:StartCrawler", "", {}, "no rule"),
    ("glue:GetTable", "Name", "Orders", "characters"),
    ("glue:GetTable", "DatabaseName", "d" * 256, "255"),
    ("glue:CreateDatabase", "DatabaseInput.Name", "a-b", "characters"),
    ("glue:CreateDatabase", "DatabaseInput.Description", "x" * 2049, "2048"),
    ("glue:CreateTable", "TableInput.Name", "", "characters"),
    ("glue:CreateTable", "TableInput.PartitionKeys", None, "PartitionKeys"),
    ("glue:CreateTable", "TableInput.PartitionKeys.0.Type", "struct<a:int>", "partition key"),
    ("glue:CreateTable", "TableInput.PartitionKeys.0.Name", "id", "one name"),
    ("glue:CreateTable", "TableInput.TableType", "MANAGED_TABLE", "TableType"),
    ("glue:CreateTable", "TableInput.Description", "x" * 2049, "2048"),
    ("glue:CreateTable", "TableInput.Parameters.EXTERNAL", None, "EXTERNAL"),
    ("glue:CreateTable", "TableInput.Parameters.classification", "json", "classification"),
    ("glue:CreateTable", "TableInput.Parameters.classification", None, "classification"),
    ("glue:CreateTable", "TableInput.Parameters.x", "y" * 512_001, "512000"),
    ("glue:CreateTable", "TableInput.Parameters.x", 5, "no text"),
    ("glue:CreateTable", f"TableInput.Parameters.{'é' * 200}", "y", "too long"),
    ("glue:CreateTable", f"TableInput.Parameters.{'k' * 256}", "y", "255"),
    ("glue:CreateTable", "TableInput.Parameters", {"classification": "parquet"}, "EXTERNAL"),
    ("glue:CreateTable", WHERE, "s3://bucket/lake/db/orders", "end with /"),
    ("glue:CreateTable", WHERE, "s3://bucket/lake/_airbyte/orders/", "hidden"),
    ("glue:CreateTable", WHERE, "s3://bucket/lake/.db/orders/", "hidden"),
    ("glue:CreateTable", WHERE, "s3://bucket/lake//orders/", "empty segment"),
    ("glue:CreateTable", WHERE, "s3://bucket/", "no folder"),
    ("glue:CreateTable", WHERE, "/data/lake/", "no folder"),
    ("glue:CreateTable", WHERE, f"s3://bucket/{'x' * 2056}/", "2056"),
    ("glue:CreateTable", WHERE, None, "no text"),
    ("glue:CreateTable", "TableInput.StorageDescriptor", None, "StorageDescriptor"),
    ("glue:CreateTable", "TableInput.StorageDescriptor.Columns", [], "no column"),
    (
        "glue:CreateTable",
        "TableInput.StorageDescriptor.InputFormat",
        "org.apache.hadoop.mapred.TextInputFormat",
        "SerDe",
    ),
    ("glue:CreateTable", "TableInput.StorageDescriptor.OutputFormat", None, "SerDe"),
    ("glue:CreateTable", "TableInput.StorageDescriptor.SerdeInfo", None, "SerDe"),
    ("glue:CreateTable", "TableInput.StorageDescriptor.SerdeInfo.SerializationLibrary", "a.b.AvroSerDe", "SerDe"),
    ("glue:CreateTable", "TableInput.StorageDescriptor.SerdeInfo.Parameters.a", 1, "no text"),
    ("glue:CreateTable", f"{COLUMN}.Name", "Id", "characters"),
    ("glue:CreateTable", f"{COLUMN}.Name", "a.b", "characters"),
    ("glue:CreateTable", f"{COLUMN}.Name", "x" * 256, "255"),
    ("glue:CreateTable", f"{COLUMN}.Name", "at", "one name"),
    ("glue:CreateTable", f"{COLUMN}.Comment", "x" * 256, "255"),
    ("glue:CreateTable", f"{COLUMN}.Comment", "two\nlines", "does not take"),
    ("glue:CreateTable", f"{COLUMN}.Comment", "nul\0", "does not take"),
    ("glue:CreateTable", f"{COLUMN}.Parameters", {"": "x"}, "empty"),
    ("glue:CreateTable", f"{COLUMN}.Type", None, "no text"),
    *(("glue:CreateTable", f"{COLUMN}.Type", text, "") for text in BAD_TYPES),
    ("glue:UpdateTable", "VersionId", None, "VersionId"),
    ("glue:UpdateTable", "SkipArchive", None, "SkipArchive"),
    ("glue:UpdateTable", WHERE, "s3://bucket/lake/db/orders", "end with /"),
    ("glue:UpdateTable", "TableInput.Parameters.EXTERNAL", None, "EXTERNAL"),
    ("glue:UpdateTable", "TableInput.TableType", None, "TableType"),
    ("glue:UpdateTable", "TableInput.PartitionKeys", None, "PartitionKeys"),
    ("glue:BatchCreatePartition", "PartitionInputList", [PARTITION] * 101, "100"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.Values", ["a", "b"], "other Values"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.Values", [""], "empty"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.Values", ["x" * 1025], "too long"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.Values", [], "no Values"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.StorageDescriptor", None, "of its own"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.StorageDescriptor.Location", "s3://bucket/a/_b=1/", "hidden"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.StorageDescriptor.Location", "s3://bucket/a/b=1", "end with /"),
    ("glue:BatchCreatePartition", f"{OF_PARTITION}.StorageDescriptor.Columns.0.Type", "uint8", "none that Hive"),
    ("glue:BatchUpdatePartition", "Entries.0.PartitionValueList", ["b"], "moves"),
    ("glue:BatchUpdatePartition", "Entries", [], "none"),
    ("glue:BatchDeletePartition", "PartitionsToDelete", [{"Values": ["a"]}] * 26, "25"),
    ("glue:BatchGetPartition", "PartitionsToGet", [{"Values": ["a"]}] * 1001, "1000"),
]


def changed(body: Body, path: str, value: Any) -> Body:
    """A copy with another value at a path; None takes the key away."""
    made = copy.deepcopy(body)
    *above, last = path.split(".")
    place: Any = made
    for step in above:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is None:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return made


def test_good_requests_pass():
    assert judged(Request(action, body) for action, body in GOOD.items()) == []
    for text in TYPES:
        body = changed(GOOD["glue:CreateTable"], f"{COLUMN}.Type", text)
        assert judged([Request("glue:CreateTable", body)]) == [], text


@pytest.mark.parametrize(("action", "path", "value", "says"), BAD, ids=[f"{a[5:]} {p[-40:]}" for a, p, _, _ in BAD])
def test_a_request_of_each_kind_of_fault_is_found(action: str, path: str, value: Any, says: str):
    body = changed(GOOD[action], path, value) if path else value
    before = Request("glue:CreateTable", GOOD["glue:CreateTable"])
    (problem,) = judged([before, Request(action, body)])
    assert action in problem
    assert says in problem.partition(": ")[2]


def test_a_table_of_somebody_else_may_say_less():
    """It is adopted as it is: without a mark of ours, and at a Location of its own style."""
    theirs = changed(GOOD["glue:UpdateTable"], WHERE, "s3://bucket/theirs/orders")
    body = changed(theirs, "TableInput.Parameters.EXTERNAL", None)
    assert judged([Request("glue:UpdateTable", body)]) == []
    assert len(judged([Request("glue:CreateTable", GOOD["glue:CreateTable"]), Request("glue:UpdateTable", body)])) == 1


def test_a_table_whose_metadata_are_too_large_for_athena_is_found():
    dice = random.Random(1)
    columns = [{"Name": f"c{dice.randbytes(100).hex()}", "Type": "string"} for _ in range(10_000)]
    body = changed(GOOD["glue:CreateTable"], "TableInput.StorageDescriptor.Columns", columns)
    (problem,) = judged([Request("glue:CreateTable", body)])
    assert "metadata" in problem


PLACE = STORAGE["Location"]


def text_table(serde: str) -> Request:
    kind, reader, writer = FORMATS[serde]
    storage = {**STORAGE, "InputFormat": reader, "OutputFormat": writer,
               "SerdeInfo": {"SerializationLibrary": serde, "Parameters": {"field.delim": ","}}}  # fmt: skip
    table = {**TABLE, "Parameters": {"EXTERNAL": "TRUE", "classification": kind}, "StorageDescriptor": storage}
    return Request("glue:CreateTable", {"DatabaseName": "db", "TableInput": table})


PARQUET_TABLE, JSON_TABLE, CSV_TABLE = (text_table(serde) for serde in FORMATS)


@pytest.mark.parametrize(
    ("table", "name", "beginning", "says"),
    [
        (PARQUET_TABLE, "1.parquet", b"PAR1", None),
        (PARQUET_TABLE, "day=a/1.parquet", b"PAR1", None),
        (PARQUET_TABLE, "1.parquet", None, None),
        (JSON_TABLE, "1.jsonl", b'{"id', None),
        (JSON_TABLE, "1.jsonl.gz", b"\x1f\x8b\x08\x00", None),
        (CSV_TABLE, "1.csv.zst", b"\x28\xb5\x2f\xfd", None),
        (CSV_TABLE, "1.csv", b"", None),
        (PARQUET_TABLE, "1.parquet", b'{"id', "does not begin"),
        (PARQUET_TABLE, "1.jsonl", b'{"id', "not the name"),
        (JSON_TABLE, "1.parquet", b"PAR1", "not the name"),
        (JSON_TABLE, "1.csv", b"1,2,", "not the name"),
        (JSON_TABLE, "1.jsonl.gz", b'{"id', "does not begin"),
        (JSON_TABLE, "1.jsonl", b"\x1f\x8b\x08\x00", "does not say so"),
        (CSV_TABLE, "1.csv", b"PAR1", "does not say so"),
        (PARQUET_TABLE, "_1.parquet", b"PAR1", "do not see"),
        (PARQUET_TABLE, "_day=a/1.parquet", b"PAR1", "do not see"),
        (PARQUET_TABLE, ".1.parquet", b"PAR1", "do not see"),
    ],
)
def test_files_are_what_the_serde_of_their_location_reads(
    table: Request, name: str, beginning: bytes, says: str | None
):
    found = judged([table], [File(PLACE + name, beginning), File("s3://bucket/elsewhere/_x", b"any")])
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_one_location_has_one_format():
    (problem,) = judged([PARQUET_TABLE, JSON_TABLE])
    assert "json and parquet" in problem


def test_what_the_destination_sends_is_kept_and_judged(house: House):
    """A sync of every kind of request and format leaves requests and files behind, in this very run."""
    from integration_tests.evidence import current

    kept = current()
    assert kept is not None
    key = {"stream": "keyed", "field": "id", "transform": "identity", "name": "key"}
    configs: dict[str, Body] = {
        "keyed": {"partitioning": [key]},
        "lines": {"format": {"format_type": "jsonl", "compression": "zstd"}},
        "hive": {"format": {"format_type": "csv", "compression": "gzip"}},
    }
    for name, config in configs.items():
        messages = [record(1, name), state({"c": 1}, name), complete(name)]
        body = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        assert write_in_process(house.config(**config), catalog(name), body).exit_code == 0
    sent = b"".join(path.read_bytes() for path in kept.folder.glob("*.glue"))
    files = b"".join(path.read_bytes() for path in kept.folder.glob("*.files"))
    for name, ending, begins in (("keyed", b".parquet", b"PAR1"), ("lines", b".jsonl.zst", b"\x28\xb5\x2f\xfd")):
        assert any(line.startswith(b"glue:CreateTable ") and f'"{name}"'.encode() in line for line in sent.splitlines())
        where = f"{house.bucket}/lake/{house.database}/{name}/".encode()
        (file,) = (line for line in files.splitlines() if where in line)
        assert (file[:8], file.endswith(ending)) == (begins.hex().encode(), True)
    assert b"glue:BatchCreatePartition " in sent


def plant(action: str, body: Body, folder: Path) -> Kept:
    (folder / "1.glue").write_bytes(action.encode() + b" " + json.dumps(body).encode() + b"\n")
    return Kept(folder)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_bad_request_ends_a_run_with_its_problem(tmp_path: Path, is_whole: bool):
    body = changed(GOOD["glue:CreateTable"], f"{COLUMN}.Type", "uint8")
    found = problems(plant("glue:CreateTable", body, tmp_path), is_whole=is_whole)
    assert [text for text in found if "glue:CreateTable on db.orders: a column's Type" in text]


def test_a_file_of_another_format_ends_a_run_with_its_problem(tmp_path: Path):
    kept = plant("glue:CreateTable", GOOD["glue:CreateTable"], tmp_path)
    place = PLACE.removeprefix("s3://").encode()
    (tmp_path / "1.files").write_bytes(b"7b226964 " + place + b"1.parquet\n" + b"copy " + place + b"2.parquet\n")
    (problem,) = problems(kept, is_whole=False)
    assert "does not begin as .parquet" in problem


def test_a_value_in_a_request_to_glue_is_a_leak(tmp_path: Path):
    body = changed(GOOD["glue:CreateTable"], f"{COLUMN}.Comment", "for c4n4ry")
    (problem,) = problems(plant("glue:CreateTable", body, tmp_path), is_whole=False)
    assert "<LEAK>" in problem
    assert "c4n4ry" not in problem
