"""What a Glue request may say, judged from the services' own rules. Shares no code with the destination.

Sources: the Glue API (lengths, batch sizes, one line of text), Hive's type grammar, and what Athena needs beyond both:
lower-case names, ``PartitionKeys`` that is there, no file under a name that readers hide, files of the format that the
SerDe reads. ``evidence.py`` puts every request of a run before it. A call that no rule knows is a problem too.

A problem names the call, the table and the place in the request, never a value.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]
MOST_NAME_BYTES = MOST_COMMENT = 255
MOST_TYPE, MOST_DESCRIPTION, MOST_LOCATION = 131_072, 2048, 2056
MOST_PARAMETER_KEY, MOST_PARAMETER, MOST_VALUE = 255, 512_000, 1024
MOST_METADATA = 1_000_000  # compressed; Athena reads no more
NAME = re.compile(r"[a-z0-9_]+")
WORD = re.compile(r"[a-z0-9_]+|.", re.DOTALL)
LINE = re.compile("[\t\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
"""What Glue calls a single line string."""
PLAIN_TYPES = {"boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "string", "binary", "date",
               "timestamp"}  # fmt: skip
TEXT = ("org.apache.hadoop.mapred.TextInputFormat", "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat")
PARQUET = "org.apache.hadoop.hive.ql.io.parquet"
FORMATS = {
    f"{PARQUET}.serde.ParquetHiveSerDe": (
        "parquet", f"{PARQUET}.MapredParquetInputFormat", f"{PARQUET}.MapredParquetOutputFormat"
    ),
    "org.openx.data.jsonserde.JsonSerDe": ("json", *TEXT),
    "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe": ("csv", *TEXT),
}  # fmt: skip
"""SerDe -> classification, input and output format."""
BEGINNINGS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".parquet": b"PAR1"}
ENDINGS = {
    "parquet": (".parquet",),
    "json": (".jsonl", ".jsonl.gz", ".jsonl.zst"),
    "csv": (".csv", ".csv.gz", ".csv.zst"),
}


@dataclass(frozen=True)
class Request:
    """A call, such as glue:UpdateTable, and its body."""

    action: str
    body: Body


@dataclass(frozen=True)
class File:
    """An object as it was sent to S3: where, and its first bytes; None if it is a copy of another."""

    location: str
    beginning: bytes | None


class _Refused(Exception):  # says what is wrong, and is caught here
    """What is wrong with a request."""


def problems(requests: Iterable[Request], files: Iterable[File] = ()) -> list[str]:
    """What is wrong with the requests that one catalog got, and with files of the destination under its Locations."""
    found: dict[str, None] = {}  # each once, in order
    tables: dict[tuple[str, str], int] = {}  # those that the destination made, and their keys
    formats: dict[str, set[str]] = defaultdict(set)
    for request in requests:
        try:
            _judge(request, tables, formats)
        except _Refused as refused:
            names = ".".join(str(request.body.get(key)) for key in ("DatabaseName", "TableName") if key in request.body)
            table = (request.body.get("TableInput") or {}).get("Name", "")
            found[f"{request.action} on {names}{'.' if table else ''}{table}: {refused}"] = None
    for location, named in formats.items():
        if len(named) > 1:
            found[f"files at {location} are said to be {' and '.join(sorted(named))}"] = None
    for file in files:
        for problem in _of_file(file, formats):
            found[problem] = None
    return [*found]


def _judge(request: Request, tables: dict[tuple[str, str], int], formats: dict[str, set[str]]) -> None:
    rule = RULES.get(request.action)
    _require(rule is not None, "no rule knows this call")
    assert rule is not None  # for mypy
    for key, name in request.body.items():
        if key in ("DatabaseName", "TableName", "Name"):
            _name(name, key)
    rule(request.body)
    if request.action in ("glue:CreateTable", "glue:UpdateTable"):
        table = request.body["TableInput"]
        name = (request.body["DatabaseName"], table["Name"])
        if name in tables:
            _ours(table)
        elif request.action == "glue:CreateTable":
            tables[name] = len(table["PartitionKeys"])
        _learn(table["StorageDescriptor"], formats)
    for partition in _partitions(request.body):
        _require(partition["StorageDescriptor"]["Location"].endswith("/"), "a partition's Location does not end with /")
        keys = tables.get((request.body["DatabaseName"], request.body["TableName"]))
        _require(keys in (None, len(partition["Values"])), "a partition has other Values than the table has keys")
        _learn(partition["StorageDescriptor"], formats)


def _learn(storage: Body, formats: dict[str, set[str]]) -> None:
    formats[storage["Location"].rstrip("/") + "/"].add(FORMATS[storage["SerdeInfo"]["SerializationLibrary"]][0])


def _partitions(body: Body) -> list[Body]:
    entries = [entry["PartitionInput"] for entry in body.get("Entries", ())]
    return [*body.get("PartitionInputList", ()), *entries]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Refused(otherwise)


def _create_database(body: Body) -> None:
    _name(body["DatabaseInput"].get("Name"), "DatabaseInput.Name")
    _text(body["DatabaseInput"].get("Description", ""), MOST_DESCRIPTION, "DatabaseInput.Description", lines=True)


def _create_table(body: Body) -> None:
    _table(body)
    _ours(body["TableInput"])


def _ours(table: Body) -> None:
    """What a table of somebody else that is adopted need not have."""
    _require(table["Parameters"].get("EXTERNAL") == "TRUE", "Parameters.EXTERNAL is not TRUE")
    location = table["StorageDescriptor"]["Location"]
    _require(location.endswith("/"), "Location does not end with /: a neighbour's name may begin with it")


def _update_table(body: Body) -> None:
    _require("VersionId" in body, "there is no VersionId: an update of somebody else would be lost")
    _require(body.get("SkipArchive") is True, "SkipArchive is not true: versions pile up against the account's quota")
    _table(body)


def _table(body: Body) -> None:
    table = body["TableInput"]
    _name(table.get("Name"), "Name")
    _require(table.get("TableType") == "EXTERNAL_TABLE", "TableType is not EXTERNAL_TABLE")
    _require(isinstance(table.get("PartitionKeys"), list), "PartitionKeys is absent: Athena fails")
    _text(table.get("Description", ""), MOST_DESCRIPTION, "Description", lines=True)
    parameters = table.get("Parameters") or {}
    _parameters(parameters, "Parameters")
    _storage(table.get("StorageDescriptor"))
    classification = FORMATS[table["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"]][0]
    _require(parameters.get("classification") == classification, "classification is not that of the SerDe")
    _columns([*table["StorageDescriptor"]["Columns"], *table["PartitionKeys"]])
    for key in table["PartitionKeys"]:
        _require(key["Type"] in PLAIN_TYPES - {"binary", "boolean"}, "a partition key's type cannot stand in a path")
    size = len(gzip.compress(json.dumps(table).encode(), compresslevel=1))
    _require(size <= MOST_METADATA, "the table's metadata are more than Athena reads")


def _storage(storage: Any) -> None:
    _require(isinstance(storage, Mapping), "there is no StorageDescriptor")
    _location(storage.get("Location"))
    serde = storage.get("SerdeInfo") or {}
    known = FORMATS.get(serde.get("SerializationLibrary", ""))
    _require(known is not None, "Athena has no such SerDe, or nothing is written for it")
    assert known is not None  # for mypy
    named = (storage.get("InputFormat"), storage.get("OutputFormat"))
    _require(named == known[1:], "InputFormat and OutputFormat are not those of the SerDe")
    _parameters(serde.get("Parameters") or {}, "SerdeInfo.Parameters")
    if known[0] == "csv":
        _require(serde["Parameters"].get("field.delim") == ",", "the SerDe does not know the delimiter")
    _columns(storage.get("Columns") or ())


def _location(location: Any) -> None:
    _text(location, MOST_LOCATION, "Location")
    _require(re.match(r"s3://[a-z0-9.-]{3,63}/.", location) is not None, "Location is no folder in a bucket")
    segments = location.removeprefix("s3://").removesuffix("/").split("/")[1:]
    _require(all(segments), "Location has an empty segment")
    _require(not any(map(_is_hidden, segments)), "Location is hidden from readers")


def _is_hidden(segment: str) -> bool:
    return segment.startswith(("_", "."))


def _columns(columns: Sequence[Body]) -> None:
    _require(bool(columns), "there is no column")
    for column in columns:
        _name(column.get("Name"), "a column's Name")
        _type(column.get("Type"))
        _text(column.get("Comment", ""), MOST_COMMENT, "a column's Comment")
        _parameters(column.get("Parameters") or {}, "a column's Parameters")
    names = [column["Name"] for column in columns]
    _require(len({*names}) == len(names), "two columns have one name")


def _name(name: Any, where: str) -> None:
    _require(isinstance(name, str) and NAME.fullmatch(name) is not None, f"{where} has characters beyond a-z, 0-9, _")
    _require(len(name.encode()) <= MOST_NAME_BYTES, f"{where} is longer than {MOST_NAME_BYTES} bytes")


def _text(text: Any, most: int, where: str, *, lines: bool = False) -> None:
    _require(isinstance(text, str), f"{where} is no text")
    _require(len(text) <= most, f"{where} is longer than {most}")
    one_line = re.sub(r"[\r\n]", "", text) if lines else text
    _require(LINE.fullmatch(one_line) is not None, f"{where} has characters that Glue does not take")


def _parameters(parameters: Any, where: str) -> None:
    _require(isinstance(parameters, Mapping), f"{where} is no map")
    for key, value in parameters.items():
        _text(key, MOST_PARAMETER_KEY, f"a key of {where}")
        _require(bool(key) and len(key.encode()) <= MOST_PARAMETER_KEY, f"a key of {where} is empty or too long")
        _require(isinstance(value, str), f"a value of {where} is no text")
        _require(len(value.encode()) <= MOST_PARAMETER, f"a value of {where} is longer than {MOST_PARAMETER}")


def _type(text: Any) -> None:
    """Hive's grammar, as far as Athena reads it: no blanks, lower case, no empty struct, no time."""
    _require(isinstance(text, str), "a column's Type is no text")
    _require(len(text) <= MOST_TYPE, f"a column's Type is longer than {MOST_TYPE}")
    words = WORD.findall(text)[::-1]
    _one_type(words)
    _require(not words, "a column's Type goes on behind its end")


