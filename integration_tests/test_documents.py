"""What the READMEs and metadata say is so."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from airbyte_cdk.models.connector_metadata import ConnectorLanguage, MetadataFile
from destination_s3_datalake.migration import OLD
from source_rest_api.form import Form

from integration_tests.acceptance_cases import CASES
from integration_tests.evidence import proofs

ROOT = Path(__file__).parents[1]


def fences(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def test_the_readme_has_the_two_commands_and_make_knows_them():
    (commands,) = fences(ROOT / "README.md", "bash")
    assert [line.split("#")[0].strip() for line in commands.splitlines()] == ["make demo", "make test"]
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make demo" in shown
    assert "make test" in shown


def test_links_of_the_readmes_lead_somewhere():
    for path in ROOT.glob("**/*.md"):
        if path.relative_to(ROOT).parts[0] in (".venv", ".make") or "build" in path.parts:
            continue
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path}: {target}"


def test_every_test_that_a_readme_names_exists():
    found = proofs()
    least = {"README.md": 15, "source-rest-api/README.md": 60, "destination-s3-datalake/README.md": 70}
    assert {path: len(found[ROOT / path]) >= count for path, count in least.items()} == dict.fromkeys(least, True)
    cases = {case.name for case in CASES}
    tests: dict[str, set[str]] = {}
    for named in (name for names in found.values() for name in names):
        path, _, test = named.partition("::")
        name, _, case = test.partition("[")
        if path not in tests:
            tree = ast.parse((ROOT / path).read_text("utf-8"))
            tests[path] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in tests[path], named
        assert not case or case.removesuffix("]") in cases, named


def test_the_forms_in_the_readmes_are_accepted():
    Form.parse(json.loads(fences(ROOT / "README.md", "json")[0]))
    for example in fences(ROOT / "source-rest-api" / "README.md", "yaml"):
        Form.parse(yaml.safe_load(example))


@pytest.mark.parametrize("connector", ["source-rest-api", "destination-s3-datalake"])
def test_metadata_and_package_agree(connector):
    data = yaml.safe_load((ROOT / connector / "metadata.yaml").read_text("utf-8"))["data"]
    project = tomllib.loads((ROOT / connector / "pyproject.toml").read_text("utf-8"))["project"]
    assert data["dockerImageTag"] == project["version"]
    assert data["dockerRepository"].endswith(f"/{connector}")
    assert data["connectorType"] == connector.split("-")[0]
    assert data["license"] == project["license"] == "MIT"
    assert (ROOT / connector / data["icon"]).read_text("utf-8").startswith("<svg")
    assert set(project["scripts"]) == {connector}
    assert MetadataFile.from_file(ROOT / connector / "metadata.yaml").data.language == ConnectorLanguage.PYTHON


def test_the_platform_may_ask_the_destination_for_refreshes():
    data = yaml.safe_load((ROOT / "destination-s3-datalake" / "metadata.yaml").read_text("utf-8"))["data"]
    assert data["supportsRefreshes"] is True


GUIDE = (ROOT / "docs" / "airbyte-ui.md").read_text("utf-8")


def titles(connector: str) -> list[str]:
    """Of the settings, in the order of the form."""
    spec = ROOT / connector / connector.replace("-", "_") / "spec.json"
    settings = json.loads(spec.read_text("utf-8"))["connectionSpecification"]["properties"].values()
    return [setting["title"] for setting in sorted(settings, key=lambda setting: setting["order"])]


@pytest.mark.parametrize(
    ("section", "connector", "first", "least"),
    [
        ("## 1. The source", "source-rest-api", ["Base URL", "Authentication", "Headers", "Query parameters"], 7),
        ("## 2. The destination", "destination-s3-datalake", ["S3 bucket", "Path in the bucket", "Region"], 7),
    ],
)
def test_the_guide_goes_through_the_form_in_its_order(section: str, connector: str, first: list[str], least: int):
    steps = re.findall(r"^\d\. .*(?:\n   .*)*", GUIDE.partition(section)[2].partition("\n## ")[0], re.MULTILINE)
    named = [title for title in re.findall(r"\*\*(.+?)\*\*", "\n".join(steps)) if title in titles(connector)]
    assert named[: len(first)] == first
    assert named == sorted(named, key=titles(connector).index)
    assert len(named) + 1 >= least
    assert "**Set up" in steps[-1]


def test_the_guide_names_settings_of_the_destination_as_its_form_does():
    migration = GUIDE.partition("## From destination-aws-datalake")[2]
    assert set(re.findall(r"\*\*(.+?)\*\*", migration)) <= set(titles("destination-s3-datalake"))
    theirs = set(re.findall(r"`(\w+)`", migration.partition("| There | Here |")[2].partition("\n\n")[0])) - {"lake"}
    assert theirs <= {*OLD, "compression_codec"}
