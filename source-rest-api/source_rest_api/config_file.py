"""A configuration file, JSON or YAML, with the line and column of everything in it.

Values come from the JSON or YAML parser; places from YAML's nodes, of which JSON is a subset. Dates of YAML stay texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import Reader

from source_rest_api.errors import config_error

Place = tuple[str | int, ...]
YAML = (".yaml", ".yml")
TIMESTAMP = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True, slots=True)
class Document:
    """What stands in a file, and where.

    Attributes:
        path: of the file, as it was given.
        value: all that is in it.
        positions: line and column, from 1, of each key and each item of a list.
        repeated: keys that stand twice in one object; the last one counts.
    """

    path: str
    value: Any
    positions: Mapping[Place, tuple[int, int]]
    repeated: tuple[Place, ...] = ()

    def position(self, place: Place) -> tuple[int, int]:
        """Line and column of a place, or of the nearest one around it."""
        while place not in self.positions:
            place = place[:-1]
        return self.positions[place]


def written(place: Iterable[str | int]) -> str:
    """A place as one would write it, such as ``streams[0].path``; empty for the top."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def read_document(path: str) -> Document:
    """Read a file; ``.yaml`` and ``.yml`` are YAML, all others JSON.

    Raises:
        AirbyteTracedException: a config_error that names the file, and the place where it is no JSON or YAML.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as problem:
        raise config_error(f"{path} cannot be read: {problem.strerror}.") from None
    except UnicodeDecodeError:
        raise config_error(f"{path} is not UTF-8.") from None
    if Path(path).suffix.lower() in YAML:
        node, value = _from_yaml(path, text)
    else:
        value = _from_json(path, text)
        # White space and rare characters that JSON allows and YAML does not; each is one column wide.
        node, _ = _from_yaml(path, Reader.NON_PRINTABLE.sub(" ", text.replace("\t", " ")))
    if not isinstance(value, dict):
        raise config_error(f"{path}:1:1: a configuration is an object with base_url and streams.")
    positions: dict[Place, tuple[int, int]] = {(): (1, 1)}
    repeated = []
    for place, mark in _marks(node, (), frozenset()):
        if place in positions:
            repeated.append(place)
        positions[place] = (mark.line + 1, mark.column + 1)
    return Document(path, value, positions, tuple(repeated))


def _from_json(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise config_error(f"{path}:{problem.lineno}:{problem.colno}: this is no JSON: {problem.msg}.") from None


class _Loader(yaml.SafeLoader):
    """Without dates: a form has texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _from_yaml(path: str, text: str) -> tuple[yaml.Node | None, Any]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise config_error(f"{path}:{place}: this is no YAML: {problem.problem or problem.context}.") from None
    except yaml.YAMLError:
        raise config_error(f"{path}: this is no YAML: it holds characters that are not allowed.") from None
    finally:
        loader.dispose()


def _marks(node: yaml.Node | None, place: Place, above: frozenset[int]) -> Iterator[tuple[Place, yaml.Mark]]:
    """Every key and item, but not into a node that holds itself."""
    if node is None or id(node) in above:
        return
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value if isinstance(key.value, str) else "?")
            yield inner, key.start_mark
            yield from _marks(value, inner, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*place, index), item.start_mark
            yield from _marks(item, (*place, index), above)
