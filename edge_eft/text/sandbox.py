"""A stranger's chat template, rendered within bounds.

Chat templates are Jinja programs that come with a model file. They run in jinja2's immutable
sandbox, so they reach no attribute that leads out of it, and here also within bounds of time
and memory: jinja2 itself limits only the length of a range. This module knows nothing of tokens.

How the bounds work: every turn of a loop and every call looks at the clock and counts what is put
out; every value that an operator, a call, a filter or a literal makes is measured as it would
print; what could make a huge value in one go (repetition, powers, replacing, joining, widths) is
estimated first, and what no chat template needs (padding, word wrapping) is not there.
What remains: a single operation on values within the bounds is not interrupted, so a template can
overrun its time by the longest of these (a fraction of a second), and the bounds are per value: a
template that keeps as many large values as its time allows can use some hundred MB.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from ..errors import PromptError

MAX_SECONDS = 2.0
MAX_SOURCE = 1 << 17  # characters of a template; published ones stay below 2**15
MAX_VALUE = 1 << 20  # characters and elements, on top of 4 × those of the messages
MAX_OUTPUT = 1 << 24  # the same for output; loops count their bodies' text, untaken branches too

# What no chat template needs and what can make much out of little.
_NO_FILTERS = frozenset(
    {"batch", "center", "filesizeformat", "format", "pprint", "random", "slice", "sum"}
    | {"urlize", "wordwrap", "xmlattr"}
)
_NO_METHODS = frozenset(
    {"center", "encode", "expandtabs", "ljust", "rjust", "to_bytes", "translate", "zfill"}
)
_NO_GLOBALS = ("cycler", "joiner", "lipsum")
_MAX_WIDTH = 999
_WIDE = re.compile(r"\d{4}|\*")  # a wider width in a format, or a computed one


class ChatTemplate:
    """One compiled template.

    Args:
        source: the Jinja text.
        where: what to call it in messages, e.g. the name of its file.

    Raises:
        PromptError: the source is too long or is not valid Jinja.
    """

    def __init__(self, source: str, where: str) -> None:
        self._where = where
        if len(source) > MAX_SOURCE:
            raise PromptError(
                f"the chat template of {where} has {len(source)} characters, more than "
                f"{MAX_SOURCE}; give a shorter one (prompt = …)"
            )
        self._environment = _BoundedEnvironment()
        try:
            tree = _Instrument().visit(self._environment.parse(source))
            code = self._environment.compile(tree)
        except Exception as error:  # the parser's own errors, RecursionError, MemoryError
            raise self._failure(error) from error
        self._template = self._environment.template_class.from_code(
            self._environment, code, self._environment.make_globals(None)
        )

    def render(self, messages: Sequence[Mapping[str, str]], **variables: Any) -> str:
        """Return the template's text for `messages`.

        Raises:
            PromptError: the template refuses the messages, fails, tries to leave the sandbox, or
                exceeds its bounds.
        """
        environment = self._environment
        environment.start(sum(len(m["content"]) for m in messages))
        try:
            return self._template.render(messages=[dict(m) for m in messages], **variables)
        except Exception as error:  # a template is a program: it can raise anything
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> PromptError:
        if isinstance(error, _RefusedError):
            said = f"refuses these messages: {error}"
        elif isinstance(error, SecurityError):
            said = f"is not allowed to do this: {error}"
        elif isinstance(error, jinja2.TemplateSyntaxError):
            said = f"is not valid Jinja: line {error.lineno}: {error.message}"
        else:
            said = f"failed: {type(error).__name__}: {error}"
        said = " ".join(said.split())[:300]
        return PromptError(
            f"the chat template of {self._where} {said}; another format can be set with prompt = …"
        )


class _RefusedError(Exception):
    """The template called raise_exception."""


class _Generation(Extension):
    """`{% generation %}`, with which transformers marks what a model wrote: only its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class _Instrument(NodeTransformer):
    """Puts the checks into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        return self._counted(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._counted(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._counted(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return self._measured(node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._measured(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._measured(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._measured(node) if node.ctx == "load" else node

    def _measured(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _call("measured", node)

    def _counted(self, node: Any) -> nodes.Node:
        """Count the body's constant text, which does not pass `finalize`, on each turn."""
        n_constant = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call("tick", nodes.Const(n_constant))))
        return node


