"""``validate``: every problem of a configuration by line and column, or what its streams will ask for. No network."""

from __future__ import annotations

import argparse
from typing import TextIO

from source_rest_api.config_file import Document, read_document
from source_rest_api.description import describe
from source_rest_api.form import Form
from source_rest_api.form_problems import Problem, problems_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="the configuration: a JSON file, or YAML by the name .yaml")


def run(arguments: argparse.Namespace, out: TextIO) -> int:
    """0 for a good file. A bad one's problems are what was asked for, and go to ``out``; the exit code is 1."""
    document = read_document(arguments.config)
    repeated = [Problem(place, f"{place[-1]} stands twice here; the last one counts.") for place in document.repeated]
    problems = [*repeated, *problems_of(document.value)]
    for (line, column), words in sorted({(document.position(found.place), found.words) for found in problems}):
        out.write(f"{document.path}:{line}:{column}: {words}\n")
    if problems:
        out.write(f"{_count(len(problems), 'problem')}. Nothing was asked of the API.\n")
        return 1
    for text in _description(document):
        out.write(f"{text}\n")
    return 0


def _description(document: Document) -> list[str]:
    form = Form.parse(document.value)
    if form.manifest:
        return _of_manifest(document)
    return [f"{document.path} is good: {_count(len(form.streams), 'stream')}.", *describe(form)]


def _of_manifest(document: Document) -> list[str]:
    """The manifest's streams, and the settings that its own spec asks ``manifest_config`` for."""
    from source_rest_api import manifest  # with the CDK's parser of manifests, which the form has no need of

    found = manifest.describe(document.value)
    lines = [f"{document.path} is good: a manifest of version {found.version or 'none'} with "
             f"{_count(len(found.streams), 'stream')}."]  # fmt: skip
    lines += [f"  {name}" for name in found.streams]
    lines += [f"  {name}: streams that are known when it is run" for name in found.dynamic_streams]
    specification = found.connection_specification or {}
    required = specification.get("required", [])
    for name, schema in specification.get("properties", {}).items():
        words = [str(schema.get("type", "")), *(["required"] if name in required else [])]
        words += ["secret"] if schema.get("airbyte_secret") else []
        lines.append(f"  manifest_config.{name} ({', '.join(filter(None, words))}) {schema.get('title', '')}".rstrip())
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
