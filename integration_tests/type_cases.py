"""What is stored of every kind of value, as data: schema, input, and what readers must see of it.

The rows of the acceptance list about names and types, and the inputs that crash or lose data elsewhere. A case is one
record of one stream; cases of one schema share a stream, all streams share a sync. ``test_types.py`` runs them through
the real process, reads them with two readers, and then again with writers that are wrong on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

BAD, LARGE = "DESTINATION_SERIALIZATION_ERROR", "DESTINATION_FIELD_SIZE_LIMITATION"
Change = tuple[str, str, str]


@dataclass(frozen=True)
class Kind:
    """A field's JSON Schema, and the type of its column in Glue."""

    schema: Any
    glue: str


@dataclass(frozen=True)
class Case:
    """One record: fields of these kinds, the JSON text of its data, and the row that it becomes.

    ``row`` holds every column but ours. ``extra`` is the text of ``_airbyte_extra``. ``line`` is the whole input line
    where its frame is the matter; ``{n}`` in it is the number of the case.
    """

    name: str
    kinds: Mapping[str, Kind]
    data: str
    row: Mapping[str, Any]
    changes: tuple[Change, ...] = ()
    extra: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    """The ``types`` of the configuration."""
    line: bytes | None = None
    meta: str = ""

    @property
    def is_large(self) -> bool:
        return len(self.data) > 1 << 20

    def input(self, number: int, stream: str) -> bytes:
        """The input line, without its newline. Every record has its number in ``n``."""
        if self.line is not None:
            return self.line.replace(b"{n}", b"%d" % number).replace(b"{s}", stream.encode())
        data = f'{{"n":{number}' + ("," if self.data[1:-1].strip() else "") + self.data[1:]
        text = f'{{"type":"RECORD","record":{{"stream":"{stream}","emitted_at":1,"data":{data}{self.meta}}}}}'
        return text.encode("utf-8", "surrogatepass")


def one(kind: Kind, text: str, value: Any, *changes: Change, extra: str | None = None, **more: Any) -> Case:
    """A case of one field ``f``."""
    name = more.pop("name", f"{kind.glue} {json.dumps(kind.schema)[:60]} <- {text[:60]}")
    return Case(name, {"f": kind}, f'{{"f":{text}}}', {"f": value}, changes, extra, **more)


def kept(kind: Kind, *texts: str, **more: Any) -> Iterator[Case]:
    """Values that are stored as they are; as Python reads them from JSON."""
    for text in texts:
        yield one(kind, text, json.loads(text), **more)


def nulled(kind: Kind, *texts: str, reason: str = BAD, **more: Any) -> Iterator[Case]:
    """Values that the column cannot hold: NULL, a change, and the original as it came."""
    for text in texts:
        original = json.dumps(text) if text in ("NaN", "Infinity", "-Infinity") else text
        yield one(kind, text, None, ("f", "NULLED", reason), extra=f'{{"f":{original}}}', **more)


def cut(kind: Kind, text: str, value: Any, reason: str = LARGE, **more: Any) -> Case:
    """A value that is stored rounded or shortened."""
    return one(kind, text, value, ("f", "TRUNCATED", reason), extra=f'{{"f":{text}}}', **more)