def _call(method: str, argument: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), [argument], [], None, None)


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with the options and helpers of transformers, and with bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.start(0)
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            finalize=_put_out,
        )
        self.filters["tojson"] = _tojson
        self.filters = {
            name: self._bounded(name, function)
            for name, function in self.filters.items()
            if name not in _NO_FILTERS
        }
        for name in _NO_GLOBALS:
            del self.globals[name]
        self.globals["namespace"] = _Namespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def start(self, n_content: int) -> None:
        """Begin a rendering of messages of `n_content` characters."""
        self._deadline = time.monotonic() + MAX_SECONDS
        self._max_value = MAX_VALUE + 4 * n_content
        self._max_out = MAX_OUTPUT + 4 * n_content
        self._n_out = 0

    def tick(self, n_out: int = 0) -> None:
        """Look at the clock; count characters that are put out."""
        self._n_out += n_out
        if self._n_out > self._max_out:
            raise SecurityError(f"put out more than {self._max_out} characters")
        if time.monotonic() > self._deadline:
            raise SecurityError(f"run for more than {MAX_SECONDS} s")

    def check_size(self, n: int) -> None:
        if n > self._max_value:
            raise SecurityError(f"make a value of more than {self._max_value} characters")

    def measured(self, value: Any) -> Any:
        self.check_size(_size(value, self._max_value))
        return value

    def put_out(self, value: Any) -> Any:
        self.tick(_size(value, self._max_value))
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if hasattr(value, "__len__") and isinstance(times, int):
                    self.check_size(_size(value, self._max_value) * times)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self.check_size(left.bit_length() * abs(right))
        elif operator == "%":
            _check_format(left)
        return self.measured(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.tick()
        name = getattr(__obj, "__name__", "")
        # jinja2 wraps str.format; the string is the original method's.
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            args = __self._estimated(name, owner, args)
            if name.startswith("format"):
                _check_format(owner)
                _check_widths(args, kwargs)
        return __self.measured(super().call(__context, __obj, *args, **kwargs))

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the filter with its value, arguments and result measured."""
        first = int(hasattr(function, "jinja_pass_arg"))  # jinja2 passes itself before the value

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            passed, values = args[:first], args[first:]
            if name == "replace" and values:
                self._estimated(name, str(values[0]), (*values[1:], *kwargs.values()))
            elif name == "join" and values:
                delimiter = values[1] if len(values) > 1 else kwargs.get("d", "")
                values = (*self._estimated(name, str(delimiter), values[:1]), *values[1:])
            elif name in ("indent", "tojson"):
                _check_widths(values[1:], kwargs)
                self.check_size(str(values[0]).count("\n") * _MAX_WIDTH)
            return self.measured(function(*passed, *values, **kwargs))

        return bounded

    def _estimated(self, name: str, owner: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Refuse a string operation with too large a result; a joined iterator becomes a list."""
        if name == "replace" and len(args) >= 2:
            self.check_size(owner.count(str(args[0])) * len(str(args[1])))
        elif name == "join" and args:
            items = self.measured(list(args[0]))
            self.check_size(len(owner) * len(items))
            return (items, *args[1:])
        return args


@pass_context  # so that constants pass at run time too, on every turn of a loop
def _put_out(context: Context, value: Any) -> Any:
    return context.environment.put_out(value)  # type: ignore[attr-defined]


def _size(value: Any, limit: int) -> int:
    """Return the characters and elements of a value as printed: what occurs twice counts twice.

    Stops beyond `limit`, so that lists of lists of one list cost no more than their bound.
    """
    n = 0
    rest = [value]
    while rest and n <= limit:
        value = rest.pop()
        n += 1
        if isinstance(value, (str, bytes)):
            n += len(value)
        elif isinstance(value, int):
            n += value.bit_length()
        elif isinstance(value, (list, tuple, dict)):
            n += len(value)
            if n <= limit:
                rest.extend(value)
                rest.extend(value.values() if isinstance(value, dict) else ())
    return n


def _check_widths(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > _MAX_WIDTH:
            raise SecurityError(f"use {value} as a width")
        if isinstance(value, (str, tuple)) and _size(value, _MAX_WIDTH) > _MAX_WIDTH:
            raise SecurityError("use a long text as an indentation or separator")


def _check_format(text: Any) -> None:
    if isinstance(text, str) and (found := _WIDE.search(text)):
        raise SecurityError(f"format with the width {found[0]!r}")


class _Namespace(Namespace):
    """jinja2's namespace, which would print its contents, however often they occur."""

    def __repr__(self) -> str:
        return "<namespace>"


def _raise_exception(message: str) -> None:
    raise _RefusedError(message)


def _strftime_now(form: str) -> str:
    _check_format(form)
    return datetime.now().strftime(form)


def _tojson(
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
