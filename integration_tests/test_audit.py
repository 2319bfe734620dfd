"""Licences and known vulnerabilities of what the images are made of; pip-audit, with a service of ours to ask."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import airbyte_cdk
import pytest

from integration_tests import audit
from integration_tests.rest_api import Api, Request, serving

FLAW = {
    "id": "OSV-1",
    "aliases": ["CVE-2018-1"],
    "summary": "s",
    "affected": [
        {
            "package": {"name": "requests", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.20.0"}]}],
        }
    ],
}
LOCKED = "six==1.17.0 --hash=sha256:" + "0" * 64
OLD = "requests==2.19.1 --hash=sha256:" + "0" * 64


@pytest.mark.parametrize("image", audit.LEFT_OUT)
def test_every_package_of_an_image_has_a_licence_that_is_allowed(image: str):
    wanted = audit.names(audit.locked(image))
    found = audit.packages(wanted)
    assert {audit.normal(package.name) for package in found} == set(wanted)
    assert [package for package in found if not audit.is_allowed(package.licence)] == []


def test_the_cdk_imports_what_the_sources_image_leaves_out_where_no_source_of_ours_gets_to():
    """In its command lines, in sources of files, and in its tests."""
    cdk = Path(airbyte_cdk.__file__).parent
    names = "unidecode|rapidfuzz|google|grpc|proto|rich|rich_click|nltk|airbyte_cdk.sources.file_based"
    wanted = re.compile(rf"^\s*(?:from|import) (?:{names})\b", re.MULTILINE)
    importers = {path.relative_to(cdk) for path in cdk.rglob("*.py") if wanted.search(path.read_text("utf-8"))}
    assert importers
    assert {path for path in importers if not {"cli", "file_based", "test"} & {*path.parts}} == set()


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("Apache Software License; BSD License", True),
        ("GNU General Public License v2 or later (GPLv2+)", False),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", False),
        ("not stated", False),
    ],
)
def test_a_licence_is_allowed_if_all_that_it_names_are(licence: str, allowed: bool):
    assert audit.is_allowed(licence) is allowed


def asked_of(vulnerable: set[str], requirements: str) -> audit.Verdict:
    """The verdict where the service knows flaws of these."""

    def answer(request: Request) -> Any:
        package = json.loads(request.body)["package"]["name"]
        return {"vulns": [FLAW]} if package in vulnerable else {}

    with serving(Api({"/query": answer})) as api:
        return audit.vulnerabilities(requirements, "--vulnerability-service", "osv", "--osv-url", f"{api.url}/query")


def test_a_known_vulnerability_is_a_finding_with_its_fix():
    found = asked_of({"requests"}, f"{LOCKED}\n{OLD}")
    assert found == audit.Verdict(findings=("requests 2.19.1: CVE-2018-1, OSV-1, fixed in 2.20.0",))


def test_a_service_that_knows_nothing_or_is_not_there_is_no_clean_bill():
    assert "knows no vulnerability of requests==2.19.1" in asked_of(set(), LOCKED).skipped
    gone = ("--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/")
    assert "nobody answers" in audit.vulnerabilities(LOCKED, *gone).skipped
