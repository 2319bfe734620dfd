"""The README's tables: each example names its proof, and all of the form and of the examples is there."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from source_rest_api.run import SPEC

ROOT = Path(__file__).parents[2]
README = (ROOT / "source-rest-api" / "README.md").read_text("utf-8")


EXAMPLES = {
    path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "source-rest-api/examples").glob("*.json")
}
LISTED = dict(re.findall(r"^\| \[.+?\]\(examples/([\w-]+)\.json\) \|.* `(.+?)` \|$", README, re.MULTILINE))


def test_every_example_is_listed_and_says_what_it_needs_and_where_it_ends() -> None:
    assert LISTED.keys() == EXAMPLES.keys()
    for name, config in EXAMPLES.items():
        about = config["__about"]
        assert about.keys() == {"documentation", "needs", "limits"}, name
        assert about["documentation"].startswith("https://"), name
        assert all(isinstance(text, str) and text for text in about.values()), name


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_test_of_what_goes_wrong_reads_that_example(name: str) -> None:
    path, _, test = LISTED[name].partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in _names_of_examples(functions[test], functions)


def _names_of_examples(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> set[str]:
    """What it gives to ``example``, itself or through a function of its module."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "example" and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
            elif node.func.id in functions and functions[node.func.id] is not function:
                found |= _names_of_examples(functions[node.func.id], functions)
    return found


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
