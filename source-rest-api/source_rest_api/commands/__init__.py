"""Commands for people, beside those of Airbyte's protocol: ``source-rest-api <command>``.

Each is a module with ``add_arguments`` and ``run``, loaded when it is asked for. What they find goes to stdout, what
they have to say on the way to stderr. An error is one line, ``error: ...``, with exit code 1. Secrets are masked in all
that a command prints, also in what the CDK logs meanwhile.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

PROGRAM = "source-rest-api"
USAGE_ERROR = 2  # argparse's own


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table: what ``--help`` says, and where the command is."""

    help: str
    module: str


class CommandModule(Protocol):
    """What a module of this package offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: argparse.Namespace, out: TextIO) -> int:
        """Do it; the exit code. Raises AirbyteTracedException with what to change."""


COMMANDS: Mapping[str, Command] = {
    "preview": Command(
        "show the first pages of one stream, the requests they took, its schema and what could be key and cursor",
        f"{__name__}.preview",
    ),
    "from-openapi": Command(
        "make a configuration of an OpenAPI or Swagger document, with the reason of each guess and every gap",
        f"{__name__}.from_openapi",
    ),
    "infer": Command(
        "make a configuration of one URL, by asking it: where the records are, how it pages, its key and its cursor",
        f"{__name__}.infer",
    ),
    "validate": Command(
        "check a configuration file line by line, and say what each stream will request", f"{__name__}.validate"
    ),
}

AIRBYTE: Mapping[str, str] = {
    "spec": "print the specification of the configuration (Airbyte's protocol, as the next three)",
    "check": "try the credentials and read a first page",
    "discover": "print the streams and their schemas",
    "read": "read streams and print their records and states",
}


def is_ours(arguments: Sequence[str]) -> bool:
    """Whether a command line is not for Airbyte's entrypoint: a command of ours, ``--help``, or nothing known."""
    first = arguments[0] if arguments else ""
    return first not in AIRBYTE and (first in ("", "-h", "--help") or not first.startswith("-"))


def main(arguments: Sequence[str], out: TextIO) -> int:
    """One command of ours; its exit code. Bad usage raises SystemExit, as argparse does."""
    if not arguments or arguments[0] not in COMMANDS:
        return _overview(arguments)
    from source_rest_api.run import quick_imports

    command = COMMANDS[arguments[0]]
    with quick_imports():
        module: CommandModule = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(f"{PROGRAM} {arguments[0]}", description=f"{command.help}.")
    module.add_arguments(parser)
    parsed = parser.parse_args(arguments[1:])
    with _logging_to(sys.stderr):
        return _run(module, parsed, out)


def _overview(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        PROGRAM,
        description="Any JSON REST API as an Airbyte source, by a form.",
        epilog=f"{PROGRAM} <command> --help explains a command.",
    )
    table = parser.add_subparsers(title="commands", metavar="<command>")
    for name, text in [*AIRBYTE.items(), *((name, command.help) for name, command in COMMANDS.items())]:
        table.add_parser(name, help=text)
    parser.parse_args(arguments)  # prints the help or names a command that is none, and ends
    parser.print_help(sys.stderr)
    return USAGE_ERROR


def _run(module: CommandModule, parsed: argparse.Namespace, out: TextIO) -> int:
    from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets
    from airbyte_cdk.utils.traced_exception import AirbyteTracedException

    from source_rest_api.run import places

    try:
        return module.run(parsed, out)
    except BrokenPipeError:
        raise
    except AirbyteTracedException as problem:
        words = problem.message or type(problem).__name__
    except Exception as problem:  # noqa: BLE001  # the one place where an error becomes a line for people
        words = f"This is a bug, please report it: {type(problem).__name__} at\n{places(problem)}"
    sys.stderr.write(f"error: {filter_secrets(words)}\n")
    return 1


@contextmanager
def _logging_to(stream: TextIO) -> Iterator[None]:
    """Warnings of the source and the CDK go to a stream, as lines; the CDK would print JSON to stdout."""
    import airbyte_cdk  # noqa: F401  # it sets up logging while it is imported

    from source_rest_api.logs import without_details

    root = logging.getLogger()
    before = root.handlers[:]
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    handler.addFilter(without_details)
    handler.setFormatter(_Line())
    root.handlers = [handler]
    try:
        yield
    finally:
        root.handlers = before


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """A line without a stack trace, which may quote data, and without secrets."""
        from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets

        return f"{record.levelname.lower()}: {filter_secrets(record.getMessage())}"
