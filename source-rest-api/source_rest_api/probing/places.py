"""Where in an answer its records are: the lists in it, and objects whose values are alike. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from source_rest_api.body import ANY_KEY, WELL_KNOWN
from source_rest_api.openapi.guess import Guess

DEEPEST = 3
LEAST_ALIKE = 2  # objects of a map have at least so many keys in common: links have but their href
MOST_NAMED = 5
MOST_IN_LIST = 3
OWN_KEYS = ("id", "_id", "uuid", "guid")
ROOT = "."

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])


@dataclass(frozen=True, slots=True)
class Place:
    """A list, or an object of like values.

    Attributes:
        path: for ``record_path``.
        count: how many there are.
        kind: objects, others (lists or single values), nothing (it is empty), or map.
    """

    path: str
    count: int
    kind: str

    @property
    def is_well_known(self) -> bool:
        """Whether its name is one that APIs give to their records; a list that is the answer itself is as good."""
        is_answer = self.path == ROOT and self.kind == "objects"
        return is_answer or self.path.rpartition(".")[2] in WELL_KNOWN

    @property
    def words(self) -> str:
        return f"{self.path} ({self.count})"


def record_place(body: bytes) -> Guess:
    """The likeliest ``record_path``, and why; the answer itself where there is no list."""
    found = sorted(_places(Raw(body.strip()), (), 0), key=_rank)
    if not found:
        return Guess(ROOT, "the answer is one record: there is no list in it")
    best = found[0]
    if best.path == ROOT:
        return Guess(ROOT, f"the answer is the list itself{_of_what(best)}")
    if best.kind == "others" and not best.is_well_known:
        return Guess(ROOT, f"the answer is one record: its lists hold no objects{_also(found)}")
    if body.lstrip()[:1] == b"{" and _has_own_key(body) and not best.is_well_known:
        return Guess(ROOT, f"the answer has an id of its own, so that it is one record{_also(found)}")
    return Guess(best.path, f"{_why(best, found)}{_of_what(best)}{_also(found[1:])}")


def _why(best: Place, found: Sequence[Place]) -> str:
    if best.kind == "map":
        return f"an object of {best.count} objects that are alike: each is a record, its key becomes the field _key"
    if len(found) == 1:
        return "the only list in the answer"
    if best.is_well_known:
        return f"of {len(found)} lists the one whose name APIs give to their records"
    alike = [place for place in found if place.kind == best.kind]
    if len(alike) == 1:
        return "the only list of objects in the answer"
    what = "lists of objects" if best.kind == "objects" else "empty lists"
    return f"of {len(alike)} {what} the one that is least deep, or longest"


def _of_what(place: Place) -> str:
    if place.kind == "nothing":
        return ", and it is empty"
    return '; its entries are no objects: each becomes {"value": ...}' if place.kind == "others" else ""


def _also(others: Sequence[Place]) -> str:
    if not others:
        return ""
    more = ", ..." if len(others) > MOST_NAMED else ""
    return f"; also there: {', '.join(place.words for place in others[:MOST_NAMED])}{more}"


def _rank(place: Place) -> tuple[bool, bool, int, int, int]:
    """Not empty, with a name that APIs give to their records; then lists of objects; then by depth and length."""
    kind = ("objects", "map", "others", "nothing").index(place.kind)
    return place.kind == "nothing", not place.is_well_known, kind, place.path.count("."), -place.count


def _places(raw: Raw, path: tuple[str, ...], depth: int) -> Iterator[Place]:
    start = bytes(memoryview(raw)[:1])
    if start == b"[":
        items = _LIST.decode(raw)
        kinds = {bytes(memoryview(item)[:1]) for item in items}
        kind = "nothing" if not items else "objects" if kinds == {b"{"} else "others"
        yield Place(".".join(path) or ROOT, len(items), kind)
        if kind == "others" and len(items) <= MOST_IN_LIST:  # such as [{"pages": 3}, [...records]]
            for number, item in enumerate(items):
                if memoryview(item)[0] == 0x5B:
                    yield from _places(item, (*path, str(number)), depth + 1)
    elif start == b"{" and depth < DEEPEST:
        fields = _FIELDS.decode(raw)
        if _is_map(fields):
            yield Place(".".join((*path, ANY_KEY)), len(fields), "map")
            return
        for name, inner in fields.items():
            if name and "." not in name and name != ANY_KEY:
                yield from _places(inner, (*path, name), depth + 1)


def _is_map(fields: dict[str, Raw]) -> bool:
    """Whether all values are objects with most of their keys in common."""
    if len(fields) < 2 or any(memoryview(raw)[0] != 0x7B for raw in fields.values()):
        return False
    keys = [set(_FIELDS.decode(raw)) for raw in fields.values()]
    common = set.intersection(*keys)
    return len(common) >= LEAST_ALIKE and 2 * len(common) >= len(set.union(*keys))


def _has_own_key(body: bytes) -> bool:
    fields = _FIELDS.decode(body)
    return any(name in fields and memoryview(fields[name])[0] not in b"{[" for name in OWN_KEYS)