def _one_type(words: list[str]) -> None:
    """Take one type from the end of a stack."""
    word = _take(words)
    if word in PLAIN_TYPES:
        return
    match word:
        case "decimal":
            precision, scale = _numbers(words, 2)
            _require(1 <= precision <= 38 and scale <= precision, "a decimal has digits that do not exist")
        case "char" | "varchar":
            _require(1 <= _numbers(words, 1)[0] <= (255 if word == "char" else 65_535), "a char has no such length")
        case "array":
            _expect(words, "<")
            _one_type(words)
            _expect(words, ">")
        case "map":
            _expect(words, "<")
            _require(words[-1:] != [] and words[-1] in PLAIN_TYPES, "a map's key is no plain type")
            _one_type(words)
            _expect(words, ",")
            _one_type(words)
            _expect(words, ">")
        case "struct":
            _struct(words)
        case _:
            raise _Refused("a column's Type is none that Hive and Athena know")


def _struct(words: list[str]) -> None:
    _expect(words, "<")
    names: list[str] = []
    while True:
        name = _take(words)
        _require(NAME.fullmatch(name) is not None, "a struct's field has a name that the type parser cannot read")
        _require(len(name.encode()) <= MOST_NAME_BYTES, f"a struct's field is longer than {MOST_NAME_BYTES} bytes")
        names.append(name)
        _expect(words, ":")
        _one_type(words)
        if _take(words, one_of=",>") == ">":
            break
    _require(len({*names}) == len(names), "two fields of a struct have one name")


