"""GBNF grammars, read before llama.cpp reads them.

llama.cpp hangs or runs out of memory on some grammars: a{5,2}, left recursion through rules that
may be empty, alternatives that lead to the same place in thousands of ways. They are refused here.
The language is in llama.cpp's grammars/README.md; rules of token ids (<[1]>) are not taken, since a
grammar is about text. This module knows nothing of models.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache

from ..errors import RequestError
from .gbnf_ambiguity import LAST, Characters, Grammar, Text, too_ambiguous

MAX_CHARACTERS = 300_000
MAX_ELEMENTS = 50_000  # of all rules, repetitions written out
MAX_NESTING = 100
MAX_REPETITIONS = 2_000  # MAX_REPETITION_THRESHOLD of src/llama-grammar.cpp
MAX_WAYS = 20_000  # from a rule's beginning to its first characters

Alternative = list[str | None]  # names of rules, and None for what prints something
Rules = dict[str, list[Alternative]]

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_ESCAPE = r'\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[tnr\\"\[\]-])'
_CHARACTER = re.compile(rf"{_ESCAPE}|[^\\]", re.DOTALL)
_LITERAL = re.compile(rf'"((?:{_ESCAPE}|[^"\\])*)"')
_CLASS = re.compile(rf"\[(\^?(?:{_ESCAPE}|[^\]\\])*)\]")
_REPETITION = re.compile(r"\{\s*([0-9]{1,9})\s*(?:(,)\s*([0-9]{1,9})?\s*)?\}|[*+?]")


@lru_cache(maxsize=32)  # clients send the same one with every request
def check(text: str) -> None:
    """Raise RequestError for a grammar that cannot be read, or that llama.cpp cannot bear."""
    if len(text) > MAX_CHARACTERS:
        raise RequestError(
            f"the grammar has {len(text)} characters; at most {MAX_CHARACTERS} are taken"
        )
    if "\0" in text:
        raise RequestError("the grammar contains a NUL character; write it as \\x00")
    grammar = _Reader(text).read()
    if "root" not in grammar:
        raise RequestError('the grammar has no rule "root", where it would begin')
    rules = {
        name: [[s if isinstance(s, str) else None for s in one] for one in alternatives]
        for name, alternatives in grammar.items()
    }
    used = {symbol for alternatives in rules.values() for one in alternatives for symbol in one}
    for name in sorted(symbol for symbol in used if symbol and symbol not in rules):
        raise RequestError(f"the grammar uses the rule {name:.40}, which it does not define")
    if "root" not in _closure(rules, {None}):
        raise RequestError("no text obeys the grammar: its rules go on for ever")
    _check_beginnings(rules, _closure(rules, set()))
    if ambiguous := too_ambiguous(grammar):
        raise RequestError(
            f"the grammar is too ambiguous: after some characters of the rule "
            f"{_shown(ambiguous)} it can go on in too many ways; let alternatives begin with "
            "different characters"
        )


def _closure(rules: Rules, known: set[str | None]) -> set[str | None]:
    """Return the rules that have an alternative of `known` symbols and such rules alone.

    With None known they are those that can end; with nothing, those that may be empty.
    """
    waiting: dict[str, list[list[str | int]]] = defaultdict(list)  # symbol → [rule, symbols left]
    ready: list[str] = []
    for name, alternatives in rules.items():
        for one in alternatives:
            left = {symbol for symbol in one if symbol not in known}
            entry: list[str | int] = [name, len(left)]
            if not left:
                ready.append(name)
            for symbol in left - {None}:
                waiting[str(symbol)].append(entry)
    found = set(known)
    while ready:
        name = ready.pop()
        if name in found:
            continue
        found.add(name)
        for entry in waiting[name]:
            entry[1] = int(entry[1]) - 1
            if not entry[1]:
                ready.append(str(entry[0]))
    return found


def _check_beginnings(rules: Rules, may_be_empty: set[str | None]) -> None:
    """Refuse left recursion, and more ways to a rule's first characters than can be followed."""
    begins: dict[str, list[str]] = {}
    for name, alternatives in rules.items():
        begins[name] = []
        for one in alternatives:
            for symbol in one:
                if symbol is not None:
                    begins[name].append(symbol)
                if symbol not in may_be_empty:
                    break
    ways: dict[str, int] = {}
    path: list[tuple[str, int]] = []  # depth first, without recursion: chains can be long
    on_path: set[str] = set()
    for start in rules:
        path.append((start, 0))
        while path:
            name, i = path.pop()
            if i == 0 and name in ways:
                continue
            on_path.add(name)
            if i < len(begins[name]):
                path.append((name, i + 1))
                after = begins[name][i]
                if after in on_path:
                    raise RequestError(
                        f"the rule {_shown(after)} of the grammar can begin with itself, or "
                        "repeats what may be empty; llama.cpp cannot follow that"
                    )
                path.append((after, 0))
                continue
            on_path.discard(name)
            ways[name] = len(rules[name]) + sum(ways[after] for after in begins[name])
            if ways[name] > MAX_WAYS:
                raise RequestError(
                    f"the rule {_shown(name)} of the grammar can begin in more than "
                    f"{MAX_WAYS} ways; let its alternatives begin differently"
                )


def _shown(name: str) -> str:
    """The name that a grammar itself gives to a rule or to what a group belongs to."""
    return name.partition("_")[0]


