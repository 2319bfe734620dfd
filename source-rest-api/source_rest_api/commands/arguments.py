"""What several commands take from the command line: files, and credentials that never stand on it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from source_rest_api.config_file import read_document
from source_rest_api.errors import config_error

Credentials = dict[str, Any]


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Arguments that say where the credentials are."""
    group = parser.add_argument_group("credentials, which never stand on the command line")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--bearer-env", metavar="VARIABLE", help="environment variable with a token for Authorization")
    one.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable with an API key")
    one.add_argument(
        "--credentials", metavar="FILE", help="JSON or YAML file with what `credentials` of the form holds"
    )
    group.add_argument(
        "--api-key-name", metavar="NAME", default="X-Api-Key", help="header or parameter of the API key (%(default)s)"
    )
    group.add_argument(
        "--api-key-in", choices=["header", "query"], default="header", help="where the API key goes (%(default)s)"
    )


def credentials_from(arguments: argparse.Namespace) -> Credentials:
    """The credentials; empty without any.

    Raises:
        AirbyteTracedException: a variable is not set, or a file cannot be read.
    """
    if arguments.bearer_env:
        return {"auth_type": "bearer", "token": _variable(arguments.bearer_env)}
    if arguments.api_key_env:
        where = {"name": arguments.api_key_name, "inject_into": arguments.api_key_in}
        return {"auth_type": "api_key", **where, "api_key": _variable(arguments.api_key_env)}
    if arguments.credentials:
        held = read_document(arguments.credentials).value
        found: Credentials = held.get("credentials", held)
        return found
    return {}


def file_keeper(path: str) -> Callable[[Mapping[str, Any]], None]:
    """Writes a refresh token that the API rotated into the file with the old one, which is worth nothing any more.

    The file keeps all else as it is. Raises a config_error if the old token is not to be found there.
    """
    held: list[str] = []

    def keep(config: Mapping[str, Any]) -> None:
        new = str(config["credentials"]["refresh_token"])
        text = Path(path).read_text("utf-8")
        old = held[-1] if held else _refresh_token(path)
        if not old or text.count(_inside_quotes(old)) != 1:
            raise config_error(
                f"The API gave a new refresh token, which could not be written into {path}: it holds the old one in an "
                "unusual way. Get a new refresh token, and write it there as a plain text."
            )
        Path(path).write_text(text.replace(_inside_quotes(old), _inside_quotes(new)), "utf-8")
        held.append(new)

    return keep


def manifest_keeper(path: str) -> Callable[[Mapping[str, Any]], None]:
    """Writes a manifest's configuration, in which the API has rotated a token, into its JSON file."""

    def keep(config: Mapping[str, Any]) -> None:
        value = {**read_document(path).value, "manifest_config": config["manifest_config"]}
        Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")

    return keep


def _refresh_token(path: str) -> str:
    value = read_document(path).value
    return str(value.get("credentials", value).get("refresh_token", ""))


def _inside_quotes(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _variable(name: str) -> str:
    found = os.environ.get(name, "")
    if not found:
        raise config_error(f"The environment variable {name} is not set.")
    return found
