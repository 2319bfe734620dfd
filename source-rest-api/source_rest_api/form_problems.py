"""All problems of a configuration at once, each with its place in it. Pure.

``Form.parse`` stops at the first problem, as a sync must. Here the types are checked part by part: what is wrong in one
stream hides nothing in another. The rules between fields and streams are looked at when every part is of its type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from source_rest_api.config_file import Place, written
from source_rest_api.form import PARENT, Form, without_ours
from source_rest_api.form_rules import problems as broken_rules

_STREAM = re.compile(r"Stream (?P<quote>['\"])(?P<name>.+?)(?P=quote)")
_QUOTED = re.compile(r"'([^']+)'")
_WORD = re.compile(r"[a-z_]+(?:\.[a-z_]+)*")
_ALIASES = {"parent": "parents"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where."""

    place: Place
    words: str


def problems_of(config: Mapping[str, Any]) -> list[Problem]:
    """Every problem that can be seen; empty for a configuration that ``Form.parse`` accepts."""
    own = without_ours(config)
    found = list(_type_problems(own, Form, ()))
    if found:
        return found
    return [Problem(_place_of(words, own), words) for words in broken_rules(Form.converted(own))]


def _type_problems(value: Any, kind: Any, place: Place) -> Iterator[Problem]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as cause:
        inner = list(_inner_problems(value, kind, place))
        yield from inner or [Problem(place, f"{_shown(place)}: {_words(cause, kind)}.")]


def _inner_problems(value: Any, kind: Any, place: Place) -> Iterator[Problem]:
    """Those of its fields or items; nothing if it is the value itself that is wrong."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) in (Union, UnionType):
        yield from _branch_problems(value, kind, place)
    elif get_origin(kind) is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _type_problems(item, get_args(kind)[0], (*place, index))
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, Mapping):
        yield from _field_problems(value, kind, place)


def _field_problems(value: Mapping[str, Any], kind: type[msgspec.Struct], place: Place) -> Iterator[Problem]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    tag = kind.__struct_config__.tag_field
    for name, item in value.items():
        if name in fields:
            yield from _type_problems(item, fields[name].type, (*place, name))
        elif name != tag:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f": did you mean {close[0]!r}?" if close else f". Known here: {', '.join(fields)}."
            yield Problem((*place, name), f"{_shown((*place, name))} is no setting{hint}")
    for name, field in fields.items():
        if field.required and name not in value:
            yield Problem(place, f"{_shown(place)}: {name} is missing.")


def _branch_problems(value: Any, kind: Any, place: Place) -> Iterator[Problem]:
    """A tagged union: the branch that the tag names is what the value should be."""
    branches = [branch for branch in get_args(kind) if branch is not type(None)]
    if len(branches) == 1:
        yield from _inner_problems(value, branches[0], place)
    elif isinstance(value, Mapping):
        tags = {branch.__struct_config__.tag: branch for branch in branches}
        tag_field = str(branches[0].__struct_config__.tag_field)
        chosen = tags.get(value.get(tag_field)) if isinstance(value.get(tag_field), str) else None
        if chosen is not None:
            yield from _field_problems(value, chosen, place)
        else:
            where = (*place, tag_field) if tag_field in value else place
            yield Problem(where, f"{_shown(place)}: {tag_field} is one of {', '.join(map(str, tags))}.")


def _words(cause: msgspec.ValidationError, kind: Any) -> str:
    """msgspec's, without its path, and without the value that is none of a list."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))} is wanted"
    words = str(cause).partition(" - at ")[0]
    return words[0].lower() + words[1:]


def _shown(place: Place) -> str:
    return written(place) or "the configuration"


# --- where a broken rule is -------------------------------------------------------------------------------------------


def _place_of(words: str, config: Mapping[str, Any]) -> Place:
    """The setting that a sentence of ``form_rules`` speaks of first: in its stream, or inherited from the connector."""
    stream = _STREAM.match(words)
    if stream is None:
        key = next((word for word in _WORD.findall(words) if word.split(".")[0] in config), "streams")
        return _near(config, tuple(key.split(".")), words)
    number = next(n for n, entry in enumerate(config["streams"]) if entry["name"] == stream["name"])
    base: Place = ("streams", number)
    entry, rest = config["streams"][number], words[stream.end() :]
    template = PARENT.search(rest)
    if template is not None:
        used = (place for place, leaf in _leaves(entry, ()) if template[1] in PARENT.findall(str(leaf)))
        place = next(used, None)
        if place is not None:
            return (*base, *place)
    for word in _WORD.findall(rest):
        keys = tuple(_ALIASES.get(part, part) for part in word.split("."))
        for around, above in ((entry, base), (config, ())):
            for path in (keys, *((group, *keys) for group in ("pagination", "incremental", "errors"))):
                if _has(around, path):
                    return (*above, *_near(around, path, rest))
    return (*base, *_near(entry, ("name",), rest))


def _near(around: Any, path: Place, words: str) -> Place:
    """A setting, or what stands in it and is quoted in the sentence; of several, the last."""
    quoted = set(_QUOTED.findall(words))
    inside = around
    for key in path:
        inside = inside[key] if isinstance(inside, Mapping) and key in inside else None
    found = [place for place, leaf in _leaves(inside, ()) if isinstance(leaf, str) and leaf in quoted]
    return (*path, *found[-1]) if found else path


def _has(around: Any, path: Place) -> bool:
    for key in path:
        if not isinstance(around, Mapping) or key not in around:
            return False
        around = around[key]
    return True


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, (*place, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*place, index))
    else:
        yield place, value
