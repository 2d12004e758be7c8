"""The names of prompt formats, and what may be told to a chat template; `prompt_format` renders."""

from collections.abc import Mapping
from typing import Any

from ..errors import PromptError

FORMATS = ("template", "chatml", "plain", "transcript")
NAMED = "template:"  # and the name of one of several templates that a model file has
CHOICES = f"{', '.join(FORMATS)}, {NAMED}NAME, or a Jinja template, which contains {{{{ or {{%"

# What a template is told in any case; nobody may say otherwise.
_RESERVED = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"}
    | {"bos_token", "eos_token", "raise_exception", "strftime_now", "namespace"}
)


def is_named(spec: str) -> bool:
    """Return whether `spec` names a prompt format, and is not itself a template."""
    return spec in FORMATS or (spec.startswith(NAMED) and spec != NAMED)


def is_format(spec: str) -> bool:
    """Return whether `spec` names a prompt format or is inline Jinja."""
    return is_named(spec) or "{{" in spec or "{%" in spec


def check_format(spec: str) -> str:
    """Return `spec` if it names a prompt format or is a Jinja template.

    Raises:
        PromptError: it is neither, or is no Unicode.
    """
    from .messages import check_unicode  # most who name formats check none

    if isinstance(spec, str) and is_format(spec):
        check_unicode(spec, "prompt")
        return spec
    raise PromptError(f"prompt = {spec!r} is not a prompt format; it may be {CHOICES}")


def check_template_kwargs(kwargs: Any, where: str = "chat_template_kwargs") -> dict[str, Any]:
    """Return a plain copy of variables for a chat template.

    Raises:
        PromptError: they are no object of JSON's kinds, or one has a name that is taken.
    """
    from .messages import plain_copy

    if not isinstance(kwargs, Mapping):
        raise PromptError(f'{where} is {kwargs!r:.60}; use an object: {{"enable_thinking": false}}')
    if taken := sorted(name for name in kwargs if name in _RESERVED):
        raise PromptError(f"{where} has {taken[0]!r}, which edge-eft sets itself; leave it out")
    copy: dict[str, Any] = plain_copy(kwargs, where)
    if odd := [name for name in copy if not name.isidentifier()]:
        raise PromptError(f"{where} has {odd[0]!r:.60}, which cannot be a variable's name")
    return copy
