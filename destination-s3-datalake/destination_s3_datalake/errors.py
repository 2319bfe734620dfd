"""The errors of this destination: four kinds, by who should act next.

DatalakeError
├── ConfigError      the user must change a setting           -> config_error, never retried
├── TransientError   try the same thing later                 -> transient_error
│   └── FencedError  a newer writer has opened this table
├── DataError        the source sent what we refuse to guess  -> system_error (a retry re-reads the source)
│   └── BadLineError a line of the input cannot be used; everything before it stands
└── InternalError    we are wrong; please report it           -> system_error

``message`` is for the user: what happened, and what to change. ``facts`` are safe to log: names, keys, numbers, AWS
error codes. Neither ever holds a record's value, a STATE's content or a secret.
"""

from __future__ import annotations

from typing import ClassVar, Literal

FailureType = Literal["config_error", "transient_error", "system_error"]
Fact = str | int | float | bool | None


class DatalakeError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: one sentence or two for the user, with what to change.
        stream: the Airbyte stream name it concerns, where one is known.
        namespace: that stream's namespace.
        facts: further facts, safe to log.
    """

    failure_type: ClassVar[FailureType] = "system_error"

    def __init__(self, message: str, *, stream: str | None = None, namespace: str | None = None, **facts: Fact):
        super().__init__(message)
        self.message = message
        self.stream = stream
        self.namespace = namespace
        self.facts = facts


class ConfigError(DatalakeError):
    """The user must change a setting."""

    failure_type = "config_error"


class TransientError(DatalakeError):
    """Try the same thing later."""

    failure_type = "transient_error"


class FencedError(TransientError):
    """A newer writer has opened this table; this process must not touch it again."""


class DataError(DatalakeError):
    """The source sent something that we refuse to guess about."""


class BadLineError(DataError):
    """A line of the input cannot be used. Nothing of it was taken, and everything before it stands."""


class UnusableLineError(Exception):
    """Row ``row`` (from 0) of a spooled file is no record of its stream. Callers know the line's number, and say it."""

    def __init__(self, row: int):
        super().__init__()
        self.row = row


class InternalError(DatalakeError):
    """We are wrong; please report it."""
