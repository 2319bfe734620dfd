"""A guess and its reason; a gap and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Guess:
    """A value of the configuration, and why it is that one. The value is None where there is none to set."""

    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """What the document does not say, and the user must.

    Attributes:
        setting: where it is in the configuration, or in the stream.
        advice: what to do.
        placeholder: what stands there until then; empty if a value stands there that needs a look only.
    """

    setting: str
    advice: str
    placeholder: str = ""
