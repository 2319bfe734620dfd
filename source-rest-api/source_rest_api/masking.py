"""All forms in which a secret may come back in the words of an API or a library. Pure."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

SHORTEST = 4  # shorter ones are masked as they are only: their other forms are found in any text


def forms_of(secret: str) -> list[str]:
    """The secret itself, JSON-escaped, URL-encoded and in base64, longest first."""
    if len(secret) < SHORTEST:
        return [secret]
    found = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        *_in_base64(secret.encode()),
    }
    return sorted(found, key=lambda form: (-len(form), form))


def _in_base64(secret: bytes) -> list[str]:
    """What is the same in every base64 text that holds the secret, for each of the three places it may begin at."""
    found = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret).decode()
        end = (before + len(secret)) * 8 // 6  # behind it, the text depends on what follows
        core = text[-(-before * 8 // 6) : end]
        if len(core) >= SHORTEST:
            found += [core, core.translate(str.maketrans("+/", "-_"))]
    return found
