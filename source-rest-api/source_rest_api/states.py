"""Input STATEs: what is accepted, and how those of earlier versions are read.

A STATE that cannot be understood is a config_error: to ignore it would read all again, or lose what lies between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airbyte_cdk.models import AirbyteStateMessage, AirbyteStateType

from source_rest_api.boundary import CDK_ENTRY, flat_partition, without_boundary
from source_rest_api.errors import config_error
from source_rest_api.form import Cursor, Form
from source_rest_api.times import FormatError, from_state

State = dict[str, Any]
FULL_REFRESH_COMPLETE = "__ab_full_refresh_sync_complete"


def stream_state(message: AirbyteStateMessage) -> tuple[str | None, State]:
    """The stream of a STATE and its state; no name if it is of another kind."""
    if message.type not in (AirbyteStateType.STREAM, None) or message.stream is None:
        return None, {}
    blob = message.stream.stream_state
    return message.stream.stream_descriptor.name, dict(vars(blob)) if blob is not None else {}


def check_states(form: Form, states: Mapping[str, State]) -> None:
    """Raise a config_error for a state that does not fit its stream. States of streams that are gone do no harm."""
    for name, state in states.items():
        if name not in form.names or FULL_REFRESH_COMPLETE in state:
            continue
        cursor = form.stream(name).cursor
        for problem in _problems(state, cursor) if cursor is not None else ():
            raise config_error(
                f"Stream {name!r}: its state {problem}. If the cursor was changed, reset the stream (clear its data); "
                "otherwise give the state back that the last sync ended with."
            )


def migrated(state: State) -> State:
    """A STATE as the CDK's cursors know it: without boundaries, and with flat partitions."""
    own = without_boundary(state)
    if isinstance(own.get("states"), list):
        own["states"] = [
            {**entry, "partition": {**flat_partition(entry["partition"]), CDK_ENTRY: {}}}
            if isinstance(entry, Mapping) and isinstance(entry.get("partition"), Mapping)
            else entry
            for entry in own["states"]
        ]
    return own


def _problems(state: State, cursor: Cursor) -> Iterator[str]:
    field = cursor.cursor_field
    if "states" not in state and "state" not in state:
        if any(not key.startswith("__ab_") for key in without_boundary(state)):
            yield from _value_problems(state, cursor)
        return
    if not isinstance(state.get("states", []), list):
        yield "has no list in 'states'"
        return
    for entry in state.get("states", []):
        match entry:
            case {"partition": dict(), "cursor": dict() as inner}:
                yield from _value_problems(inner, cursor)
            case _:
                yield f"has an entry in 'states' that is no partition with a cursor {field!r}"
    match state.get("state"):
        case None:
            pass
        case dict() as inner:
            yield from _value_problems(inner, cursor)
        case _:
            yield "has no object in 'state'"


def _value_problems(state: Mapping[str, Any], cursor: Cursor) -> Iterator[str]:
    if cursor.cursor_field not in state:
        yield f"has no value of the cursor {cursor.cursor_field!r}"
        return
    try:
        from_state(state[cursor.cursor_field], cursor.cursor_format)
    except FormatError:
        yield f"has a value of the cursor {cursor.cursor_field!r} that is none of the format {cursor.cursor_format}"
