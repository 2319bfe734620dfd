"""The commands for people: which there are, how they are found, how they end."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest
from source_rest_api import commands
from source_rest_api.commands import AIRBYTE, COMMANDS, Command
from source_rest_api.errors import config_error
from source_rest_api.tokens import hide


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fate")


def run(arguments: argparse.Namespace, out: TextIO) -> int:
    out.write(f"{arguments.fate}\n")
    match arguments.fate:
        case "badly":
            hide("s3cr3t-t0k3n")
            logging.getLogger("airbyte").warning("nobody knows s3cr3t-t0k3n")
            logging.getLogger("airbyte").info("not for people")
            raise config_error("Set s3cr3t-t0k3n anew.")
        case "worse":
            raise KeyError("s3cr3t-t0k3n")
        case _:
            return 0


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of this name is known."""
    monkeypatch.setitem(sys.modules, "end_command", SimpleNamespace(add_arguments=add_arguments, run=run))
    monkeypatch.setattr(commands, "COMMANDS", {"end": Command("end in one way or another", "end_command")})


@pytest.mark.usefixtures("end")
def test_a_command_runs_and_gives_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    assert commands.main(["end", "well"], out) == 0
    assert out.getvalue() == "well\n"


@pytest.mark.usefixtures("end")
def test_an_error_is_one_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["end", "badly"], io.StringIO()) == 1
    assert capsys.readouterr().err == "warning: nobody knows ****\nerror: Set **** anew.\n"


@pytest.mark.usefixtures("end")
def test_a_bug_is_named_by_its_place_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["end", "worse"], io.StringIO()) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: This is a bug, please report it: KeyError at\n")
    assert f"{Path(__file__).name}:" in said
    assert "t0k3n" not in said


@pytest.mark.usefixtures("end")
def test_help_lists_the_commands_of_airbyte_and_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["--help"], io.StringIO())
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name in (*AIRBYTE, "end"):
        assert f"    {name} " in said


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit) as ended:
            commands.main([name, "--help"], io.StringIO())
        assert ended.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert command.help in said
        assert f"usage: source-rest-api {name}" in said


def test_what_is_no_command_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["nonsense"], []):
        assert commands.is_ours(wrong)
    with pytest.raises(SystemExit):
        commands.main(["nonsense"], io.StringIO())
    assert "invalid choice: 'nonsense'" in capsys.readouterr().err
    assert commands.main([], io.StringIO()) == commands.USAGE_ERROR
    assert not commands.is_ours(["read", "--help"])
    assert not commands.is_ours(["--debug", "read"])
