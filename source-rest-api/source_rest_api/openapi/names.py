"""Names: of streams, of things, and how a path is made of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

PARAMETER = re.compile(r"\{([^{}]+)\}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
VERSION = re.compile(r"api|apis|rest|v\d+\w*|\d{4}-\d{2}(-\d{2})?", re.IGNORECASE)
_FILE = re.compile(r"\.json(?=/|$)")
_JOINED = {"id", "ids", "name", "slug", "key", "uuid", "guid", "sid", "code", "number"}  # userid, username


@lru_cache(maxsize=16_384)
def snake(text: str) -> str:
    """``createdAt``, ``Created-At`` and ``created[at]`` are all ``created_at``."""
    return re.sub(r"[\W_]+", "_", _CAMEL.sub("_", text), flags=re.ASCII).strip("_").lower()


def identifier(text: str) -> str:
    """A name that a template of the form can use."""
    found = re.sub(r"\W", "_", text, flags=re.ASCII)
    return found if re.match(r"[A-Za-z_]", found) else f"_{found}"


def singulars(word: str) -> set[str]:
    """What a plural may be the plural of; English, and generous."""
    found = {word}
    if word.endswith("ies"):
        found.add(f"{word[:-3]}y")
    if word.endswith("es"):
        found.add(word[:-2])
    if word.endswith("s"):
        found.add(word[:-1])
    return found


@lru_cache(maxsize=65_536)
def remainder(parameter: str, collection: str) -> str | None:
    """What a parameter asks of the things in a collection: ``slug`` for ``team_slug`` of ``teams``, empty for ``team``.

    None if it is about something else.
    """
    name = snake(parameter)
    for noun in sorted(singulars(snake(collection)), key=len, reverse=True):
        if name == noun:
            return ""
        if noun and name.startswith(f"{noun}_"):
            return name[len(noun) + 1 :]
        if noun and name.startswith(noun) and name[len(noun) :] in _JOINED:
            return name[len(noun) :]
    return None


def parameters_of(path: str) -> list[str]:
    """The names in braces, in order, each once."""
    return list(dict.fromkeys(PARAMETER.findall(path)))


@lru_cache(maxsize=16_384)
def erased(path: str) -> str:
    """A path without the names of its parameters, and without what is at its end by habit only."""
    return PARAMETER.sub("{}", _FILE.sub("", path)).rstrip("/")


def collection_of(path: str, parameter: str) -> str | None:
    """The erased path whose things a parameter chooses from; None if the parameter is only a part of a segment."""
    before, found, after = path.partition(f"{{{parameter}}}")
    is_segment = bool(found) and before.endswith("/") and (not after or after.startswith(("/", ".json")))
    return erased(before) if is_segment else None


def last_word(path: str) -> str:
    """The last segment that is no parameter."""
    words = [word for word in erased(path).split("/") if word and "{" not in word]
    return words[-1] if words else ""


def stream_names(paths: Sequence[str]) -> list[str]:
    """One name per path, unique, of its segments; versions that all paths begin with are left out."""
    shared = _shared_versions(paths)
    taken: set[str] = set()
    found = []
    for path in paths:
        segments = [segment for segment in _FILE.sub("", path).split("/") if segment][shared:]
        plain = snake("_".join(segment for segment in segments if "{" not in segment)) or "root"
        full = snake("_".join(segments)) or plain
        name = next(name for name in _candidates(plain, full) if name not in taken)
        taken.add(name)
        found.append(name)
    return found


def _candidates(plain: str, full: str) -> list[str]:
    return [plain, full, *(f"{full}_{number}" for number in range(2, 1000))]


def _shared_versions(paths: Sequence[str]) -> int:
    split = [[segment for segment in path.split("/") if segment] for path in paths]
    count = 0
    while split and all(len(segments) > count + 1 for segments in split):
        words = {segments[count] for segments in split}
        if len(words) > 1 or not VERSION.fullmatch(words.pop()):
            break
        count += 1
    return count
