"""By what a path's parameters are filled: the records of other streams, or values that the user must give. Pure.

``/teams/{team_id}/members`` is read once for each record of ``/teams``. Where no list stands in the path itself, one
that stands elsewhere is taken if its records have all that is asked for: ``/repos/{owner}/{repo}/issues`` by the names
and owners of ``/user/repos``. What no list has is a placeholder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from source_rest_api.openapi.fields import asked_by
from source_rest_api.openapi.guess import Gap
from source_rest_api.openapi.names import (
    PARAMETER,
    collection_of,
    erased,
    identifier,
    last_word,
    parameters_of,
    remainder,
)
from source_rest_api.openapi.operations import Operation, Parameter
from source_rest_api.openapi.schemas import Field, Schemas


@dataclass(frozen=True, slots=True)
class Listing:
    """A stream to be, as far as its parents are concerned."""

    name: str
    operation: Operation
    fields: Mapping[str, Field]

    @property
    def path(self) -> str:
        return self.operation.path


@dataclass(frozen=True, slots=True)
class Parents:
    """What fills the parameters of a path.

    Attributes:
        entries: as the form's ``parents`` has them.
        names: by parameter of the path, the name that stands for its value.
        available: all names that children may use: those from above too.
        reasons: one for each entry.
        gaps: the placeholders among them.
        streams: the streams that are read for it, all the way up.
        weight: how many placeholders there are, with those of the streams above.
    """

    entries: tuple[Mapping[str, Any], ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    available: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    streams: frozenset[str] = frozenset()
    weight: int = 0


@dataclass(frozen=True, slots=True)
class _Choice:
    """A stream whose records fill the last parameters of a path.

    Attributes:
        fields: by parameter, the field of its records.
        above: by parameter, the name that the stream has for it already.
    """

    listing: Listing
    parents: Parents
    fields: Mapping[str, str]
    above: Mapping[str, str]


class Family:
    """The parents of all streams of a document; each is found once."""

    def __init__(self, listings: Sequence[Listing], schemas: Schemas):
        self._schemas = schemas
        self._by_path: dict[str, Listing] = {}
        self._by_word: dict[str, list[Listing]] = {}
        for listing in listings:
            self._by_path.setdefault(erased(listing.path), listing)
            self._by_word.setdefault(last_word(listing.path), []).append(listing)
        self._taken = {"value", *(name for listing in listings for name in listing.fields)}
        self._found: dict[str, Parents] = {}
        self._open: set[str] = set()
        # Those that need the least come first: what is found for them does not depend on who asks.
        for listing in sorted(listings, key=lambda one: len(parameters_of(one.path))):
            self.parents_of(listing)

    def parents_of(self, listing: Listing) -> Parents:
        """What fills the parameters of a stream's path."""
        if listing.name not in self._found:
            self._open.add(listing.name)
            self._found[listing.name] = self._search(listing)
            self._open.discard(listing.name)
        return self._found[listing.name]

    def _search(self, listing: Listing) -> Parents:
        """From the right: a list gives its own things, and all that stands to their left."""
        wanted = parameters_of(listing.path)
        literal: list[str] = []
        choice = None
        while wanted and choice is None:
            choice = self._choice(listing, wanted)
            if choice is None:
                literal.insert(0, wanted.pop())
        return self._assembled(listing, choice, literal)

    def _choice(self, listing: Listing, wanted: Sequence[str]) -> _Choice | None:
        """The best stream that fills all of some parameters, the last of which chooses from its records."""
        collection = collection_of(listing.path, wanted[-1])
        own = self._by_path.get(collection) if collection is not None else None
        found = self._filling(listing, own, wanted) if own is not None else None
        if found is not None:
            return found
        found_elsewhere = [
            choice
            for word, others in self._by_word.items()
            if remainder(wanted[-1], word) is not None
            for other in others
            if other is not own
            for choice in [self._filling(listing, other, wanted)]
            if choice is not None
        ]
        return min(found_elsewhere, key=_order(listing.path), default=None)

    def _filling(self, listing: Listing, other: Listing, wanted: Sequence[str]) -> _Choice | None:
        if other.name in self._open or other.path.endswith("}"):
            return None
        parents = self.parents_of(other)
        parameters = {parameter.name: parameter for parameter in listing.operation.of("path")}
        fields: dict[str, str] = {}
        above: dict[str, str] = {}
        for name in wanted:
            shared = _name_above(listing.path, other.path, name, parents)
            if shared is not None and name != wanted[-1]:
                above[name] = shared
                continue
            parameter = parameters.get(name, Parameter(name, "path", True, {}, ""))
            field_ = asked_by(other.fields, parameter, last_word(other.path), self._schemas, is_own=name == wanted[-1])
            if field_ is None:
                return None
            fields[name] = field_
        return _Choice(other, parents, fields, above)

    def _assembled(self, listing: Listing, choice: _Choice | None, literal: Sequence[str]) -> Parents:
        available = set(choice.parents.available) if choice else set()
        names: dict[str, str] = dict(choice.above) if choice else {}
        entries: list[Mapping[str, Any]] = []
        reasons: list[str] = []
        gaps: list[Gap] = []
        if choice is not None:
            for parameter, field_ in choice.fields.items():
                names[parameter] = self._free(parameter, available)
                entries.append({"stream": choice.listing.name, "field": field_, "as": names[parameter]})
                reasons.append(f"{{{parameter}}} is {field_!r} of the records of {choice.listing.path}")
        parameters = {parameter.name: parameter for parameter in listing.operation.of("path")}
        for name in literal:
            names[name] = self._free(name, available)
            values, why = _values(name, parameters.get(name), self._schemas)
            entries.append({"values": values or [f"<{name}>"], "as": names[name]})
            reasons.append(f"{{{name}}}: {why}")
            if not values:
                gaps.append(Gap("parents", f"list the values of {{{name}}} to read", f"<{name}>"))
        above = choice.parents if choice else Parents()
        own = frozenset({choice.listing.name}) if choice else frozenset[str]()
        return Parents(
            tuple(entries),
            names,
            frozenset(available),
            tuple(reasons),
            tuple(gaps),
            above.streams | own,
            above.weight + len(gaps),
        )

    def _free(self, parameter: str, available: set[str]) -> str:
        """A name that no record has a field of, as it is added to records, and that nothing above has."""
        name = identifier(parameter)
        if name in self._taken:
            name = f"path_{name}"
        number = 1
        free = name
        while free in available or free in self._taken:
            number += 1
            free = f"{name}_{number}"
        available.add(free)
        return free


