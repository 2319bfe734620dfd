"""JSON whose numbers keep their digits on the way from an answer to a RECORD line. Pure.

``loads`` gives what the CDK's decoders give, but for numbers that a double cannot hold: a long decimal becomes a
``ExactFloat``, which computes as the nearest double and is written as the API wrote it; an integer of any length stays
one. ``dumps`` writes them all. What is no JSON (``NaN`` included, which the CDK would turn into null) is an error.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import orjson

# Whatever orjson could round: sixteen digits and more, or a large exponent. A false alarm costs time only.
_SUSPECT = re.compile(rb"(?:\A|[\s:,\[])-?(?:[0-9.]{16,}|[0-9.]+[eE][-+]?[0-9]{3,})")
# A cheap first look: with all digits alike, a plain search finds a run of them.
_ALIKE = bytes.maketrans(b"123456789.E", b"0000000000e")
_LOOKS = (b"0" * 16, b"0e000", b"0e+000", b"0e-000")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1  # what orjson writes
_OPTIONS = orjson.OPT_NON_STR_KEYS  # of CSV rows that are longer than their head, as json.dumps has it


class ExactFloat(float):
    """A number whose text says more than a double can hold."""

    text: str

    def __str__(self) -> str:
        return self.text


def loads(body: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or no UTF-8.
    """
    raw = body.encode() if isinstance(body, str) else body.removeprefix(b"\xef\xbb\xbf")
    alike = raw.translate(_ALIKE)
    if not any(look in alike for look in _LOOKS) or _SUSPECT.search(raw) is None:
        return orjson.loads(raw)
    return json.loads(raw.decode("utf-8"), parse_float=exact_float, parse_constant=_refuse)


def exact_float(text: str) -> float:
    """A float that says what the text says."""
    number = float(text)
    # The shortest text of a double is what reaches the lake: it must be the same number.
    if number - number == 0 and Decimal(repr(number)) == Decimal(text):
        return number
    exact = ExactFloat(number)
    exact.text = text
    return exact


def is_number(text: str) -> bool:
    """Whether a text is a number of JSON."""
    return _NUMBER.fullmatch(text) is not None


def dumps(value: Any) -> bytes:
    """A value that ``loads`` made, or that transformations made of it, as JSON text on one line.

    Raises:
        TypeError: it holds what JSON cannot say.
    """
    try:
        return orjson.dumps(value, default=_written)
    except TypeError:  # an integer beyond 64 bits, or a key that is no text
        return orjson.dumps(_with_texts(value), default=_written, option=_OPTIONS)


def _written(value: Any) -> Any:
    if isinstance(value, ExactFloat):
        return orjson.Fragment(value.text.encode())
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(str(value).encode())
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _with_texts(value: Any) -> Any:
    if isinstance(value, int) and not _LOWEST <= value <= _HIGHEST:
        return orjson.Fragment(str(value).encode())
    if isinstance(value, dict):
        return {name: _with_texts(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(inner) for inner in value]
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
