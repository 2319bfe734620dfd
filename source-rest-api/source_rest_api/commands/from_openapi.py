"""``from-openapi``: a configuration of an OpenAPI 3 or Swagger 2 document, and why it is the one.

The configuration goes to stdout, the report to stderr or into a file. What the document does not say is a placeholder
such as ``<token>``, and is named in the report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import msgspec
import requests

from source_rest_api.errors import config_error, plain_url
from source_rest_api.form import Form
from source_rest_api.formats import TooLarge
from source_rest_api.network import read_body, session_of
from source_rest_api.openapi.document import MOST_BYTES, TOO_LARGE, Document, DocumentError
from source_rest_api.openapi.guess import Gap, Guess
from source_rest_api.openapi.proposal import Proposal, ProposedStream, propose

TIMEOUT_SECONDS = 60
ORDER = ("record_path", "parents", "pagination", "primary_key", "incremental", "query_params", "headers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("document", help="the OpenAPI 3 or Swagger 2 document, JSON or YAML: a file or a URL")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN",
                        help="only streams whose name or path matches, such as 'orders*', and those they are read by; "
                             "may be given several times")  # fmt: skip
    parser.add_argument("--report", metavar="FILE", help="where the report goes (stderr)")
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def run(arguments: argparse.Namespace, out: TextIO) -> int:
    """0 if the document gave a configuration, gaps or not."""
    source = str(arguments.document)
    is_url = source.startswith(("http://", "https://"))
    try:
        document = Document.parse(_fetched(source) if is_url else _read(source), source if is_url else "")
        proposal = propose(document, arguments.only)
    except DocumentError as problem:
        raise config_error(f"{plain_url(source) if is_url else source}: {problem}") from None
    Form.parse(proposal.config)  # what we write is a form that is accepted
    if arguments.json:
        report = json.dumps(as_json(proposal), indent=1, ensure_ascii=False) + "\n"
    else:
        report = "".join(f"{line}\n" for line in as_text(proposal))
    if arguments.report:
        try:
            Path(arguments.report).write_text(report, encoding="utf-8")
        except OSError as problem:
            raise config_error(f"The report cannot be written to {arguments.report}: {problem.strerror}.") from None
    else:
        sys.stderr.write(report)
    out.write(json.dumps(proposal.config, indent=2, ensure_ascii=False) + "\n")
    return 0


def as_json(proposal: Proposal) -> Mapping[str, Any]:
    """The report for programs."""
    return {
        "title": proposal.title,
        "operations": proposal.count,
        "guesses": _guesses(proposal.guesses),
        "gaps": msgspec.to_builtins(proposal.gaps),
        "streams": [
            {
                "name": stream.name,
                "method": stream.operation.method.upper(),
                "path": stream.operation.path,
                "guesses": _guesses(stream.guesses),
                "gaps": msgspec.to_builtins(stream.gaps),
            }
            for stream in proposal.streams
        ],
        "skipped": msgspec.to_builtins(proposal.skipped),
        "unreadable": list(proposal.unreadable),
    }


def as_text(proposal: Proposal) -> Iterator[str]:
    """The report for people: first what is to be done, then why everything is as it is."""
    ready = sum(not stream.gaps for stream in proposal.streams)
    yield (
        f"{proposal.title}: {len(proposal.streams)} streams of {proposal.count} operations; {ready} need nothing more, "
        f"{len(proposal.streams) - ready} have gaps; {len(proposal.skipped)} reads are no streams."
    )
    if proposal.gaps or ready < len(proposal.streams):
        yield "To be filled in or looked at:"
    yield from (f"  {_gap(gap)}" for gap in proposal.gaps)
    for stream in proposal.streams:
        yield from (f"  stream {stream.name}: {_gap(gap)}" for gap in stream.gaps)
    yield "For all streams:"
    yield from _because(proposal.guesses, tuple(proposal.guesses))
    for stream in proposal.streams:
        yield f"Stream {stream.name}: {_request(stream)}"
        yield from _because(stream.guesses, ORDER)
    if proposal.skipped:
        yield "No streams:"
        yield from (f"  {skipped.method} {skipped.path}: {skipped.reason}" for skipped in proposal.skipped)
    if proposal.unreadable:
        yield "Not understood, and taken for anything:"
        yield from (f"  {words}" for words in proposal.unreadable)


def _request(stream: ProposedStream) -> str:
    return f"{stream.operation.method.upper()} {stream.operation.path}"


def _gap(gap: Gap) -> str:
    return f"{gap.setting}: {gap.advice}" + (f" (now {gap.placeholder})" if gap.placeholder else "")


def _because(guesses: Mapping[str, Guess], order: tuple[str, ...]) -> Iterator[str]:
    for name in order:
        guess = guesses.get(name)
        if guess is not None and guess.reason:
            value = "not set" if guess.value is None else json.dumps(guess.value, ensure_ascii=False)
            yield f"  {name}: {value}: {guess.reason}"


def _guesses(guesses: Mapping[str, Guess]) -> dict[str, Any]:
    return {name: {"value": guess.value, "reason": guess.reason} for name, guess in guesses.items()}


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise config_error(f"The file {path} cannot be read: {problem.strerror}.") from None


def _fetched(url: str) -> bytes:
    """The document at a URL. Addresses of cloud metadata services are refused, as everywhere."""
    try:
        with session_of(Form()).get(url, timeout=TIMEOUT_SECONDS, stream=True) as answer:
            if not answer.ok:
                raise config_error(f"{plain_url(url)} answered {answer.status_code}. Give the document's own URL.")
            return read_body(answer, MOST_BYTES, TIMEOUT_SECONDS)
    except TooLarge:
        raise DocumentError(TOO_LARGE) from None
    except requests.RequestException as problem:
        raise config_error(f"{plain_url(url)} cannot be read: {type(problem).__name__}.") from None
