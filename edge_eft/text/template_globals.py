"""What transformers gives to chat templates in addition to jinja2, or instead of its own."""

import json
from datetime import datetime
from typing import Any

from jinja2.sandbox import SecurityError
from jinja2.utils import Namespace

from . import bounds


class _Namespace(Namespace):
    """jinja2's namespace, which would print its contents, however often they occur."""

    def __repr__(self) -> str:
        return "<namespace>"

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def make_namespace(*args: Any, **kwargs: Any) -> Namespace:
    """Return a namespace, as transformers lets a template have one."""
    for name in dict(*args, **kwargs):
        _check_name(name)
    return _Namespace(*args, **kwargs)


def _check_name(name: Any) -> None:
    """As transformers: names that begin with _ mean something to Python."""
    if str(name).startswith("_"):
        raise SecurityError(f"name something {name!r}")


def strftime_now(form: str) -> str:
    """Return the time as `form` says."""
    bounds.check_date_format(form)
    return datetime.now().strftime(form)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as transformers does: jinja2's own filter escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
