"""Numbers from an API's answer to the lake: the same text in the RECORD lines, the same value in the table."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
from local_runner.run import sync

from integration_tests.harness import House
from integration_tests.rest_api import Api, Response, Source, serving
from integration_tests.test_rest_servers import OVERWRITE, connection, succeeded

TEXTS = ["123456789012345678901234567890", "0.1234567890123456789012345678901234567890", "1.10", "-0", "1e2", "7",
         "9007199254740993", "-1.7976931348623157e308", "0.1"]  # fmt: skip


def test_numbers_are_the_apis_own_text_in_the_records_and_exact_in_the_lake(house: House, tmp_path: Path):
    body = "[" + ", ".join(f'{{"id": {number}, "n": {text}}}' for number, text in enumerate(TEXTS)) + "]"
    stream = {"name": "numbers", "path": "/numbers", "primary_key": ["id"]}
    with serving(Api({"/numbers": lambda request: Response(body.encode())})) as api:
        form = {"base_url": api.url, "streams": [stream]}
        read = Source(tmp_path).read(form)
        succeeded(sync(connection(form, {"numbers": OVERWRITE}, house, tmp_path)))
    lines = [line for line in read.stdout.splitlines() if b'"RECORD"' in line]
    assert [f'"n": {text}}}' in line.decode() for text, line in zip(TEXTS, lines, strict=True)] == [True] * len(TEXTS)
    for row in house.rows("numbers"):
        text = TEXTS[row["id"]]
        extra = msgspec.json.decode(row["_airbyte_extra"] or "{}", type=dict[str, msgspec.Raw])
        if "n" in extra:  # what no column type of the table holds exactly
            assert bytes(extra["n"]).decode() == text
            assert [change["field"] for change in row["_airbyte_meta"]["changes"]] == ["n"]
        else:
            assert Decimal(repr(row["n"])) == Decimal(text)
    assert len(house.rows("numbers")) == len(TEXTS)
