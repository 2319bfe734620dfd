"""What a first-class destination does, as data: for each case the syncs, and what readers see after each.

The rows of the acceptance list that need no change of a column's type. Names of the list in comments. A case is run
through the real process (``test_acceptance.py``), and through writers that are wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration_tests.harness import FINAL, Message, complete, state

Row = tuple[Any, ...]
FIELDS = {"id": "integer", "name": "string", "c": "integer", "day": "string"}
DELETED = "_ab_cdc_deleted_at"
GONE: dict[str, Any] = {DELETED: "2026-01-01"}


def schema(**fields: str) -> Message:
    return {"type": "object", "properties": {name: {"type": ["null", kind]} for name, kind in fields.items()}}


def row(
    stream: str = "s", *, at: int = 1, namespace: str | None = None, meta: Message | None = None, **data: Any
) -> Message:
    """A RECORD. ``at`` is its time, in seconds."""
    body: Message = {"stream": stream, "emitted_at": at * 1000, "data": data}
    return {
        "type": "RECORD",
        "record": body | ({"namespace": namespace} if namespace else {}) | ({"meta": meta} if meta else {}),
    }


def point(number: object) -> Message:
    return state({"cursor": number}, "s")


END = complete("s")
INCOMPLETE: Message = {
    "type": "TRACE",
    "trace": {
        "type": "STREAM_STATUS",
        "emitted_at": 1,
        "stream_status": {"stream_descriptor": {"name": "s"}, "status": "INCOMPLETE"},
    },
}
LAST = state(FINAL, "s")
CLEAR = {"type": "STATE", "state": {"type": "GLOBAL", "global": {"shared_state": None, "stream_states": []}}}


def stream(
    name: str = "s", *, namespace: str | None = None, fields: Mapping[str, str] = FIELDS, **more: Any
) -> Message:
    """One entry of a configured catalog: incremental append, unless ``more`` says otherwise."""
    found: Message = {"name": name, "json_schema": schema(**fields)} | ({"namespace": namespace} if namespace else {})
    return {"stream": found, "sync_mode": "incremental", "destination_sync_mode": "append", **more}


def generation(number: int, *, minimum: int = 0, sync: int = 1) -> dict[str, Any]:
    return {"generation_id": number, "minimum_generation_id": minimum, "sync_id": 100 + sync}


def dedup(key: str | list[list[str]] = "id", cursor: str | None = "c", **more: Any) -> dict[str, Any]:
    paths = [[key]] if isinstance(key, str) else key
    chosen: dict[str, Any] = {"destination_sync_mode": "append_dedup", "primary_key": paths}
    return chosen | ({"cursor_field": [cursor]} if cursor else {}) | more


OVERWRITE: dict[str, Any] = {"sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}


@dataclass(frozen=True)
class Sync:
    """One run of the destination and what is true after it.

    ``rows`` are the ``columns`` of what a reader of ``table`` sees, in any order; ``tables`` are more of them.
    """

    lines: Sequence[Message]
    streams: Sequence[Message]
    rows: Sequence[Row]
    exit_code: int = 0
    states: int | None = None
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    stats: Sequence[float] | None = None


@dataclass(frozen=True)
class Case:
    name: str
    syncs: Sequence[Sync]
    columns: tuple[str, ...] = ("id", "name")
    table: str = "s"


def rows(*pairs: tuple[int, str], at: int = 1) -> list[Message]:
    return [row(id=number, name=name, at=at) for number, name in pairs]


def basics() -> Iterator[Case]:
    changes = {"changes": [{"field": "name", "change": "NULLED", "reason": "SOURCE_FIELD_SIZE_LIMITATION"}]}
    yield Case(  # testBasicWrite
        "one record, its change and its count",
        [
            Sync(
                [row(id=1, name=None, meta=changes), point(1)], [stream()], [(1, None, changes["changes"])], stats=[1.0]
            )
        ],
        columns=("id", "name", "_airbyte_meta.changes"),
    )
    yield Case(  # testMidSyncCheckpointingStreamState
        "what was acknowledged before a death is there after an empty next sync",
        [
            Sync([*rows((1, "a")), point(1), *rows((2, "b"))], [stream()], [(1, "a")], exit_code=1, states=1),
            Sync([point(1)], [stream()], [(1, "a")]),
        ],
    )
    many = [f"s{number}" for number in range(21)]
    yield Case(  # testManyStreamsCompletion
        "twenty-one streams with one record each",
        [
            Sync(
                [m for name in many for m in (row(name, id=1, name=name), complete(name))],
                [stream(name) for name in many],
                [(1, "s0")],
                tables={name: [(1, name)] for name in many},
            )
        ],
        table="s0",
    )
    spaces = (None, "here", "there")
    yield Case(  # testNamespaces
        "one name in two namespaces and none is three tables",
        [
            Sync(
                [row(id=n, name="x", namespace=space) for n, space in enumerate(spaces)]
                + [_complete_in(space) for space in spaces],
                [stream(namespace=space) for space in spaces],
                [(0, "x")],
                tables={"here.s": [(1, "x")], "there.s": [(2, "x")]},
            )
        ],
    )
    yield Case("no data makes an empty table", [Sync([END], [stream()], [])])  # testNoData
    yield Case(  # testNoColumns
        "no columns: rows have meta columns, and a second sync works",
        [
            Sync([row(id=1), point(1)], [stream(fields={})], [('{"id":1}',)]),
            Sync([row(id=2), point(2)], [stream(fields={})], [('{"id":1}',), ('{"id":2}',)]),
        ],
        columns=("_airbyte_extra",),
    )
    known: Message = {"stream_descriptor": {"name": "s"}, "stream_state": {"a": 1}}
    unknown: Message = {"stream_descriptor": {"name": "unknown"}, "stream_state": {"b": 1}}
    whole = {"type": "STATE", "state": {"type": "GLOBAL", "global": {"stream_states": [known, unknown]}}}
    yield Case(  # testStreamStateTypes over STDIO
        "a GLOBAL state with a stream that nobody knows leaves with its count",
        [Sync([*rows((1, "a"), (2, "b")), whole], [stream()], [(1, "a"), (2, "b")], states=1, stats=[2.0])],
    )


def _complete_in(namespace: str | None) -> Message:
    found = complete("s")
    if namespace:
        found["trace"]["stream_status"]["stream_descriptor"]["namespace"] = namespace
    return found


def generations() -> Iterator[Case]:
    g12, g13 = stream(**generation(12, sync=1)), stream(**generation(13, minimum=13, sync=2))
    old, new = rows((1, "old"), (2, "old")), rows((3, "new"))
    yield Case(  # testAppend
        "append keeps the generations side by side",
        [
            Sync([*old, point(1), END], [g12], [(1, "old", 12), (2, "old", 12)]),
            Sync(
                [*new, point(2), END],
                [stream(**generation(13, sync=2))],
                [(1, "old", 12), (2, "old", 12), (3, "new", 13)],
            ),
        ],
        columns=("id", "name", "_airbyte_generation_id"),
    )
    yield Case(  # testTruncateRefresh, testInterruptedTruncateWithPriorData
        "a truncate that died keeps the old rows, and its retry publishes the rows of both tries",
        [
            Sync([*old, point(1), END], [g12], [(1, "old"), (2, "old")]),
            Sync([*new, point(3), INCOMPLETE], [g13], [(1, "old"), (2, "old")], exit_code=1, states=1),
            Sync([point(3), *rows((4, "new")), point(4), END], [g13], [(3, "new"), (4, "new")]),
            Sync([point(4), *rows((5, "new")), point(5), END], [stream(**generation(13, sync=3))],
                 [(3, "new"), (4, "new"), (5, "new")]),
        ],
    )  # fmt: skip
    yield Case(  # testInterruptedTruncateWithoutPriorData
        "a truncate that died without an earlier table shows nothing until its retry",
        [
            Sync([*new, point(3), INCOMPLETE], [g13], [], exit_code=1, states=1),
            Sync([point(3), *rows((4, "new")), point(4), END], [g13], [(3, "new"), (4, "new")]),
        ],
    )
    yield Case(  # #41036
        "a truncate whose retry has nothing left publishes what the first try stored",
        [
            Sync([*old, point(1), END], [g12], [(1, "old"), (2, "old")]),
            Sync([*new, point(3), INCOMPLETE], [g13], [(1, "old"), (2, "old")], exit_code=1),
            Sync([point(3), END], [g13], [(3, "new")]),
        ],
    )
    yield Case(  # #86347
        "a retry behind the swap goes on in the published table",
        [
            Sync([*old, point(2), END], [g13], [(1, "old"), (2, "old")]),
            Sync([point(2), *new, point(3), END], [g13], [(1, "old"), (2, "old"), (3, "new")]),
        ],
    )
    yield Case(  # resumeAfterCancelledTruncate
        "after a cancelled truncate every row of before and of it is there",
        [
            Sync([*rows((1, "41")), point(1), END], [stream(**generation(41))], [(1, "41")]),
            Sync([*rows((2, "42")), point(2), INCOMPLETE], [stream(**generation(42, minimum=42, sync=2))],
                 [(1, "41")], exit_code=1),
            Sync([point(2), *rows((3, "43")), point(3), END], [stream(**generation(43, sync=3))],
                 [(1, "41"), (2, "42"), (3, "43")]),
        ],
    )  # fmt: skip
    yield Case(  # testTruncateRefreshNoData
        "a truncate with no records empties the table",
        [Sync([*old, point(1), END], [g12], [(1, "old"), (2, "old")]), Sync([END], [g13], [])],
    )
    yield Case(  # testClear
        "Clear empties the table",
        [
            Sync([*old, LAST, END], [stream(**OVERWRITE, **generation(1, minimum=1))], [(1, "old"), (2, "old")]),
            Sync([CLEAR, END], [stream(**OVERWRITE, **generation(2, minimum=2, sync=2))], []),
        ],
    )
    yield Case(
        "an overwrite that died changes nothing",
        [
            Sync([*old, LAST, END], [stream(**OVERWRITE)], [(1, "old"), (2, "old")]),
            Sync([*new, point(3), INCOMPLETE], [stream(**OVERWRITE)], [(1, "old"), (2, "old")], exit_code=1, states=0),
        ],
    )
    yield Case(
        "a generation lower than the published one replaces it",
        [
            Sync([*old, point(1), END], [g13], [(1, "old"), (2, "old")]),
            Sync([*new, point(1), END], [stream(**generation(2, minimum=2, sync=5))], [(3, "new")]),
        ],
    )
    yield Case(  # testTruncateRefreshChangeSyncMode
        "dedup to append at a truncate: only the new generation, with its copies",
        [
            Sync([*old, *rows((1, "newer"), at=2), point(1), END], [stream(**dedup(cursor=None), **generation(12))],
                 [(1, "newer"), (2, "old")]),
            Sync([*new, *new, point(2), END], [g13], [(3, "new"), (3, "new")]),
        ],
    )  # fmt: skip
    yield Case(  # testOverwriteSchemaEvolution
        "an overwrite with another schema, and a third with the same",
        [
            Sync([*old, LAST, END], [stream(**OVERWRITE)], [(1, "old", None), (2, "old", None)]),
            Sync([row(id="x", name="n", day="d"), state({**FINAL, "run_id": "2"}, "s"), END],
                 [stream(fields={"id": "string", "name": "string", "day": "string"}, **OVERWRITE)], [("x", "n", "d")]),
            Sync([row(id="y", name="n", day="d"), state({**FINAL, "run_id": "3"}, "s"), END],
                 [stream(fields={"id": "string", "name": "string", "day": "string"}, **OVERWRITE)], [("y", "n", "d")]),
        ],
        columns=("id", "name", "day"),
    )  # fmt: skip
    yield Case(
        "append, dedup, append: copies go with the first merge and may come again behind it",
        [
            Sync([*rows((1, "a"), (1, "b"), (2, "c")), point(1)], [stream()], [(1, "a"), (1, "b"), (2, "c")]),
            Sync([point(1), *rows((3, "d"), at=2), point(2)], [stream(**dedup(cursor=None))],
                 [(1, "b"), (2, "c"), (3, "d")]),
            Sync([point(2), *rows((3, "e")), point(3)], [stream()], [(1, "b"), (2, "c"), (3, "d"), (3, "e")]),
        ],
    )  # fmt: skip
    yield Case(
        "overwrite, then append",
        [
            Sync([*old, LAST, END], [stream(**OVERWRITE)], [(1, "old"), (2, "old")]),
            Sync([*new, point(3), END], [stream()], [(1, "old"), (2, "old"), (3, "new")]),
        ],
    )
    ones: dict[str, Any] = {"generation_id": 1, "minimum_generation_id": 1, "sync_id": 1}
    yield Case(  # schedule F1
        "PyAirbyte sends 1, 1, 1 for every run: it appends, and equal rows stay",
        [
            Sync([*old, point(1)], [stream(**generation(7))], [(1, "old"), (2, "old")]),
            Sync([*new, point(2)], [stream(**ones)], [(1, "old"), (2, "old"), (3, "new")]),
            Sync([*new, point(3)], [stream(**ones)], [(1, "old"), (2, "old"), (3, "new"), (3, "new")]),
        ],
    )


def dedups() -> Iterator[Case]:
    cdc = {**FIELDS, DELETED: "string"}
    composite = dedup([["id"], ["day"]])
    first = [
        row(id=1, day="x", c=1, name="a"), row(id=1, day="y", c=1, name="b"), row(id=2, day="x", c=1, name="c"),
        row(id=1, day="x", c=2, name="a2"),
    ]  # fmt: skip
    second = [
        row(id=1, day="y", c=2, name="b2", at=2), row(id=2, day="x", c=2, at=2, **GONE),
        row(id=9, day="x", c=2, at=2, **GONE), row(id=3, day="x", c=2, name="d", at=2),
        row(id=4, day="x", c=2, name="e", at=2), row(id=4, day="x", c=3, at=2, **GONE),
    ]  # fmt: skip
    after_first = [(1, "x", "a2"), (1, "y", "b"), (2, "x", "c")]
    yield Case(  # testDedup
        "a composite key, a cursor, deletes of known and unknown rows and in one sync",
        [
            Sync([*first, point(1)], [stream(fields=cdc, **composite)], after_first),
            Sync([point(1), *second, point(2)], [stream(fields=cdc, **composite)],
                 [(1, "x", "a2"), (1, "y", "b2"), (3, "x", "d")]),
            Sync([point(2), row(id=2, day="x", c=1, name="late", at=3), point(3)], [stream(fields=cdc, **composite)],
                 [(1, "x", "a2"), (1, "y", "b2"), (3, "x", "d")]),
        ],
        columns=("id", "day", "name"),
    )  # fmt: skip
    yield Case(  # testDedupWithStringKey
        "a string key",
        [
            Sync([row(day="k", c=1, name="a"), row(day="K", c=1, name="b"), point(1)], [stream(**dedup("day"))],
                 [("k", "a"), ("K", "b")]),
            Sync([row(day="k", c=2, name="a2"), point(2)], [stream(**dedup("day"))], [("k", "a2"), ("K", "b")]),
        ],
        columns=("day", "name"),
    )  # fmt: skip
    yield Case(  # testDedupNoCursor
        "without a cursor the later time wins",
        [
            Sync([*rows((1, "late"), at=5), *rows((1, "early"), at=4), point(1)], [stream(**dedup(cursor=None))],
                 [(1, "late")]),
            Sync([*rows((1, "between"), at=4), *rows((2, "x"), at=4), point(2)], [stream(**dedup(cursor=None))],
                 [(1, "late"), (2, "x")]),
        ],
    )  # fmt: skip
    yield Case(  # testDedupChangeCursor
        "another cursor: rows without it are older than any",
        [
            Sync([row(id=1, c=9, name="a"), point(1)], [stream(**dedup())], [(1, "a")]),
            Sync([row(id=1, day="0", name="b"), point(2)], [stream(**dedup(cursor="day"))], [(1, "b")]),
        ],
    )
    yield Case(  # testDedupChangePk
        "another key: rows of before stay, also where the new key is the same for several",
        [
            Sync([row(id=1, day="x", c=1, name="a"), row(id=1, day="y", c=1, name="b"), point(1)],
                 [stream(**composite)], [(1, "a"), (1, "b")]),
            Sync([row(id=2, c=1, name="c"), row(id=2, c=2, name="c2"), point(2)], [stream(**dedup())],
                 [(1, "a"), (1, "b"), (2, "c2")]),
        ],
    )  # fmt: skip
    yield Case(  # gap: #63359
        "NULL in a key is a value",
        [
            Sync([row(id=None, c=1, name="a"), row(id=1, c=1, name="b"), point(1)], [stream(**dedup())],
                 [(None, "a"), (1, "b")]),
            Sync([row(id=None, c=2, name="a2"), point(2)], [stream(**dedup())], [(None, "a2"), (1, "b")]),
        ],
    )  # fmt: skip
    yield Case(
        "keys that do not fit their column are told apart by their originals",
        [Sync([row(id="one", c=1, name="a"), row(id="two", c=1, name="b"), point(1)], [stream(**dedup())],
              [(None, "a"), (None, "b")])],
    )  # fmt: skip
    nested: dict[str, Any] = {"where": {"at": 1}}
    yield Case(
        "a key inside an object",
        [Sync([row(name="a", **nested), row(name="b", at=2, **nested), row(name="c", where={"at": 2}), point(1)],
              [_nested_stream()], [("b",), ("c",)])],
        columns=("name",),
    )  # fmt: skip
    yield Case(
        "a truncate of a dedup stream that died goes on, and old rows and deletes go with the old table",
        [
            Sync([row(id=1, c=1, name="old"), row(id=2, c=9, **GONE), point(1), END],
                 [stream(fields=cdc, **dedup(), **generation(1))], [(1, "old")]),
            Sync([row(id=3, c=1, name="x"), point(2), INCOMPLETE],
                 [stream(fields=cdc, **dedup(), **generation(2, minimum=2, sync=2))], [(1, "old")], exit_code=1),
            Sync([point(2), row(id=3, c=2, name="x2"), row(id=2, c=1, name="y"), point(3), END],
                 [stream(fields=cdc, **dedup(), **generation(2, minimum=2, sync=2))], [(3, "x2"), (2, "y")]),
        ],
    )  # fmt: skip
    yield Case(
        "a cancelled truncate of a dedup stream is merged into the old rows",
        [
            Sync([row(id=1, c=1, name="old"), row(id=2, c=1, name="old"), point(1), END],
                 [stream(**dedup(), **generation(1))], [(1, "old"), (2, "old")]),
            Sync([row(id=1, c=2, name="x"), point(2), INCOMPLETE],
                 [stream(**dedup(), **generation(2, minimum=2, sync=2))], [(1, "old"), (2, "old")], exit_code=1),
            Sync([point(2), row(id=3, c=1, name="y"), point(3), END], [stream(**dedup(), **generation(2, sync=3))],
                 [(1, "x"), (2, "old"), (3, "y")]),
        ],
    )  # fmt: skip


def _nested_stream() -> Message:
    found = stream(**dedup([["where", "at"]], cursor=None))
    found["stream"]["json_schema"]["properties"]["where"] = {
        "type": "object",
        "properties": {"at": {"type": "integer"}},
    }
    return found


def matrix() -> Iterator[Case]:
    """The upsert matrix: E is what is stored (cursor 5, time 5), N what comes."""
    cdc = [stream(fields={**FIELDS, DELETED: "string"}, **dedup())]
    stored = Sync([row(id=1, c=5, name="E", at=5), point(1)], cdc, [(1, "E")])

    def one(name: str, coming: Sequence[Message], left: Sequence[Row]) -> Case:
        return Case(f"upsert: {name}", [stored, Sync([point(1), *coming, point(2)], cdc, left)])

    def n(cursor: int, time: int, name: str | None = "N", **more: Any) -> Message:
        return row(id=1, c=cursor, name=name, at=time, **more)

    yield one("0 unknown key", [row(id=2, c=1, name="N")], [(1, "E"), (2, "N")])
    yield one("1 nothing comes", [], [(1, "E")])
    yield one("3 a delete", [n(6, 6, None, **GONE)], [])
    yield one("5 insert then delete", [row(id=2, c=6, name="N"), row(id=2, c=7, **GONE)], [(1, "E")])
    yield one("6 same cursor twice", [n(6, 7, "later"), n(6, 6, "earlier")], [(1, "later")])
    yield one("7 delete then insert", [n(6, 6, None, **GONE), n(7, 7)], [(1, "N")])
    yield one("8 cursor earlier, time later", [n(4, 6)], [(1, "E")])
    yield one("9 cursor equal, time later", [n(5, 6)], [(1, "N")])
    yield one("10 both later", [n(6, 6)], [(1, "N")])
    yield one("11 cursor earlier, time equal", [n(4, 5)], [(1, "E")])
    yield one("12 cursor later, time equal", [n(6, 5)], [(1, "N")])
    yield one("13 both earlier", [n(4, 4)], [(1, "E")])
    yield one("14 cursor equal, time earlier", [n(5, 4)], [(1, "E")])
    yield one("15 cursor later, time earlier", [n(6, 4)], [(1, "N")])
    yield one("all equal: what arrived last", [n(5, 5)], [(1, "N")])


CASES = [*basics(), *generations(), *dedups(), *matrix()]
