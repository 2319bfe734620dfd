"""Makes spec.json, the answer of ``spec``, from the manifest: ``python -m source_rest_api.specification``."""

from __future__ import annotations

import json
import logging
from typing import Any

from airbyte_cdk.models import ConnectorSpecificationSerializer

from source_rest_api.run import SPEC
from source_rest_api.source import SourceRestApi


def specification() -> dict[str, Any]:
    """The specification as the CDK makes it of manifest.yaml."""
    dumped = ConnectorSpecificationSerializer.dump(SourceRestApi().spec(logging.getLogger("airbyte")))
    return {name: value for name, value in dumped.items() if value is not None}


if __name__ == "__main__":
    SPEC.write_text(json.dumps(specification(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