def filled(path: str, names: Mapping[str, str]) -> str:
    """A path of the document as the form has it."""
    return PARAMETER.sub(lambda found: f"{{{{ parent.{names[found[1]]} }}}}", path)


def _name_above(path: str, other: str, parameter: str, parents: Parents) -> str | None:
    """The name that a stream has for what stands at the same place of its path, or under the same name."""
    before = erased(path.partition(f"{{{parameter}}}")[0])
    for name, known_as in parents.names.items():
        if erased(other.partition(f"{{{name}}}")[0]) == before:
            return known_as
    return None


def _order(path: str) -> Any:
    """Fewest placeholders first, then fewest streams above, then what lies nearest to the path."""

    def key(choice: _Choice) -> tuple[int, int, int, int, str]:
        pairs = zip(erased(path).split("/"), erased(choice.listing.path).split("/"), strict=False)
        shared = 0
        for one, other in pairs:
            if one != other:
                break
            shared += 1
        parents, own = choice.parents, choice.listing.path
        return parents.weight, len(parents.streams), -shared, len(own), own

    return key


def _values(name: str, parameter: Parameter | None, schemas: Schemas) -> tuple[list[str], str]:
    """The values that the document names, or none."""
    shape = schemas.shape(parameter.schema) if parameter is not None else None
    given = [value for value in (shape.facts.get("enum") or () if shape else ()) if isinstance(value, str | int)]
    if given:
        return texts(given), "all values that the document names"
    default = shape.facts.get("default") if shape else None
    if isinstance(default, str | int) and not isinstance(default, bool):
        return texts([default]), "its default"
    return [], "no list of the document gives its values"


def texts(values: Iterable[Any]) -> list[str]:
    """Values as a query or a path has them."""
    return [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
