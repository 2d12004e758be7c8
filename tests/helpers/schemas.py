"""Small JSON schemas at random, of the keywords that a constraint takes."""

import random


def random_schema(seed, depth=3):
    """A schema; the same for the same seed."""
    return _schema(random.Random(seed), depth)


def _schema(rng, depth):
    kinds = [_string, _number, _enum, _plain]
    kinds += [_object, _object, _array, _union] if depth else []
    return rng.choice(kinds)(rng, depth)


def _string(rng, depth):
    low = rng.randrange(4)
    formats = ["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "duration"]
    patterns = [r"^[a-z]{2,4}-\d+$", r"^(yes|no)$", r'^"\w+"$', r"^\\?[^\s]{1,3}$", r"^.{3}$"]
    return rng.choice(
        [
            {"type": "string", "minLength": low, "maxLength": low + rng.choice([0, 3, 40, 70])},
            {"type": "string", "maxLength": rng.randrange(20)},
            {"type": "string", "format": rng.choice(formats)},
            {"type": "string", "pattern": rng.choice(patterns)},
        ]
    )


def _number(rng, depth):
    low, high = sorted(rng.choice([rng.randint(-1500, 1500), rng.randint(-9, 9)]) for _ in "ab")
    high = max(high, low + 2)
    schema = {"type": rng.choice(["integer", "number"])}
    schema |= rng.choice([{}, {"minimum": low}, {"exclusiveMinimum": low}, {"minimum": low - 0.25}])
    schema |= rng.choice([{}, {"maximum": high}, {"exclusiveMaximum": high + 2}])
    return schema


def _enum(rng, depth):
    values = ["red", 'a "b"', "back\\slash", "é\n", 1, -2.5, None, True, {"a": [1]}, "", "日本"]
    return rng.choice([{"enum": rng.sample(values, 3)}, {"const": rng.choice(values)}])


def _plain(rng, depth):
    kinds = ["boolean", "null", "integer", "number", ["string", "null"], ["integer", "boolean"]]
    return {"type": rng.choice(kinds)}


def _object(rng, depth):
    names = rng.sample(
        ["name", "a", "ab", 'quo"te', "größe", "x y", "id", "back\\"], rng.randint(1, 4)
    )
    schema = {"type": "object", "properties": {n: _schema(rng, depth - 1) for n in names}}
    schema["required"] = [name for name in names if rng.random() < 0.6]
    if rng.random() < 0.3:
        schema["minProperties"] = 1
    more = rng.random()
    if more < 0.3:
        schema["additionalProperties"] = False
    elif more < 0.5:
        schema |= {"additionalProperties": {"type": "boolean"}, "maxProperties": len(names)}
    elif more < 0.6:
        schema["additionalProperties"] = {"type": "integer", "maximum": 9}
    return schema


def _array(rng, depth):
    low = rng.randrange(3)
    items = _schema(rng, depth - 1)
    return rng.choice(
        [
            {"type": "array", "items": items, "minItems": low, "maxItems": low + rng.randrange(3)},
            {"type": "array", "prefixItems": [items, {"type": "integer"}], "minItems": low},
        ]
    )


def _union(rng, depth):
    one, other = _schema(rng, depth - 1), _schema(rng, depth - 1)
    kinds = [
        {"anyOf": [one, other]},
        {"oneOf": [_tagged("a", one), _tagged("b", other)]},
        {"allOf": [_tagged("a", one), {"properties": {"z": other}, "required": ["z"]}]},
    ]
    return rng.choice(kinds)


def _tagged(tag, schema):
    properties = {"kind": {"const": tag}, "value": schema}
    return {"type": "object", "properties": properties, "required": ["kind", "value"]}
