"""The errors of this source: who should act next, in words that name what to change.

They are the CDK's ``AirbyteTracedException`` with a failure type each, so that the CDK passes them on as they are.
No message holds a record's value, a body or a secret; URLs come without their query.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from airbyte_cdk.models import FailureType
from airbyte_cdk.utils.traced_exception import AirbyteTracedException


def config_error(message: str) -> AirbyteTracedException:
    """The user must change a setting."""
    return AirbyteTracedException(message=message, internal_message=message, failure_type=FailureType.config_error)


def transient_error(message: str) -> AirbyteTracedException:
    """Try the same thing later."""
    return AirbyteTracedException(message=message, internal_message=message, failure_type=FailureType.transient_error)


def plain_url(url: str | None) -> str:
    """A URL as it may be shown: without user, password, query and fragment."""
    return f"{origin(url)}{urlsplit(url or '').path}"


def plain_host(url: str | None) -> str:
    """The host of a URL, as it may be shown."""
    return urlsplit(url or "").netloc.rpartition("@")[2]


_URL = re.compile(r"""https?://[^\s'"]+""")
# Behind these words the CDK quotes requests, answers and records.
_QUOTED = re.compile(
    r"[.,;:]? ?(?:Request \(body\)|Response \(body\)|Response Text|Response Content|response\.text|Error traceback"
    r"|Traceback|Context: \{|failed to parse cursor field|Dropping the oldest partition).*",
    re.DOTALL,
)


def shown(text: str) -> str:
    """Words of the CDK as they may be shown: without bodies, and of URLs the host only (a path may hold ids)."""
    return _URL.sub(lambda found: origin(found[0]), _QUOTED.sub("", text))


def origin(url: str | None) -> str:
    """Where a URL leads, without anything that may be data."""
    return f"{urlsplit(url or '').scheme}://{plain_host(url)}"


def shown_url(url: str | None, base_url: str, path: str) -> str:
    """A URL as it may be shown; of a stream whose path holds values of a parent, the path as the form has it."""
    if "{{" not in path:
        return plain_url(url)
    return f"{plain_url(base_url).rstrip('/')}/{path.lstrip('/')}"
