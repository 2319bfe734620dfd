"""For every test: Hypothesis without a time limit per example (on a busy machine it would measure the others) and with
the same examples in every run, since what guards main must not depend on chance (``HYPOTHESIS_EXAMPLES=2000 make test``
looks for others); and what no run may leave behind (``integration_tests/evidence.py``)."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from hypothesis import settings

from integration_tests import evidence

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "0"))
settings.register_profile("the same", deadline=None, derandomize=True)
settings.register_profile("others", deadline=None, max_examples=EXAMPLES or 100)
settings.load_profile("others" if EXAMPLES else "the same")

KEPT = pytest.StashKey[evidence.Kept | None]()
FOUND = pytest.StashKey[list[str]]()
PASSED: set[str] = set()


def pytest_configure(config: pytest.Config) -> None:
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    config.stash[KEPT] = evidence.begin(runs_tests=runs_tests)


def pytest_runtest_setup() -> None:
    """The CDK masks the secrets of all tests of a process in what the next one prints; a real process has one form."""
    if "airbyte_cdk.utils.airbyte_secrets_utils" in sys.modules:
        from airbyte_cdk.utils.airbyte_secrets_utils import update_secrets

        update_secrets([])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """What passed; and what was printed where nobody reads: by children that share our stderr, by our own process."""
    if report.when == "call" and report.passed:
        PASSED.update((report.nodeid, report.nodeid.partition("[")[0]))
    if (kept := evidence.current()) is not None:
        kept.output(report.capstdout)
        kept.output(report.capstderr)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    kept = session.config.stash[KEPT]
    if kept is None:
        return  # the process that began judges
    whole = session.testsfailed == 0 and is_whole(session.config)
    found = evidence.problems(kept, is_whole=whole)
    found += evidence.unproved(PASSED) if whole else []
    session.config.stash[FOUND] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    shutil.rmtree(kept.folder)


def is_whole(config: pytest.Config) -> bool:
    """Whether this run is of every test."""
    chosen = config.option
    is_part = chosen.keyword or chosen.markexpr or chosen.collectonly or chosen.maxfail or chosen.deselect
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not is_part


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if found := config.stash.get(FOUND, []):
        terminalreporter.section("what the whole run must show", red=True)
        for problem in found:
            terminalreporter.line(problem)
