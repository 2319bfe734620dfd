"""The README's table of features: each names its proof, and covers the whole form."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from source_rest_api.run import SPEC

ROOT = Path(__file__).parents[2]
README = (ROOT / "source-rest-api" / "README.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.+?) \| (.*?) \| `(.+?)` \|$", README, re.MULTILINE)


def test_every_test_that_the_readme_names_exists() -> None:
    assert len(ROWS) > 60
    for feature, _, named in ROWS:
        path, _, name = named.partition("::")
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{feature}: {named}"


def test_every_message_that_the_readme_explains_is_one_of_ours() -> None:
    table = README.partition("### What an error means")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) >= 9
    code = "".join(path.read_text("utf-8") for path in (ROOT / "source-rest-api" / "source_rest_api").glob("*.py"))
    joined = re.sub(r"\"\s+f?\"", "", code)  # texts that go on in the next line
    assert [message for message in messages if message not in joined] == []


def test_every_setting_of_the_form_is_in_the_readme() -> None:
    words = set(re.findall(r"\w+", README))
    assert _settings(json.loads(SPEC.read_text("utf-8"))["connectionSpecification"]) - words == set()


def _settings(schema: dict[str, Any]) -> set[str]:
    found = set(schema.get("properties", {}))
    inner = [*schema.get("properties", {}).values(), *schema.get("oneOf", ()), *filter(None, [schema.get("items")])]
    return found.union(*map(_settings, inner))
