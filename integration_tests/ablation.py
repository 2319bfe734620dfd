"""Does the suite notice when a guard of the commit protocol is missing?

    python -m integration_tests.ablation      (make ablation)

For each patch of ``ablation_patches`` a copy of the product loses one guard, and the test that the patch names runs
against the copy. It must fail, and by an assertion on rows, STATEs or keys; on the whole product it must pass. The
product itself has no switch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "destination-s3-datalake" / "destination_s3_datalake"
SUBJECTS = re.compile(r"\b(ids|rows|states|keys|seen)\b")


@dataclass(frozen=True)
class Mutant:
    """A guard, the patch that removes it, and the test that must notice."""

    name: str
    guard: str
    test: str
    patch: Path


@dataclass(frozen=True)
class Verdict:
    """``assertion`` is what failed; empty if nothing did. ``is_killed`` if that is what should have failed."""

    mutant: Mutant
    assertion: str
    is_killed: bool


def mutants() -> Iterator[Mutant]:
    for patch in sorted((HERE / "ablation_patches").glob("*.patch")):
        head = dict(line.split(": ", 1) for line in patch.read_text().splitlines()[:2])
        yield Mutant(patch.stem, head["Guard"], head["Test"], patch)


def tried(mutant: Mutant) -> Verdict:
    """Run the mutant's test on a copy of the product without the guard."""
    with tempfile.TemporaryDirectory(prefix="ablation-") as folder:
        copy = Path(folder)
        shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutant.patch, copy)
        failure = failure_of(mutant.test, copy)
    is_killed = failure is not None and "assert" in failure and SUBJECTS.search(failure) is not None
    return Verdict(mutant, failure or "", is_killed)


def apply(patch: Path, copy: Path) -> None:
    """Raises subprocess.CalledProcessError: the product has changed there."""
    subprocess.run(["git", "apply", "-p1", str(patch)], cwd=copy, check=True, env=_without_repository())


def failure_of(test: str, package_parent: Path) -> str | None:
    """The message with which the test fails on the package in that folder; None if it passes."""
    report = package_parent / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", test]
    environment = {**os.environ, "PYTHONPATH": str(package_parent)}
    subprocess.run(command, cwd=HERE.parent, env=environment, capture_output=True, check=False, timeout=300)
    found = ET.parse(report).getroot().find(".//testcase/*")  # pytest's own file
    if found is None:
        return None
    return next((line[1:].strip() for line in (found.text or "").splitlines() if line.startswith(">")), "error")


def _without_repository() -> dict[str, str]:
    return {**os.environ, "GIT_CEILING_DIRECTORIES": tempfile.gettempdir()}


def main() -> None:
    found = list(mutants())
    tests = sorted({mutant.test for mutant in found})
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        sane = [test for test, failure in zip(tests, pool.map(_on_the_product, tests), strict=True) if failure is None]
        verdicts = list(pool.map(tried, found))
    print(f"{len(sane)} of {len(tests)} tests pass on the product as it is.")
    for verdict in verdicts:
        test = verdict.mutant.test.rpartition("::")[2]
        fate = "noticed" if verdict.is_killed else "SURVIVED"
        print(f"{fate:9} {verdict.mutant.guard}\n          {test}\n          {verdict.assertion}")
    killed = sum(verdict.is_killed for verdict in verdicts)
    print(f"{killed} of {len(verdicts)} missing guards noticed")
    sys.exit(0 if killed == len(verdicts) and len(sane) == len(tests) else 1)


def _on_the_product(test: str) -> str | None:
    with tempfile.TemporaryDirectory(prefix="ablation-") as folder:
        shutil.copytree(PACKAGE, Path(folder) / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        return failure_of(test, Path(folder))


if __name__ == "__main__":
    main()