def _code(written: str) -> int:
    """Return the code point of a character as a grammar writes it."""
    if written[0] != "\\":
        return ord(written)
    if written[1] in "xuU":
        return int(written[2:], 16)
    return ord({"t": "\t", "r": "\r", "n": "\n"}.get(written[1], written[1]))


def _ranges(written: list[str], is_negative: bool) -> Characters:
    """Return the characters of a class, from what it is written of."""
    codes, found = [_code(one) for one in written], []
    i = 0
    while i < len(codes):
        is_range = written[i + 1 : i + 2] == ["-"] and i + 2 < len(codes)
        found.append((codes[i], codes[i + 2 if is_range else i]))
        i += 3 if is_range else 1
    merged, gaps, after = list[tuple[int, int]](), list[tuple[int, int]](), 0
    for first, last in sorted(found):
        if first > after or not merged:
            gaps += [(after, first - 1)] if first > after else []
            merged.append((first, last))
        else:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        after = max(after, last + 1)
    if not is_negative:
        return tuple(merged)
    return (*gaps, (after, LAST)) if after <= LAST else tuple(gaps)


class _Reader:
    """Reads a grammar from the left, as `llama_grammar_parser` does."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._rules: Grammar = {}
        self._rule = ""
        self._made = 0
        self._n_elements = 0

    def read(self) -> Grammar:
        """Return all rules; groups and repetitions get names such as root_1."""
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            self._rule = self._take(_NAME, "the name of a rule").group()
            self._skip(_SPACE)
            if not self._text.startswith("::=", self._at):
                raise self._error("::=")
            self._at += 3
            self._skip(_SPACE_AND_LINES)
            rule = self._rule
            self._rules[rule] = self._alternatives(0)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                raise self._error("a new line")
            self._skip(_SPACE_AND_LINES)
        return self._rules

    def _alternatives(self, depth: int) -> list[list[str | Text]]:
        if depth > MAX_NESTING:
            raise RequestError(f"the grammar nests deeper than {MAX_NESTING} levels")
        found = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence(depth))
        self._count(len(found) + 1)
        return found

    def _sequence(self, depth: int) -> list[str | Text]:
        found: list[str | Text] = []
        size = 0  # elements of the last item
        space = _SPACE_AND_LINES if depth else _SPACE
        while self._at < len(self._text):
            char = self._text[self._at]
            if repetition := _REPETITION.match(self._text, self._at):
                if not size:
                    raise self._error("something to repeat before")
                found[-1] = self._repeated(found[-1], repetition, size)
                self._at = repetition.end()
            elif char in '"[':
                item = self._take(*((_LITERAL, "a text") if char == '"' else (_CLASS, "a class")))
                is_class = char == "["
                written = _CHARACTER.findall(item[1].removeprefix("^") if is_class else item[1])
                size = len(written)
                if size:
                    found.append(
                        (_ranges(written, is_negative=item[1].startswith("^")),)
                        if is_class
                        else tuple(((code, code),) for code in map(_code, written))
                    )
            elif char == "(":
                self._at += 1
                self._skip(_SPACE_AND_LINES)
                found.append(self._add(self._alternatives(depth + 1)))
                if not self._text.startswith(")", self._at):
                    raise self._error('")"')
                self._at += 1
                size = 1
            elif char == ".":
                self._at += 1
                found.append((((0, LAST),),))
                size = 1
            elif char in "<!":
                raise RequestError("the grammar names a token (<…>); it must be about text alone")
            elif name := _NAME.match(self._text, self._at):
                found.append(name.group())
                self._at = name.end()
                size = 1
            else:
                break
            self._count(size)
            self._skip(space)
        return found

    def _repeated(self, item: str | Text, repetition: re.Match[str], size: int) -> str:
        """Return the name of a rule that begins and ends as the repeated item does."""
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(repetition[0], (-1, None))
        if low < 0:
            low = int(repetition[1])
            high = int(repetition[3]) if repetition[3] else None if repetition[2] else low
        if max(low, high or 0) > MAX_REPETITIONS or (high is not None and high < low):
            raise RequestError(
                f"the grammar repeats something {repetition[0]} times; llama.cpp takes a range of "
                f"at most {MAX_REPETITIONS}"
            )
        self._count(size * low + (1 if high is None else high - low) * (size + 3))
        if high is not None and high <= 1:
            return self._add([[item]] if low else [[item], []] if high else [[]])
        more = self._add([])
        self._rules[more] = [[item, more], []]
        return self._add([[item, more]]) if low else more

    def _add(self, alternatives: list[list[str | Text]]) -> str:
        self._made += 1
        name = f"{self._rule}_{self._made}"
        self._rules[name] = alternatives
        return name

    def _count(self, n: int) -> None:
        self._n_elements += n
        if self._n_elements > MAX_ELEMENTS:
            raise RequestError(
                f"the grammar has more than {MAX_ELEMENTS} elements with its repetitions written "
                "out; repeat less, or shorter things"
            )

    def _take(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if not match:
            raise self._error(wanted)
        self._at = match.end()
        return match

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._at = self._take(pattern, "space").end()

    def _error(self, wanted: str) -> RequestError:
        line = self._text.count("\n", 0, self._at) + 1
        seen = self._text[self._at : self._at + 20].split("\n", 1)[0]
        return RequestError(
            f"line {line} of the grammar: {seen!r} is not {wanted}"
            if seen
            else f"line {line} of the grammar ends where {wanted} is missing"
        )
