"""A STATE waits for the records before it."""

from __future__ import annotations

from destination_s3_datalake.protocol.catalog import StreamId
from destination_s3_datalake.protocol.checkpoints import Checkpoints
from destination_s3_datalake.protocol.messages import State

A, B = StreamId(None, "a"), StreamId(None, "b")


def state(stream: StreamId | None, number: int) -> State:
    return State(number, stream, b"%d" % number, str(number), is_final=False)


def left(checkpoints: Checkpoints) -> list[tuple[int, int]]:
    return [(released.state.line, released.records) for released in checkpoints.due()]


def test_a_state_waits_for_the_records_before_it():
    checkpoints = Checkpoints()
    checkpoints.hold(state(A, 1), needs={A: 2}, only_last=False)
    checkpoints.hold(state(A, 2), needs={A: 5}, only_last=False)
    assert left(checkpoints) == []
    checkpoints.committed(A, 4)
    assert left(checkpoints) == [(1, 2)]
    checkpoints.committed(A, 5)
    assert left(checkpoints) == [(2, 3)]


def test_a_state_without_records_waits_for_a_commit_too():
    checkpoints = Checkpoints()
    checkpoints.hold(state(A, 1), needs={A: 0}, only_last=False)
    assert left(checkpoints) == []
    checkpoints.committed(A, 0)
    assert left(checkpoints) == [(1, 0)]


def test_streams_do_not_wait_for_each_other():
    checkpoints = Checkpoints()
    checkpoints.hold(state(A, 1), needs={A: 1}, only_last=False)
    checkpoints.hold(state(B, 2), needs={B: 1}, only_last=False)
    checkpoints.committed(B, 1)
    assert left(checkpoints) == [(2, 1)]


def test_a_global_state_waits_for_every_stream_and_counts_all_of_them():
    checkpoints = Checkpoints()
    checkpoints.hold(state(None, 1), needs={A: 2, B: 3}, only_last=False)
    checkpoints.committed(A, 2)
    assert left(checkpoints) == []
    checkpoints.committed(B, 3)
    assert left(checkpoints) == [(1, 5)]


def test_of_a_run_that_is_published_as_a_whole_only_the_last_state_leaves_with_all_counts():
    checkpoints = Checkpoints()
    for number, position in ((1, 2), (2, 5), (3, 9)):
        checkpoints.hold(state(A, number), needs={A: position}, only_last=True)
    checkpoints.committed(A, 9)
    assert left(checkpoints) == [(3, 9)]


def test_held_bytes_are_those_of_the_lines_that_wait():
    checkpoints = Checkpoints()
    checkpoints.hold(State(1, A, b"12345", None, is_final=False), needs={A: 1}, only_last=False)
    checkpoints.hold(State(2, A, b"123", None, is_final=False), needs={A: 2}, only_last=False)
    assert checkpoints.held_bytes == 8
    checkpoints.committed(A, 1)
    left(checkpoints)
    assert checkpoints.held_bytes == 3


def test_a_state_of_a_stream_outside_the_catalog_leaves_at_once():
    checkpoints = Checkpoints()
    checkpoints.hold(state(A, 1), needs={}, only_last=False)
    assert left(checkpoints) == [(1, 0)]
