"""Looking on while a stream is read: for commands that show the requests. A sync has no watcher.

The watcher travels with what the components of a running source share, and sees the requests of parents, logins and
token endpoints too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import requests

from source_rest_api.form import SHARED
from source_rest_api.pagination import Answer

WATCHER = "watcher"  # in what the components share
CREDENTIALS = ""  # in place of a stream's name: a request for a token
MANIFEST = "manifest"  # the same: a request of some part of a manifest


class Enough(Exception):  # noqa: N818  # no error: whoever looks on has seen what there was to see
    """Raised by a watcher before a request: it is not made, and reading ends."""


class Watcher(Protocol):
    """Who looks on."""

    def asking(self, stream: str) -> None:
        """Before each request. Raises Enough to end the reading."""

    def answered(self, stream: str, response: requests.Response) -> None:
        """The head of an answer is there, also of a redirect, or of one that is tried again."""

    def took(self, stream: str, answer: Answer, record_path: str, detected: str) -> None:
        """A page was read.

        Args:
            stream: its name.
            answer: unzipped, and its records counted.
            record_path: where they are.
            detected: how the API pages, in words, if the form does not say it.
        """


def watcher_of(config: Mapping[str, Any]) -> Watcher | None:
    """Who looks on at a running source."""
    found: Watcher | None = config.get(SHARED, {}).get(WATCHER)
    return found


def show_answers(session: requests.Session, watcher: Watcher | None, stream: str) -> None:
    """Let a watcher see all answers that a session gets."""
    if watcher is not None:
        session.hooks["response"].append(lambda response, **_: watcher.answered(stream, response))
