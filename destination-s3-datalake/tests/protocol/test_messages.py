"""Framing of stdin: what each line is, and what happens to lines that are nothing."""

from __future__ import annotations

import json
import random

import pytest
from destination_s3_datalake.errors import BadLineError
from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.protocol.messages import (
    Framer,
    Record,
    Records,
    State,
    StreamStatus,
    parse_message,
    with_destination_stats,
)

CANARY = "do-not-print-me"


def record(data: str = '{"id":1}', stream: str = "orders") -> bytes:
    return b'{"type":"RECORD","record":{"stream":"%s","emitted_at":1,"data":%s}}' % (stream.encode(), data.encode())


def stream_state(data: object, name: str = "orders", **more: object) -> bytes:
    state = {"type": "STREAM", "stream": {"stream_descriptor": {"name": name}, "stream_state": data}, **more}
    return json.dumps({"type": "STATE", "state": state}).encode()


def everything(framer: Framer, chunks: list[bytes]) -> list[object]:
    out: list[object] = []
    for chunk in chunks:
        out.extend(framer.feed(chunk))
    out.extend(framer.finish())
    return out


def test_the_messages_are_the_same_however_the_bytes_are_cut():
    text = b"\n".join([record(), stream_state({"a": 1}), b"", record('{"id":2}')]) + b"\n"
    whole = everything(Framer(max_line_bytes=1000), [text])
    for cut in range(len(text) + 1):
        assert everything(Framer(max_line_bytes=1000), [text[:cut], text[cut:]]) == whole
    assert [type(message) for message in whole] == [Record, State, Record]


def test_the_last_line_counts_without_its_newline():
    assert everything(Framer(max_line_bytes=1000), [record()]) == [Record(1, StreamId(None, "orders"), record())]


def test_crlf_blank_lines_and_a_bom_are_accepted():
    text = b"\xef\xbb\xbf" + record() + b"\r\n\r\n  \n" + record()
    assert [message.line for message in everything(Framer(max_line_bytes=1000), [text])] == [1, 4]  # type: ignore[attr-defined]


def test_key_order_white_space_and_nulls_make_no_difference():
    raw = (
        b' {"record" : {"data":{"a":1}, "emitted_at": 1, "namespace":null, "stream":"s"}, "log":null, "type":"RECORD"}'
    )
    assert parse_message(raw, line=1) == Record(1, StreamId(None, "s"), raw)


@pytest.mark.parametrize(
    "data",
    ['{"a":NaN}', '{"a":-Infinity}', '{"a":"\\ud800"}', '{"a":1e400}', '{"a":' + "9" * 5000 + "}", '{"a":1,"a":2}',
     '{"a":NaN,"b":' + "9" * 5000 + "}", '{"a":' + "[" * 100 + "]" * 100 + "}"],
    ids=["nan", "infinity", "lone surrogate", "1e400", "5000 digits", "duplicate key", "nan and 5000 digits", "depth"],
)  # fmt: skip
def test_data_that_strict_readers_refuse_are_still_records(data: str):
    assert parse_message(record(data), line=1) == Record(1, StreamId(None, "orders"), record(data))


@pytest.mark.parametrize("at", ["1", "1.5e12", "0.0", "-1", "253402300799999", "-62135596800000"])
def test_emitted_at_may_be_any_number_of_milliseconds_whatever_the_data_hold(at: str):
    for data in ('{"a":1}', '{"a":NaN}'):
        raw = record(data).replace(b'"emitted_at":1', f'"emitted_at":{at}'.encode())
        assert parse_message(raw, line=1) == Record(1, StreamId(None, "orders"), raw)


@pytest.mark.parametrize(
    "at", ['"1"', "true", "null", "[1]", "{}", "NaN", "1e17", "1e400", "9" * 400, "253402300800000", "-62135596800001"]
)
def test_emitted_at_must_be_a_time_in_milliseconds(at: str):
    for data in ('{"a":1}', '{"a":NaN}'):
        with pytest.raises(BadLineError, match="emitted_at"):
            parse_message(record(data).replace(b'"emitted_at":1', f'"emitted_at":{at}'.encode()), line=1)


