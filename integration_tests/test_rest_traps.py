"""No trap of ``traps.py`` snaps. ``make traps`` shows that each would be noticed if its fix were gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration_tests.traps import TRAPS, Runner, Seen, Trap, seen_in


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All streams in one run: a start of the process costs more than any of them."""
    return seen_in(Runner(tmp_path_factory.mktemp("traps")), [trap for trap in TRAPS if trap.act is None])


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.act is None], ids=lambda trap: trap.name)
def test_it_does_not_happen_that(trap: Trap, together: Seen):
    assert together.has_run
    trap.check(together)


@pytest.mark.parametrize("trap", [t for t in TRAPS if t.act is not None], ids=lambda trap: trap.name)
def test_it_does_not_happen_in_a_run_of_its_own_that(trap: Trap, tmp_path: Path):
    seen = seen_in(Runner(tmp_path), [trap])
    assert seen.has_run
    trap.check(seen)


def test_each_trap_names_a_fix_that_is_in_the_product():
    assert [trap.name for trap in TRAPS if not trap.fix.is_possible()] == []
