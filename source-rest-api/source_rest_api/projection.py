"""Which fields of a record go on, and which become timestamps. Pure.

Only what is named is touched: all other values keep the API's own text. A stream whose form asks for no change has no
projection, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from source_rest_api.form import Stream
from source_rest_api.times import EPOCHS, FormatError, text_to_rfc3339, to_rfc3339

MOST_LEARNED = 200  # fields; a record's unknown ones are looked up one by one

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENCODE = msgspec.json.Encoder().encode

Tree = dict[str, "Tree | str"]  # field -> its fields, or the end of a path: a timestamp's format


class RowError(ValueError):
    """A record does not fit the form. The message names the field and never the value."""


class Projection:
    """The changes that a form asks for in the records of one stream."""

    def __init__(self, stream: Stream):
        self._selected = tree(dict.fromkeys(stream.select_fields, ""))
        self._dropped = tree(dict.fromkeys(stream.drop_fields, ""))
        self._timestamps = tree({stamp.field: stamp.format for stamp in stream.timestamps})
        self.changes = bool(self._selected or self._dropped or self._timestamps)
        # The commonest case has a way of its own: nothing but fields at the top of the record that go.
        is_flat = all(isinstance(below, str) for below in self._dropped.values())
        self._alike = _Alike(self._dropped) if is_flat and not (self._selected or self._timestamps) else None

    def records(self, records: Sequence[Raw], added: Mapping[str, Any]) -> list[bytes]:
        """As ``record``, of a page; the fields of one record may change their order."""
        found = None if self._alike is None or added else self._alike.without_dropped(records)
        return [self.record(record, added) for record in records] if found is None else found

    def record(self, record: Raw, added: Mapping[str, Any]) -> bytes:
        """The record with its changes, and with the parent's values.

        Raises:
            RowError: a timestamp does not fit its format, or a field would be there twice.
        """
        fields: dict[str, Any] = _FIELDS.decode(record)
        if self._selected:
            fields = _selected(fields, self._selected)
        if self._dropped:
            fields = _without(fields, self._dropped)
        if self._timestamps:
            fields = _with_timestamps(fields, self._timestamps, ())
        for name, value in added.items():
            if name in fields:
                raise RowError(
                    f"a record has a field {name!r} of its own: give the parent's field another name with `as`"
                )
            fields[name] = value
        return _ENCODE(fields)


class _Alike:
    """Drops top-level fields of records that have no field but those seen before: half the work of a dict for each.

    The fields are learned from the records that come. A stream whose records go on showing new ones is left alone.
    Workers share this; what one has learned is replaced as a whole.
    """

    def __init__(self, dropped: Iterable[str]):
        self._dropped = frozenset(dropped)
        self._lessons_left = 4
        self._known: _Known | None = None

    def without_dropped(self, records: Sequence[Raw]) -> list[bytes] | None:
        """None if this page cannot be done here."""
        if self._known is not None:
            try:
                return self._known.without_dropped(records)
            except msgspec.ValidationError:  # a field that is not known yet
                pass
        if self._lessons_left > 0:
            self._lessons_left -= 1
            self._known = self._learned(records)
        return None

    def _learned(self, records: Sequence[Raw]) -> _Known | None:
        names = dict.fromkeys(self._known.names if self._known is not None else ())
        for record in records:
            names.update(dict.fromkeys(_FIELDS.decode(record)))
        try:
            if len(names) <= MOST_LEARNED:
                return _Known(tuple(names), self._dropped)
        except ValueError:  # a name that no struct can have: with a quote, a backslash or a control character
            pass
        self._lessons_left = 0
        return None


class _Known:
    """Records of some fields, none of which must be there."""

    def __init__(self, names: Sequence[str], dropped: Collection[str]):
        self.names = names
        attributes = {f"field_{index}": name for index, name in enumerate(names)}
        optional = [(attribute, Raw | msgspec.UnsetType, msgspec.UNSET) for attribute in attributes]
        row = msgspec.defstruct("Row", optional, rename=attributes, forbid_unknown_fields=True, gc=False)
        self._decode: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        self._gone = tuple(attribute for attribute, name in attributes.items() if name in dropped)

    def without_dropped(self, records: Sequence[Raw]) -> list[bytes]:
        """Raises msgspec.ValidationError if a record has another field."""
        rows = self._decode(b"[%s]" % b",".join(records))
        for attribute in self._gone:
            for row in rows:
                setattr(row, attribute, msgspec.UNSET)
        return [_ENCODE(row) for row in rows]


def tree(leaves: Mapping[str, str]) -> Tree:
    """Dotted paths as nested mappings; no path is inside of another one (the form sees to it)."""
    root: Tree = {}
    for path, leaf in leaves.items():
        place = root
        *above, name = path.split(".")
        for key in above:
            inner = place.setdefault(key, {})
            assert isinstance(inner, dict)  # the form refuses a path inside of another
            place = inner
        place[name] = leaf
    return root


def _selected(fields: Mapping[str, Any], chosen: Tree) -> dict[str, Any]:
    """In the record's order. What is no object has none of the fields below it."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        below = chosen.get(name)
        if isinstance(below, str):
            found[name] = value
        elif below is not None:
            inner = _inner(value)
            if inner is not None:
                found[name] = _selected(inner, below)
    return found


def _without(fields: dict[str, Any], dropped: Tree) -> dict[str, Any]:
    for name, below in dropped.items():
        if name not in fields:
            continue
        if isinstance(below, str):
            del fields[name]
        else:
            inner = _inner(fields[name])
            if inner is not None:
                fields[name] = _without(inner, below)
    return fields


def _inner(value: Any) -> dict[str, Any] | None:
    return _FIELDS.decode(value) if bytes(value)[:1] == b"{" else None


def _with_timestamps(fields: dict[str, Any], stamps: Tree, above: Sequence[str]) -> dict[str, Any]:
    for name, below in stamps.items():
        raw = fields.get(name)
        if raw is None or (isinstance(raw, Raw) and bytes(raw) == b"null"):
            continue
        path = (*above, name)
        if isinstance(below, str):
            try:
                fields[name] = _timestamp(bytes(raw), below)
            except FormatError as problem:
                raise RowError(f"timestamps, {'.'.join(path)!r}: {problem}") from None
        else:
            inner = raw if isinstance(raw, dict) else _inner(raw)
            if inner is None:
                raise RowError(f"timestamps: a record has no object at {'.'.join(path)!r}")
            fields[name] = _with_timestamps(inner, below, path)
    return fields


def _timestamp(raw: bytes, format_: str) -> str:
    text = raw.decode()
    if text.startswith('"'):
        text = msgspec.json.decode(raw)
        return to_rfc3339(text, format_) if format_ in EPOCHS else text_to_rfc3339(text, format_)
    if format_ not in EPOCHS:
        raise FormatError(f"a value is no text in the format {format_}")
    return to_rfc3339(text, format_)