@pytest.mark.parametrize(
    "raw",
    [
        f"{CANARY} is no JSON".encode(),
        record(f'{{"secret":"{CANARY}"}}')[:-3],
        f'"{CANARY}"'.encode(),
        f'{{"type":"{CANARY}"}}'.encode(),
        f'{{"type":"RECORD","record":{{"data":{{"a":"{CANARY}"}}}}}}'.encode(),
        record(f'["{CANARY}"]'),
        record(f'{{"a":NaN,"b":"{CANARY}"}}').replace(b'"emitted_at":1,', b""),
        record(f'{{"a":"{CANARY}X"}}').replace(b"X", b"\xff"),
        f'{{"type":"STATE","state":"{CANARY}"}}'.encode(),
        f'{{"type":"STATE","state":{{"type":"{CANARY}"}}}}'.encode(),
        f'{{"type":"STATE","state":{{"type":"STREAM","stream":{{"x":"{CANARY}"}}}}}}'.encode(),
        f'{{"type":"STATE","state":{{"type":"GLOBAL","global":"{CANARY}"}}}}'.encode(),
        f'{{"type":"STATE","state":{{"type":"GLOBAL","global":{{"stream_states":["{CANARY}"]}}}}}}'.encode(),
        f'{{"type":"TRACE","trace":{{"type":"STREAM_STATUS","stream_status":{{"status":"COMPLETE","x":"{CANARY}"}}}}}}'.encode(),
    ],
)
def test_a_line_that_is_nothing_ends_the_sync_by_its_number_alone(raw: bytes):
    with pytest.raises(BadLineError) as caught:
        parse_message(raw, line=7)
    assert "Line 7" in caught.value.message
    assert CANARY not in str(caught.value) + repr(caught.value.facts)
    assert caught.value.__cause__ is None


def test_a_line_beyond_the_limit_is_refused_before_it_is_whole():
    framer = Framer(max_line_bytes=100)
    with pytest.raises(BadLineError, match="max_record_mb"):
        list(framer.feed(b"x" * 101))


@pytest.mark.parametrize("kind", ["LOG", "CONTROL", "SPEC", "CATALOG", "CONNECTION_STATUS"])
def test_messages_that_destinations_ignore_are_ignored(kind: str):
    assert parse_message(json.dumps({"type": kind}).encode(), line=1) is None


def test_only_the_last_statuses_of_a_stream_are_read():
    def trace(status: str) -> bytes:
        body = {"stream_descriptor": {"name": "orders", "namespace": "n"}, "status": status}
        return json.dumps({"type": "TRACE", "trace": {"type": "STREAM_STATUS", "stream_status": body}}).encode()

    assert parse_message(trace("COMPLETE"), line=3) == StreamStatus(3, StreamId("n", "orders"), "COMPLETE")
    assert parse_message(trace("RUNNING"), line=3) is None


def state_of(raw: bytes) -> State:
    message = parse_message(raw, line=1)
    assert isinstance(message, State)
    return message


def test_the_digest_of_a_state_ignores_what_the_platform_adds():
    plain = state_of(stream_state({"a": 1, "b": [1.5, "x"]}))
    decorated = state_of(stream_state({"b": [1.5, "x"], "a": 1}, id=17, sourceStats={"recordCount": 5.0}))
    assert plain.digest == decorated.digest is not None
    assert plain.digest != state_of(stream_state({"a": 2, "b": [1.5, "x"]})).digest
    assert plain.digest != state_of(stream_state({"a": 1, "b": [1.5, "x"]}, name="other")).digest


def test_the_digest_of_a_global_state_ignores_the_order_of_its_streams():
    def global_state(key: str, order: int) -> bytes:
        entries = [{"stream_descriptor": {"name": name}, "stream_state": {"c": name}} for name in ("a", "b")][::order]
        return json.dumps(
            {"type": "STATE", "state": {"type": "GLOBAL", key: {"shared_state": {"s": 1}, "stream_states": entries}}}
        ).encode()

    assert state_of(global_state("global", 1)).digest == state_of(global_state("global_", -1)).digest is not None


@pytest.mark.parametrize(
    ("data", "says_something", "is_final"),
    [
        ({}, False, True),
        (None, False, True),
        ({"cursor": 1}, True, False),
        ({"__ab_full_refresh_sync_complete": True, "run_id": "x"}, True, True),
        ({"__ab_no_cursor_state_message": True}, True, True),
    ],
)
def test_which_states_end_a_full_refresh(data: object, says_something: bool, is_final: bool):
    state = state_of(stream_state(data))
    assert (state.digest is not None, state.is_final) == (says_something, is_final)


