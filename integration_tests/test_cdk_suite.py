"""``make test-cdk`` as a part of the tests: one suite of the CDK per connector."""

from __future__ import annotations

import pytest

from integration_tests.cdk_suite import SUITES, Suite, run


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES, ids=[suite.connector for suite in SUITES])
def test_the_cdks_own_suite_passes_and_skips_nothing_without_a_reason(suite: Suite):
    assert run(suite) == []
