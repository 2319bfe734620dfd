"""A document as it was read, and its references. Pure.

References into other documents are never followed: what lies there is not known, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
import yaml

MOST_BYTES = 64 << 20
TOO_LARGE = f"The document is larger than {MOST_BYTES >> 20} MiB. Give a part of it."
MOST_HOPS = 32  # from reference to reference
YAML_TIMESTAMP, YAML_BOOL = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"

Node = Any


class DocumentError(ValueError):
    """No document that a configuration can be made of. The message says what to give instead."""


class LostReferenceError(ValueError):
    """A ``$ref`` that leads nowhere. The message is a phrase that says why."""


class _Loader(yaml.CSafeLoader):
    """YAML 1.1 takes ``no`` for false and ``2024-01-01`` for a date; a document means the texts, as in JSON."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in (YAML_TIMESTAMP, YAML_BOOL)]
    for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(YAML_BOOL, re.compile(r"^(?:true|false)$"), list("tf"))


@dataclass(frozen=True)
class Document:
    """An OpenAPI or Swagger document.

    Attributes:
        root: the document.
        is_swagger: whether it is of version 2.
        url: where it was read from; empty for a file.
    """

    root: Mapping[str, Node]
    is_swagger: bool
    url: str = ""

    @classmethod
    def parse(cls, text: bytes, url: str = "") -> Document:
        """From JSON or YAML.

        Raises:
            DocumentError: it is neither, or no OpenAPI 3 or Swagger 2 document.
        """
        if len(text) > MOST_BYTES:
            raise DocumentError(TOO_LARGE)
        root = _decoded(text)
        version = str(root.get("openapi") or root.get("swagger") or "") if isinstance(root, dict) else ""
        if not version.startswith(("3.", "2.0")) and version != "2":
            raise DocumentError(
                "This is no OpenAPI 3 or Swagger 2 document: it has no field openapi or swagger with such a version."
            )
        if not isinstance(root.get("paths"), dict):
            raise DocumentError("The document has no paths, and so there is nothing to read.")
        return cls(root, not version.startswith("3."), url)

    def resolve(self, node: Node) -> Node:
        """What a node is, behind its references.

        Raises:
            LostReferenceError: they lead into another document, to nothing, or in a circle.
        """
        for _ in range(MOST_HOPS):
            if not isinstance(node, dict) or not isinstance(node.get("$ref"), str):
                return node
            node = self._at(node["$ref"])
        raise LostReferenceError("its references go in a circle")

    def _at(self, reference: str) -> Node:
        place, _, pointer = reference.partition("#")
        if place:
            raise LostReferenceError(f"it lies in another document ({place}): bundle all of them into one")
        node: Node = self.root
        for part in filter(None, pointer.split("/")):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdigit() and int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                raise LostReferenceError(f"its reference {reference} leads to nothing")
        return node

    @property
    def title(self) -> str:
        """Title and version, as the document names itself."""
        info = mapping(self.root.get("info"))
        return " ".join(str(info[name]).strip() for name in ("title", "version") if info.get(name))


def mapping(node: Node) -> Mapping[str, Node]:
    """A node as a mapping; an empty one if it is none."""
    return node if isinstance(node, dict) else {}


def listing(node: Node) -> list[Node]:
    """A node as a list; an empty one if it is none."""
    return node if isinstance(node, list) else []


def _decoded(text: bytes) -> Node:
    try:
        return msgspec.json.decode(text.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        # The loader is a SafeLoader: it makes plain values only. Aliases are shared, not copied.
        return _with_text_keys(yaml.load(text, _Loader), set())  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise DocumentError("This is neither JSON nor YAML. Give the document itself, not a page about it.") from None


def _with_text_keys(node: Node, seen: set[int]) -> Node:
    """Status codes are numbers in YAML and texts in JSON. Changed in place, each shared part once."""
    if id(node) in seen:
        return node
    if isinstance(node, dict):
        seen.add(id(node))
        for key in [key for key in node if not isinstance(key, str)]:
            node[str(key)] = node.pop(key)
    if isinstance(node, dict | list):
        seen.add(id(node))
        for inner in node.values() if isinstance(node, dict) else node:
            _with_text_keys(inner, seen)
    return node
