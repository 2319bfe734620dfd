"""Conditions of the form, such as ``record.status == 'open'``: the only texts that are evaluated, in a sandbox.

Jinja's sandbox lets an expression look at the values it is given, and call nothing that could reach further. Functions
of Jinja that make long texts or lists are taken away. What a record has not is undefined, which is false and equals
nothing; so are its fields.
"""

from __future__ import annotations

from typing import Any

from jinja2 import ChainableUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ConditionError(ValueError):
    """A condition that is none, or that fails for a value. The message holds no value."""


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """Of an object of JSON its field only: Jinja would take ``record.items`` for the method of a dict."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


class Condition:
    """One condition, compiled.

    Args:
        text: a Jinja expression, with or without ``{{ }}`` around it.

    Raises:
        ConditionError: it is no expression.
    """

    def __init__(self, text: str):
        text = text.strip()
        if text.startswith("{{") and text.endswith("}}"):
            text = text[2:-2]
        environment = _Environment(undefined=ChainableUndefined)
        environment.globals.clear()
        try:
            self._expression = environment.compile_expression(text, undefined_to_none=True)
        except TemplateError:
            raise ConditionError("is no condition: write an expression such as record.status == 'open'") from None

    def holds(self, **values: Any) -> bool:
        """Whether the condition is true for these values.

        Raises:
            ConditionError: it cannot be evaluated, as when a text is compared with a number.
        """
        try:
            return bool(self._expression(**values))
        except Exception as problem:  # noqa: BLE001  # an expression may raise whatever its operands raise
            raise ConditionError(f"cannot be evaluated ({type(problem).__name__})") from None
