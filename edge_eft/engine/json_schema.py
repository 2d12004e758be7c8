"""JSON Schema → GBNF: every text of the grammar is JSON that the schema accepts.

The converse does not hold: what a schema leaves open is narrowed to what models write. Objects have
their `properties` in the order of the schema and no others unless `additionalProperties` is given,
a tuple has its `prefixItems`. A keyword that cannot be held to is refused by name. (The converter
of llama-cpp-python lets through raw line feeds in strings, mistakes quotes in names and values,
and drops minimum, uniqueItems, not and others without a word.)

Nothing is fetched: `$ref` points into the schema itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from ..errors import RequestError
from ..validate import number, whole
from .json_merge import GROUPS, Never, assertions, both, disjoint, kinds_of, names_of, types_of
from .json_rules import Rules
from .json_terminals import (
    FORMATS,
    REFUSED_FORMATS,
    Pattern,
    json_literal,
    numbers_within,
    plain_characters,
)

MAX_DEPTH = 40  # of schemas in schemas, references followed
MAX_VISITS = 5_000  # of schemas


def to_gbnf(schema: Mapping[str, Any] | bool, before: str, after: str) -> str:
    """Return the rules of a grammar.

    Args:
        schema: of at most some thousand characters and levels; the caller has looked.
        before, after: GBNF of what stands around the JSON.

    Raises:
        RequestError: a keyword that is not taken, a wrong value, a reference that leads nowhere,
            or no JSON can obey the schema.
    """
    converter = _Converter(schema)
    try:
        json_rule = converter.rule(schema)
    except Never:
        raise RequestError("the schema allows no JSON at all") from None
    rules = {"root": f"{before} {json_rule} {after}"} | converter.rules
    return "\n".join(f"{name} ::= {text}" for name, text in rules.items())


class _Converter(Rules):
    def __init__(self, schema: Mapping[str, Any] | bool) -> None:
        super().__init__()
        self._schema = schema
        self._references: dict[str, str] = {}
        self._depth = self._visits = 0

    # -- any schema --------------------------------------------------------------------------

    def rule(self, schema: Any) -> str:
        """Return the name of the rule for a schema. Raises Never if nothing obeys it."""
        self._visits += 1
        if self._depth > MAX_DEPTH or self._visits > MAX_VISITS:
            raise RequestError(
                f"the schema leads deeper than {MAX_DEPTH} levels, or to more than {MAX_VISITS} "
                "schemas with its references followed"
            )
        self._depth += 1
        try:
            if isinstance(schema, Mapping) and set(assertions(schema)) == {"$ref"}:
                return self._reference(schema["$ref"])
            return self.add(self._any(self.flat(schema)))
        finally:
            self._depth -= 1

    def flat(self, schema: Any, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return a schema's assertions, its `$ref` and `allOf` written into it."""
        self._visits += 1
        if self._visits > MAX_VISITS:
            raise RequestError(f"the schema joins more than {MAX_VISITS} schemas")
        if schema is False:
            raise Never
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            raise RequestError(f"{schema!r:.40} in the schema is not a schema: an object or a bool")
        rest = assertions(schema)
        parts = rest.pop("allOf", [])
        if not isinstance(parts, Sequence) or isinstance(parts, str):
            raise RequestError(f"allOf is {parts!r:.40}; it must be a list of schemas")
        result = rest
        if "$ref" in rest:
            target = rest.pop("$ref")
            if target in seen:
                raise RequestError(f"$ref {target!r:.60} leads back to itself")
            result = both(self.flat(self._target(target), (*seen, target)), rest)
        if "const" in result:
            value = result.pop("const")
            result = both(result, {"enum": [value]})
        for part in parts:
            result = both(result, self.flat(part, seen))
        return result

    def _target(self, reference: Any) -> Any:
        """Return what a reference points to; only this schema is looked into."""
        if not isinstance(reference, str) or not (reference + "/").startswith("#/"):
            raise RequestError(
                f"$ref is {reference!r:.60}; it must be a place in this schema, such as "
                "#/$defs/name (nothing is fetched)"
            )
        found: Any = self._schema
        for part in reference[1:].split("/")[1:]:
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part[:9]) < len(found):
                found = found[int(part[:9])]
            else:
                raise RequestError(f"$ref {reference!r:.60} leads nowhere in the schema")
        return found

    def _reference(self, reference: Any) -> str:
        target = self._target(reference)
        if reference not in self._references:
            name = self._references[reference] = f"ref-{len(self._references)}"
            try:
                self.rules[name] = self.rule(target)
            except Never:
                raise RequestError(f"$ref {reference!r:.60} leads to what allows no JSON") from None
        return self._references[reference]

    def _any(self, schema: dict[str, Any]) -> str:
        """Return GBNF for a flat schema."""
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._cases(schema, key)
        if "enum" in schema:
            return " | ".join(map(json_literal, self._enum(schema)))
        types = types_of(schema)
        if types is None:
            return self.primitive("value")
        makers = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._number,
        }
        found = []
        for one in types:
            held = {key: schema[key] for key in GROUPS.get(one, ()) if key in schema}
            try:
                if one in makers:
                    found.append(makers[one](held | {"type": one}))
                else:
                    found.append(self.primitive(one))
            except Never:
                continue
        return self.alternatives(found)

    def _cases(self, schema: dict[str, Any], key: str) -> str:
        rest = {name: value for name, value in schema.items() if name != key}
        cases = schema[key]
        if not isinstance(cases, Sequence) or isinstance(cases, str) or not cases:
            raise RequestError(f"{key} is {cases!r:.40}; it must be a list of schemas")
        if not rest and key == "anyOf":
            return self.alternatives(self._possible(cases))
        joined = []
        for case in cases:
            try:
                joined.append(both(self.flat(case), rest))
            except Never:
                continue
        if key == "oneOf":
            for i, one in enumerate(joined):
                for other in joined[:i]:
                    if not disjoint(one, other, self.flat):
                        raise RequestError(
                            "oneOf has cases that may hold together; use anyOf, or let them differ "
                            "in type or in the const of a required property"
                        )
        return self.alternatives(self._possible(joined))

    def _possible(self, schemas: Sequence[Any]) -> list[str]:
        found = []
        for schema in schemas:
            try:
                found.append(self.rule(schema))
            except Never:
                continue
        return found

    def _enum(self, schema: dict[str, Any]) -> list[Any]:
        types = types_of({"type": schema["type"]} if "type" in schema else {})
        beside = set(schema) - {"enum", "type"}
        if beside:
            raise RequestError(f"enum or const beside {min(beside)} in the schema is not taken")
        values = schema["enum"]
        if not isinstance(values, list):
            raise RequestError(f"enum is {values!r:.40}; it must be a list of values")
        allowed = [v for v in values if types is None or kinds_of(v) & set(types)]
        if not allowed:
            raise Never
        return allowed

    # -- objects and arrays --------------------------------------------------------------------

    def _object(self, schema: dict[str, Any]) -> str:
        required = list(dict.fromkeys(names_of(schema.get("required", []))))
        extra = schema.get("additionalProperties")
        given = schema.get("properties", {})
        if not isinstance(given, Mapping):
            raise RequestError(f"properties is {given!r:.40}; it must map names to schemas")
        other = True if extra is None else extra
        members: dict[str, str] = {}
        for name in dict.fromkeys([*given, *required]):
            try:
                members[name] = self.rule(given.get(name, other))
            except Never:
                if name in required:
                    raise
        is_open = extra is not False and (extra is not None or not members)
        low = _count("minProperties", schema, 0)
        high = _count("maxProperties", schema, None)
        assert low is not None
        optional = [name for name in members if name not in required]
        required += optional[: max(0, low - len(required))]
        if len(required) < low and (members or not is_open or low > 1):
            raise RequestError(
                f"minProperties {low} is not taken with {len(members)} named properties"
            )
        if high is not None:
            if high < len(required):
                raise Never
            optional = [name for name in members if name not in required]
            members = {
                n: r for n, r in members.items() if n not in optional[high - len(required) :]
            }
            is_open = is_open and not members
        extras = None
        if is_open:
            try:
                extras = self._extra(members, other)
            except Never:
                extras = None
        return self._members(members, set(required), extras, (low, high))

    def _members(
        self,
        members: dict[str, str],
        required: set[str],
        extra: str | None,
        bounds: tuple[int, int | None],
    ) -> str:
        ws = self.primitive("ws")
        low, high = bounds
        if not members:
            inside = self._list(extra, low, high) if extra and high != 0 else ""
            can_be_empty = not low
        else:
            later = f'("," {ws} {extra})*' if extra else '""'
            first = f'{extra} ("," {ws} {extra})*' if extra else ""
            for name in reversed(members):
                one = self.add(f'{json_literal(name)} ":" {ws} {members[name]}')
                after = self.add(later)
                alone = f"{one} {after}"
                if name in required:
                    first, later = alone, f'"," {ws} {one} {after}'
                else:
                    first = f"{alone} | {self.add(first)}" if first else alone
                    later = f'("," {ws} {one})? {after}'
            inside, can_be_empty = self.add(first), not required
        if not inside:
            return f'"{{" {ws} "}}"'
        return f'"{{" {ws} ({inside} {ws}){"?" if can_be_empty else ""} "}}"'

    def _extra(self, members: Mapping[str, str], schema: Any) -> str:
        """Return the rule for a property that has none of these names."""
        value = self.rule(schema)
        key = f'"\\"" {self._other_name(list(members))} "\\""' if members else "string"
        if not members:
            self.primitive("string")
        return self.add(f'{key} ":" {self.primitive("ws")} {value}')

    def _other_name(self, names: list[str]) -> str:
        """GBNF for names that differ from all of these; none is escaped, so texts tell them."""
        heads: dict[str, list[str]] = {}
        for name in names:
            if name:
                heads.setdefault(name[0], []).append(name[1:])
        more = f"{plain_characters(map(ord, heads))} {self.add(plain_characters())}*"
        found = [more] if "" in names else [more, '""']
        for head, tails in heads.items():
            if head not in '"\\' and head >= " ":
                found.append(f"[\\U{ord(head):08X}] {self._other_name(tails)}")
        return self.add(" | ".join(found))

    def _array(self, schema: dict[str, Any]) -> str:
        ws = self.primitive("ws")
        low, high = _count("minItems", schema, 0), _count("maxItems", schema, None)
        assert low is not None
        if schema.get("uniqueItems") is True and (high is None or high > 1):
            raise RequestError("uniqueItems is not taken unless maxItems is 1")
        prefix, items = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(items, list):  # until draft 2019-09
            prefix, items = items, schema.get("additionalItems", True)
        if not isinstance(prefix, list):
            raise RequestError(f"prefixItems is {prefix!r:.40}; it must be a list of schemas")
        if high is not None and high < low:
            raise Never
        firsts = [self.rule(one) for one in prefix[:high]]
        most = None if high is None else high - len(firsts)
        if firsts and "items" not in schema:
            most = max(0, low - len(firsts))
        try:
            item = self.rule(items) if most != 0 else None
        except Never:
            item = None
        least = max(0, low - len(firsts))
        if item is None and least:
            raise Never
        if not firsts:
            inside = self._list(item, low, high) if item else ""
            optional = not low
        else:
            rest = self.repeat(self.add(f'"," {ws} {item}'), least, most) if item else ""
            inside, optional = f' "," {ws} '.join(firsts) + f" {rest}", False
        if not inside:
            return f'"[" {ws} "]"'
        return f'"[" {ws} ({inside} {ws}){"?" if optional else ""} "]"'

    def _list(self, item: str, low: int, high: int | None) -> str:
        """GBNF for at least one item, and between `low` and `high` of them."""
        after = self.add(f'"," {self.primitive("ws")} {item}')
        more = self.repeat(after, max(0, low - 1), None if high is None else high - 1)
        return self.add(f"{item} {more}")

    # -- strings and numbers -------------------------------------------------------------------

    def _string(self, schema: dict[str, Any]) -> str:
        low, high = _count("minLength", schema, 0), _count("maxLength", schema, None)
        assert low is not None
        kinds = [key for key in ("pattern", "format") if key in schema]
        name = schema.get("format")
        if name is not None and not isinstance(name, str):
            raise RequestError(f"format is {name!r:.40}; it must be text")
        if name in REFUSED_FORMATS:
            raise RequestError(f"format {name!r} is not taken; known are {', '.join(FORMATS)}")
        if "format" in kinds and name not in FORMATS:
            kinds.remove("format")
        if len(kinds) > 1 or (kinds and (low or high is not None)):
            raise RequestError(
                f"{kinds[0]} beside {'format' if len(kinds) > 1 else 'minLength or maxLength'} is "
                "not taken; say all of it in one pattern"
            )
        if high is not None and high < low:
            raise Never
        char = self.primitive("char")
        if kinds == ["pattern"]:
            text = Pattern(self.repeat_text, char).translate(schema["pattern"])
            return f'"\\"" {text} "\\""'
        if kinds == ["format"]:
            return f'"\\"" {FORMATS[str(name)]} "\\""'
        if not low and high is None:
            return self.primitive("string")
        return f'"\\"" {self.repeat(char, low, high)} "\\""'

    def _number(self, schema: dict[str, Any]) -> str:
        is_whole = schema["type"] == "integer"
        step = schema.get("multipleOf")
        if step is not None:
            number("multipleOf", step, 0.0, open_low=True)
            if step != 1 and not (is_whole and 1 / step == int(1 / step)):
                raise RequestError(f"multipleOf {step!r:.20} is not taken, but 1")
            is_whole = True
        bounds: dict[str, Decimal] = {}
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if key in schema:
                number(key, schema[key], -1e308, 1e308)
                bounds[key] = Decimal(str(schema[key]))
        if not bounds:
            return self.primitive("integer" if is_whole else "number")
        return self.alternatives(numbers_within(bounds, is_whole))


def _count(key: str, schema: Mapping[str, Any], default: int | None) -> int | None:
    value = schema.get(key, default)
    return default if value is None else whole(key, value, 0, 100_000)
