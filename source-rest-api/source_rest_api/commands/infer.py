"""``infer``: one URL becomes a configuration of one stream, by what the API's answers show when it is asked.

The configuration goes to stdout or into a file, with placeholders for credentials; requests and reasons go to stderr.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Any, TextIO
from urllib.parse import unquote

import msgspec
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets

from source_rest_api.commands.arguments import add_credentials, credentials_from, file_keeper
from source_rest_api.commands.preview import request_lines
from source_rest_api.errors import config_error
from source_rest_api.looking import Asked, masked
from source_rest_api.openapi.guess import Gap
from source_rest_api.probing.address import parse_address
from source_rest_api.probing.inference import Inference, infer
from source_rest_api.terminal import shown

MOST_REQUESTS = 25
LEAST_REQUESTS = 5
LONGEST_QUERY = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: source-rest-api infer 'https://api.example.com/v1/orders?status=open' --bearer-env TOKEN --output "
        "config.json. Only GET requests are made, also with parameters that the API may not know."
    )
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
        for line in as_text(found, arguments.output or ""):
            _say(line)
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
    yield f"Stream {found.name}: reading by this configuration gave {found.read_back}."
    if found.gaps:
        yield "To be filled in or looked at:"
        yield from (f"  {_gap(gap)}" for gap in found.gaps)
    yield "Why:"
    for name, guess in found.guesses.items():
        yield f"  {name}: {_shown(guess.value)}"
        yield f"    {guess.reason}"
    if found.tried:
        yield "Tried without success:"
        yield from (f"  {words}" for words in found.tried)
    same = ", with the same credentials" if "credentials" in found.config else ""
    keep = "" if file else "keep it in a file (--output config.json), then "
    file = file or "config.json"
    yield f"Next: {keep}source-rest-api validate {file}, and source-rest-api preview --config {file}{same}"


def _gap(gap: Gap) -> str:
    return f"{gap.setting}: {gap.advice}" + (f" (now {gap.placeholder})" if gap.placeholder else "")


def _shown(value: Any) -> str:
    """A setting as one reads it: what kind of pagination or cursor it is, and what it says of it."""
    match value:
        case None:
            return "not set"
        case {**settings} if settings:
            (_, kind), *rest = settings.items()
            return f"{kind} ({', '.join(f'{name}={inner}' for name, inner in rest)})" if rest else str(kind)
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _say(text: str) -> None:
    """One line of the report, in as many lines of the terminal as it takes."""
    text = shown(filter_secrets(text))
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    width = shutil.get_terminal_size((120, 40)).columns
    lines = wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    sys.stderr.write("".join(f"{line}\n" for line in lines or [""]))
    sys.stderr.flush()


def _told(asked: Asked) -> None:
    """Each request at once: an API may be slow."""
    for line in request_lines([replace(asked, url=_short(asked.url))]):
        sys.stderr.write(f"{shown(filter_secrets(line))}\n")
        sys.stderr.flush()


def _short(url: str) -> str:
    """As one reads it, with the first parameters of many that are tried at once."""
    place, mark, query = unquote(url).partition("?")
    pairs = query.split("&")
    count = len(pairs)
    while count > 1 and len("&".join(pairs[:count])) > LONGEST_QUERY:
        count -= 1
    more = f"&… and {len(pairs) - count} more" if count < len(pairs) else ""
    return f"{place}{mark}{'&'.join(pairs[:count])}{more}"


def _silent(_: Asked) -> None:
    """With --json they are part of the report."""
