"""How the documents of this folder were made from those that their owners publish: less prose, the rest as it is.

    python -m integration_tests.openapi_documents.reduce openapi.yaml discord.json.gz

Left out are summaries, descriptions (but those of parameters, which say how large a page may be), tags, links and
extensions; no path, schema, parameter or answer.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

PROSE = ("description", "summary", "externalDocs", "tags")


def reduced(node: Any) -> Any:
    """The same without prose. A field of that name in a schema's properties is no prose: it is no text."""
    if isinstance(node, list):
        return [reduced(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    is_prose = {"externalDocs", "summary"} if "in" in node and "name" in node else set(PROSE)
    return {
        key: reduced(value)
        for key, value in node.items()
        if not str(key).startswith("x-") and not (key in is_prose and (isinstance(value, str | list) or "url" in value))
    }


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    document = yaml.load(source.read_bytes(), yaml.CSafeLoader)  # a safe one
    text = json.dumps(reduced(document), default=str, separators=(",", ":"))
    target.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
