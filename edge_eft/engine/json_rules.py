"""The rules of a grammar for JSON as they are made, each text once, and those of its own parts."""

from __future__ import annotations

from collections.abc import Sequence

from .json_merge import Never
from .json_terminals import plain_characters

_HEX = "[0-9A-Fa-f]"
_PRIMITIVES = {
    "ws": r'"" | " " | "\n" [ \t]{0,20}',
    "char": rf'{plain_characters()} | "\\" (["\\/bfnrt] | "u" unit)',
    # A character in UTF-16, whole.
    "unit": rf"[0-9A-CE-Fa-ce-f] {_HEX}{{3}} | [Dd] [0-7] {_HEX}{{2}} | "
    rf'[Dd] [89ABab] {_HEX}{{2}} "\\u" [Dd] [C-Fc-f] {_HEX}{{2}}',
    "string": r'"\"" char* "\""',
    "whole": '"0" | [1-9] [0-9]{0,15}',
    "integer": '"-"? whole',
    "number": '"-"? whole ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (string ":" ws value ("," ws string ":" ws value)* ws)? "}"',
    "array": '"[" ws (value ("," ws value)* ws)? "]"',
}
_USES = {
    "char": ("unit",),
    "string": ("char",),
    "integer": ("whole",),
    "number": ("whole",),
    "value": ("object", "array", "string", "number", "boolean", "null"),
    "object": ("ws", "string", "value"),
    "array": ("ws", "value"),
}


class Rules:
    """Rules of a grammar.

    Attributes:
        rules: name → GBNF.
    """

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}
        self._names: dict[str, str] = {}  # text → its rule

    def repeat_text(self, text: str, low: int, high: int | None) -> str:
        """`repeat`, of any GBNF."""
        return self.repeat(self.add(text), low, high)

    def repeat(self, item: str, low: int, high: int | None) -> str:
        """GBNF for `low` to `high` times a rule; large numbers in few rules."""
        if max(low, high or 0) <= 32:
            return f"{item}{{{low},{'' if high is None else high}}}"
        exact = " ".join(self._power(item, j) for j in range(low.bit_length()) if low >> j & 1)
        if high is None:
            return f"{exact} {item}*"
        return f"{exact} {self._up_to(item, high - low)}"

    def _power(self, item: str, j: int) -> str:
        for _ in range(j):
            item = self.add(f"{item} {item}")
        return item

    def _up_to(self, item: str, n: int) -> str:
        """GBNF for at most `n` times a rule: blocks, and at any time a part of one as the last.

        llama.cpp follows two ways at once then; by doubling alone they would be many.
        """
        size = 1 << (n.bit_length() // 2 + 1)
        part = self.add(f"{item}{{0,{size - 1}}}")
        block = self._power(item, size.bit_length() - 1)
        found = self.add(f"{item}{{0,{n % size}}}")
        for _ in range(n // size):
            found = self.add(f"{block} {found} | {part}")
        return found

    def alternatives(self, found: Sequence[str]) -> str:
        """Return GBNF for one of these. Raises Never without any."""
        if not found:
            raise Never
        return " | ".join(dict.fromkeys(found))

    def primitive(self, name: str) -> str:
        """Return the name of a rule that every JSON grammar can use."""
        if name not in self.rules:
            self.rules[name] = _PRIMITIVES[name]
            for used in _USES.get(name, ()):
                self.primitive(used)
        return name

    def add(self, text: str) -> str:
        """Return the name of a rule for this text."""
        if text in self.rules or text == '""':
            return text
        if text not in self._names:
            self._names[text] = f"r{len(self._names)}"
            self.rules[self._names[text]] = text
        return self._names[text]
