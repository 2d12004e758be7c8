"""A stranger's chat template, rendered within bounds.

Chat templates are Jinja programs that come with a model file. They run in jinja2's immutable
sandbox, so they reach no attribute that leads out of it, and here also within bounds of time
and memory: jinja2 itself limits only the length of a range. This module knows nothing of tokens.

How the bounds work: the syntax tree is bounded before it is compiled (`template_tree`); every turn
of a loop, call, filter, test, comparison and operator counts its work and what it makes against one
budget (`bounds`); what could make much out of little in one go (repetition, powers, replacing,
joining, widths) is estimated first, and what no chat template needs (word wrapping, HTML) is not
there. What is made is counted first; if that is much, the process's memory is looked at. What
remains: a single operation on values within the bounds is not interrupted, so a template can
overrun its time by the longest of these (a tenth of a second).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from types import CodeType
from typing import Any

import jinja2
from jinja2 import pass_context
from jinja2.ext import loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Cycler

from ..errors import PromptError
from . import bounds
from .bounds import Budget
from .messages import texts
from .template_globals import make_namespace, strftime_now, tojson
from .template_tree import (
    CHECK,
    MAX_SOURCE,
    Counter,
    Generation,
    Instrument,
    check_code,
    check_tree,
    iterates_contents,
)

# What no chat template needs and what can make much out of little.
_NO_FILTERS = frozenset(
    {"filesizeformat", "pprint", "random", "striptags", "urlencode", "urlize", "wordwrap"}
    | {"xmlattr"}
)
_NO_METHODS = frozenset(
    {"encode", "from_bytes", "fromkeys", "maketrans", "striptags", "to_bytes", "translate"}
)
# Filters and methods that print their value, go through it, or make lists of its characters.
_PRINTING = frozenset(
    {"capitalize", "center", "e", "escape", "forceescape", "lower", "replace", "string", "title"}
    | {"tojson", "trim", "upper", "format", "indent", "truncate", "wordcount"}
)
_LISTING = frozenset(
    {"batch", "dictsort", "groupby", "list", "max", "min", "slice", "sort", "sum", "title"}
    | {"unique", "wordcount"}
)
_NAMING = frozenset(
    {"groupby", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort"}
    | {"sum", "unique"}
)
_BY_KEY = frozenset({"groupby", "max", "min", "sort", "unique"})
_GOING_THROUGH = frozenset({"count", "index", "changed", "format", "format_map"})
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
# What compares every character of two texts in the worst case: only searches from the start do not.
_SEARCHING = frozenset({"lstrip", "rstrip", "strip", "rfind", "rindex", "rpartition", "rsplit"})
_MANY_ARGUMENTS = 8
_MAX_PAIRS = 2_048  # of dict(list): keys can take n² comparisons


class ChatTemplate:
    """One compiled template.

    Args:
        source: the Jinja text.
        where: what to call it in messages, e.g. the name of its file.

    Attributes:
        iterates: whether it goes through the parts of a message's content.
        reads: the names of the variables that it reads.

    Raises:
        PromptError: the source is too long or is not valid Jinja.
    """

    def __init__(self, source: str, where: str) -> None:
        self._where = where
        if len(source) > MAX_SOURCE:
            seen = f"has {len(source)} characters, more than {MAX_SOURCE}"
            raise PromptError(f"the chat template of {where} {seen}; give a shorter one")
        self._of_thread = threading.local()
        try:
            self._code, self.iterates, self.reads = _compiled(source)
            self._in(_BoundedEnvironment())
        except Exception as error:  # the parser's own errors, RecursionError, MemoryError
            raise self.failure(error) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        budget: Budget | None = None,
        **variables: Any,
    ) -> str:
        """Return the template's text for `messages`.

        Args:
            messages: dicts of JSON's kinds.
            budget: what may be spent; several renderings can share one. None: one of its own.
            variables: what else the template sees.

        Raises:
            TemplateRefusedError: the template refuses the messages.
            PromptError: it fails, tries to leave the sandbox, or exceeds its bounds.
        """
        budget = budget or budget_for(messages)
        try:
            environment, template = self._of_thread.program
        except AttributeError:
            environment, template = self._in(_BoundedEnvironment())
        environment.budget = budget
        budget.begin()
        try:
            return template.render(messages=[dict(m) for m in messages], **variables)
        except Exception as error:  # a template is a program: it can raise anything
            raise self.failure(error) from error

    def _in(self, environment: _BoundedEnvironment) -> tuple[_BoundedEnvironment, jinja2.Template]:
        """Return the program in an environment, this thread's: a budget is of one rendering."""
        globals_ = environment.make_globals(None)
        template = jinja2.Template.from_code(environment, self._code, globals_)
        self._of_thread.program = environment, template
        return environment, template

    def failure(self, error: Exception) -> PromptError:
        """Return what to raise, in one line, where `error` came out of the template."""
        kind: type[PromptError] = PromptError
        if isinstance(error, _RaisedError):
            kind = TemplateRefusedError
            said = f"refuses these messages: {error}"
        elif isinstance(error, SecurityError):
            said = f"is not allowed to do this: {error}"
        elif isinstance(error, jinja2.TemplateSyntaxError):
            said = f"is not valid Jinja: line {error.lineno}: {error.message}"
        else:
            said = f"failed: {type(error).__name__}: {error}"
        said = " ".join(said[:1000].encode("utf-8", "backslashreplace").decode().split())[:300]
        return kind(
            f"the chat template of {self._where} {said}; another format can be set with prompt = …"
        )


