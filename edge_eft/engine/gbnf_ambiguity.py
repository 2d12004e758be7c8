"""How many ways llama.cpp follows at a time in a grammar, which it does not merge within a token.

It keeps a stack for each place in the grammar where a text may be. With every character of a token
each of them becomes as many as there are ways on from it, so grammars of a few lines make millions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate

LAST = 0x10FFFF
MAX_STACKS = 1_000  # more than a rule begins with
DEPTH = 8  # characters that are followed
MAX_WORK = 60_000  # stacks looked at, some tenths of a second

Characters = tuple[tuple[int, int], ...]  # first and last code points
Text = tuple[Characters, ...]
Grammar = dict[str, list[list[str | Text]]]


def too_ambiguous(grammar: Grammar) -> str | None:
    """Return the name of a rule from which too many ways go on; None if none was found.

    At each character the one is taken that leaves most. The search ends after MAX_WORK: what it
    has not seen by then must be borne.

    Args:
        grammar: rule → its alternatives, of names of rules and texts. No rule may begin with
            itself.
    """
    stacks = _Stacks(grammar)
    try:
        for name in reversed(grammar):  # what a rule leads to mostly stands below it
            for start in stacks.starts(name):
                if stacks.grows(start):
                    return name
    except _WorkError:
        pass
    return None


class _WorkError(Exception):
    """The search has taken long enough."""


class _Stacks:
    """The stacks of a grammar by number: an element of an alternative, and the stack below.

    Number 0 is the empty stack, where the rule that was begun with is over.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._elements: list[str | Characters | None] = []  # None ends an alternative
        self._alternatives: dict[str, list[int]] = {}  # rule → where they begin in the elements
        for name, alternatives in grammar.items():
            self._alternatives[name] = []
            for one in alternatives:
                self._alternatives[name].append(len(self._elements))
                for symbol in one:
                    self._elements += [symbol] if isinstance(symbol, str) else symbol
                self._elements.append(None)
        self._stacks: list[tuple[int, int]] = [(-1, -1)]
        self._numbers: dict[tuple[int, int], int] = {}
        self._after: dict[int, list[int]] = {}
        self._work = 0

    def starts(self, name: str) -> Iterator[list[int]]:
        """Yield what a rule begins with, and what follows in it from each rule that it names."""
        begins = self._alternatives[name]
        yield self._expanded([self._number(at, 0) for at in begins])
        for at in begins:
            i = at + 1
            while self._elements[at] is not None and (element := self._elements[i]) is not None:
                if isinstance(element, str):
                    yield self._expanded([self._number(i, 0)])
                i += 1

    def grows(self, start: list[int]) -> bool:
        """Whether too many stacks come from these ones."""
        paths = Counter(start)
        most = MAX_STACKS + len(start)
        for _ in range(DEPTH):
            grown = {stack: n * len(self.after(stack)) for stack, n in paths.items() if stack}
            char, total = self._best(grown)
            if total > most:
                return True
            following: Counter[int] = Counter()
            for stack, n in paths.items():
                if stack and any(a <= char <= b for a, b in self._top(stack)):
                    for one in self.after(stack):
                        following[one] += n
            following.pop(0, None)
            if not following:
                return False
            paths = following
        return False

    def after(self, stack: int) -> list[int]:
        """Return the stacks after a character of one."""
        if stack not in self._after:
            at, below = self._stacks[stack]
            self._after[stack] = self._expanded([self._number(at + 1, below)])
        self._count(len(self._after[stack]))
        return self._after[stack]

    def _expanded(self, stacks: list[int]) -> list[int]:
        """Return the stacks at whose top characters are that these ones become."""
        found, seen = [], set[int]()
        while stacks:
            stack = stacks.pop()
            if stack in seen:
                continue
            self._count(1)
            seen.add(stack)
            at, below = self._stacks[stack]
            element = self._elements[at] if stack else None
            if isinstance(element, str):
                rest = self._number(at + 1, below)
                stacks += [self._number(begin, rest) for begin in self._alternatives[element]]
            else:
                found.append(stack)
        return found

    def _number(self, at: int, below: int) -> int:
        if self._elements[at] is None:
            return below
        number = self._numbers.setdefault((at, below), len(self._stacks))
        if number == len(self._stacks):
            self._stacks.append((at, below))
        return number

    def _top(self, stack: int) -> Characters:
        element = self._elements[self._stacks[stack][0]]
        assert isinstance(element, tuple)
        return element

    def _count(self, n: int) -> None:
        self._work += n
        if self._work > MAX_WORK:
            raise _WorkError

    def _best(self, weights: Mapping[int, int]) -> tuple[int, int]:
        """Return the character at which most weight is, and how much."""
        if len(weights) == 1:  # within a text, mostly
            ((stack, weight),) = weights.items()
            return next(((first, weight) for first, _ in self._top(stack)), (0, 0))
        change: Counter[int] = Counter()
        for stack, weight in weights.items():
            self._count(len(self._top(stack)))
            for first, last in self._top(stack):
                change[first] += weight
                change[last + 1] -= weight
        at = sorted(change)
        totals = list(accumulate(change[char] for char in at))
        return max(zip(at, totals, strict=True), key=lambda one: one[1], default=(0, 0))