def test_a_state_is_echoed_with_its_own_digits_and_unknown_keys():
    raw = (
        b'{"type":"STATE","x":1e2,"state":{"type":"STREAM","id":5,"stream":{"stream_descriptor":{"name":"s"},'
        b'"stream_state":{"c":123456789012345678901234567890,"d":1.10}}}}'
    )
    echoed = with_destination_stats(raw, records=3)
    assert b'{"c":123456789012345678901234567890,"d":1.10}' in echoed
    assert b'"x":1e2' in echoed
    assert b'"destinationStats":{"recordCount":3.0}' in echoed
    assert json.loads(echoed)["state"]["id"] == 5


def test_destination_stats_that_are_there_already_are_replaced():
    raw = stream_state({"a": 1}, destinationStats={"recordCount": 99.0})
    assert json.loads(with_destination_stats(raw, records=1))["state"]["destinationStats"] == {"recordCount": 1.0}
    assert with_destination_stats(raw, records=1).count(b"destinationStats") == 1


def namespaced(number: int, namespace: str | None) -> bytes:
    tail = b"" if namespace is None else b',"namespace":"%s"' % namespace.encode()
    return b'{"type":"RECORD","record":{"stream":"s","data":{"id":%d},"emitted_at":1%s}}' % (number, tail)


def test_many_lines_that_begin_alike_are_taken_together_and_cut_where_another_comes():
    lines = [*(record(f'{{"id":{n}}}') for n in range(20)), stream_state({"a": 1}), *(record() for _ in range(10))]
    text = b"".join(line + b"\n" for line in lines)
    first, run, state, rest = everything(Framer(max_line_bytes=10_000), [text])
    assert first == Record(1, StreamId(None, "orders"), lines[0])
    assert run == Records(2, StreamId(None, "orders"), b"".join(line + b"\n" for line in lines[1:20]), 19)
    assert isinstance(state, State)
    assert state.line == 21
    assert rest == Records(22, StreamId(None, "orders"), b"".join(line + b"\n" for line in lines[21:]), 10)


@pytest.mark.parametrize("ambiguous", [[], ["s"]])
def test_lines_whose_namespace_comes_late_are_taken_together_only_if_no_other_stream_has_the_name(ambiguous: list[str]):
    text = b"".join(namespaced(n, "there") + b"\n" for n in range(20))
    found = everything(Framer(max_line_bytes=10_000, ambiguous=ambiguous), [text])
    assert [type(message) for message in found] == ([Record] * 20 if ambiguous else [Record, Records])


def test_lines_keep_their_stream_number_and_order_whatever_the_runs():
    chance, lines = random.Random(8), list[tuple[str, bytes]]()
    while len(lines) < 30_000:
        name, size = f"stream {chance.randrange(4)}", chance.choice([0, 10, 200, 5000])
        for _ in range(chance.choice([1, 2, 7, 8, 9, 31, 32, 33, 100, 1000])):
            data = json.dumps({"id": len(lines), "text": "x" * chance.randrange(size + 1)}, separators=(",", ":"))
            lines.append((name, record(data, name)))
        if chance.random() < 0.5:
            lines.append(("", stream_state({"c": len(lines)})))
    text = b"".join(line + b"\n" for _, line in lines)
    framer, found, most = Framer(max_line_bytes=1 << 20), list[tuple[int, str, bytes]](), 0
    for cut in range(0, len(text), 1 << 18):
        for message in framer.feed(text[cut : cut + (1 << 18)]):
            if isinstance(message, Records):
                most = max(most, message.rows)
                each = message.raw.splitlines()
                assert len(each) == message.rows
                found += [(message.line + n, message.stream.name, line) for n, line in enumerate(each)]
            else:
                assert isinstance(message, Record | State)
                found.append((message.line, message.stream.name if isinstance(message, Record) else "", message.raw))
    assert found == [(number, name, line) for number, (name, line) in enumerate(lines, 1)]
    assert most > 200, "long runs are taken together"


def test_a_run_of_lines_that_is_longer_than_a_line_may_be_is_looked_at_line_by_line():
    text = b"".join(record() + b"\n" for _ in range(20))
    assert [type(message) for message in everything(Framer(max_line_bytes=500), [text])] == [Record] * 20
    with pytest.raises(BadLineError, match="Line 21 of the input is longer"):
        everything(Framer(max_line_bytes=500), [text + record('{"x":"' + "a" * 500 + '"}') + b"\n"])
