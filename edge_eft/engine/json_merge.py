"""Two JSON schemas as one, and whether two can hold together: sets of keywords, no grammar."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import RequestError

GROUPS: dict[str, tuple[str, ...]] = {
    "object": (
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    ),
    "array": (*("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
GROUPS["integer"] = GROUPS["number"]
_REFUSED = frozenset(
    {
        *("not", "if", "then", "else", "patternProperties", "propertyNames", "dependencies"),
        *("dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"),
        *("contains", "minContains", "maxContains", "$dynamicRef", "$recursiveRef"),
    }
)
_HELD = {key for keys in GROUPS.values() for key in keys} | {
    *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"),
}
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_LARGER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


class Never(Exception):  # noqa: N818
    """Nothing obeys a schema."""


def assertions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that say something of the JSON.

    Raises:
        RequestError: one of them cannot be held to.
    """
    for key in schema:
        if key in _REFUSED and not (key.startswith("unevaluated") and schema[key] in (True, False)):
            raise RequestError(f"the keyword {key} of JSON Schema is not taken; leave it out")
    return {key: schema[key] for key in schema if key in _HELD}


def types_of(schema: Mapping[str, Any]) -> list[str] | None:
    """Return the types that a flat schema names or its keywords are about; None: any."""
    if "type" in schema:
        given = schema["type"]
        types = [given] if isinstance(given, str) else given
        if not isinstance(types, list) or not types or not all(t in TYPES for t in types):
            raise RequestError(f"type is {given!r:.40}; it must be of {', '.join(TYPES)}")
        return list(dict.fromkeys(types))
    found = [
        one
        for one, keys in GROUPS.items()
        if one != "integer" and any(key in schema for key in keys)
    ]
    return found or None


def names_of(value: Any) -> list[str]:
    """Return what `required` says."""
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise RequestError(f"required is {value!r:.40}; it must be a list of names")
    return list(value)


def both(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat schema that holds where both do.

    Raises:
        Never: they cannot hold together.
        RequestError: it cannot be said in one schema.
    """
    for one, other in ((a, b), (b, a)):
        named, others = one.get("properties", {}), other.get("properties", {})
        if one.get("additionalProperties", True) is not True and set(others) - set(named):
            raise RequestError(
                "a schema with additionalProperties is joined (allOf, anyOf or $ref) with "
                f"properties that it does not name, such as {min(set(others) - set(named))!r:.40}"
            )
    joined = dict(a)
    for key, value in b.items():
        joined[key] = value if key not in a or a[key] == value else _joined(key, a[key], value)
    return joined


def _joined(key: str, a: Any, b: Any) -> Any:
    try:
        if key in _LARGER:
            return max(a, b)
        if key in _SMALLER:
            return min(a, b)
        if key == "required":
            return [*a, *b]
        if key == "properties":
            return {
                name: {"allOf": [a[name], b[name]]} if name in a and name in b else (a | b)[name]
                for name in (*a, *(name for name in b if name not in a))
            }
    except TypeError:
        raise RequestError(f"{key} of the schema is {a!r:.40} and {b!r:.40}") from None
    if key == "items":
        return {"allOf": [a, b]}
    if key == "uniqueItems":
        return True
    if key == "enum":
        return _checked([value for value in _list(a) if _key(value) in set(map(_key, _list(b)))])
    if key == "type":
        one, other = (types_of({"type": t}) or [] for t in (a, b))
        found = [t for t in one if t in other or (t == "integer" and "number" in other)]
        found += [t for t in other if t == "integer" and "number" in one and t not in found]
        return _checked(found)
    raise RequestError(f"two different {key} are joined (allOf, anyOf or $ref); say it in one")


def _checked(values: list[Any]) -> list[Any]:
    if not values:
        raise Never
    return values


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(f"enum is {value!r:.40}; it must be a list of values")
    return value


def _key(value: Any) -> str:
    """The same text for values that JSON Schema takes for equal, such as 1 and 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(k)}:{_key(value[k])}" for k in sorted(value)) + "}"
    return f"[{','.join(map(_key, value))}]" if isinstance(value, list) else json.dumps(value)


def disjoint(a: dict[str, Any], b: dict[str, Any], flat: Callable[[Any], dict[str, Any]]) -> bool:
    """Return whether no JSON obeys both of two flat schemas, as far as can be seen.

    Args:
        a, b: the schemas.
        flat: makes the schemas of their properties flat.
    """
    if "enum" in a and "enum" in b:
        return not set(map(_key, _list(a["enum"]))) & set(map(_key, _list(b["enum"])))
    kinds = [_kinds(one) for one in (a, b)]
    if not kinds[0] & kinds[1]:
        return True
    if kinds[0] & kinds[1] != {"object"} or "enum" in a or "enum" in b:
        return False
    for one, other in ((a, b), (b, a)):
        named = other.get("properties", {})
        if other.get("additionalProperties") is False and set(one.get("required", ())) - set(named):
            return True
    for name in set(a.get("required", ())) & set(b.get("required", ())):
        mine, theirs = (one.get("properties", {}).get(name, True) for one in (a, b))
        try:
            if disjoint(flat(mine), flat(theirs), flat):
                return True
        except Never:
            return True
    return False


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """Types that a schema may hold for; `integer` is part of `number`."""
    if "enum" in schema:
        return {kind for v in _list(schema["enum"]) for kind in kinds_of(v) - {"integer"}}
    if "type" not in schema:  # keywords of one type say nothing of the others
        return set(TYPES) - {"integer"}
    return {"number" if t == "integer" else t for t in types_of(schema) or ()}


def kinds_of(value: Any) -> set[str]:
    """Return the types that a value has: 1 and 1.0 are of two."""
    if isinstance(value, bool | str | None):
        return {{bool: "boolean", str: "string"}.get(type(value), "null")}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    return {"object"} if isinstance(value, Mapping) else {"array"}