def _numbers(words: list[str], count: int) -> list[int]:
    found = []
    for place in range(count):
        _expect(words, "(" if not place else ",")
        word = _take(words)
        _require(word.isdigit(), "a type's length is no number")
        found.append(int(word))
    _expect(words, ")")
    return found


def _take(words: list[str], *, one_of: str = "") -> str:
    _require(bool(words), "a column's Type ends too early")
    word = words.pop()
    _require(not one_of or word in one_of, f"a column's Type has something else where one of {one_of} must stand")
    return word


def _expect(words: list[str], wanted: str) -> None:
    _take(words, one_of=wanted)


def _at_most(key: str, most: int) -> Callable[[Body], None]:
    def judge(body: Body) -> None:
        _require(1 <= len(body[key]) <= most, f"{key} has none, or more than {most}")
        for item in body[key]:
            values = item.get("Values", item.get("PartitionValueList"))
            if values is not None:
                _values(values)
        for entry in body.get("Entries", ()):
            _require(entry["PartitionValueList"] == entry["PartitionInput"]["Values"], "an entry moves a partition")
        for partition in _partitions(body):
            _values(partition["Values"])
            _require("StorageDescriptor" in partition, "a partition has no StorageDescriptor of its own")
            _storage(partition["StorageDescriptor"])
            _parameters(partition.get("Parameters") or {}, "a partition's Parameters")

    return judge


def _values(values: Sequence[Any]) -> None:
    _require(bool(values), "a partition has no Values")
    for value in values:
        _require(isinstance(value, str) and 1 <= len(value) <= MOST_VALUE, "a partition's value is empty or too long")


def _reads(_: Body) -> None:
    """Names are judged for every call."""


RULES: dict[str, Callable[[Body], None]] = {
    "glue:CreateDatabase": _create_database,
    "glue:CreateTable": _create_table,
    "glue:UpdateTable": _update_table,
    "glue:BatchCreatePartition": _at_most("PartitionInputList", 100),
    "glue:BatchUpdatePartition": _at_most("Entries", 100),
    "glue:BatchDeletePartition": _at_most("PartitionsToDelete", 25),
    "glue:BatchGetPartition": _at_most("PartitionsToGet", 1000),
    **dict.fromkeys(("glue:GetDatabase", "glue:GetTable", "glue:GetPartitions", "glue:DeleteTable"), _reads),
}


def _of_file(file: File, formats: Mapping[str, set[str]]) -> Iterator[str]:
    """What is wrong with a file of the destination, if it lies at a Location."""
    folders = [file.location[: place + 1] for place, character in enumerate(file.location) if character == "/"]
    location = next((folder for folder in reversed(folders) if folder in formats), None)
    if location is None:
        return
    below = file.location.removeprefix(location)
    if any(map(_is_hidden, below.split("/"))):
        yield f"readers of {location} do not see a file that was written there"
    for named in formats[location]:
        if not below.endswith(ENDINGS[named]):
            yield f"a file at {location} has not the name of one of {named}"
    ending = below[below.rfind(".") :]
    begins = BEGINNINGS.get(ending)
    if file.beginning and begins is not None and not file.beginning.startswith(begins):
        yield f"a file at {location} does not begin as {ending} does"
    if file.beginning and begins is None and file.beginning.startswith(tuple(BEGINNINGS.values())):
        yield f"a file at {location} is compressed, or Parquet, and its name {ending} does not say so"
