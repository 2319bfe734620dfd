"""Points in time as APIs write them: RFC 3339, epochs, strptime formats. Pure.

Inside, a moment is an integer: microseconds since 1970-01-01T00:00:00Z. Texts without a zone are taken as UTC. What
does not fit its format raises ``FormatError``: nothing is guessed, and no message holds the value.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

RFC3339 = "rfc3339"
COUNTER = "counter"  # no time at all: whole numbers that grow, and a "moment" is such a number
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1000, "epoch_us": 1}
CDK_EPOCHS = {"epoch_s": "%s_as_float", "epoch_ms": "%ms", "epoch_us": "%epoch_microseconds"}
CDK_CANONICAL = "%Y-%m-%dT%H:%M:%S.%fZ"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_SHIFTS = {"epoch_s": 0, "epoch_ms": -3, "epoch_us": -6}
_LAST_SECOND = 253_402_300_800  # 10000-01-01
_FIRST_SECOND = -62_135_596_800  # 0001-01-01
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)


class FormatError(ValueError):
    """A format that is none, or a value that does not fit it. The message is safe to show."""


def check_format(format_: str) -> None:
    """Accept ``rfc3339``, ``epoch_s``, ``epoch_ms``, ``epoch_us``, or a strptime format.

    Raises:
        FormatError: it is none of them.
    """
    if format_ == RFC3339 or format_ in EPOCHS:
        return
    if "%" not in format_:
        raise FormatError(
            f"{format_!r} is no format: use rfc3339, epoch_s, epoch_ms, epoch_us, or strptime codes such as %Y-%m-%d"
        )
    try:
        text = EPOCH.strftime(format_)
        datetime.strptime(text, format_)
    except ValueError:
        raise FormatError(f"{format_!r} has a code that strptime does not know") from None


def to_moment(value: Any, format_: str) -> int:
    """Microseconds since 1970, rounded down.

    Raises:
        FormatError: the value does not fit.
    """
    if format_ == COUNTER:
        return _count(value)
    if format_ in EPOCHS:
        if type(value) is int:
            moment = value * EPOCHS[format_]
        else:
            moment = int((_seconds(value, format_) * 1_000_000).to_integral_value("ROUND_FLOOR"))
        if not _FIRST_SECOND <= moment // 1_000_000 < _LAST_SECOND:
            raise FormatError(f"a value is no {format_}: it lies outside of the years 1 to 9999")
        return moment
    if type(value) is not str:
        raise FormatError(f"a value is no text in the format {format_}")
    try:
        if format_ == RFC3339:
            if len(value) < 10 or value[4] != "-" or "W" in value:
                raise ValueError
            found = datetime.fromisoformat(value)
        else:
            found = datetime.strptime(value, format_)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
        return (found - EPOCH) // MICROSECOND
    except (ValueError, OverflowError):
        raise FormatError(f"a value is no text in the format {format_}") from None


def to_text(moment: int, format_: str) -> str:
    """A moment for a request: rounded down to what the format can say (whole seconds in RFC 3339)."""
    if format_ == COUNTER:
        return str(moment)
    if format_ in EPOCHS:
        return str(moment // EPOCHS[format_])
    found = EPOCH + timedelta(microseconds=moment)
    return _written(found, "seconds") if format_ == RFC3339 else found.strftime(format_)


def resolution(format_: str) -> timedelta:
    """The smallest step that a request format can say."""
    if format_ in EPOCHS:
        return timedelta(microseconds=EPOCHS[format_])
    if format_ == RFC3339 or "%S" in format_ or "%T" in format_ or "%s" in format_:
        return MICROSECOND if "%f" in format_ else timedelta(seconds=1)
    if "%M" in format_ or "%R" in format_:
        return timedelta(minutes=1)
    return timedelta(hours=1) if "%H" in format_ else timedelta(days=1)


def cdk_format(format_: str) -> str:
    """How the CDK's cursor and STATE write a cursor of this format: epochs stay numbers, all else is RFC 3339."""
    return CDK_EPOCHS.get(format_, CDK_CANONICAL)


def to_state(moment: int, format_: str) -> str | int:
    """A moment in the text of ``cdk_format``; a counter stays a number."""
    if format_ == COUNTER:
        return moment
    if format_ == "epoch_s":
        return str(moment / 1_000_000)
    if format_ in EPOCHS:
        return str(moment // EPOCHS[format_])
    return _written(EPOCH + timedelta(microseconds=moment), "microseconds")


def from_state(text: Any, format_: str) -> int:
    """The moment of a STATE's or slice's text. Raises FormatError."""
    return to_moment(text, format_ if format_ in EPOCHS or format_ == COUNTER else RFC3339)


def to_rfc3339(number: str, format_: str) -> str:
    """RFC 3339 text in UTC for an epoch number as the API wrote it; no digit is lost.

    Raises:
        FormatError: it is no number, or lies outside of the years 1 to 9999.
    """
    seconds = _seconds(number, format_)
    whole = int(seconds.to_integral_value("ROUND_FLOOR"))
    if not _FIRST_SECOND <= whole < _LAST_SECOND:
        raise FormatError(f"a value is no {format_}: it lies outside of the years 1 to 9999")
    digits = max(0, -int(seconds.as_tuple().exponent))
    fraction = f"{seconds - whole:.{digits}f}"[1:] if digits else ""
    return f"{_written(EPOCH + timedelta(seconds=whole), 'seconds')[:-1]}{fraction}Z"


def text_to_rfc3339(text: str, format_: str) -> str:
    """RFC 3339 text in UTC for a text in a strptime format, or RFC 3339 itself unchanged. Raises FormatError."""
    moment = to_moment(text, format_)
    if format_ == RFC3339:
        return text
    found = EPOCH + timedelta(microseconds=moment)
    return found.isoformat().removesuffix("+00:00") + "Z"


def parse_duration(text: str) -> timedelta:
    """An ISO 8601 duration in weeks, days, hours, minutes, seconds. Raises FormatError."""
    found = _DURATION.fullmatch(text)
    parts = {name: float(value) for name, value in found.groupdict().items() if value} if found else {}
    duration = timedelta(**parts)
    if not duration:
        raise FormatError(f"{text!r} is no duration: write P1D, PT6H or PT30M")
    return duration


def parse_start(text: str) -> int:
    """The moment of a date or RFC 3339 text. Raises FormatError."""
    try:
        return to_moment(text, RFC3339)
    except FormatError:
        raise FormatError(f"{text!r} is no date or time: write 2024-01-31 or 2024-01-31T00:00:00Z") from None


def _written(moment: datetime, precision: str) -> str:
    """ISO 8601 text in UTC; strftime would write the year 999 with three digits on some systems."""
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _count(value: Any) -> int:
    """Also of a text: APIs write large numbers as texts."""
    if type(value) is int and value >= 0:
        return value
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 40:
        return int(value)
    raise FormatError("a value is no whole number")


def _seconds(value: Any, format_: str) -> Decimal:
    text = repr(value) if type(value) is float else str(value)
    if type(value) is bool or _NUMBER.fullmatch(text) is None:
        raise FormatError(f"a value is no number, as {format_} wants")
    try:
        return Decimal(text).scaleb(_SHIFTS[format_])
    except InvalidOperation:
        raise FormatError(f"a value is no {format_}") from None
