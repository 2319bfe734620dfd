"""Makes ``spec.json`` from the typed configuration: ``python -m destination_s3_datalake.specification``.

``spec`` prints that file, so that it answers without importing anything heavy. A test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from destination_s3_datalake.config import DOCUMENTATION_URL, connection_specification

FILE = Path(__file__).with_name("spec.json")


def specification() -> dict[str, Any]:
    """What the SPEC message holds."""
    return {
        "documentationUrl": DOCUMENTATION_URL,
        "connectionSpecification": connection_specification(),
        "supportsIncremental": True,
        "supportsNormalization": False,
        "supportsDBT": False,
        "supported_destination_sync_modes": ["overwrite", "append", "append_dedup"],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(specification(), indent=2) + "\n", encoding="utf-8")
