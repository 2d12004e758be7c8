"""What a reply is held to: a GBNF grammar, or a JSON schema with texts around its JSON.

Plain data that turns into JSON and back, checked when it is made; llama.cpp comes later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import RequestError
from ..validate import checked_init, did_you_mean, kind
from . import gbnf
from .json_schema import to_gbnf
from .json_terminals import literal

MAX_SCHEMA = 100_000  # characters of its JSON
MAX_SCHEMA_DEPTH = 64  # of its JSON


@checked_init()
@dataclass(frozen=True)
class Constraint:
    """The form of a reply: exactly one of a grammar and a schema.

    Attributes:
        gbnf: a grammar whose rule `root` the reply obeys.
        json_schema: the reply is JSON that this schema accepts; {"type": "object"} is any object.
        before, after: what stands before and after the JSON of a schema, word for word.
        grammar: GBNF for all of it.

    Raises:
        RequestError: a grammar that cannot be read, or leads llama.cpp astray; a schema that is
            too large, or has a keyword that cannot be held to.
    """

    gbnf: str | None = None
    json_schema: Mapping[str, Any] | bool | None = None
    before: str = ""
    after: str = ""
    grammar: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind("gbnf", self.gbnf, str | None, "a grammar")
        if not isinstance(self.json_schema, Mapping | bool | None):  # too deep to show, maybe
            seen = type(self.json_schema).__name__
            raise RequestError(f"json_schema is a {seen}; it must be an object or a bool")
        kind("before", self.before, str, "text")
        kind("after", self.after, str, "text")
        if (self.gbnf is None) == (self.json_schema is None):
            raise RequestError("a constraint needs either gbnf or json_schema")
        if self.gbnf is not None and (self.before or self.after):
            raise RequestError("before and after belong to a json_schema; write them into the gbnf")
        for text in (self.gbnf or "", self.before, self.after):
            _check_text(text)
        if self.gbnf is not None:
            grammar = self.gbnf
        else:
            assert self.json_schema is not None
            schema = _plain(self.json_schema)
            object.__setattr__(self, "json_schema", schema)  # the caller's may change
            grammar = to_gbnf(schema, literal(self.before), literal(self.after))
        gbnf.check(grammar)
        object.__setattr__(self, "grammar", grammar)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Constraint:
        """Return the constraint that `to_dict` described.

        Raises:
            RequestError: as the class, or a field is not known.
        """
        kind("constraint", values, Mapping, "an object with gbnf or json_schema")
        known = [f.name for f in fields(cls) if f.init]
        if unknown := [name for name in values if name not in known]:
            near = did_you_mean(unknown[0], known)
            raise RequestError(f"a constraint has no field {unknown[0]!r:.40}{near}")
        return cls(**values)


def _check_text(text: str) -> None:
    if len(text) > gbnf.MAX_CHARACTERS:
        raise RequestError(
            f"a constraint has a text of {len(text)} characters; at most {gbnf.MAX_CHARACTERS} "
            "are taken"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(
            "a constraint contains half a surrogate pair, which is no text"
        ) from None
    if "\0" in text:
        raise RequestError("a constraint contains a NUL character, which no reply does")


def _plain(schema: Mapping[str, Any] | bool) -> Any:
    """Return a copy of a schema as JSON has it.

    Raises:
        RequestError: it is too large or deep, or not JSON.
    """
    level: list[Any] = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        level = [
            part
            for value in level
            if isinstance(value, Mapping | list | tuple)
            for part in (value.values() if isinstance(value, Mapping) else value)
        ]
        if len(level) > MAX_SCHEMA:
            raise RequestError(f"the schema is larger than {MAX_SCHEMA} characters of JSON")
    if level:
        raise RequestError(f"the schema nests deeper than {MAX_SCHEMA_DEPTH} levels")
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, default=_as_dict)
        text.encode()
    except (TypeError, ValueError) as error:
        raise RequestError(f"the schema is not JSON: {error}") from None
    if len(text) > MAX_SCHEMA:
        raise RequestError(
            f"the schema has {len(text)} characters as JSON; at most {MAX_SCHEMA} are taken"
        )
    return json.loads(text)


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r:.40} is of type {type(value).__name__}")
