"""Documents with console sessions: played again, command by command, and compared with what they say.

A session is a fenced block of language ``console``: lines that begin with ``$`` are run by a shell, what follows is
what was printed. Addresses stand in the document as a reader would have them; commands get those of real servers.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from integration_tests.harness import BIN, TIMEOUT, plain_environment

WIDTH = 100
_SESSION = re.compile(r"```console\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*)\n", re.MULTILINE)
# Sizes hold ports and durations that a server puts into its answers.
_SIZE = re.compile(r"\b\d+(\.\d+)? k?B\b")


def section(document: str, title: str) -> str:
    """The text below a heading of level 2, up to the next one."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    return str(found)


def played(text: str, folder: Path, addresses: Mapping[str, str]) -> str:
    """The same text with what its commands print today.

    Args:
        text: of a document.
        folder: where the commands run; they may leave files for one another.
        addresses: in the document, and of the running servers.
    """
    return _SESSION.sub(lambda found: f"```console\n{''.join(_lines(found[1], folder, addresses))}```", text)


def comparable(text: str) -> str:
    """Without what is another one each time."""
    return _SIZE.sub("<size>", text)


def commands(text: str) -> list[str]:
    """All commands of a text's sessions."""
    return [command for session in _SESSION.findall(text) for command in _COMMAND.findall(session)]


def _lines(session: str, folder: Path, addresses: Mapping[str, str]) -> Iterator[str]:
    for command in _COMMAND.findall(session):
        yield f"$ {command}\n"
        yield _printed(command, folder, addresses)


def _printed(command: str, folder: Path, addresses: Mapping[str, str]) -> str:
    for written, real in addresses.items():
        command = command.replace(written, real)
    environment = {**plain_environment(), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": str(WIDTH)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, timeout=TIMEOUT, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    for written, real in addresses.items():
        done.stdout = done.stdout.replace(real, written)
    return done.stdout
