"""A part of the campaign of kills (``make chaos``): one kill behind each step of the protocol, in some mode."""

from __future__ import annotations

import random
import zlib

import pytest

from integration_tests.chaos import MODES, REGISTER, Step, Trial
from integration_tests.harness import House

CHOSEN = [
    (mode, step, ("before", "after")[zlib.crc32(f"{mode}{step.name}".encode()) % 2])
    for mode, steps in MODES.items()
    for number, step in enumerate(steps)
    if (mode in ("refresh", "dedup", "cancelled refresh") and number % 2 == len(mode) % 2) or step is REGISTER
]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "step", "when"), CHOSEN, ids=[f"{m}, {w} {s.name}" for m, s, w in CHOSEN])
def test_a_kill_loses_and_doubles_nothing_and_leaves_nothing_behind(house: House, mode: str, step: Step, when: str):
    for seed in range(3):  # an injected fault may end a try before its step
        this = House(house.lake, f"{house.bucket}-{seed}", f"{house.database}s{seed}")
        trial = Trial(this, mode, step, when, random.Random(seed)).run()
        assert trial.problems == []
        if trial.kills:
            return
    raise AssertionError("the step was not reached")
