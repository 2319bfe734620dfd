"""What of the CDK's log records may be seen: it quotes requests, answers and records, and says each error twice.

A filter for handlers, of the entrypoint as of the commands for people.
"""

from __future__ import annotations

import logging
import re

from source_rest_api.errors import shown

# What the CDK says of every retry, for whatever reason.
_WAITING = re.compile(
    r"UserDefinedBackoffException: Rate limit exceeded(?: \(HTTP (\d+)\))?\. Retrying in ([\d.]+) seconds\."
)
_REPEATED = (
    "Exception while syncing stream", "During the sync, the following streams", "Max retry limit reached",
    "Encountered an error while", "Failed to parse",
)  # fmt: skip
_QUOTING = re.compile(r"request to '|Response Content|response\.text|failed to parse cursor|oldest partition|https?://")
_COUNT = re.compile(r"Read \d+ records from .* stream")  # the CDK counts pages


def without_details(record: logging.LogRecord) -> bool:
    """What may be logged: no stack traces, no bodies of failed requests (the error says it), no wrong counts."""
    record.exc_info = record.exc_text = record.stack_info = None
    text = record.getMessage()
    waiting = _WAITING.fullmatch(text)
    if waiting:
        why = f"The API answered {waiting[1]}" if waiting[1] else "The API did not answer"
        record.msg, record.args = f"{why}; trying again in {waiting[2]} seconds", ()
        return True
    if _QUOTING.search(text):
        record.msg, record.args = shown(text), ()
    is_body = record.name.startswith("airbyte.HttpRequester.") and record.levelno >= logging.ERROR
    return not (is_body or text.startswith(_REPEATED) or _COUNT.fullmatch(text))
