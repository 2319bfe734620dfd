"""The patches of ``make ablation`` fit the product as it is, one by one, and name tests that are there."""

from __future__ import annotations

import shutil
from pathlib import Path

from integration_tests.ablation import HERE, PACKAGE, apply, mutants


def test_every_guard_can_be_taken_away(tmp_path: Path):
    found = list(mutants())
    assert len(found) >= 17
    for mutant in found:
        copy = tmp_path / mutant.name
        shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutant.patch, copy)
        file, _, test = mutant.test.partition("::")
        assert f"def {test.partition('[')[0]}(" in (HERE.parent / file).read_text(), mutant.name
