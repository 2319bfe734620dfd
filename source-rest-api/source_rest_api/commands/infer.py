"""``infer``: one URL becomes a configuration of one stream, by what the API's answers show when it is asked.

The configuration goes to stdout or into a file, with placeholders for credentials; requests and reasons go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

import msgspec
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets

from source_rest_api.commands.arguments import add_credentials, credentials_from, file_keeper
from source_rest_api.commands.preview import request_lines
from source_rest_api.errors import config_error
from source_rest_api.looking import Asked, masked
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.probing.address import parse_address
from source_rest_api.probing.inference import Inference, infer

MOST_REQUESTS = 25
LEAST_REQUESTS = 5
SHOWN_PARAMS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="of a list of records, as the API's documentation or a browser shows it")
    parser.add_argument("--name", help="of the stream (the last word of the URL's path)")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'",
                        help="sent with every request, and written into the configuration; no secrets; may be given "
                             "several times")  # fmt: skip
    parser.add_argument("--public", action="append", default=[], metavar="NAME",
                        help="a parameter or header that is no secret, although its name looks like one")  # fmt: skip
    parser.add_argument("--requests", type=int, default=MOST_REQUESTS, metavar="N",
                        help="the most requests that are made (%(default)s)")  # fmt: skip
    parser.add_argument("--output", metavar="FILE", help="where the configuration goes (stdout); a new file")
    parser.add_argument("--json", action="store_true", help="the report on stderr as one JSON object")
    add_credentials(parser)


def run(arguments: argparse.Namespace, out: TextIO) -> int:
    """0 if the URL gave a configuration, gaps or not."""
    if arguments.requests < LEAST_REQUESTS:
        raise config_error(f"--requests is at least {LEAST_REQUESTS}: fewer show nothing.")
    if arguments.output and Path(arguments.output).exists():
        raise config_error(f"{arguments.output} is there already. Give --output a new file.")
    address = parse_address(arguments.url, arguments.header, public=arguments.public)
    found = infer(
        address,
        credentials_from(arguments),
        arguments.name or address.name,
        most=arguments.requests,
        keeper=file_keeper(arguments.credentials or ""),
        told=_silent if arguments.json else _told,
    )
    if arguments.json:
        sys.stderr.write(json.dumps(masked(as_json(found)), indent=1, ensure_ascii=False) + "\n")
    else:
        for line in as_text(found, arguments.output or "config.json"):
            sys.stderr.write(filter_secrets(line) + "\n")
    text = json.dumps(found.config, indent=2, ensure_ascii=False) + "\n"
    if arguments.output:
        try:
            with Path(arguments.output).open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as problem:
            raise config_error(f"{arguments.output} cannot be written: {problem.strerror}.") from None
    else:
        out.write(text)
    return 0


def as_json(found: Inference) -> Mapping[str, Any]:
    """The report for programs."""
    return {
        "stream": found.name,
        "guesses": {name: {"value": guess.value, "reason": guess.reason} for name, guess in found.guesses.items()},
        "gaps": msgspec.to_builtins(found.gaps),
        "tried": list(found.tried),
        "read_back": found.read_back,
        "requests": [{"method": asked.method, "url": asked.url, "status": asked.status, "records": asked.records}
                     for asked in found.asked],
    }  # fmt: skip


def as_text(found: Inference, file: str) -> Iterator[str]:
    """The report for people: first what is to be done, then why everything is as it is."""
    yield ""
    yield f"Stream {found.name}: read back by this configuration, {found.read_back}."
    if found.gaps:
        yield "To be filled in or looked at:"
        yield from (f"  {_gap(gap)}" for gap in found.gaps)
    yield "Why:"
    yield from (f"  {name}: {_shown(guess)}: {guess.reason}" for name, guess in found.guesses.items())
    if found.tried:
        yield "Tried without success:"
        yield from (f"  {words}" for words in found.tried)
    same = ", with the same credentials" if "credentials" in found.config else ""
    yield f"Next: source-rest-api validate {file}; then source-rest-api preview --config {file}{same}"


def _gap(gap: Gap) -> str:
    return f"{gap.setting}: {gap.advice}" + (f" (now {gap.placeholder})" if gap.placeholder else "")


def _shown(guess: Guess) -> str:
    return "not set" if guess.value is None else json.dumps(guess.value, ensure_ascii=False)


def _told(asked: Asked) -> None:
    """Each request at once: an API may be slow."""
    for line in request_lines([replace(asked, url=_short(asked.url))]):
        sys.stderr.write(f"{filter_secrets(line)}\n")
        sys.stderr.flush()


def _short(url: str) -> str:
    """As one reads it, with the first parameters of many that are tried at once."""
    place, mark, query = unquote(url).partition("?")
    pairs = query.split("&")
    more = len(pairs) - SHOWN_PARAMS
    return f"{place}{mark}{'&'.join(pairs[:SHOWN_PARAMS])}{f'&… and {more} more' if more > 0 else ''}"


def _silent(_: Asked) -> None:
    """With --json they are part of the report."""
