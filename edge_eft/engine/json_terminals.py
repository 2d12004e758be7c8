"""Pieces of GBNF for JSON's strings and numbers: sets of characters, patterns, formats, ranges.

What they let through always obeys the schema's keyword; some texts that do are left out, such as a
pattern's characters of scripts on which engines for patterns do not agree.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from ..errors import RequestError

Ranges = list[tuple[int, int]]  # of code points, ends included

_parser: Any = importlib.import_module("re._parser")  # of patterns, which `re` has no name for
MAX_PATTERN = 1_000
MAX_DECIMALS = 8
MAX_DIGITS = 15  # that a float keeps

_ESCAPED = {0x22: '"\\\\\\""', 0x5C: '"\\\\\\\\"', 9: '"\\\\t"', 10: '"\\\\n"', 13: '"\\\\r"'}
_PLAIN: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, 0x10FFFF)]
_CATEGORIES: dict[str, Ranges] = {
    "DIGIT": [(48, 57)],
    "WORD": [(48, 57), (65, 90), (95, 95), (97, 122)],
    "SPACE": [(9, 10), (13, 13), (32, 32)],
}
_ASCII: Ranges = [(0x20, 0x7E)]
_LINE_ENDS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]

_OCTET = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9] [0-9] | [0-9])'
_DATE = (
    '[1-9] [0-9] [0-9] [0-9] "-" (("0" [13578] | "10" | "12") "-" ("0" [1-9] | [12] [0-9] | "3" '
    '[01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" '
    '[0-9] | "2" [0-8]))'
)
_HOUR = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]'
_TIME = f'{_HOUR} ":" [0-5] [0-9] ("." [0-9]{{1,6}})? ("Z" | [+-] {_HOUR})'
_LABEL = "[a-z0-9] [a-z0-9]{0,29}"
_HOST = f'{_LABEL} ("." {_LABEL})? "." [a-z] [a-z]{{1,5}}'
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "duration": '"P" ([0-9]{1,4} [DWMY] | "T" [0-9]{1,4} [HMS])',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
    "ipv4": ' "." '.join([_OCTET] * 4),
    "ipv6": ' ":" '.join(["[0-9a-f]{1,4}"] * 8),
    "hostname": _HOST,
    "email": f'[a-zA-Z0-9] [a-zA-Z0-9_+-]{{0,30}} ("." [a-zA-Z0-9_+-]{{1,30}})? "@" {_HOST}',
    "uri": f'"http" "s"? "://" {_HOST} ("/" [a-zA-Z0-9_.~-]{{0,40}}){{0,8}}',
}
# JSON Schema's own; others, such as OpenAPI's "password", say nothing of the text.
REFUSED_FORMATS = {
    *("idn-email", "idn-hostname", "iri", "iri-reference", "uri-reference", "uri-template"),
    *("json-pointer", "relative-json-pointer", "regex"),
}


def literal(text: str) -> str:
    """Return GBNF for a text."""
    names = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    shown = (names.get(c, c if c >= " " else f"\\x{ord(c):02x}") for c in text)
    return '"' + "".join(shown) + '"'


def json_literal(value: Any) -> str:
    """Return GBNF for a value, as JSON writes it."""
    return literal(json.dumps(value, ensure_ascii=False, allow_nan=False))


def without(ranges: Ranges, taken: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges less others."""
    for low, high in taken:
        left = [(a, min(b, low - 1)) for a, b in ranges] + [
            (max(a, high + 1), b) for a, b in ranges
        ]
        ranges = sorted((a, b) for a, b in left if a <= b)
    return ranges


def plain_characters(but: Iterable[int] = ()) -> str:
    """Return a class of the characters that JSON need not escape, less some."""
    return _class(without(_PLAIN, [(c, c) for c in but]))


def _class(ranges: Ranges) -> str:
    def shown(code: int) -> str:
        return f"\\U{code:08X}"

    return "[" + "".join(shown(a) if a == b else f"{shown(a)}-{shown(b)}" for a, b in ranges) + "]"


def _characters(ranges: Ranges) -> str:
    """Return GBNF for one of some characters, as a JSON string has it."""
    outside = without([(0, 0x10FFFF)], ranges)
    plain = without(_PLAIN, outside)
    found = [_class(plain)] if plain else []
    found += [text for code, text in _ESCAPED.items() if any(a <= code <= b for a, b in ranges)]
    if not found:
        raise RequestError("a pattern of the schema asks for characters that are not taken")
    return found[0] if len(found) == 1 else f"({' | '.join(found)})"


