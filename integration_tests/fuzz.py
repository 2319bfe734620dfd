"""A campaign of hostile lines: each is stored as it came, stored with its change and original, or fails the sync.

    python -m integration_tests.fuzz [--lines 100000] [--processes 2000] [--seed 1]      (make fuzz)

Lines are made by a seed: records whose values are odd for their declared types in every way we know, and broken lines.
Each stands between two good ones. A sync takes lines until one fails: its number must be named, every STATE before it
must leave, none behind it may. The next sync goes on behind it. Each table is read back with pyarrow and each row
compared with its line by a judge that shares no code with the destination: every value of the line must stand in its
column, exactly, or be kept in ``_airbyte_extra`` under a change. A line that fails must be one that is no record.

Each line carries a canary of its own, and none may stand in what was printed or sent to Glue (``evidence.py``). The
first ``--processes`` lines go through the real process too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from local_runner.lake import running_lake

from integration_tests import evidence
from integration_tests.harness import House, Result, catalog
from integration_tests.in_process import write_in_process

CANARY = b"c4n4ry"
STORED, CHANGED, FAILED = "stored", "stored with change", "failed"
LEAST_SHARE = 0.1
LINES_A_SYNC, SYNCS_A_TABLE = 40, 6
NULLED, TRUNCATED = "NULLED", "TRUNCATED"
CLOCK = itertools.count(2, 2)

# What a field is declared as: a word, the fields of an object, or in a list the items of an array.
KINDS: dict[str, Any] = {
    "n": "integer", "i": "integer", "d": "number", "b": "boolean", "s": "string", "day": "date", "tz": "with_zone",
    "ntz": "without_zone", "t": "time", "big": "big_integer", "exact": "big_number",
    "o": {"a": "integer", "b": "string", "deep": {"x": "number", "days": ["date"]}},
    "l": ["integer"], "m": [["number"]], "objs": [{"a": "integer", "u": "json", "at": "with_zone"}],
    "u": "json", "j": "open", "list": "open_list",
}  # fmt: skip
WORDS: dict[str, Any] = {
    "integer": {"type": ["null", "integer"]},
    "number": {"type": ["null", "number"]},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "date": {"type": "string", "format": "date"},
    "with_zone": {"type": "string", "format": "date-time"},
    "without_zone": {"type": "string", "format": "date-time", "airbyte_type": "timestamp_without_timezone"},
    "time": {"type": "string", "format": "time", "airbyte_type": "time_without_timezone"},
    "big_integer": {"type": "string", "airbyte_type": "big_integer"},
    "big_number": {"type": "string", "airbyte_type": "big_number"},
    "json": {"type": ["string", "integer", "object"]},
    "open": {"type": "object"},
    "open_list": {"type": "array"},
}
JSON_KINDS = {"json", "open", "open_list"}


def schema_of(kind: Any) -> Any:
    match kind:
        case dict():
            return {"type": "object", "properties": {name: schema_of(inner) for name, inner in kind.items()}}
        case [item]:
            return {"type": "array", "items": schema_of(item)}
        case _:
            return WORDS[kind]


SCHEMA = schema_of(KINDS)

# --- Making lines -----------------------------------------------------------------------------------------------------

FITTING: dict[str, Sequence[str]] = {
    "integer": ("0", "-1", "42", "1.0", "1e3", "-0", str(2**63 - 1), str(-(2**63)), "1200E-2", "null"),
    "number": ("0.1", "-0.0", "-0", "1", "1e39", "5e-10", "1.7976931348623157e308", "2.2250738585072014e-308", "null",
               "1e22", "0.30000000000000004", "1E5", "100"),
    "boolean": ("true", "false", "null"),
    "string": ('""', '"x"', '"fo\\u0000o"', '"é😀"', '"\\ufeff\\u2028"', '"\\ud83d\\ude00"', "1.10", "1e3", "{}",
               "true", '"\'\\"`\\\\;--"', '[1,{"a":[]}]', '"null"', "-0.0", '"\\/"', '"\\u007f"', "9" * 32),
    "date": ('"0001-01-01"', '"9999-12-31"', '"2024-02-29"', "null"),
    "with_zone": ('"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"', '"2021-01-23T01:23:45.678901+01:00"',
                  '"2021-01-23T01:23-08:00"', '"2021-01-23T00:00:00+14:00"', '"2021-01-23T00:00:00+0530"',
                  '"2021-01-23T00:00:00-00:00"', '"2021-01-23 12:34:56Z"', '"2021-01-23t12:34:56z"',
                  '"2021-01-23T00:00:00.500Z"', '"2021-01-23T00:00:00"', '"2021-01-23T00:00:00+05"'),
    "without_zone": ('"0001-01-01T00:00:00"', '"9999-12-31T23:59:59.999999"', '"2021-01-23 01:23"',
                     '"2021-01-23T01:23:45.6"'),
    "time": ('"00:00"', '"23:59:59.999999999"', '"x"', "12"),
    "big_integer": ('"42"', "42", '"' + "9" * 38 + '"', '"-1"', "1e3"),
    "big_number": ('"0.1"', "0.1", '"99999999999999999999999999999.999999999"', "-0.000000001", "null"),
    "json": ('"42"', "42", "1.10", "1e400", "true", '{"a":1.10}', "[]", "9" * 60, '"é"', "null", '{"":{" ":[]}}'),
    "open": ("{}", '{"a":{"b":[1.10,123456789012345678901234567890,null]},"c":1e2}', '"x"', '{ "a" : 1 }',
             '{"A":1,"a":2}'),
    "open_list": ("[]", '[1,"a",{"b":1.10},[]]', "[" * 100 + "]" * 100, "[null,[null]]", "{}"),
}  # fmt: skip
ODD = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1.5", "1.10", "9" * 40, "9" * 5000, str(2**63), '"foo"',
    '"42"', "{}", "[]", "true", "1", "0", '"true"', '"1"', '"a\\ud800b"', '"\\udc00"', '{"a":1,"a":2}',
    '{"a":"x","a":{}}', "1234567890.1234567890123456789", "9007199254740993", "4.9e-324", "1e-400",
    '"2021-02-30"', '"10000-01-01"', '"-0044-03-15"', '"24:00:00"', '"2021-01-23T24:00:00Z"',
    '"2016-12-31T23:59:60Z"', '"0044-03-15 BC"', '"9999-12-31T23:59:59.999999999Z"', '"10000-01-01T00:00:00Z"',
    '"0001-01-01T00:00:00+14:00"', "1700000000", '"infinity"', '"epoch"', '"now"', '"NaN"',
    '"2021-01-23T00:00:00.123456789"', '"2021-01-23T00:00:00+25:00"', '"2021-01-23"', '[1,"two",3]',
    "[[1],2,{}]", '{"a":NaN,"b":[Infinity]}', '{"\\ud800":NaN}', '[{"a":"x","c":[1,1.50]}]',
    '{"a":{"b":1,"b":2,"b":[3]}}', "[" * 100 + "1" + "]" * 100, '{"a":' * 100 + "1" + "}" * 100, '"1.5"',
    '"1e400"', '{"a.b":1,"a":{"b":2}}', '{"deep":{"x":"y","days":["2021-01-23","no",5]}}', "\"\uff10\"",
    '" 42 "', '"1_000"', "-0.0", '{"0":NaN,"a":[NaN]}', '{"a\\\\.b":NaN}', '"5e-10"', "\"\u0661\"", '"0x10"',
    '[{"a":1,"a":2},{"u":NaN}]', '"' + "k" * 300 + '"'
)  # fmt: skip
ODD_KEYS = ("", " ", "a.b", "a\\\\b", "A", "S", "nul\\u0000l", "k" * 300, "é", "日本", "\\ud800", "order",
            "_airbyte_meta", "o.a", "rowid", "__proto__", "x\\\"y", "filename", "our number",
            "_airbyte_extra", "l.0", "I")  # fmt: skip
SPACES = ((",", ":"), (", ", ": "), (" ,\t", " : "))


@dataclass(frozen=True)
class Maker:
    """Makes lines of a stream; each is a function of the seed and its number."""

    seed: int

    def canary(self, number: int) -> str:
        return f"{CANARY.decode()}-{number}z"

    def hostile(self, number: int, stream: str) -> bytes:
        dice = random.Random(f"{self.seed} {number}")
        canary = f'"{self.canary(number)}"'
        kind = dice.random()
        pairs = [(f'"{name}"', self._fitting(dice, kind, 0)) for name, kind in KINDS.items() if dice.random() < 0.7]
        pairs.append(('"s"', canary)) if not any(key == '"s"' for key, _ in pairs) else None
        pairs = [(key, canary if key == '"s"' else value) for key, value in pairs]
        if dice.random() < 0.3:
            dice.shuffle(pairs)
        if kind < 0.55:
            for _ in range(dice.choice((1, 1, 2, 4))):
                self._make_odd(dice, pairs, canary)
        line = self._line(dice, pairs, number, stream)
        if kind > 0.88:
            line = dice.choice(BREAKS)(dice, line).replace(b"\n", b" ")
        return line if line.strip() else b"{"

    def good(self, number: int, stream: str) -> bytes:
        return b'{"type":"RECORD","record":{"stream":"%s","emitted_at":1700000000000,"data":%s}}' % (
            stream.encode(), json.dumps({"n": number, **GOOD}, separators=(",", ":"), ensure_ascii=False).encode(),
        )  # fmt: skip

    def _fitting(self, dice: random.Random, kind: Any, depth: int) -> str:
        if isinstance(kind, dict):
            parts = (f'"{name}":{self._fitting(dice, inner, depth + 1)}' for name, inner in kind.items())
            return f"{{{','.join(part for part in parts if dice.random() < 0.8)}}}"
        if isinstance(kind, list):
            return f"[{','.join(self._fitting(dice, kind[0], depth + 1) for _ in range(dice.randrange(3)))}]"
        return dice.choice(FITTING[kind])

    def _make_odd(self, dice: random.Random, pairs: list[tuple[str, str]], canary: str) -> None:
        place = dice.randrange(len(pairs))
        key = pairs[place][0]
        value = dice.choice(ODD) if dice.random() < 0.8 else canary
        match dice.randrange(8):
            case 0:  # a field that nobody declared
                pairs.insert(place, (f'"{dice.choice(ODD_KEYS)}"', value))
            case 1:  # a key that comes again
                pairs.insert(dice.randrange(len(pairs)), (key, value))
            case 2:  # inside of declared parts
                inner = f'{{"a":{value},"b":{dice.choice(ODD)},"{dice.choice(ODD_KEYS)}":{dice.choice(ODD)}}}'
                pairs.append((dice.choice(('"o"', '"u"', '"j"')), inner))
            case 3:
                pairs.append(
                    (dice.choice(('"l"', '"m"', '"objs"', '"list"')), f"[{value},{dice.choice(ODD)},[{value}]]")
                )
            case 4:
                pairs.append(('"objs"', f'[{{"a":{value},"u":{value},"at":{dice.choice(ODD)}}},{dice.choice(ODD)}]'))
            case _:
                pairs[place] = (key, value)

    def _line(self, dice: random.Random, pairs: Iterable[tuple[str, str]], number: int, stream: str) -> bytes:
        comma, colon = SPACES[0] if dice.random() < 0.8 else dice.choice(SPACES)
        data = "{" + comma.join(f"{key}{colon}{value}" for key, value in pairs) + "}"
        at = dice.choice(("1700000000000", "1700000000000", "1", "-1", "1.5e12", "0.0", "253402300799999"))
        parts = [f'"stream"{colon}"{stream}"', f'"emitted_at"{colon}{at}', f'"data"{colon}{data}']
        if dice.random() < 0.1:
            dice.shuffle(parts)
        if dice.random() < 0.05:
            parts.append(dice.choice(('"namespace":null', '"meta":null', '"meta":{"changes":[]}', '"new":[{}]',
                '"meta":{"changes":[{"field":"s","change":"NULLED","reason":"SOURCE_NEW"}]}',
                '"meta":{"changes":[{"field":"\\ud800","change":"NULLED","reason":"SOURCE_NEW"}]}')))  # fmt: skip
        text = f'{{"type"{colon}"RECORD"{comma}"record"{colon}{{{comma.join(parts)}}}}}'
        return (text + dice.choice(("", "", "", "\r", " "))).encode()


GOOD: dict[str, Any] = {
    "i": 7, "d": 0.5, "b": True, "s": "good", "day": "2024-02-29", "tz": "2024-02-29T00:00:00Z",
    "ntz": "2024-02-29T00:00:00", "t": "00:00", "big": "7", "exact": "0.5",
    "o": {"a": 1, "b": "x", "deep": {"x": 0.5, "days": ["2024-02-29"]}}, "l": [1, 2], "m": [[0.5], []],
    "objs": [{"a": 1, "u": "x", "at": "2024-02-29T00:00:00Z"}], "u": 1, "j": {"k": [1]}, "list": [1, "x"],
}  # fmt: skip


def _cut(dice: random.Random, line: bytes) -> bytes:
    return line[: dice.randrange(1, len(line))]


def _flip(dice: random.Random, line: bytes) -> bytes:
    made = bytearray(line)
    for _ in range(dice.choice((1, 1, 3))):
        made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
    return bytes(made)


def _drop(dice: random.Random, line: bytes) -> bytes:
    place = dice.randrange(len(line))
    return line[:place] + line[place + dice.randrange(1, 4) :]


def _put(*texts: bytes) -> Callable[[random.Random, bytes], bytes]:
    def put(dice: random.Random, line: bytes) -> bytes:
        place = dice.randrange(len(line))
        return line[:place] + dice.choice(texts) + line[place:]

    return put


def _instead(pattern: bytes, *texts: bytes) -> Callable[[random.Random, bytes], bytes]:
    """The first part that looks so, changed."""
    return lambda dice, line: re.sub(pattern, lambda _: dice.choice(texts), line, count=1)


BREAKS: Sequence[Callable[[random.Random, bytes], bytes]] = (
    _cut, _flip, _flip, _drop,
    _put(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\x1b", b'"', b"}", b"{", b",", b"\\"),
    _instead(rb'"RECORD"', b'"POTATO"', b"null", b"1", b'"record"', b'"STATE"', b'"TRACE "'),
    _instead(rb'"type"', b'"typ"', b"type"),
    _instead(rb'"stream"', b'"strem"', b'"Stream"'),
    _instead(rb'"stream" *:[ \t]*"[^"]*"', b'"stream":null', b'"stream":5', b'"stream":"nobody"', b'"stream":""',
             b'"a":1'),
    _instead(rb'"data" *:[ \t]*', b'"dat":', b'"data":[],"x":', b'"data":null,"x":', b'"data":"x","x":',
             b'"data":5,"x":'),
    _instead(rb'"emitted_at" *:[ \t]*[^,}]*', b'"emitted_at":"x"', b'"emitted_at":null', b'"emitted_at":1e300',
             b'"emitted":1', b'"emitted_at":NaN', b'"emitted_at":1e17', b'"emitted_at":true', b'"emitted_at":[1]',
             b'"emitted_at":' + b"9" * 400),
    _instead(rb'"record" *:[ \t]*', b'"record":null,"x":', b'"record":[],"x":', b'"records":'),
    lambda dice, line: dice.choice((b"[%s]", b"%s,", b"%s x", b'"%s', b"5 %s", b"// %s", b"{%s}")) % line,
)  # fmt: skip

# --- Judging rows -----------------------------------------------------------------------------------------------------


class Number(str):
    """A JSON number as its text."""


class Token(str):
    """NaN or Infinity."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it came, repeated keys and all."""

    def split(self) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """Of each key the last value, and the others of those that come again."""
        last: dict[str, Any] = {}
        hidden: dict[str, list[Any]] = {}
        for key, value in self:
            if key in last:
                hidden.setdefault(key, []).append(last[key])
            last[key] = value
        return last, hidden


