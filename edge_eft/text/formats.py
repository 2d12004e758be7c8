"""The names of prompt formats; `prompt_format` renders them."""

from ..errors import PromptError

FORMATS = ("template", "chatml", "plain", "transcript")


def is_format(spec: str) -> bool:
    """Return whether `spec` names a prompt format or is inline Jinja."""
    return spec in FORMATS or "{{" in spec or "{%" in spec


def check_format(spec: str) -> str:
    """Return `spec` if it names a prompt format or is a Jinja template.

    Raises:
        PromptError: it is neither.
    """
    if isinstance(spec, str) and is_format(spec):
        return spec
    raise PromptError(
        f"prompt = {spec!r} is not a prompt format; use one of {', '.join(FORMATS)}, or a Jinja "
        f"template, which contains {{{{ or {{%"
    )
