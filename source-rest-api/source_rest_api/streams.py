"""From the form to the CDK's ``DeclarativeStream`` components. Pure: one dict in, one dict out.

Texts of the user stay out of components, where the CDK would interpolate or dereference them: a component names its
stream, and the retriever looks it up in the form. The names of streams, keys and cursors do get in; the CDK evaluates
the cursor's only, and the form refuses templates there.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, timedelta
from typing import Any

from source_rest_api.form import CounterCursor, Cursor, DatetimeCursor, Form, RateLimit, Stream
from source_rest_api.times import CDK_CANONICAL, EPOCH, cdk_format, parse_start, resolution

CONNECT_SECONDS = 30
END_OF_TIME = "9999-12-30T00:00:00.000000Z"

Component = dict[str, Any]


def stream_components(form: Form, definitions: Mapping[str, Any], *, max_retries: int | None = None) -> list[Component]:
    """One ``DeclarativeStream`` per stream of the form.

    Args:
        form: the parsed form.
        definitions: the manifest's, resolved.
        max_retries: fewer than the form's, for a check.
    """
    return [_component(stream, form, definitions, max_retries) for stream in form.streams]


def api_budget(limit: RateLimit) -> Component | None:
    """The CDK's component that keeps requests below a rate, over all streams; None without a limit."""
    rates = [
        {"limit": most, "interval": interval}
        for most, interval in (
            (limit.requests_per_second, "PT1S"),
            (limit.requests_per_minute, "PT1M"),
            (limit.requests_per_hour, "PT1H"),
        )
        if most is not None
    ]
    if not rates:
        return None
    policies = [{"type": "MovingWindowCallRatePolicy", "rates": [rate], "matchers": []} for rate in rates]
    return {"type": "HTTPAPIBudget", "policies": policies}


def _component(
    stream: Stream,
    form: Form,
    definitions: Mapping[str, Any],
    max_retries: int | None,
    *,
    parent_fields: Mapping[str, str] | None = None,
) -> Component:
    component: Component = deepcopy(definitions["stream"])
    retriever = component["retriever"]
    retriever["requester"]["connect_timeout_in_seconds"] = min(CONNECT_SECONDS, form.timeout_seconds)
    retriever["requester"]["read_timeout_in_seconds"] = form.timeout_seconds
    retriever["requester"]["http_method"] = stream.method
    retriever["requester"]["error_handler"]["stream"] = stream.name
    if max_retries is not None:
        retriever["requester"]["error_handler"]["max_retries_"] = max_retries
    component["name"] = stream.name  # the key stays out: the CDK refuses one in an object, and discover is our own
    if parent_fields is not None:
        retriever["parent_fields"] = dict(parent_fields)
    elif isinstance(stream.cursor, DatetimeCursor):
        component["incremental_sync"] = _cursor(stream.cursor, definitions)
    elif isinstance(stream.cursor, CounterCursor):
        component["incremental_sync"] = _counter(stream.cursor, definitions)
    if stream.parents:
        retriever["partition_router"] = {
            **deepcopy(definitions["parents"]),
            "child": stream.name,
            "parents": [
                _component(form.stream(name), form, definitions, max_retries, parent_fields=_fields_of(name, stream))
                for name in stream.parent_streams
            ],
        }
    return component


def _fields_of(parent: str, stream: Stream) -> dict[str, str]:
    """The fields of a parent's records that a stream is read by, by the names it has for them."""
    return {entry.as_name: entry.field for entry in stream.parents if entry.stream == parent}


def _counter(cursor: CounterCursor, definitions: Mapping[str, Any]) -> Component:
    return {
        **deepcopy(definitions["counter"]),
        "cursor_field": cursor.cursor_field,
        "start_value": cursor.start if cursor.start is not None else 0,
    }


def _cursor(cursor: DatetimeCursor, definitions: Mapping[str, Any]) -> Component:
    format_ = cdk_format(cursor.cursor_format)
    start = EPOCH + timedelta(microseconds=parse_start(cursor.start)) if cursor.start else EPOCH
    component: Component = {
        **deepcopy(definitions["cursor"]),
        "cursor_field": cursor.cursor_field,
        "datetime_format": format_,
        "cursor_datetime_formats": [format_],
        "start_datetime": {
            "type": "MinMaxDatetime",
            "datetime": start.astimezone(UTC).strftime(CDK_CANONICAL),
            "datetime_format": CDK_CANONICAL,
        },
    }
    if not cursor.end_param:
        # Without an upper bound in the request there is none: a state that lies in the future must still be read on.
        component["end_datetime"] = {
            "type": "MinMaxDatetime",
            "datetime": END_OF_TIME,
            "datetime_format": CDK_CANONICAL,
        }
    if cursor.step:
        component["step"] = cursor.step
        component["cursor_granularity"] = cursor.granularity or _as_duration(request_resolution(cursor))
    if cursor.lookback:
        component["lookback_window"] = cursor.lookback
    return component


def request_format(cursor: Cursor) -> str:
    """How a cursor value is written into a request."""
    return cursor.request_format or cursor.cursor_format


def request_resolution(cursor: DatetimeCursor) -> timedelta:
    """The smallest step between two windows."""
    return resolution(request_format(cursor))


def _as_duration(step: timedelta) -> str:
    if step >= timedelta(days=1):
        return f"P{step.days}D"
    return f"PT{step.total_seconds():.6f}".rstrip("0").rstrip(".") + "S"
