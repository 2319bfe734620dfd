"""The README's table of features covers the whole form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]
README = (FOLDER / "README.md").read_text("utf-8")
SETTINGS = re.findall(r"^\| .+? \| (.*?) \| `.+?` \|$", README, re.MULTILINE)


def test_every_setting_of_the_form_has_a_row_with_its_proof() -> None:
    form = json.loads((FOLDER / "destination_s3_datalake" / "spec.json").read_text("utf-8"))["connectionSpecification"]
    named = set(re.findall(r"\w+", " ".join(SETTINGS)))
    assert _settings(form) - named == set()


def _settings(schema: dict[str, Any]) -> set[str]:
    found = set(schema.get("properties", {}))
    inner = [*schema.get("properties", {}).values(), *schema.get("oneOf", ()), *filter(None, [schema.get("items")])]
    return found.union(*map(_settings, inner))
