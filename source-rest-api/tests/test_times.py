"""Points in time: exact, strict, and never with a value in a message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_rest_api.times import (
    EPOCH,
    EPOCHS,
    FormatError,
    check_format,
    from_state,
    parse_duration,
    resolution,
    to_moment,
    to_rfc3339,
    to_state,
    to_text,
)

moments = st.integers(min_value=-62_135_596_800_000_000, max_value=253_402_300_799_999_999)
formats = st.sampled_from(["rfc3339", "epoch_us", "%Y-%m-%d %H:%M:%S.%f"])


@given(moments, formats)
def test_a_state_holds_a_moment_exactly(moment, format_):
    assert from_state(to_state(moment, format_), format_) == moment


@given(moments, st.sampled_from(["rfc3339", *EPOCHS]))
def test_a_request_never_asks_for_less_than_the_moment(moment, format_):
    asked = to_moment(to_text(moment, format_) if format_ == "rfc3339" else int(to_text(moment, format_)), format_)
    assert asked <= moment < asked + resolution(format_) // timedelta(microseconds=1)


@given(st.integers(min_value=-(10**13), max_value=10**14), st.sampled_from(["epoch_s", "epoch_ms", "epoch_us"]))
def test_an_epoch_becomes_the_text_of_the_same_moment(number, format_):
    scale = {"epoch_s": 1, "epoch_ms": 1000, "epoch_us": 1_000_000}[format_]
    if not -62_135_596_800 <= number // scale < 253_402_300_800:
        with pytest.raises(FormatError):
            to_rfc3339(str(number), format_)
        return
    text = to_rfc3339(str(number), format_)
    found = (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)
    assert found == number * 1_000_000 // scale


@pytest.mark.parametrize(
    ("number", "format_", "text"),
    [
        ("1517966773840", "epoch_ms", "2018-02-07T01:26:13.840Z"),
        ("1517966773", "epoch_s", "2018-02-07T01:26:13Z"),
        ("1517966773.123456789", "epoch_s", "2018-02-07T01:26:13.123456789Z"),
        ("-1", "epoch_ms", "1969-12-31T23:59:59.999Z"),
        ("1.5e9", "epoch_s", "2017-07-14T02:40:00Z"),
    ],
)
def test_no_digit_of_an_epoch_is_lost(number, format_, text):
    assert to_rfc3339(number, format_) == text


@pytest.mark.parametrize(
    ("value", "format_"),
    [
        ("x", "epoch_s"), (True, "epoch_s"), (10**30, "epoch_ms"), ("", "epoch_s"), (" 1", "epoch_s"), ("٣", "epoch_s"),
        (5, "rfc3339"), ("2024", "rfc3339"), ("2024-W01-1", "rfc3339"), ("20240101", "rfc3339"),
        ("2024-13-01", "rfc3339"),
        ("secret", "%Y"), (None, "%Y"), ([], "epoch_s"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_without_its_text(value, format_):
    with pytest.raises(FormatError) as caught:
        to_moment(value, format_)
    assert "secret" not in str(caught.value)


@given(st.decimals(min_value=0, max_value=4_000_000_000, places=6))
def test_floats_of_seconds_are_floored_to_microseconds(seconds):
    number = float(seconds)
    assert to_moment(number, "epoch_s") == int(Decimal(repr(number)) * 1_000_000 // 1)


def test_texts_without_a_zone_are_utc():
    assert to_moment("2024-01-01T00:00:00", "rfc3339") == to_moment("2024-01-01T02:00:00+02:00", "rfc3339")
    assert to_moment("01.02.2024", "%d.%m.%Y") == (datetime(2024, 2, 1, tzinfo=UTC) - EPOCH) // timedelta(
        microseconds=1
    )


@pytest.mark.parametrize("text", ["", "1 day", "P", "PT", "P1Y", "P0D", "1D"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(FormatError):
        parse_duration(text)


def test_durations_and_formats():
    assert parse_duration("P1W") == timedelta(days=7)
    assert parse_duration("P1DT2H3M4.5S") == timedelta(days=1, hours=2, minutes=3, seconds=4.5)
    for format_ in ("rfc3339", "epoch_s", "%Y-%m-%dT%H:%M:%S%z"):
        check_format(format_)
    for format_ in ("iso8601", "%Q", ""):
        with pytest.raises(FormatError):
            check_format(format_)