class Pattern:
    """The translation of a pattern.

    Args:
        repeat: (GBNF, least, most or None) → GBNF.
        char: the name of the rule for any character of a string.
    """

    def __init__(self, repeat: Any, char: str) -> None:
        self._repeat, self._char = repeat, char

    def translate(self, pattern: Any) -> str:
        """Return GBNF for the texts that a pattern matches somewhere.

        Raises:
            RequestError: it is not a pattern, or has parts that are not taken.
        """
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
            raise RequestError(
                f"pattern is {pattern!r:.40}; it must be text of at most {MAX_PATTERN} characters"
            )
        self._pattern = pattern
        try:
            parsed = list(_parser.parse(pattern, re.ASCII))
            begins = bool(parsed) and _is_anchor(parsed[0], "BEGINNING")
            parsed = parsed[1:] if begins else parsed
            ends = bool(parsed) and _is_anchor(parsed[-1], "END")
            parsed = parsed[:-1] if ends else parsed
            middle = self._sequence(parsed)
        except (re.error, OverflowError, RecursionError) as error:
            raise RequestError(f"pattern {pattern!r:.40} cannot be read: {error}") from None
        around = f" {self._char}* "
        return f"{'' if begins else around}{middle}{'' if ends else around}"

    def _sequence(self, parsed: Iterable[Any]) -> str:
        return " ".join(self._part(str(op), argument) for op, argument in parsed) or '""'

    def _part(self, op: str, argument: Any) -> str:
        if op == "LITERAL":
            return _characters([(argument, argument)])
        if op == "NOT_LITERAL":
            return _characters(without([(0, 0x10FFFF)], [(argument, argument)]))
        if op == "ANY":
            return _characters(without([(0, 0x10FFFF)], _LINE_ENDS))
        if op == "IN":
            return _characters(self._set(argument))
        if op == "BRANCH":
            return f"({' | '.join(self._sequence(branch) for branch in argument[1])})"
        if op == "SUBPATTERN" and not argument[1] and not argument[2]:
            return f"({self._sequence(argument[3])})"
        if op in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, what = argument
            most = None if high == _parser.MAXREPEAT else int(high)
            return str(self._repeat(f"({self._sequence(what)})", int(low), most))
        raise RequestError(
            f"pattern {self._pattern!r:.40} has a part that is not taken ({op.lower()}); ^ and $ "
            "belong to its ends, and it may have classes, groups, alternatives and repetitions"
        )

    def _set(self, parts: Any) -> Ranges:
        ranges: Ranges = []
        negated = only_ascii = False
        for op, argument in parts:
            if str(op) == "NEGATE":
                negated = True
            elif str(op) == "LITERAL":
                ranges.append((argument, argument))
            elif str(op) == "RANGE":
                ranges.append(argument)
            else:
                name = str(argument).removeprefix("CATEGORY_")
                known = _CATEGORIES[name.removeprefix("NOT_")]
                ranges += without(_ASCII, known) if name.startswith("NOT_") else known
                only_ascii = True  # which others belong to it is another question to each engine
        if not negated:
            return ranges
        return without(_ASCII if only_ascii else [(0, 0x10FFFF)], ranges)


def _is_anchor(part: Any, where: str) -> bool:
    return str(part[0]) == "AT" and str(part[1]) in (f"AT_{where}", f"AT_{where}_STRING")


def numbers_within(bounds: Mapping[str, Decimal], is_whole: bool) -> list[str]:
    """Return alternatives in GBNF for numbers within bounds, by JSON Schema's names for them."""
    written = max(-int(one.normalize().as_tuple().exponent) for one in bounds.values())
    room = MAX_DIGITS - 1 - max(one.adjusted() for one in bounds.values())
    most = 0 if is_whole else max(0, min(max(0, written) + 2, MAX_DECIMALS, room))
    found = []
    for decimals in range(most + 1):
        shift = Decimal(1).scaleb(-decimals - 1)  # less than between two numbers
        shifts = {"exclusiveMinimum": shift, "exclusiveMaximum": -shift}
        moved = {key: value + shifts.get(key, 0) for key, value in bounds.items()}
        low = max((v for key, v in moved.items() if key.endswith("inimum")), default=None)
        high = min((v for key, v in moved.items() if key.endswith("aximum")), default=None)
        found += _numbers_between(low, high, decimals)
    return found


def _numbers_between(low: Decimal | None, high: Decimal | None, decimals: int) -> list[str]:
    """Return alternatives in GBNF for the numbers in [low, high] with that many decimals."""
    most = Decimal(10) ** (MAX_DIGITS - decimals) - 1
    low = -most if low is None else max(low, -most)
    high = most if high is None else min(high, most)
    first = int(low.scaleb(decimals).to_integral_value(ROUND_CEILING))
    last = int(high.scaleb(decimals).to_integral_value(ROUND_FLOOR))
    found = _whole_between(max(first, 0), last, decimals)
    return found + [f'"-" ({one})' for one in _whole_between(max(-last, 1), -first, decimals)]


def _whole_between(low: int, high: int, decimals: int) -> list[str]:
    """Alternatives for low ≤ n ≤ high, 0 ≤ low, written with a point before the last decimals."""
    found = []
    shortest = decimals + 1
    for length in range(max(shortest, len(str(low))), len(str(max(high, 0))) + shortest):
        first = max(low, 0 if length == shortest else 10 ** (length - 1))
        last = min(high, 10**length - 1)
        if first <= last:
            digits = str(first).zfill(length), str(last).zfill(length)
            found.append(_digits_between(*digits, decimals))
    return found


def _digits_between(low: str, high: str, decimals: int) -> str:
    """GBNF for the digits from `low` to `high`, which are equally many."""
    if not low:
        return '""'
    point = '"." ' if decimals and len(low) == decimals else ""
    rest = len(low) - 1
    if low[0] == high[0]:
        return f'{point}"{low[0]}" {_digits_between(low[1:], high[1:], decimals)}'
    a, b = int(low[0]), int(high[0])
    found = []
    if low[1:] != "0" * rest:
        found.append(f'"{a}" {_digits_between(low[1:], "9" * rest, decimals)}')
        a += 1
    if high[1:] != "9" * rest:
        found.append(f'"{b}" {_digits_between("0" * rest, high[1:], decimals)}')
        b -= 1
    if a <= b:
        has_point = decimals and rest >= decimals
        before = rest - decimals if has_point else rest
        some = f" [0-9]{{{before}}}" if before else ""
        some += f' "." [0-9]{{{decimals}}}' if has_point else ""
        found.insert(0, f"[{a}-{b}]{some}")
    return f"{point}({' | '.join(found)})"