@lru_cache(maxsize=32)
def _compiled(source: str) -> tuple[CodeType, bool, frozenset[str]]:
    """Return a template's program, and `iterates` and `reads` of it: the roles often share one."""
    environment = _BoundedEnvironment()
    tree = environment.parse(source)
    check_tree(tree)
    iterates, reads = iterates_contents(tree), frozenset(find_undeclared_variables(tree))
    code = environment.compile(Instrument().visit(tree), raw=True)
    return compile(check_code(code), "<template>", "exec"), iterates, reads


def budget_for(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> Budget:
    """Return what may be spent on a conversation; a definition of a tool counts as a message."""
    told = [*messages, *tools]
    return Budget(sum(map(len, texts(told))), len(told))


class TemplateRefusedError(PromptError):
    """The template called raise_exception."""


class _RaisedError(Exception):
    """What raise_exception raises inside a template."""


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with the options and helpers of transformers, and with bounds."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        self.budget = Budget(0, 0)
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants are computed when they are needed, within bounds
            extensions=[loopcontrols, Generation, Counter],
            finalize=_put_out,
        )
        self.filters |= {"tojson": tojson, "sum": self._sum}
        filters = {k: f for k, f in self.filters.items() if k not in _NO_FILTERS}
        self.filters = {name: self._bounded(name, f) for name, f in filters.items()}
        checks = (self.tick, self.macro, self.data_out, self.made, self.weighed, self.joined)
        self.filters |= {CHECK + check.__name__: check for check in checks}
        tests: Any = self.tests
        self.tests = {name: self._bounded_test(test) for name, test in tests.items()}
        del self.globals["lipsum"]
        self.globals["namespace"] = make_namespace
        self.globals |= {"raise_exception": self._raise_exception, "strftime_now": strftime_now}

    # --- what every operation passes --------------------------------------------------------

    def tick(self, _: None) -> None:
        self.budget.work(16, 64)

    def macro(self, _: None) -> None:
        self.budget.work(16, 1_000)

    def data_out(self, n: int) -> None:
        self.budget.put_out(n)

    def made(self, value: Any) -> Any:
        return self.budget.made(value)

    def weighed(self, value: Any) -> Any:
        self.budget.weigh(value)
        return value

    def joined(self, values: list[Any]) -> str:
        self.budget.check(sum(map(self.budget.weigh, values)))
        return str(self.budget.made("".join(map(str, values))))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if hasattr(value, "__len__") and isinstance(times, int):
                    budget.check(budget.weigh(value) * times)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > 2 * bounds.MAX_INT.bit_length():
                raise SecurityError(f"make a number of {left.bit_length() * abs(right)} bits")
        elif operator == "%" and isinstance(left, str):
            budget.check(bounds.percent(left, right, budget.weigh(right)))
        return budget.made(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        given = [*args, *kwargs.values()]
        __self.budget.work(16 + len(given), 256 + 100 * len(given))
        if len(given) > _MANY_ARGUMENTS or __obj is Cycler:
            __self.budget.weigh(given)
        name = getattr(__obj, "__name__", "")
        # jinja2 wraps str.format; the string is the original method's.
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            args = __self._check_method(name, owner, args, given)
        elif name in _GOING_THROUGH:
            __self.budget.weigh([owner, *args] if isinstance(owner, list | tuple) else [*args])
        elif __obj is dict and args:
            args = (__self._pairs(args[0]), *args[1:])
        value = super().call(__context, __obj, *args, **kwargs)
        return __self.budget.made(value, fresh=True)

    def _check_method(
        self, name: str, owner: str, args: tuple[Any, ...], given: list[Any]
    ) -> tuple[Any, ...]:
        """Refuse a method of a string that would make or cost too much; return its arguments."""
        budget = self.budget
        budget.work(len(owner) >> 6, len(owner) if name in ("split", "splitlines", "rsplit") else 0)
        if name == "join" and args:
            return (self._listed(owner, args[0]), *args[1:])
        weight = budget.weigh(given)
        if name == "replace" and len(given) >= 2:
            budget.check(bounds.replaced(owner, str(given[0]), str(given[1])))
        elif name in ("format", "format_map"):
            budget.check(bounds.braces(owner, weight))
        elif name in _PADDING:
            bounds.check_widths(given)
            budget.check(len(owner) + owner.count("\t") * bounds.MAX_WIDTH)
        elif name in _SEARCHING and given:
            budget.check_search(owner, given[0])
        return args

    def _pairs(self, pairs: Any) -> Any:
        """What a dict is made of, unless there is too much of it."""
        if not isinstance(pairs, Mapping):
            pairs = self.budget.made(list(pairs))
            if len(pairs) > _MAX_PAIRS:
                raise SecurityError(f"make a dict of {len(pairs)} pairs")
        return pairs

    def _listed(self, delimiter: str, items: Iterable[Any]) -> list[Any]:
        """The items of a join, unless their text would be too long."""
        if isinstance(items, str):
            self.budget.check(8 * len(items))
        listed: list[Any] = self.budget.made(list(items))
        self.budget.check(len(delimiter) * len(listed))
        return listed

    def _raise_exception(self, message: Any) -> None:
        self.budget.weigh(message)
        raise _RaisedError(message)

    # --- filters and tests ------------------------------------------------------------------

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the filter with its value, arguments and result weighed."""
        first = int(hasattr(function, "jinja_pass_arg"))  # jinja2 passes itself before the value

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.budget.work(16)
            passed, values = args[:first], args[first:]
            if values:
                values = self._check_filter(name, values, kwargs)
            value = function(*passed, *values, **kwargs)
            if values and value is values[0]:
                return value
            if isinstance(value, Iterator):
                return self._ticking(value)
            return self.budget.made(value, fresh=True)

        return bounded

    def _check_filter(
        self, name: str, values: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """Refuse a filter that would make or cost too much; return value and arguments."""
        budget, value = self.budget, values[0]
        given = [*values[1:], *kwargs.values()]
        budget.weigh(given)
        if name in _NAMING:
            bounds.check_names(given)
        if name in _LISTING:
            values = (value := self._ready(name, values, kwargs), *values[1:])
        if name in _PRINTING or isinstance(value, str):
            weight = budget.weigh(value)
            budget.work(weight >> 6)
        if name == "replace" and len(given) >= 2:
            budget.check(bounds.replaced(str(value), str(given[0]), str(given[1])))
        elif name == "join":
            delimiter = values[1] if len(values) > 1 else kwargs.get("d", "")
            attribute = values[2] if len(values) > 2 else kwargs.get("attribute")
            if attribute is not None:
                raise SecurityError("join attributes; map them first")
            return (self._listed(str(delimiter), value), *values[1:])
        elif name == "format":
            form = kwargs or given
            budget.check(bounds.percent(str(value), form, budget.weigh(form)))
        elif name == "indent":
            bounds.check_widths(given)
            width = values[1] if len(values) > 1 else kwargs.get("width", 4)
            budget.check(bounds.indented(str(value), width))
        elif name == "tojson":
            bounds.check_widths(given)
            names = ("ensure_ascii", "indent", "separators")
            options = {**dict(zip(names, values[1:], strict=False)), **kwargs}
            separators = options.get("separators")
            budget.check(bounds.tojson(weight, options.get("indent"), separators))
            budget.work(weight)
        elif name in ("batch", "center", "round", "slice"):
            bounds.check_widths(given)
        elif name == "trim" and given:
            budget.check_search(str(value), given[0])
        return values

    def _ready(self, name: str, values: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What a filter makes a list of, as a list that is weighed, and its keys as well."""
        budget, value = self.budget, values[0]
        if isinstance(value, str):
            budget.check(8 * len(value))
        elif isinstance(value, Iterator):
            value = list(value)
        budget.weigh(value)
        n = len(value) if hasattr(value, "__len__") else 0
        budget.work(3 * n, 8 * n)
        place = {"groupby": 1, "sort": 3}.get(name, 2)
        attribute = kwargs.get("attribute", values[place] if len(values) > place else None)
        if name in _BY_KEY and attribute is not None:
            for key in str(attribute).split(","):
                keys = map(make_attrgetter(self, int(key) if key.isdigit() else key), value)
                budget.weigh(list(self._ticking(keys)))
        return value

    def _ticking(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            n_bytes = 8 * len(item) if isinstance(item, list | tuple) else 0
            self.budget.work(8, 128 + n_bytes)
            yield item

    def _sum(self, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        """Add up, as jinja2 does, with every sum weighed: lists can be added."""
        for item in iterable:
            if attribute is not None:
                for part in str(attribute).split("."):
                    item = self.getitem(item, int(part) if part.isdigit() else part)
            start = self.budget.made(start + item)
        return start

    def _bounded_test(self, test: Callable[..., Any]) -> Callable[..., Any]:
        first = int(hasattr(test, "jinja_pass_arg"))

        @wraps(test)
        def bounded(*args: Any) -> Any:
            self.budget.work(8)
            if len(args) > first + 1 or isinstance(args[first], str):
                for value in args[first:]:
                    self.budget.weigh(value)
            return test(*args)

        return bounded


@pass_context  # so that constants pass at run time too, on every turn of a loop
def _put_out(context: Context, value: Any) -> Any:
    budget: Budget = context.environment.budget  # type: ignore[attr-defined]
    budget.put_out(budget.weigh(value))
    return value