def nullable(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": ["null", kind], **more}


def known(name: str) -> dict[str, str]:
    return {"$ref": f"WellKnownTypes.json#/definitions/{name}"}


INT, NUM, BOOL = (
    Kind(nullable("integer"), "bigint"),
    Kind(nullable("number"), "double"),
    Kind(nullable("boolean"), "boolean"),
)
STR = Kind(nullable("string"), "string")
DAY = Kind(nullable("string", format="date"), "date")
TZ = Kind(nullable("string", format="date-time"), "timestamp")
NTZ = Kind(nullable("string", format="date-time", airbyte_type="timestamp_without_timezone"), "timestamp")
TIME_TZ = Kind(nullable("string", format="time", airbyte_type="time_with_timezone"), "string")
TIME = Kind(nullable("string", format="time", airbyte_type="time_without_timezone"), "string")
BIG_INT = Kind(nullable("string", airbyte_type="big_integer"), "decimal(38,0)")
BIG_NUM = Kind(nullable("string", airbyte_type="big_number"), "decimal(38,9)")
OBJ = Kind(
    {"type": "object", "properties": {"a": nullable("integer"), "b": nullable("string")}}, "struct<a:bigint,b:string>"
)
EMPTY = Kind({"type": "object", "properties": {}}, "string")
ANY_OBJ = Kind({"type": "object"}, "string")
INTS = Kind({"type": "array", "items": nullable("integer")}, "array<bigint>")
MATRIX = Kind({"type": "array", "items": {"type": "array", "items": nullable("integer")}}, "array<array<bigint>>")
OBJS = Kind({"type": "array", "items": OBJ.schema}, f"array<{OBJ.glue}>")
ANY_LIST = Kind({"type": "array"}, "string")
POTATO = Kind({"type": "potato"}, "string")
NOTHING = Kind({}, "string")
UNIONS = [
    Kind({"type": ["string", "integer"]}, "string"),
    Kind({"type": ["number", "boolean"]}, "string"),
    Kind({"oneOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"type": "integer"}}}]}, "string"),
    Kind({"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "boolean"}]}, "string"),
    Kind({"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}, "string"),
    Kind({"type": ["object", "array", "string"]}, "string"),
]
SAME_TWICE = Kind({"oneOf": [{"type": "integer"}, {"type": "null"}, {"type": "integer"}]}, "bigint")


def integers() -> Iterator[Case]:
    bounds = [n + d for n in (-(2**31), 2**31 - 1) for d in (-1, 0, 1)]
    yield from kept(INT, "null", "0", "1", "-1", "42", "-42", *map(str, bounds), str(2**63 - 1), str(-(2**63)))
    yield one(INT, "1.0", 1)
    yield one(INT, "1e3", 1000)
    yield one(INT, "-0", 0)
    limit = 10**38 - 1
    too_large = [2**63, -(2**63) - 1, limit, -limit, limit + 1, -limit - 1]
    yield from nulled(INT, *map(str, too_large), "9" * 32, "9" * 5000, "1e400", reason=LARGE)
    yield from nulled(INT, "1.5", '"foo"', '"42"', "{}", "[]", "true", "NaN", "Infinity")
    yield from kept(Kind({"type": "number", "airbyte_type": "integer"}, "bigint"), "42")
    yield from kept(Kind(known("Integer"), "bigint"), "42")
    yield from kept(SAME_TWICE, "42")
    for text in ("42", "-42", "9" * 38, "-" + "9" * 38):
        yield one(BIG_INT, text, Decimal(text))
        yield one(BIG_INT, f'"{text}"', Decimal(text))
    yield from nulled(BIG_INT, str(10**38), '"' + "9" * 39 + '"', reason=LARGE)
    yield from nulled(BIG_INT, '"foo"', '"Infinity"', "{}")
    yield cut(BIG_INT, '"1.5"', Decimal(2))


def numbers() -> Iterator[Case]:
    largest = ["1.7976931348623157e308", "-1.7976931348623157e308", "3.4028234663852886e38", "1.4e-45"]
    yield from kept(NUM, "null", "0.0", "-0.0", "1.0", "123.4", "-123.4", "0.1", "5e-10", "1e39", *largest)
    yield from kept(NUM, "2.2250738585072014e-308", "1e-300")
    yield one(NUM, "1", 1.0)
    yield one(NUM, "-1", -1.0)
    yield cut(NUM, "1234567890.1234567890123456789", 1234567890.1234567)
    yield cut(NUM, "50000.0000000000000001", 50000.0)
    yield cut(NUM, "9007199254740993", 9007199254740992.0)
    yield cut(NUM, "99999999999999999999999999999.999999999", 1e29)
    yield cut(NUM, "4.9e-324", 5e-324)
    yield from nulled(NUM, "1e400", "-1e400", "1.7976931348623159e308", "9" * 5000, reason=LARGE)
    yield from nulled(NUM, "NaN", "Infinity", "-Infinity", '"1"', '"foo"', "true", "{}")
    yield from kept(Kind(known("Number"), "double"), "0.5")
    for text, value in (
        ("5e-10", "1E-9"),
        ("12345678912345678912345678912.3456789123", "12345678912345678912345678912.345678912"),
    ):
        yield cut(BIG_NUM, f'"{text}"', Decimal(value))
    bound = "99999999999999999999999999999.999999999"
    yield one(BIG_NUM, f'"{bound}"', Decimal(bound))
    yield one(BIG_NUM, f'"-{bound}"', Decimal(f"-{bound}"))
    yield one(BIG_NUM, "0.1", Decimal("0.100000000"))
    yield from nulled(BIG_NUM, '"100000000000000000000000000000"', '"1e400"', reason=LARGE)
    yield from nulled(BIG_NUM, '"Infinity"', '"-Infinity"', '"NaN"', '"foo"')


def booleans_and_text() -> Iterator[Case]:
    yield from kept(BOOL, "null", "true", "false")
    yield from nulled(BOOL, '"true"', '"1"', '"false"', "1", "0", "{}", '"foo"')
    yield from kept(Kind(known("Boolean"), "boolean"), "true")
    yield from kept(
        STR, "null", '""', '"x"', '"foo\\nbar"', '"fo\\u0000o"', '"é😀"', '"\\ufeff"', '"\'\\"`\\\\;--"', '"null"'
    )
    long = "x" * 16_777_217
    yield Case("a string of 16,777,217 characters", {"long": STR}, f'{{"long":"{long}"}}', {"long": long})
    for text in ("{}", "[]", "1.10", "1e3", "true", '[1,"é"]', "9" * 32, "-0.0"):
        yield one(STR, text, text)
    yield from nulled(STR, "NaN", "Infinity")
    yield cut(STR, '"a\\ud800b"', "a\ufffdb", reason=BAD)
    yield from kept(Kind(nullable("string", format="ipv4"), "string"), '"127.0.0.1"')
    yield from kept(Kind(known("String"), "string"), '"x"')
    yield from kept(Kind(known("BinaryData"), "string"), '"Zm9v"')


def days_and_times() -> Iterator[Case]:
    for text in ("0001-01-01", "1970-01-01", "2021-01-23", "9999-12-31"):
        yield one(DAY, f'"{text}"', date.fromisoformat(text))
    yield one(Kind(known("Date"), "date"), '"2021-01-23"', date(2021, 1, 23))
    yield from nulled(DAY, '"10000-01-01"', reason=LARGE)
    yield from nulled(
        DAY, '"foo"', '"2021-02-30"', '"-0044-03-15"', '"0044-03-15 BC"', '"2021-01-23T00:00:00Z"', "18650", "{}"
    )
    for kind in (TZ, Kind(known("TimestampWithTimezone"), "timestamp")):
        for text, value in {
            "1970-01-01T00:00:00Z": datetime(1970, 1, 1),
            "0001-01-01T00:00:00Z": datetime(1, 1, 1),
            "9999-12-31T23:59:59.999999Z": datetime(9999, 12, 31, 23, 59, 59, 999999),
            "2021-01-23T01:23:45.678901+01:00": datetime(2021, 1, 23, 0, 23, 45, 678901),
            "2021-01-23T01:23:00-08:00": datetime(2021, 1, 23, 9, 23),
            "2021-01-23T01:23-08:00": datetime(2021, 1, 23, 9, 23),
            "2021-01-23T00:00:00+14:00": datetime(2021, 1, 22, 10),
            "2021-01-23T00:00:00+0530": datetime(2021, 1, 22, 18, 30),
            "2021-01-23T00:00:00-00:00": datetime(2021, 1, 23),
            "2021-01-23 12:34:56Z": datetime(2021, 1, 23, 12, 34, 56),
        }.items():
            yield one(kind, f'"{text}"', value.replace(tzinfo=UTC))
    cut_at = datetime(9999, 12, 31, 23, 59, 59, 999999)
    yield cut(TZ, '"9999-12-31T23:59:59.999999999Z"', cut_at.replace(tzinfo=UTC))
    yield cut(TZ, '"2021-01-23T00:00:00.123456789Z"', datetime(2021, 1, 23, 0, 0, 0, 123456, tzinfo=UTC))
    for text, value in {
        "1970-01-01T00:00:00": datetime(1970, 1, 1),
        "0001-01-01T00:00:00": datetime(1, 1, 1),
        "2021-01-23T01:23:45.678901": datetime(2021, 1, 23, 1, 23, 45, 678901),
        "2021-01-23T01:23": datetime(2021, 1, 23, 1, 23),
    }.items():
        yield one(NTZ, f'"{text}"', value)
        yield one(Kind(known("TimestampWithoutTimezone"), "timestamp"), f'"{text}"', value)
    yield cut(NTZ, '"9999-12-31T23:59:59.999999999"', cut_at)
    for kind, ending in ((TZ, "Z"), (NTZ, "")):
        yield from nulled(kind, f'"10000-01-01T00:00:00{ending}"', reason=LARGE)
        odd = (
            "2021-01-23T24:00:00",
            "2016-12-31T23:59:60",
            "-0044-03-15T00:00:00",
            "0044-03-15T00:00:00 BC",
            "2021-02-30T00:00:00",
        )
        yield from nulled(kind, *(f'"{text}{ending}"' for text in odd))
        yield from nulled(
            kind, "1700000000", "1700000000000", '"1700000000"', '"infinity"', '"epoch"', '"2021-01-23"', '"foo"', "{}"
        )
    yield from nulled(TZ, '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-01:00"', reason=LARGE)
    for kind, ending in ((TIME_TZ, "Z"), (TIME, ""), (Kind(known("TimeWithTimezone"), "string"), "+01:00")):
        yield from kept(kind, *(f'"{text}{ending}"' for text in ("00:00", "12:00:00", "23:59:59.999999999")))
    yield from kept(Kind(known("TimeWithoutTimezone"), "string"), '"01:23:45"')


def containers() -> Iterator[Case]:
    yield from kept(OBJ, '{"a":1,"b":"x"}', "null")
    yield one(OBJ, "{}", {"a": None, "b": None})
    yield one(OBJ, '{"a":1,"z":{"y":[1.10]}}', {"a": 1, "b": None}, extra='{"f.z":{"y":[1.10]}}')
    yield one(OBJ, '{"a":"x","b":{}}', {"a": None, "b": "{}"}, ("f.a", "NULLED", BAD), extra='{"f.a":"x"}')
    yield from nulled(OBJ, '"foo"', '"{}"', "[]", "1")
    for kind in (EMPTY, ANY_OBJ):
        for text in ("{}", '{"a":{"b":[1.10,123456789012345678901234567890,null]},"c":1e2,"d":"é"}'):
            yield one(kind, text, text)
    yield one(ANY_OBJ, '{ "a" : 1 }', '{"a":1}')
    yield one(ANY_OBJ, '"foo"', '"foo"')
    yield one(ANY_OBJ, '{"a":NaN}', '{"a":null}', ("f.a", "NULLED", BAD), extra='{"f.a":"NaN"}')
    yield one(ANY_OBJ, '{"a":1,"a":2}', '{"a":2}', ("f.a", "TRUNCATED", BAD), extra='{"f.a":[1]}')
    yield from kept(INTS, "[]", "[1,2,3]", "[1,null]", "null")
    yield one(INTS, '[1,"two",3]', [1, None, 3], ("f.1", "NULLED", BAD), extra='{"f.1":"two"}')
    yield from nulled(INTS, '"foo"', "{}", "1", '"[1]"')
    yield from kept(MATRIX, "[[1],[],[2,3],null]")
    yield one(
        MATRIX,
        "[[1,{}],2]",
        [[1, None], None],
        ("f.0.1", "NULLED", BAD),
        ("f.1", "NULLED", BAD),
        extra='{"f.0.1":{},"f.1":2}',
    )
    yield from kept(OBJS, '[{"a":1,"b":"x"},{"a":null,"b":null},null]')
    yield one(OBJS, '[{"a":1,"c":2}]', [{"a": 1, "b": None}], extra='{"f.0.c":2}')
    for kind in (
        ANY_LIST,
        Kind({"type": "array", "items": []}, "string"),
        Kind({"type": "array", "items": {}}, "string"),
    ):
        yield one(kind, '[1,"a",{"b":1.10},[]]', '[1,"a",{"b":1.10},[]]')
    deep = "[" * 100 + "1" + "]" * 100
    yield one(ANY_LIST, deep, deep, name="nesting of 100 in a column of JSON")
    yield one(STR, deep, deep, name="nesting of 100 in a column of text")
    yield Case(
        "nesting of 100 in a field that nobody declared",
        {"f": INT},
        f'{{"f":1,"u":{deep}}}',
        {"f": 1},
        extra=f'{{"u":{deep}}}',
    )
    yield nested_struct(100)


def nested_struct(depth: int) -> Case:
    kind, value, text = INT, 1, "1"
    row: Any = value
    for _ in range(depth):
        kind = Kind({"type": "object", "properties": {"a": kind.schema}}, f"struct<a:{kind.glue}>")
        text, row = f'{{"a":{text}}}', {"a": row}
    return one(kind, text, row, name=f"nesting of {depth} in declared objects")


def unions_and_unknown() -> Iterator[Case]:
    """Six unions, and fields whose type says nothing: all are JSON text, with the digits that came."""
    kinds = [*UNIONS, POTATO, NOTHING, Kind({"type": ["null"]}, "string"), Kind(known("Unheard"), "string")]
    columns = {f"u{number}": kind for number, kind in enumerate(kinds)}
    texts = ('"foo"', "42", "1.10", "true", '{"a":1}', "[1]", '"2021-01-23"', "123456789012345678901234567890", "null")
    for text in texts:
        data = ",".join(f'"{column}":{text}' for column in columns)
        value = None if text == "null" else text
        yield Case(f"unions and unknown types <- {text}", columns, f"{{{data}}}", dict.fromkeys(columns, value))
    inside = Kind({"type": "object", "properties": {"u": UNIONS[0].schema}}, "struct<u:string>")
    yield one(inside, '{"u":"42"}', {"u": '"42"'})
    yield one(inside, '{"u":42}', {"u": "42"})


def whole_records() -> Iterator[Case]:
    """testBasicTypes, and what a record is apart from its values."""
    every = {
        "i": INT,
        "d": NUM,
        "b": BOOL,
        "s": STR,
        "day": DAY,
        "tz": TZ,
        "ntz": NTZ,
        "t": TIME,
        "o": OBJ,
        "l": INTS,
        "u": UNIONS[0],
    }
    empty = dict.fromkeys(every)
    yield Case("every kind, all null", every, json.dumps(empty), empty)
    yield Case("every kind, all unset", every, "{}", empty)
    yield Case(
        "every kind, all wrong",
        every,
        '{"i":"foo","d":"foo","b":"foo","s":{},"day":"foo","tz":"foo","ntz":{},"t":1,"o":"foo","l":"foo","u":null}',
        {**empty, "s": "{}", "t": "1"},
        tuple((name, "NULLED", BAD) for name in ("i", "d", "b", "day", "tz", "ntz", "o", "l")),
        '{"i":"foo","d":"foo","b":"foo","day":"foo","tz":"foo","ntz":{},"o":"foo","l":"foo"}',
    )
    yield Case("an undeclared field", {"f": INT}, '{"f":1,"new":{"a":[1.10]}}', {"f": 1}, extra='{"new":{"a":[1.10]}}')
    yield Case("an undeclared field with a dot in its key", {"f": INT}, '{"a.b":1}', {"f": None}, extra='{"a\\\\.b":1}')
    yield Case("no columns at all", {}, '{"x":1}', {}, extra='{"x":1}')
    twice = (("f", "TRUNCATED", BAD),)
    yield Case("of repeated keys the last wins", {"f": INT}, '{"f":1,"f":2}', {"f": 2}, twice, '{"f":[1]}')
    reasons = ',"meta":{"changes":[{"field":"f","change":"NULLED","reason":"SOURCE_SOMETHING_NEW"}]}'
    yield Case(
        "an unknown reason of the source",
        {"f": INT},
        '{"f":null}',
        {"f": None},
        (("f", "NULLED", "SOURCE_SOMETHING_NEW"),),
        meta=reasons,
    )
    yield Case("the source's change, and ours behind it", {"f": INT}, '{"f":"x"}', {"f": None},
               (("f", "NULLED", "SOURCE_SOMETHING_NEW"), ("f", "NULLED", BAD)), '{"f":"x"}', meta=reasons)  # fmt: skip
    large = "y" * (20 << 20)
    yield Case("a record of 20 MB", {"large": STR}, f'{{"large":"{large}"}}', {"large": large})
    yield Case(
        "20 MB that nobody declared", {"small": STR}, f'{{"u":"{large}"}}', {"small": None}, extra=f'{{"u":"{large}"}}'
    )


def frames() -> Iterator[Case]:
    """Lines that are odd around their record."""
    body = b'{"type":"RECORD","record":{"stream":"{s}","emitted_at":1,"data":{"n":{n},"f":7}}}'
    spaced = (
        b' { "record" : { "data" : { "f" : 7 , "n" : {n} } , "emitted_at" : 1.0 , "stream":"{s}"} , "type":"RECORD" } '
    )
    every = (
        b'{"type":"RECORD","log":null,"state":null,"record":{"namespace":null,"stream":"{s}","data":{"n":{n},"f":7},'
        b'"emitted_at":1,"meta":null,"file_reference":null},"control":null,"catalog":null}'
    )
    escapes = (
        body.replace(b'"data"', b'"d\\u0061ta"').replace(b'"f"', b'"\\u0066"').replace(b'"stream"', b'"str\\u0065am"')
    )
    for name, line in {
        "a line that ends with CRLF": body + b"\r",
        "blank lines around": b"\n \n\t\r\n" + body + b"\n\n",
        "spaces and another order of keys": spaced,
        "every field of the protocol, nulls included": every,
        "key names written as escapes": escapes,
    }.items():
        yield Case(name, {"f": INT}, "", {"f": 7}, line=line)
    yield Case("a lone surrogate in a key", {"f": INT}, '{"f":1,"\\ud800":2}', {"f": 1}, extra='{"\\ud800":2}')


LONG = "k" * 300


def hashed(plain: str, key: str) -> str:
    return f"{plain[:246]}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


# Key -> column: what a reader can type. Of several keys with one plain name none gets it, unless it is that very name.
ODD_KEYS = {
    "order": "order", "Foo.Bar": "foo_bar", "é": "e", "1st": "1st", "camelCase": "camelcase", "a b": "a_b",
    "x\"y'z`": "x_y_z_", "a<b>:c,d": "a_b__c_d", "nul\x00l": "nul_l", "日本": "__", "group": "group", "foo_1": "foo_1",
    **{key: hashed("group", key) for key in ("Group", "GROUP")},
    **{key: hashed("foo_1", key) for key in ("foo-1", "Foo 1")},
    **{key: hashed("_", key) for key in ("", " ")},
    **{key: hashed("id_", key) for key in ("id.", "id-")},
    LONG: hashed(LONG, LONG), "_airbyte_meta": hashed("_airbyte_meta", "_airbyte_meta"),
}  # fmt: skip


def names() -> Iterator[Case]:
    """Odd keys, all in one record, as columns and as fields of an object; and where nobody declared them."""
    kinds = dict.fromkeys(ODD_KEYS, INT)
    data = {key: number for number, key in enumerate(ODD_KEYS)}
    row = {column: data[key] for key, column in ODD_KEYS.items()}
    yield Case("odd keys as columns", kinds, json.dumps(data), row)
    fields = ",".join(f"{column}:bigint" for column in ODD_KEYS.values())
    inside = Kind({"type": "object", "properties": dict.fromkeys(ODD_KEYS, INT.schema)}, f"struct<{fields}>")
    yield one(inside, json.dumps(data), row, name="odd keys as fields")
    extra = '{"a\\\\.b":1,"":2," ":3,"nul\\u0000l":4,"A":5,"a":6,"LONG":7}'.replace("LONG", LONG)
    undeclared = extra.replace("\\\\", "")
    yield Case("odd keys that nobody declared", {"f": INT}, undeclared, {"f": None}, extra=extra)


def options() -> Iterator[Case]:
    """``types`` of the configuration."""
    exact: dict[str, Any] = {"types": {"number": "decimal"}}
    kind = Kind(NUM.schema, "decimal(38,9)")
    for text in ("0", "1", "-123.4", "0.1", "123456789.123456789", "99999999999999999999999999999.999999999"):
        yield one(kind, text, Decimal(text).quantize(Decimal("1E-9")) if len(text) < 30 else Decimal(text), **exact)
    yield cut(kind, "5e-10", Decimal("1E-9"), **exact)
    yield cut(
        kind, "12345678912345678912345678912.3456789123", Decimal("12345678912345678912345678912.345678912"), **exact
    )
    yield from nulled(kind, "1e29", "1e400", "1.7976931348623157e308", reason=LARGE, **exact)
    yield from nulled(kind, "NaN", '"foo"', "true", **exact)
    inside = Kind({"type": "array", "items": NUM.schema}, "array<decimal(38,9)>")
    yield one(inside, "[0.1]", [Decimal("0.100000000")], **exact)
    wide: dict[str, Any] = {"types": {"integer_overflow": "decimal"}}
    kind = Kind(INT.schema, "decimal(38,0)")
    for text in ("0", "42", str(2**63), str(-(2**63) - 1), "9" * 38, "-" + "9" * 38):
        yield one(kind, text, Decimal(text), **wide)
    yield from nulled(kind, str(10**38), "9" * 5000, reason=LARGE, **wide)
    yield from nulled(kind, '"foo"', "{}", **wide)
    as_text: dict[str, Any] = {"types": {"integer_overflow": "string"}}
    yield from (one(Kind(INT.schema, "string"), number, number, **as_text) for number in ("42", str(2**63), "9" * 5000))
    shallow: dict[str, Any] = {"types": {"nested": "json"}}
    yield one(Kind(OBJ.schema, "string"), '{"b":"x","a":1.10,"z":[]}', '{"b":"x","a":1.10,"z":[]}', **shallow)
    yield one(Kind(INTS.schema, "string"), '[1,"two"]', '[1,"two"]', **shallow)
    millis: dict[str, Any] = {"types": {"timestamp_unit": "ms"}}
    yield one(TZ, '"2021-01-23T00:00:00.123Z"', datetime(2021, 1, 23, 0, 0, 0, 123000), **millis)
    yield cut(TZ, '"2021-01-23T00:00:00.123456Z"', datetime(2021, 1, 23, 0, 0, 0, 123000), **millis)
    yield one(NTZ, '"2021-01-23T00:00:00.123"', datetime(2021, 1, 23, 0, 0, 0, 123000), **millis)
    yield cut(NTZ, '"1969-12-31T23:59:59.9999"', datetime(1969, 12, 31, 23, 59, 59, 999000), **millis)


CASES = [
    *integers(),
    *numbers(),
    *booleans_and_text(),
    *days_and_times(),
    *containers(),
    *unions_and_unknown(),
    *whole_records(),
    *frames(),
    *names(),
    *options(),
]


@dataclass(frozen=True)
class Evolution:
    """A field ``f`` of one kind in a first sync and of another in a second: what readers see of both, and its type.

    ``None`` for a kind: the field is not declared. ``values`` are those of the first sync's rows, then of the second's.
    """

    name: str
    before: Kind | None
    old: tuple[str, ...]
    after: Kind | None
    new: tuple[str, ...]
    glue: str
    values: tuple[Any, ...]
    options: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
    """The ``types`` of the configuration in both syncs."""


def struct(**fields: Any) -> Kind:
    return Kind({"type": "object", "properties": fields}, "")


def items(schema: Any) -> Kind:
    return Kind({"type": "array", "items": schema}, "")


def evolutions() -> Iterator[Evolution]:
    yield Evolution("added", None, ("1",), INT, ("2",), "bigint", (None, 2))
    yield Evolution("dropped", INT, ("1",), None, ("2",), "bigint", (1, None))
    yield Evolution("the same", INT, ("1",), INT, ("2",), "bigint", (1, 2))
    # testAppendSchemaEvolution: retroactive
    yield Evolution("integer to string", INT, ("42", "null"), STR, ('"x"',), "string", ("42", None, "x"))
    far = ("1.5", "0.1", "1e16", "1e-7", "100.0")
    texts: tuple[str, ...] = ("1.5", "0.1", "1e+16", "1e-07", "100.0")
    yield Evolution("number to string", NUM, far, STR, ('"x"',), "string", (*texts, "x"))
    yield Evolution("boolean to string", BOOL, ("true", "false"), STR, ('"x"',), "string", ("true", "false", "x"))
    yield Evolution("date to string", DAY, ('"0001-01-01"',), STR, ('"x"',), "string", ("0001-01-01", "x"))
    moments = ('"2021-01-23T01:23:45.6789+01:00"', '"0001-01-01T00:00:00Z"')
    texts = ("2021-01-23T00:23:45.6789Z", "0001-01-01T00:00:00Z")
    yield Evolution("time to string", TZ, moments, STR, ('"x"',), "string", (*texts, "x"))
    local = ('"2021-01-23T01:23:45"',)
    yield Evolution("time without a zone to string", NTZ, local, STR, ('"x"',), "string", ("2021-01-23T01:23:45", "x"))
    yield Evolution("big integer to string", BIG_INT, ("9" * 38,), STR, ('"x"',), "string", ("9" * 38, "x"))
    cents = ('"0.1"', '"100"', '"-12345678912345678912345678912.345678912"')
    texts = ("0.1", "100", "-12345678912345678912345678912.345678912")
    yield Evolution("big number to string", BIG_NUM, cents, STR, ('"x"',), "string", (*texts, "x"))
    yield Evolution(
        "struct to string", OBJ, ('{"a":1,"b":"é\\"\\n"}',), STR, ('"x"',), "string", ('{"a":1,"b":"é\\"\\n"}', "x")
    )
    yield Evolution("array to string", INTS, ("[1,null,2]", "[]"), STR, ('"x"',), "string", ("[1,null,2]", "[]", "x"))
    yield Evolution("string to integer", STR, ('"x"',), INT, ("42",), "string", ("x", "42"))
    yield Evolution("string to struct", STR, ('"x"',), OBJ, ('{"a":1}',), "string", ("x", '{"a":1}'))
    # numbers
    yield Evolution(
        "integer to number", INT, ("42", str(2**53), "null"), NUM, ("0.5",), "double", (42.0, float(2**53), None, 0.5)
    )
    exact = Decimal(2**53 + 1).quantize(Decimal("1E-9")), Decimal("0.500000000")
    yield Evolution("large integer to number", INT, (str(2**53 + 1),), NUM, ("0.5",), "decimal(38,9)", exact)
    yield Evolution("number to integer", NUM, ("0.5",), INT, ("42",), "double", (0.5, 42.0))
    yield Evolution(
        "integer to big integer", INT, ("42",), BIG_INT, ("9" * 38,), "decimal(38,0)", (Decimal(42), Decimal("9" * 38))
    )
    yield Evolution(
        "big integer to integer", BIG_INT, ("9" * 38,), INT, ("42",), "decimal(38,0)", (Decimal("9" * 38), Decimal(42))
    )
    yield Evolution(
        "integer to big number",
        INT,
        ("42",),
        BIG_NUM,
        ("0.1",),
        "decimal(38,9)",
        (Decimal("42.000000000"), Decimal("0.100000000")),
    )
    yield Evolution(
        "number to big number",
        NUM,
        ("0.5",),
        BIG_NUM,
        ("0.1",),
        "decimal(38,9)",
        (Decimal("0.500000000"), Decimal("0.100000000")),
    )
    yield Evolution("tiny number to big number", NUM, ("1e-12",), BIG_NUM, ('"0.1"',), "string", ("1e-12", "0.1"))
    yield Evolution("big number to number", BIG_NUM, ("0.5",), NUM, ("0.25",), "double", (0.5, 0.25))
    yield Evolution(
        "exact big number to number",
        BIG_NUM,
        ('"12345678901234567890.123456789"',),
        NUM,
        ("0.5",),
        "decimal(38,9)",
        (Decimal("12345678901234567890.123456789"), Decimal("0.500000000")),
    )
    yield Evolution(
        "huge integer to big number", BIG_INT, ("9" * 38,), BIG_NUM, ('"0.1"',), "string", ("9" * 38, "0.1")
    )
    yield Evolution("boolean to integer", BOOL, ("true",), INT, ("1",), "string", ("true", "1"))
    # times
    zoned = datetime(2021, 1, 23, 1, 23, 45, tzinfo=UTC)
    yield Evolution("time gets a zone", NTZ, local, TZ, ('"2021-01-23T02:23:45+01:00"',), "timestamp", (zoned, zoned))
    yield Evolution(
        "time loses its zone", TZ, ('"2021-01-23T02:23:45+01:00"',), NTZ, local, "timestamp", (zoned, zoned)
    )
    yield Evolution(
        "date to time",
        DAY,
        ('"2021-01-23"',),
        TZ,
        ('"2021-01-23T00:00:00Z"',),
        "string",
        ("2021-01-23", "2021-01-23T00:00:00Z"),
    )
    # testAppendJsonSchemaEvolution: JSON and text
    some = ('"x"', '"42"', '"é\\"\\n\\u0000"')
    texts = ('"x"', '"42"', '"é\\"\\n\\u0000"')
    yield Evolution("string to unknown", STR, some, POTATO, ('{"a":[1.10]}',), "string", (*texts, '{"a":[1.10]}'))
    values = ("x", "42", 'é"\n\x00', "42", '{"a":[1.10]}')
    yield Evolution("unknown to string", POTATO, (*some, "42", '{"a":[1.10]}'), STR, ('"y"',), "string", (*values, "y"))
    yield Evolution("integer to unknown", INT, ("42",), POTATO, ('"x"',), "string", ("42", '"x"'))
    yield Evolution("unknown to integer", POTATO, ('"x"',), INT, ("42",), "string", ('"x"', "42"))
    yield Evolution("date to unknown", DAY, ('"2021-01-23"',), POTATO, ("1",), "string", ('"2021-01-23"', "1"))
    yield Evolution(
        "struct to schemaless",
        OBJ,
        ('{"a":1}',),
        ANY_OBJ,
        ('{"z":1.10}',),
        "string",
        ('{"a":1,"b":null}', '{"z":1.10}'),
    )
    yield Evolution(
        "schemaless to struct", ANY_OBJ, ('{"z":1.10}',), OBJ, ('{"a":1}',), "string", ('{"z":1.10}', '{"a":1}')
    )
    yield Evolution("array to struct", INTS, ("[1]",), OBJ, ('{"a":1}',), "string", ("[1]", '{"a":1}'))
    # inside of objects and arrays
    text, number = STR.schema, INT.schema
    yield Evolution(
        "struct field added",
        struct(a=number),
        ('{"a":1}',),
        struct(a=number, b=text),
        ('{"a":2,"b":"x"}',),
        "struct<a:bigint,b:string>",
        ({"a": 1, "b": None}, {"a": 2, "b": "x"}),
    )
    yield Evolution(
        "struct field dropped",
        struct(a=number, b=text),
        ('{"a":1,"b":"x"}',),
        struct(a=number),
        ('{"a":2}',),
        "struct<a:bigint,b:string>",
        ({"a": 1, "b": "x"}, {"a": 2, "b": None}),
    )
    yield Evolution(
        "struct fields in another order",
        struct(a=number, b=text),
        ('{"a":1,"b":"x"}',),
        struct(b=text, a=number),
        ('{"b":"y","a":2}',),
        "struct<a:bigint,b:string>",
        ({"a": 1, "b": "x"}, {"a": 2, "b": "y"}),
    )
    deep = {"type": "object", "properties": {"x": number}}
    deeper = {"type": "object", "properties": {"x": text}}
    yield Evolution(
        "a type inside of a struct in a struct",
        struct(s=deep),
        ('{"s":{"x":1}}', "{}"),
        struct(s=deeper),
        ('{"s":{"x":"y"}}',),
        "struct<s:struct<x:string>>",
        ({"s": {"x": "1"}}, {"s": None}, {"s": {"x": "y"}}),
    )
    yield Evolution(
        "struct field of a key that another field's name takes",
        struct(A=number),
        ('{"A":1}',),
        struct(A=number, a=text),
        ('{"A":2,"a":"x"}',),
        f"struct<a:bigint,{hashed('a', 'a')}:string>",
        ({"a": 1, hashed("a", "a"): None}, {"a": 2, hashed("a", "a"): "x"}),
    )
    yield Evolution(
        "array items",
        items(number),
        ("[1,null]", "[]"),
        items(text),
        ('["x"]',),
        "array<string>",
        (["1", None], [], ["x"]),
    )
    yield Evolution(
        "array items to number", items(number), ("[1]",), items(NUM.schema), ("[0.5]",), "array<double>", ([1.0], [0.5])
    )
    exact = Decimal(2**53 + 1).quantize(Decimal("1E-9")), Decimal("0.500000000")
    yield Evolution(
        "large array items to number",
        items(number),
        (f"[{2**53 + 1}]",),
        items(NUM.schema),
        ("[0.5]",),
        "array<decimal(38,9)>",
        ([exact[0]], [exact[1]]),
    )
    yield Evolution(
        "array of arrays",
        items(items(number).schema),
        ("[[1],[2,null]]",),
        items(items(text).schema),
        ('[["x"]]',),
        "array<array<string>>",
        ([["1"], ["2", None]], [["x"]]),
    )
    yield Evolution(
        "array of structs",
        items(deep),
        ('[{"x":1},null]',),
        items(deeper),
        ('[{"x":"y"}]',),
        "array<struct<x:string>>",
        ([{"x": "1"}, None], [{"x": "y"}]),
    )
    inner = {"day": DAY.schema, "at": TZ.schema, "n": NUM.schema, "u": POTATO.schema}
    nested = struct(Key=items({"type": "object", "properties": inner}).schema)
    text_of = '{"Key":[{"day":"2021-01-23","at":"2021-01-23T00:00:00Z","n":1.5,"u":{"k":1.10}}]}'
    yield Evolution("everything nested to JSON text", nested, (text_of,), ANY_OBJ, ("{}",), "string", (text_of, "{}"))
    # testTableSchemaEvolution's options
    yield Evolution(
        "types.number: decimal",
        NUM,
        ("0.1",),
        NUM,
        ("1e-9",),
        "decimal(38,9)",
        (Decimal("0.100000000"), Decimal("1E-9")),
        ({}, {"number": "decimal"}),
    )
    yield Evolution(
        "types.number: double", NUM, ("0.1",), NUM, ("1e-12",), "double", (0.1, 1e-12), ({"number": "decimal"}, {})
    )
    yield Evolution(
        "types.integer_overflow: decimal",
        INT,
        ("1",),
        INT,
        ("9" * 38,),
        "decimal(38,0)",
        (Decimal(1), Decimal("9" * 38)),
        ({}, {"integer_overflow": "decimal"}),
    )
    yield Evolution(
        "types.integer_overflow: string",
        INT,
        ("1",),
        INT,
        ("9" * 50,),
        "string",
        ("1", "9" * 50),
        ({}, {"integer_overflow": "string"}),
    )
    yield Evolution(
        "types.integer_overflow: null",
        INT,
        ("9" * 38,),
        INT,
        ("1",),
        "decimal(38,0)",
        (Decimal("9" * 38), Decimal(1)),
        ({"integer_overflow": "decimal"}, {}),
    )
    yield Evolution(
        "types.nested: json",
        OBJ,
        ('{"a":1,"b":"x"}',),
        OBJ,
        ('{"b":"y","a":1.0}',),
        "string",
        ('{"a":1,"b":"x"}', '{"b":"y","a":1.0}'),
        ({}, {"nested": "json"}),
    )
    yield Evolution(
        "types.nested: struct",
        OBJ,
        ('{"b":"x","z":1}',),
        OBJ,
        ('{"a":1}',),
        "string",
        ('{"b":"x","z":1}', '{"a":1}'),
        ({"nested": "json"}, {}),
    )
    fine, coarse = ('"2021-01-23T00:00:00.123456Z"',), ('"2021-01-23T00:00:00.123Z"',)
    micros, millis = (datetime(2021, 1, 23, 0, 0, 0, n, tzinfo=UTC) for n in (123456, 123000))
    yield Evolution(
        "types.timestamp_unit: us", TZ, coarse, TZ, fine, "timestamp", (millis, micros), ({"timestamp_unit": "ms"}, {})
    )
    yield Evolution(
        "types.timestamp_unit: ms", TZ, fine, TZ, coarse, "timestamp", (micros, millis), ({}, {"timestamp_unit": "ms"})
    )


EVOLUTIONS = [*evolutions()]
