"""A part of ``make kills-source``: one sync with four kills."""

from __future__ import annotations

import pytest

from integration_tests.source_kills import campaign


@pytest.mark.slow
def test_kills_lose_no_record_and_little_is_read_again():
    attempts, problems = campaign(4, seed=7)
    assert problems == []
    assert sum(attempt.states for attempt in attempts) > 20
    assert any(attempt.again for attempt in attempts)
