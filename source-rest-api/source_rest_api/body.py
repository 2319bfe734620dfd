"""From the bytes of an answer to its records, strictly, without parsing a record. Pure.

A record is a slice of the body (``msgspec.Raw``): the API's own text of every number and string reaches the
destination. The grammar of the whole body is checked; what is no JSON, no UTF-8, or not where ``record_path`` says it
is raises ``BodyError``. Nothing of the body is in a message but names of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

WELL_KNOWN = ("data", "results", "items", "records", "features", "value", "values", "rows", "entries", "list", "result")
MOST_NAMED_KEYS = 10
ANY_KEY = "*"

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_RAW = msgspec.json.Decoder(Raw)


class BodyError(ValueError):
    """The answer is not what the form says. The message is safe to show."""


def clean(body: bytes) -> bytes:
    """The body as one line of checked UTF-8, without a byte order mark.

    Raises:
        BodyError: it is no UTF-8.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        if not body.isascii():
            body.decode("utf-8")
    except UnicodeDecodeError:
        raise BodyError("is not UTF-8") from None
    if b"\n" in body or b"\r" in body:
        # The grammar first: in strings a raw line break is an error, so that only white space is removed.
        _decode(_RAW, body)
        body = body.translate(None, b"\r\n")
    return body


class RecordFinder:
    """Finds the list of records by a path; ``()`` is the root, ``None`` looks for the list itself.

    A path that ends with ``*`` takes the values of an object, whose keys become ``_key``.
    """

    def __init__(self, path: Sequence[str] | None):
        self._by_key = path is not None and bool(path) and path[-1] == ANY_KEY
        self.path = None if path is None else tuple(path[:-1] if self._by_key else path)
        self._decoder = None if self.path is None else leaf_decoder(self.path, Raw)

    @classmethod
    def of(cls, record_path: str) -> RecordFinder:
        """By the form's text: empty looks for the list, ``.`` is the root."""
        if not record_path:
            return cls(None)
        return cls(() if record_path == "." else record_path.split("."))

    def find(self, body: bytes, *, is_first: bool) -> list[Raw]:
        """The records of one page, each as JSON text.

        Args:
            body: as ``clean`` left it.
            is_first: on the first page a missing path is an error; on a later one it is an empty page.

        Raises:
            BodyError: no JSON, or no records where they should be.
        """
        if self.path is None:
            self.path = _look_for_records(body)
            self._decoder = leaf_decoder(self.path, Raw)
        assert self._decoder is not None  # set with the path
        try:
            found = leaf(self._decoder.decode(body), self.path)
        except msgspec.ValidationError:
            found = UNSET
        except msgspec.DecodeError as cause:
            raise BodyError(f"is no JSON ({cause})") from None
        if found is UNSET:
            if is_first:
                raise BodyError(f"has no {'.'.join(self.path) or 'list'!r}; it has {_shape(body)}. Set record_path")
            return []
        return _by_key(found, self.path) if self._by_key else _as_list(found, self.path)


def leaf_decoder(path: Sequence[str], leaf_type: Any) -> msgspec.json.Decoder[Any]:
    """A decoder that looks at one path only: all else is checked as JSON and never built."""
    for key in reversed(path):
        leaf_type = msgspec.defstruct("At", [("at", leaf_type, UNSET)], rename={"at": key}, gc=False)
    return msgspec.json.Decoder(leaf_type)


def leaf(found: Any, path: Sequence[str]) -> Any:
    """What such a decoder found; UNSET if some key is missing."""
    for _ in path:
        if found is UNSET:
            return UNSET
        found = found.at
    return found


def value_at(body: bytes, path: Sequence[str]) -> Any:
    """The value at a path, or None if there is none. Raises BodyError if the body is no JSON."""
    try:
        found = leaf(leaf_decoder(path, Any).decode(body), path)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    return None if found is UNSET else found


def raw_at(body: bytes | Raw, path: Sequence[str]) -> bytes | None:
    """The JSON text of the value at a path, or None if there is none. Raises BodyError if the body is no JSON."""
    try:
        found = leaf(leaf_decoder(path, Raw).decode(body), path)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    return None if found is UNSET else bytes(found)


def value_of(record: Raw, decoder: msgspec.json.Decoder[Any], path: Sequence[str]) -> Any:
    """The value that a ``leaf_decoder`` of a path finds in a record, or None if there is none."""
    try:
        found = leaf(decoder.decode(record), path)
    except msgspec.ValidationError:
        return None
    return None if found is UNSET else found


def _as_list(found: Raw, path: Sequence[str]) -> list[Raw]:
    text = bytes(found)[:1]
    if text == b"[":
        return [item if memoryview(item)[0] == 0x7B else _wrapped(item) for item in _decode(_LIST, found)]
    if text == b"{":
        return [found]
    if bytes(found) == b"null":
        return []
    raise BodyError(f"has a single value at {'.'.join(path) or 'its root'!r}, where a list or an object is wanted")


def _by_key(found: Raw, path: Sequence[str]) -> list[Raw]:
    """The values of an object as records, each with its key as ``_key``."""
    try:
        entries = _FIELDS.decode(found)
    except msgspec.ValidationError:
        raise BodyError(f"has no object at {'.'.join(path) or 'its root'!r} whose values could be records") from None
    records = []
    for key, value in entries.items():
        fields = _FIELDS.decode(value) if memoryview(value)[0] == 0x7B else {"value": value}
        records.append(Raw(msgspec.json.encode({"_key": key, **fields})))
    return records


def _wrapped(item: Raw) -> Raw:
    """An array may hold scalars: each becomes a record with one field."""
    return Raw(b'{"value":%b}' % bytes(item))


def _look_for_records(body: bytes) -> tuple[str, ...]:
    if body.lstrip()[:1] == b"[":
        return ()
    try:
        fields = _FIELDS.decode(body)
    except msgspec.ValidationError:
        raise BodyError("is neither a list nor an object") from None
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
    lists = [name for name, raw in fields.items() if bytes(raw)[:1] == b"["]
    best = [name for name in WELL_KNOWN if name in lists]
    if len(lists) == 1 or best:
        return ((best or lists)[0],)
    if not lists:
        for name in WELL_KNOWN:
            if name in fields and bytes(fields[name])[:1] == b"{":
                inner = _FIELDS.decode(fields[name])
                inside = [key for key in WELL_KNOWN if key in inner and bytes(inner[key])[:1] == b"["]
                if inside:
                    return (name, inside[0])
    problem = (
        f"has several lists ({', '.join(sorted(lists))})" if lists else f"has no list of records; it has {_shape(body)}"
    )
    raise BodyError(f"{problem}. Set record_path ('.' is the answer itself)")


def _shape(body: bytes) -> str:
    """What is at the root, by names of keys."""
    try:
        names = sorted(_FIELDS.decode(body))
    except msgspec.MsgspecError:
        return "no object at its root"
    shown = ", ".join(names[:MOST_NAMED_KEYS]) + (", ..." if len(names) > MOST_NAMED_KEYS else "")
    return f"the keys {shown}" if names else "no keys"


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | Raw) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as cause:
        raise BodyError(f"is no JSON ({cause})") from None