def parse(text: str, *, strict: bool = False) -> Any:
    decoder = json.JSONDecoder(
        parse_int=Number, parse_float=Number, parse_constant=Token, object_pairs_hook=Pairs, strict=strict
    )
    return decoder.decode(text)


def record_of(line: bytes, stream: str) -> dict[str, Any] | None:
    """The record that a line is, if it is one without any doubt."""
    try:
        message = parse(line.decode().strip(" \t\r"), strict=True)
    except ValueError:
        return None
    message = message.split()[0] if isinstance(message, Pairs) else {}
    body = message.get("record")
    body = body.split()[0] if isinstance(body, Pairs) else {}
    at = body.get("emitted_at")
    if message.get("type") != "RECORD" or not isinstance(body.get("data"), Pairs) or body.get("stream") != stream:
        return None
    if not isinstance(at, Number) or not -62_135_596_800_000 <= Decimal(at) < 253_402_300_800_000:
        return None
    return body if body.get("namespace") is None else None


def same(came: Any, kept: Any) -> bool:
    """Whether a value in ``_airbyte_extra`` is the one that came: every digit, every key. NaN is a text there."""
    if isinstance(came, Token):
        return type(kept) is str and str(came) == kept
    if isinstance(came, Pairs):
        return isinstance(kept, Pairs) and len(came) == len(kept) and all(
            key == other and same(value, item) for (key, value), (other, item) in zip(came, kept, strict=True)
        )  # fmt: skip
    if isinstance(came, list):
        return type(kept) is list and len(came) == len(kept) and all(map(same, came, kept))
    return type(came) is type(kept) and came == kept


