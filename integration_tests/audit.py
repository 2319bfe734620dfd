"""What the images are made of: the licence of each package against a list, and known vulnerabilities.

    python -m integration_tests.audit      (make audit)

The packages are those that the lock gives to an image. pip-audit asks PyPI; where nobody answers who knows
vulnerabilities, that part is SKIPPED with the reason: a registry's mirror may answer everything and know none, so it is
asked for an old release with known ones first. A finding, or a package that could not be looked up, is exit code 1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration_tests.harness import BIN

ROOT = Path(__file__).parents[1]
UV = ROOT / ".make" / "uv" / "bin" / "uv"
LEFT_OUT = {
    "source-rest-api": ("unidecode", "rapidfuzz", "google-cloud-secret-manager", "rich-click", "rich", "nltk"),
    "destination-s3-datalake": ("airbyte-cdk",),
}
"""By image: what its Dockerfile leaves out of the lock, with what only that needs."""

ALLOWED = frozenset(
    {
        "MIT", "MIT License", "MIT-0", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSD 3-Clause License",
        "3-Clause BSD License", "0BSD", "ISC", "ISC License", "Zlib", "CC0-1.0", "PSF-2.0", "CNRI-Python",
        "Apache-2.0", "Apache Software License", "MPL-2.0", "Mozilla Public License 2.0",
    }
)  # fmt: skip
"""Licences that ask for no more than notices, and for the sources of a package itself where it is changed."""

KNOWN_TO_BE_VULNERABLE = "requests==2.19.1"


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class Verdict:
    """What asking for vulnerabilities came to. ``skipped`` says why nobody could be asked."""

    findings: tuple[str, ...] = ()
    skipped: str = ""


def locked(image: str) -> str:
    """The requirements of an image, with hashes, as its build exports them."""
    command = [str(UV), "export", "--quiet", "--frozen", "--no-dev", "--no-emit-workspace"]
    command += [f"--prune={name}" for name in LEFT_OUT[image]] + ["--package", image]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def names(requirements: str) -> list[str]:
    """Distinct, since a package may be locked in a version for each Python."""
    return sorted(set(re.findall(r"^([\w.-]+)==", requirements, re.MULTILINE)))


def packages(wanted: Sequence[str]) -> list[Package]:
    """These packages of this environment, which has the same lock, with the licences they state."""
    command = [str(BIN / "pip-licenses"), "--python", sys.executable, "--from", "all", "--format", "json"]
    done = subprocess.run(
        [*command, "--with-system", "--packages", *wanted], capture_output=True, text=True, check=True
    )
    return [Package(each["Name"], each["Version"], stated(each)) for each in json.loads(done.stdout)]


def stated(package: dict[str, str]) -> str:
    """The expression, the classifiers or the first line of the field, in this order."""
    said = [package[f"License-{place}"] for place in ("Expression", "Classifier", "Metadata")]
    return next((text.splitlines()[0] for text in said if text not in ("", "UNKNOWN")), "not stated")


def is_allowed(licence: str) -> bool:
    """Whether every licence that is named is on the list, whatever joins them."""
    without_short_names = re.sub(r"(?<!AND)(?<! OR) \([^)]*\)", "", licence)  # such as (MPL 2.0) of a classifier
    return all(name.strip(" ()") in ALLOWED for name in re.split(r"\bAND\b|\bOR\b|;", without_short_names))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def vulnerabilities(requirements: str, *options: str) -> Verdict:
    """What pip-audit finds in these packages, if there is anyone who knows.

    Args:
        options: of pip-audit, for another service than PyPI.
    """
    try:
        (control,) = asked(KNOWN_TO_BE_VULNERABLE, "--no-deps", *options)
        if not control.get("vulns"):
            reason = control.get("skip_reason", "it lists none")
            return Verdict(skipped=f"who answers knows no vulnerability of {KNOWN_TO_BE_VULNERABLE}: {reason}")
        found = asked(requirements, "--require-hashes", *options)
    except Unanswered as reason:
        return Verdict(skipped=f"nobody answers: {reason}")
    known = [
        f"{each['name']} {each['version']}: {', '.join([flaw['id'], *flaw['aliases']])}, fixed in "
        f"{' or '.join(flaw['fix_versions']) or 'no release'}"
        for each in found
        for flaw in each.get("vulns", ())
    ]
    missing = [f"{each['name']}: {each['skip_reason']}" for each in found if "skip_reason" in each]
    return Verdict(findings=(*known, *missing))


class Unanswered(Exception):
    """pip-audit ended without a report."""


def asked(requirements: str, *options: str) -> list[dict[str, Any]]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [str(BIN / "pip-audit"), "--disable-pip", "--requirement", file.name, "--format", "json"]
        more = ("--progress-spinner", "off", "--timeout", "15", *options)
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:
        raise Unanswered((done.stderr.strip().splitlines() or ["no reason given"])[-1]) from None
    return found


def table(found: Iterable[Package]) -> str:
    rows = (f"| {package.name} | {package.version} | {package.licence} |" for package in found)
    return "\n".join(("| Package | Version | Licence |", "|---|---|---|", *rows, ""))


def main() -> None:
    problems: list[str] = []
    (ROOT / "build").mkdir(exist_ok=True)
    for image in LEFT_OUT:
        requirements = locked(image)
        found = packages(names(requirements))
        (ROOT / "build" / f"{image}.licences.md").write_text(table(found), "utf-8")
        refused = [
            f"{image}: {each.name} {each.version}: {each.licence}" for each in found if not is_allowed(each.licence)
        ]
        print(f"{image}: {len(found)} packages, {len(refused)} with a licence that is not allowed; the list is in "
              f"build/{image}.licences.md")  # fmt: skip
        verdict = vulnerabilities(requirements)
        if verdict.skipped:
            print(f"SKIPPED: known vulnerabilities of {image}: {verdict.skipped}")
        else:
            print(f"{image}: {len(verdict.findings)} known vulnerabilities")
        problems += [*refused, *(f"{image}: {finding}" for finding in verdict.findings)]
    print("\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
