"""The page about costs says what is so today."""

from __future__ import annotations

import itertools
import re

from local_runner.lake import RunningLake

from benchmarks.costs import BLOCK, PAGE, table_of_requests
from integration_tests.harness import House


def test_a_sync_asks_for_as_much_as_the_page_about_costs_says(lake: RunningLake):
    numbers = itertools.count(1)

    def new_house() -> House:
        number = next(numbers)
        return House(lake, f"costs-{number}", f"costs_{number}")

    counted = BLOCK.format(name="requests", text=table_of_requests(new_house))
    assert counted in PAGE.read_text("utf-8"), f"python -m benchmarks.costs --write\n{counted}"


def test_the_examples_of_the_page_are_its_formula_with_its_table():
    page = PAGE.read_text("utf-8")
    counts = {what: [int(n) for n in cells.split("|")] for what, cells in
              re.findall(r"^\| (append[^|]*?) \| ([\d |]+) \|$", page, re.MULTILINE)}  # fmt: skip
    append, merge = counts["append, one commit of one file"], counts["append_dedup, one file touched"]
    cost = [20 * 730 * (writes * 0.005 + reads * 0.0004) / 1000 for writes, reads, _, _ in (append, merge)]
    assert f"20 * 730 * ({append[0]} * 0.005 + {append[1]} * 0.0004) / 1000 = {cost[0]:.2f} USD" in page
    assert f"append_dedup: {cost[1]:.2f} USD" in page
    assert f"{20 * 730 * append[3]:,} Glue requests" in page