def clean(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def joined(path: str, key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace(".", "\\.")
    return f"{path}.{escaped}" if path else escaped


class Judge:
    """Compares one record with the row that it became. ``problems`` name places and never values."""

    def __init__(self, body: Mapping[str, Any], row: Mapping[str, Any]):
        self.problems: list[str] = []
        changes = [(c["field"], c["change"]) for c in row["_airbyte_meta"]["changes"]]
        text = row.get("_airbyte_extra")
        extra = Pairs() if text is None else parse(text)
        self._extra = dict(extra)
        self.is_changed = bool(changes) or text is not None
        sent = self._sent_changes(body.get("meta"))
        self._require(changes[: len(sent)] == sent, "_airbyte_meta", "has not the source's changes first")
        self._require(len(self._extra) == len(extra), "_airbyte_extra", "has a path twice")
        self._changes = Counter(changes[len(sent) :])
        self._used: set[str] = set()
        self._members("", body["data"], KINDS, row)
        for path in self._extra.keys() - self._used:
            self._require(False, path, "is in _airbyte_extra for no reason")
        for (path, change), count in self._changes.items():
            self._require(count <= 0, path, f"is {change} for no reason")

    @staticmethod
    def _sent_changes(meta: Any) -> list[tuple[str | None, str | None]]:
        """Those of the source; a line may be broken there too."""
        changes = dict(meta).get("changes") if isinstance(meta, Pairs) else None
        found = [change.split()[0] for change in changes or () if isinstance(change, Pairs)]
        return [(_said(change.get("field")), _said(change.get("change"))) for change in found]

    def _require(self, holds: bool, path: str, otherwise: str) -> None:
        if not holds:
            self.problems.append(f"{re.sub('c4n4ry-[0-9]+z', 'CANARY', path)[:60]} {otherwise}")

    def _has_change(self, path: str, change: str) -> bool:
        """Whether there is such a change; each counts once."""
        key = (clean(path), change)
        self._changes[key] -= 1
        return self._changes[key] >= 0

    def _members(self, path: str, came: Pairs, kinds: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
        last, hidden = came.split()
        for name, kind in kinds.items():
            self._value(joined(path, name), kind, last.get(name), stored.get(name), hidden.get(name, ()))
        for key in last.keys() - kinds.keys():
            place = joined(path, key)
            self._repeated(place, hidden.get(key, ()))
            self._original(place, last[key], hidden.get(key, ()), "is not kept")

    def _repeated(self, path: str, hidden: Sequence[Any]) -> None:
        for number, value in enumerate(hidden):
            self._require(self._has_change(path, TRUNCATED), path, "came again and no change says so")
            kept = self._extra.get(path)
            self._used.add(path)
            whole = type(kept) is list and len(kept) > number and same(value, kept[number])
            self._require(whole, path, "came again and an earlier value is lost")

    def _original(self, path: str, came: Any, hidden: Sequence[Any], otherwise: str) -> None:
        self._used.add(path)
        kept = self._extra.get(path)
        if hidden and type(kept) is list:
            kept = kept[len(hidden)] if len(kept) > len(hidden) else None
        self._require(path in self._extra and same(came, kept), path, otherwise)

    def _value(self, path: str, kind: Any, came: Any, stored: Any, hidden: Sequence[Any]) -> None:
        self._repeated(path, hidden)
        if came is None:
            self._require(stored is None, path, "is NULL and something is stored")
        elif self._is_exact(path, kind, came, stored, hidden):
            return
        elif stored is None:
            self._require(self._has_change(path, NULLED), path, "became NULL and no change says so")
            self._original(path, came, hidden, "became NULL and is not kept")
        else:
            self._require(self._has_change(path, TRUNCATED), path, "is not what came and no change says so")
            self._original(path, came, hidden, "is not what came, which is not kept")

    def _is_exact(self, path: str, kind: Any, came: Any, stored: Any, hidden: Sequence[Any]) -> bool:
        """Whether the column has the value; parts of it may be judged by themselves."""
        if stored is None:
            return False
        if isinstance(kind, dict):
            if isinstance(came, Pairs):
                self._members(path, came, kind, stored)
            return isinstance(came, Pairs)
        if isinstance(kind, list):
            fits = type(came) is list and len(came) == len(stored)
            for number, (item, found) in enumerate(zip(came, stored, strict=True) if fits else ()):
                self._value(f"{path}.{number}", kind[0], item, found, ())
            return fits
        if kind in JSON_KINDS or (kind in ("string", "time") and not is_text(came)):
            if isinstance(came, Token) and kind not in JSON_KINDS:
                return False
            self._in_json(path, came, parse(stored), hidden)
            return True
        return SAME_AS[kind](came, stored)

    def _in_json(self, path: str, came: Any, found: Any, hidden: Sequence[Any]) -> None:
        """JSON text has every digit; what JSON has no word for is null there and kept."""
        if isinstance(came, Token):
            self._require(found is None and self._has_change(path, NULLED), path, "is no JSON and no change says so")
            self._original(path, came, hidden, "is no JSON and is not kept")
        elif isinstance(came, Pairs):
            last, others = came.split()
            keys = [key for key, _ in found] if isinstance(found, Pairs) else None
            self._require(keys == [*last], path, "has other keys")
            for key, item in found if keys == [*last] else ():
                place = joined(path, key)
                self._repeated(place, others.get(key, ()))
                self._in_json(place, last[key], item, others.get(key, ()))
        elif isinstance(came, list):
            is_list = type(found) is list and len(found) == len(came)
            self._require(is_list, path, "has other items")
            for number, (value, item) in enumerate(zip(came, found, strict=True) if is_list else ()):
                self._in_json(f"{path}.{number}", value, item, ())
        else:
            self._require(type(came) is type(found) and came == found, path, "is another value")


def _said(value: Any) -> str | None:
    return None if value is None else clean(str(value))


def is_text(value: Any) -> bool:
    return type(value) is str


def _same_number(came: Any, stored: float) -> bool:
    is_same = isinstance(came, Number) and type(stored) is float and Decimal(repr(stored)) == Decimal(came)
    return is_same and (math.copysign(1, stored) < 0) == came.startswith("-")


def _same_decimal(came: Any, stored: Decimal) -> bool:
    return isinstance(came, str) and not isinstance(came, Token) and Decimal(came) == stored


def _same_moment(came: Any, stored: datetime) -> bool:
    if not is_text(came) or re.search(r"[.,]\d{6}\d*[1-9]", came):
        return False
    moment = datetime.fromisoformat(re.sub(r"\s+(?=[zZ+-]|$)", "", came).upper())
    if stored.tzinfo is None:
        return moment.tzinfo is None and moment == stored
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) == stored


SAME_AS: dict[str, Callable[[Any, Any], bool]] = {
    "integer": lambda came, stored: isinstance(came, Number) and type(stored) is int and Decimal(came) == stored,
    "number": _same_number,
    "boolean": lambda came, stored: came is stored,
    "string": lambda came, stored: came == stored,
    "time": lambda came, stored: came == stored,
    "date": lambda came, stored: type(stored) is date and is_text(came) and came == stored.isoformat(),
    "with_zone": _same_moment,
    "without_zone": _same_moment,
    "big_integer": _same_decimal,
    "big_number": _same_decimal,
}

# --- The campaign -----------------------------------------------------------------------------------------------------

Write = Callable[[House, Mapping[str, Any], bytes], Result]


def in_process(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
    return write_in_process(house.config(), configured, body)


def by_process(house: House, configured: Mapping[str, Any], body: bytes) -> Result:
    return house.write(body, configured)


@dataclass
class Tally:
    """What became of lines, and what was wrong."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    syncs: int = 0

    def add(self, other: Tally) -> None:
        self.outcomes += other.outcomes
        self.problems += other.problems
        self.syncs += other.syncs


@dataclass(frozen=True)
class Sent:
    """A line on its way: a hostile one by its number, a good one, or a STATE."""

    raw: bytes
    hostile: int | None = None
    good: int | None = None
    state: int | None = None


@dataclass
class Campaign:
    """Lines of one seed through one way of writing, on one lake."""

    house: House
    maker: Maker
    write: Write
    prefix: str = "t"
    tally: Tally = field(default_factory=Tally)

    def run(self, numbers: Sequence[int]) -> Tally:
        waiting = list(numbers)
        self._goods = 0
        while waiting:
            stream = f"{self.prefix}{self.tally.syncs}"
            stored: list[Sent] = []
            for _ in range(SYNCS_A_TABLE):
                if not waiting or not self._sync(stream, waiting, stored):
                    break
            self._judge_table(stream, stored)
        return self.tally

    def _sync(self, stream: str, waiting: list[int], stored: list[Sent], *, most: int = LINES_A_SYNC) -> bool:
        """One sync of the next lines; what is decided leaves ``waiting``. False if its table cannot be used again."""
        sent = self._sent(stream, waiting[:most])
        self.tally.syncs += 1
        body = b"".join(line.raw + b"\n" for line in sent)
        self.house.lake.faults(clock_ahead_seconds=next(CLOCK))  # or a run waits for the second behind the last one's
        try:
            result = self.write(self.house, catalog(stream, schema=SCHEMA), body)
        except Exception as error:  # noqa: BLE001  # a crash is what we look for; which line it was is found one by one
            return self._nameless(stream, waiting, stored, f"{type(error).__name__}", most)
        self._judge_output(result, sent)
        errors = [error["message"] for error in result.errors]
        if result.exit_code == 0 and not errors:
            self._took(sent, len(sent), result, stored, waiting)
            return True
        named = re.match(r"Line (\d+) of the input", errors[0]) if len(errors) == 1 else None
        place = int(named[1]) - 1 if named is not None else -1
        if named is None or place >= len(sent) or sent[place].hostile is None:
            return self._nameless(stream, waiting, stored, f"{len(errors)} errors, no hostile line named", most)
        self._took(sent, place, result, stored, waiting)
        number = sent[place].hostile
        assert number is not None
        waiting.remove(number)
        self.tally.outcomes[FAILED] += 1
        if record_of(sent[place].raw, stream) is not None:
            self.tally.problems.append(f"line {number}: refused, though it is a record")
        return True

    def _judge_output(self, result: Result, sent: Sequence[Sent]) -> None:
        """Only STATEs, logs and errors are printed, and no canary; other forms of one are looked for at the end."""
        kinds = {message["type"] for message in result.messages}
        if not kinds <= {"STATE", "LOG", "TRACE"} or CANARY in result.stdout + result.stderr:
            self.tally.problems.append(
                f"a value, or a message of another kind, was printed behind line {sent[2].hostile}"
            )

    def _nameless(self, stream: str, waiting: list[int], stored: list[Sent], what: str, most: int) -> bool:
        if most > 1:
            for number in waiting[:most]:
                alone: list[Sent] = []
                if self._sync(f"{stream}_{number}", one := [number], alone, most=1):
                    self._judge_table(f"{stream}_{number}", alone)
                assert one == []
            del waiting[:most]
        else:
            self.tally.problems.append(f"line {waiting[0]}: {what}")
            self.tally.outcomes[FAILED] += 1
            waiting.clear()
        return False

    def _sent(self, stream: str, numbers: Sequence[int]) -> list[Sent]:
        """Each line between two good ones; a STATE behind each good one, or behind every fifth."""
        gap = 5 if numbers[0] % 4 == 0 else 1
        sent = [self._good(stream), self._state(stream)]
        for place, number in enumerate(numbers, start=1):
            sent += [Sent(self.maker.hostile(number, stream), hostile=number), self._good(stream)]
            if place % gap == 0 or place == len(numbers):
                sent.append(self._state(stream))
        return sent

    def _good(self, stream: str) -> Sent:
        self._goods += 1
        return Sent(self.maker.good(self._goods, stream), good=self._goods)

    def _state(self, stream: str) -> Sent:
        text = f'{{"type":"STATE","state":{{"type":"STREAM","stream":{{"stream_descriptor":{{"name":"{stream}"}},'
        return Sent(f'{text}"stream_state":{{"c":{self._goods}}}}}}}}}'.encode(), state=self._goods)

    def _took(self, sent: list[Sent], upto: int, result: Result, stored: list[Sent], waiting: list[int]) -> None:
        """The STATEs before a place left, and no other; what they stand for must be in the table."""
        before = [line.state for line in sent[:upto] if line.state is not None]
        found = [data["c"] for data in result.states]
        if found != before:
            self.tally.problems.append(f"line {sent[upto - 1].hostile}: STATEs {found} and not {before}")
        last = max((place for place, line in enumerate(sent[:upto]) if line.state is not None), default=0)
        rows = [line for line in sent[:last] if line.state is None]
        stored += rows
        done = {line.hostile for line in rows}
        waiting[:] = [number for number in waiting if number not in done]

    def _judge_table(self, stream: str, stored: Sequence[Sent]) -> None:
        rows = rows_in_order(self.house, stream) if self.house.has_table(stream) else []
        if len(rows) != len(stored):
            self.tally.problems.append(f"table {stream}: {len(rows)} rows and not {len(stored)}")
            return
        for line, row in zip(stored, rows, strict=True):
            if line.hostile is None:
                if row["n"] != line.good or not _is_good(row):
                    self.tally.problems.append(f"a good row of {stream} is not as it was sent")
                continue
            try:
                problems, is_changed = judge(line.raw, stream, row)
            except Exception as error:  # noqa: BLE001  # a row that cannot be judged is a problem of its line
                problems, is_changed = [f"its row cannot be judged: {type(error).__name__}"], True
            self.tally.outcomes[CHANGED if is_changed else STORED] += 1
            canary = self.maker.canary(line.hostile)
            if canary.encode() in line.raw and canary not in repr(row):
                problems.append("its canary is lost")
            self.tally.problems += [f"line {line.hostile}: {problem}" for problem in problems]


def judge(line: bytes, stream: str, row: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What is wrong with the row of a line, and whether the row says that something was changed."""
    text = line.decode(errors="replace").strip(" \t\r")
    try:
        message = dict(parse(text))
        body = dict(message["record"])
        is_record = message["type"] == "RECORD" and body["stream"] == stream and isinstance(body["data"], Pairs)
    except (ValueError, KeyError, TypeError):
        is_record = False
    if not is_record:
        return ["stored, though it is no record"], bool(row["_airbyte_extra"] or row["_airbyte_meta"]["changes"])
    judged = Judge(body, row)
    return judged.problems, judged.is_changed


GOOD_ROW = {**{name: value for name, value in GOOD.items() if name in ("i", "d", "b", "s", "t", "l", "m")},
            "day": date(2024, 2, 29), "tz": datetime(2024, 2, 29, tzinfo=UTC), "ntz": datetime(2024, 2, 29),
            "big": Decimal(7), "exact": Decimal("0.5"), "u": "1", "j": '{"k":[1]}', "list": '[1,"x"]',
            "o": {"a": 1, "b": "x", "deep": {"x": 0.5, "days": [date(2024, 2, 29)]}},
            "objs": [{"a": 1, "u": '"x"', "at": datetime(2024, 2, 29, tzinfo=UTC)}],
            "_airbyte_extra": None}  # fmt: skip


def _is_good(row: Mapping[str, Any]) -> bool:
    return not row["_airbyte_meta"]["changes"] and all(row[name] == value for name, value in GOOD_ROW.items())


def rows_in_order(house: House, table: str) -> list[dict[str, Any]]:
    """The rows as they were sent: files are named by their commit, and ids count up in a file."""
    rows = house.rows(table)
    by_file: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_file.setdefault(row["_airbyte_raw_id"][:23], []).append({"_airbyte_extra": None, **row})
    return [row for found in by_file.values() for row in sorted(found, key=lambda row: row["_airbyte_raw_id"])]


def work(worker: int, workers: int, lines: int, processes: int, seed: int) -> tuple[Tally, Tally]:
    """This worker's lines in this process, and the first of them through the real one."""
    kept = evidence.begin(runs_tests=True) or evidence.current()
    assert kept is not None
    errors = os.open(kept.folder / f"{os.getpid()}-stderr.printed", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(errors, sys.stderr.fileno())
    with running_lake() as lake:
        house = House(lake, f"fuzz-{worker}", f"fuzz{worker}")
        maker = Maker(seed)
        ours = range(worker, lines, workers)
        first = Campaign(house, maker, in_process).run(ours)
        second = Campaign(house, maker, by_process, "p").run(range(worker, min(lines, processes), workers))
        shutil.rmtree(house.folder)
    return first, second


def table_of(ways: Mapping[str, Tally]) -> Iterator[str]:
    yield f"{'':12}{'lines':>10}{STORED:>20}{CHANGED:>20}{FAILED:>20}{'syncs':>10}{'problems':>10}"
    for way, tally in ways.items():
        total = sum(tally.outcomes.values())
        shares = (f"{tally.outcomes[name]} ({tally.outcomes[name] / max(total, 1):.1%})"
                  for name in (STORED, CHANGED, FAILED))  # fmt: skip
        yield f"{way:12}{total:10}{''.join(f'{text:>20}' for text in shares)}{tally.syncs:10}{len(tally.problems):10}"


def shortfalls(tally: Tally, lines: int) -> list[str]:
    """What the counts must show: every line has one outcome, and no outcome is rare."""
    total = sum(tally.outcomes.values())
    found = [f"{total} lines have an outcome, and not {lines}"] if total != lines else []
    return found + [f"less than a tenth was {name}" for name in (STORED, CHANGED, FAILED)
                    if tally.outcomes[name] < LEAST_SHARE * lines]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Hostile lines, each between two good ones.")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2000, help="how many also go through the real process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    started = time.monotonic()
    kept = evidence.begin(runs_tests=False)
    assert kept is not None
    parts = [(worker, given.workers, given.lines, given.processes, given.seed) for worker in range(given.workers)]
    ways = {"in-process": Tally(), "process": Tally()}
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        for found in pool.starmap(work, parts):
            for tally, part in zip(ways.values(), found, strict=True):
                tally.add(part)
    print("\n".join(table_of(ways)))
    problems = [f"{way}, {problem}" for way, tally in ways.items() for problem in tally.problems]
    problems += shortfalls(ways["in-process"], given.lines)
    problems += shortfalls(ways["process"], min(given.lines, given.processes))
    problems += [f"a canary was printed: {leak}" for leak in kept.leaks()] + kept.glue_problems()
    print("\n".join(problems[:200]))
    print(f"{len(problems)} problems, {time.monotonic() - started:.0f} s, seed {given.seed}")
    shutil.rmtree(kept.folder)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
