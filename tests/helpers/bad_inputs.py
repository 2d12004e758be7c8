"""Run in a child process by test_bad_input.py: everything that must be refused, not crash.

Prints one JSON line before and one after each case, so that the parent knows what died.
"""

import contextlib
import dataclasses
import json
import math
import string
import sys
from pathlib import Path

import numpy as np

from edge_eft import EdgeEftError, Emulator, Request, Weights
from edge_eft.backend import Context, Grammar, GrammarTokens, Model
from edge_eft.engine.constraint import Constraint
from edge_eft.files import recipe
from edge_eft.files.recipe_names import load_recipe
from helpers import families, tiny_models

GENERATIONS = {
    "alpha -1": lambda: {"weights": Weights.upscale(-1.0)},
    "alpha nan": lambda: {"weights": Weights.upscale(math.nan)},
    "alpha inf": lambda: {"weights": Weights.upscale(math.inf)},
    "alpha 'x'": lambda: {"weights": Weights.upscale("x")},
    "beta -0.5": lambda: {"weights": Weights.amplify(-0.5)},
    "mix nobody": lambda: {"weights": Weights.interpolate({"nobody": 1.0})},
    "mix -1": lambda: {"weights": Weights.interpolate({"tuned": -1})},
    "only 'nobody'": lambda: {"weights": Weights.only("nobody")},
    "weights 0.5": lambda: {"weights": 0.5},
    "top_p 0": lambda: {"top_p": 0},
    "top_p 1.5": lambda: {"top_p": 1.5},
    "top_p nan": lambda: {"top_p": math.nan},
    "top_p 'x'": lambda: {"top_p": "x"},
    "top_k -1": lambda: {"top_k": -1},
    "min_p 2": lambda: {"min_p": 2},
    "temperature -1": lambda: {"temperature": -1},
    "temperature inf": lambda: {"temperature": math.inf},
    "max_tokens 0": lambda: {"max_tokens": 0},
    "max_tokens 2.5": lambda: {"max_tokens": 2.5},
    "seed -1": lambda: {"seed": -1},
    "seed 18446744073709551616": lambda: {"seed": 2**64},
    "stop ''": lambda: {"stop": [""]},
    "stop 5": lambda: {"stop": 5},
    "conservative 0": lambda: {"conservative": 0},
    "conservative 2": lambda: {"conservative": 2},
    "conservative alpha 0.5": lambda: {"conservative": 0.9, "weights": Weights.upscale(0.5)},
    "explain -1": lambda: {"explain": -1},
    "prefix_ids 'x'": lambda: {"prefix_ids": "x"},
    "prefix_ids -5": lambda: {"prefix_ids": [-5]},
    "prefix_ids 99999": lambda: {"prefix_ids": [99999]},
    "prefix_ids 2": lambda: {"prefix_ids": [300, 2]},
    "prefix_ids stop ':'": lambda: {"prefix_ids": [300] * 3, "stop": ":"},
    "prefix_ids 5000": lambda: {"prefix_ids": [300] * 5000},
    "logit_bias nan": lambda: {"logit_bias": {300: math.nan}},
    "logit_bias -5": lambda: {"logit_bias": {-5: 1.0}},
    "logit_bias 99999": lambda: {"logit_bias": {99999: 1.0}},
    "logit_bias ['a']": lambda: {"logit_bias": ["a"]},
}


def _nested(n):
    schema = {}
    for _ in range(n):
        schema = {"items": schema}
    return schema


def _chain(kind, n):
    """References from one definition to the next, each twice."""
    places = {f"a{i}": {kind: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": places | {f"a{n}": {"type": "null"}}}


SCHEMAS = {
    "schema false": lambda: False,
    "schema not": lambda: {"not": {}},
    "schema if": lambda: {"if": {}, "then": {}},
    "schema patternProperties": lambda: {"patternProperties": {"a": {}}},
    "schema propertyNames": lambda: {"propertyNames": {"maxLength": 3}},
    "schema contains": lambda: {"type": "array", "contains": {}},
    "schema dependentRequired": lambda: {"dependentRequired": {"a": ["b"]}},
    "schema remote $ref": lambda: {"$ref": "https://example.com/schema.json"},
    "schema file $ref": lambda: {"$ref": "file:///etc/passwd"},
    "schema $ref nowhere": lambda: {"$ref": "#/$defs/a"},
    "schema $ref itself": lambda: {"$ref": "#"},
    "schema $ref 5": lambda: {"$ref": 5},
    "schema $ref circle": lambda: {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "schema allOf circle": lambda: {"allOf": [{"$ref": "#"}]},
    "schema endless": lambda: {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "schema chain": lambda: _chain("anyOf", 1000),
    "schema doubling allOf": lambda: _chain("allOf", 30),
    "schema deep": lambda: _nested(10_000),
    "schema large": lambda: {"enum": ["x" * 1000] * 1000},
    "schema wide": lambda: {"properties": {f"a{i}": {} for i in range(50_000)}},
    "schema enum []": lambda: {"enum": []},
    "schema enum 5": lambda: {"enum": 5},
    "schema enum of another type": lambda: {"type": "string", "enum": [1, None]},
    "schema nan": lambda: {"const": math.nan},
    "schema bytes": lambda: {"const": b"x"},
    "schema surrogate": lambda: {"const": "\ud800"},
    "schema type 'strin'": lambda: {"type": "strin"},
    "schema type []": lambda: {"type": []},
    "schema type {}": lambda: {"type": {}},
    "schema properties 5": lambda: {"properties": 5},
    "schema required 5": lambda: {"required": 5},
    "schema items 5": lambda: {"items": 5},
    "schema allOf 5": lambda: {"allOf": 5},
    "schema anyOf []": lambda: {"anyOf": []},
    "schema oneOf overlaps": lambda: {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "schema minItems 10^9": lambda: {"type": "array", "minItems": 10**9},
    "schema minLength 1.5": lambda: {"minLength": 1.5},
    "schema uniqueItems": lambda: {"type": "array", "uniqueItems": True},
    "schema minProperties 3": lambda: {"type": "object", "minProperties": 3},
    "schema minimum 'x'": lambda: {"minimum": "x"},
    "schema minimum over maximum": lambda: {"minimum": 5, "maximum": 3},
    "schema multipleOf 0.1": lambda: {"type": "number", "multipleOf": 0.1},
    "schema multipleOf 0": lambda: {"type": "number", "multipleOf": 0},
    "schema format 5": lambda: {"format": 5},
    "schema format regex": lambda: {"type": "string", "format": "regex"},
    "schema pattern 5": lambda: {"pattern": 5},
    "schema pattern (": lambda: {"pattern": "("},
    "schema pattern ((((": lambda: {"pattern": "(" * 499 + ")" * 499},
    "schema pattern (a*)*": lambda: {"pattern": "(a*)*"},
    "schema pattern lookahead": lambda: {"pattern": "(?=a)b"},
    "schema pattern back": lambda: {"pattern": "(a)\\1"},
    "schema pattern long": lambda: {"pattern": "a" * 1001},
    "schema pattern and length": lambda: {"pattern": "a", "maxLength": 5},
}

GRAMMARS = {
    "gbnf ''": lambda: "",
    "gbnf (": lambda: "root ::= (",
    "gbnf ((((": lambda: "root ::= " + "(" * 50_000,
    "gbnf [": lambda: "root ::= [a-z",
    "gbnf escape": lambda: 'root ::= "\\q"',
    "gbnf no root": lambda: 'x ::= "a"',
    "gbnf undefined": lambda: "root ::= a",
    "gbnf nul": lambda: 'root ::= "\0"',
    "gbnf surrogate": lambda: 'root ::= "\ud800"',
    "gbnf a{5,2}": lambda: 'root ::= "a"{5,2}',
    "gbnf a{0,99999}": lambda: 'root ::= "a"{0,99999}',
    "gbnf many repetitions": lambda: "root ::= " + "[a-z]{0,2000} " * 100,
    "gbnf left recursion": lambda: 'root ::= root "a" | "b"',
    "gbnf hidden left recursion": lambda: 'root ::= b root "x" | "y"\nb ::= c\nc ::= ""',
    "gbnf empty repeated": lambda: 'root ::= ("a"?)*',
    "gbnf endless": lambda: 'root ::= "a" root',
    "gbnf token": lambda: "root ::= <[5]>",
    "gbnf not token": lambda: "root ::= !<[5]>",
    "gbnf large": lambda: 'root ::= "' + "a" * 400_000 + '"',
    "gbnf doubling": lambda: "\n".join(
        ["root ::= a0", 'a40 ::= "z"']
        + [f'a{i} ::= a{i + 1} "x" | a{i + 1} "y"' for i in range(40)]
    ),
    "gbnf many ways on": lambda: "\n".join(
        ["root ::= r0", 'r5 ::= "!"']
        + [
            f"r{i} ::= " + " | ".join(f'[a-z] r{i + 1} "{c}"' for c in string.ascii_uppercase)
            for i in range(5)
        ]
    ),
    # Those that llama.cpp keeps are few, and it does not know them again within a token.
    "gbnf many ways to one place": lambda: (
        'root ::= "<" r0 | "x"\n'
        + "\n".join(
            ['r8 ::= "!"'] + [f"r{i} ::= " + " | ".join([f"[a-z] r{i + 1}"] * 4) for i in range(8)]
        )
    ),
}

PROMPTS = {
    "prompt None": None,
    "prompt 5": 5,
    "prompt b'abc'": b"abc",
    "prompt []": [],
    "prompt ['abc']": ["abc"],
    "prompt [5.5]": [5.5],
    "prompt {}": {},
    "prompt no content": [{"role": "user"}],
    "prompt no role": [{"content": "the"}],
    "prompt content 5": [{"role": "user", "content": 5}],
    "prompt role 'king'": [{"role": "king", "content": "the"}],
    "prompt no user": [{"role": "assistant", "content": "the"}],
    "prompt surrogate": "the \ud800 one",
    "prompt content surrogate": [{"role": "user", "content": "\udfff"}],
    "prompt 2000": "the red one " * 2000,
    "prompt content 2000": [{"role": "user", "content": "the red one " * 2000}],
}

SETTINGS = {
    "n_ctx 0": {"n_ctx": 0},
    "n_ctx -5": {"n_ctx": -5},
    "n_ctx 'x'": {"n_ctx": "x"},
    "n_ctx 64.5": {"n_ctx": 64.5},
    "n_ctx 4000000000": {"n_ctx": 4_000_000_000},
    "n_ctx 100000000": {"n_ctx": 100_000_000},
    "n_slots 0": {"n_slots": 0},
    "n_slots 257": {"n_slots": 257, "n_ctx": 16},
    "n_slots 100000": {"n_slots": 100_000, "n_ctx": 16},
    "n_threads 0": {"n_threads": 0},
    "n_threads 513": {"n_threads": 513},
    "n_threads 1000000": {"n_threads": 1_000_000},
    "n_gpu_layers 'x'": {"n_gpu_layers": "x"},
}

# What a program can get wrong: the call, and what the message says of it.
CALLS = {
    "generate foo": (lambda e: e.generate("a", foo=1), "no option 'foo'"),
    "generate temprature": (lambda e: e.generate("a", temprature=1), "did you mean temperature?"),
    "generate nothing": (lambda e: e.generate(), "'prompt'"),
    "generate request": (lambda e: e.generate(Request("a"), seed=1), "seed"),
    "stream sede": (lambda e: next(e.stream("a", sede=1)), "did you mean seed?"),
    "score x": (lambda e: e.score("a", ["x"]), "'x'"),
    "score 5": (lambda e: e.score("a", 5), "completion is 5"),
    "score 1.5": (lambda e: e.score("a", [1.5]), "1.5"),
    "score weights": (lambda e: e.score("a", "b", weights=0), "weights is 0"),
    "score waits": (lambda e: e.score("a", "b", waits=0), "did you mean weights?"),
    "score request": (lambda e: e.score(Request("a"), "b", weights=Weights()), "weights"),
    "submit x": (lambda e: e.submit("x"), "request is 'x'"),
    "submit None": (lambda e: e.submit(None), "request is None"),
    "submit two": (lambda e: e.submit(Request("a"), Request("b")), "too many"),
    "cancel []": (lambda e: e.cancel([]), "request_id is []"),
    "cancel x": (lambda e: e.cancel("x"), "request_id is 'x'"),
    "set_weights x": (lambda e: e.set_weights("x", Weights()), "request_id is 'x'"),
    "set_weights []": (lambda e: e.set_weights([], Weights()), "request_id is []"),
    "set_weights 0.5": (lambda e: e.set_weights(e.submit(Request("a")), 0.5), "weights is 0.5"),
    "collect 5": (lambda e: next(e.collect(5)), "request_ids is 5"),
    "collect []": (lambda e: next(e.collect([[]])), "request_id is []"),
    "request temprature": (lambda _: Request("a", temprature=1), "did you mean temperature?"),
    "request nothing": (lambda _: Request(), "'prompt'"),
    "request two": (lambda _: Request("a", 0.5), "too many"),
    "request from 5": (lambda _: Request.from_dict(5), "a request is 5"),
    "request from key 5": (lambda _: Request.from_dict({"prompt": "a", 5: 1}), "no field 5"),
    "request from promt": (lambda _: Request.from_dict({"promt": "a"}), "did you mean prompt?"),
    "request weights 5": (lambda _: Request.from_dict({"prompt": "a", "weights": 5}), "is 5"),
    "request replaced": (lambda _: dataclasses.replace(Request("a"), sede=1), "mean seed?"),
    "weights alhpa": (lambda _: Weights(alhpa=1), "did you mean alpha?"),
    "weights upscale": (lambda _: Weights.upscale(alhpa=1), "did you mean alpha?"),
    "weights only None": (lambda _: Weights.only(None), "only is None"),
    "weights amplify None": (lambda _: Weights.amplify(None), "beta is None"),
    "weights interpolate None": (lambda _: Weights.interpolate(None), "mix is None"),
    "weights from 5": (lambda _: Weights.from_dict(5), "weights is 5"),
    "weights from keys": (lambda _: Weights.from_dict({5: 1, "a": 2}), "unknown key 5"),
    "weights from btea": (lambda _: Weights.from_dict({"btea": 1}), "did you mean beta?"),
    "emulator 5": (lambda _: Emulator(5), "recipe is 5"),
    "emulator name": (lambda _: Emulator("atlas"), "Emulator.load"),
    "emulator n_ctxx": (lambda e: Emulator(e.recipe, n_ctxx=5), "did you mean n_ctx?"),
    "emulator nothing": (lambda _: Emulator(), "'recipe'"),
    "load 5": (lambda _: Emulator.load(5), "path is 5"),
    "load n_slot": (lambda e: Emulator.load(e.recipe, n_slot=2), "did you mean n_slots?"),
    "load_recipe None": (lambda _: load_recipe(None), "path is None"),
    "load_recipe bytes": (lambda _: load_recipe(b"atlas"), "path is b'atlas'"),
    "load_recipe nothing": (lambda _: load_recipe(), "load_recipe"),
    "from_files 5": (lambda _: Emulator.from_files(base=5, tuned="a", reference="b"), "path is 5"),
    "from_files bse": (lambda _: Emulator.from_files(bse="a"), "did you mean base?"),
    "from_files two": (lambda _: Emulator.from_files(base="a", tuned="b"), "'reference'"),
    "from_files prompt": (lambda _: recipe.from_files("a", "b", "c", prompt=5), "prompt is 5"),
    "spec file": (lambda _: recipe.ModelSpec(5), "file is 5"),
    "spec file NUL": (lambda _: recipe.ModelSpec("a\0b"), "file is 'a\\x00b'"),
    "spec file half": (lambda _: recipe.ModelSpec("\ud800"), "cannot be the name of a file"),
    "spec hash": (lambda _: recipe.ModelSpec("a", sha256=(1,)), "a hash in sha256 is 1"),
    "spec ends": (lambda _: recipe.ModelSpec("a", end_tokens="</s>"), "end_tokens is '</s>'"),
    "spec end": (lambda _: recipe.ModelSpec("a", end_tokens=[1.5]), "1.5"),
    "spec kwargs": (lambda _: recipe.ModelSpec("a", template_kwargs=[1]), "template_kwargs is [1]"),
    "spec variable": (lambda _: recipe.ModelSpec("a", template_kwargs={"a": {1}}), "JSON's kinds"),
    "spec promt": (lambda _: recipe.ModelSpec("a", promt="plain"), "did you mean prompt?"),
    "delta weight": (lambda e: recipe.Delta("a", -1, e.recipe.base, e.recipe.base), "is -1"),
    "delta tuned": (lambda e: recipe.Delta("a", 1, "a.gguf", e.recipe.base), "tuned of 'a'"),
    "recipe n_ctx": (lambda e: dataclasses.replace(e.recipe, n_ctx=10**9), "n_ctx is 1000000000"),
    "recipe base": (lambda e: dataclasses.replace(e.recipe, base="a.gguf"), "base is 'a.gguf'"),
    "recipe deltas": (lambda e: dataclasses.replace(e.recipe, deltas=[1]), "deltas is [1]"),
    "recipe no delta": (lambda e: dataclasses.replace(e.recipe, deltas={}), "deltas is empty"),
    "recipe delta": (lambda e: dataclasses.replace(e.recipe, deltas={"a": 1}), "deltas['a'] is 1"),
    "recipe nothing": (lambda _: recipe.Recipe(), "'name'"),
    "with_base 5": (lambda e: e.recipe.with_base(5), "path is 5"),
}


def files(folder: Path, good: Path):
    """Damaged files: name → path."""
    data = good.read_bytes()
    paths = {"missing": folder / "missing.gguf", "directory": folder / "directory.gguf"}
    paths["directory"].mkdir()
    counts = bytearray(data)
    counts[8:16] = (2**60).to_bytes(8, "little")
    keys = bytearray(data)
    keys[16:24] = (2**63).to_bytes(8, "little")
    for name, content in {
        "empty": b"",
        "text": b"Once upon a time there was no model.\n" * 50,
        "magic only": b"GGUF",
        "truncated header": data[:300],
        "truncated vocabulary": data[:3000],
        "truncated weights": data[: len(data) // 2],
        "one byte short": data[:-1],
        "impossible tensor count": bytes(counts),
        "impossible key count": bytes(keys),
        "version 99": data[:4] + (99).to_bytes(4, "little") + data[8:],
    }.items():
        paths[name] = folder / f"{name.replace(' ', '-')}.gguf"
        paths[name].write_bytes(content)
    paths["no tokenizer"] = tiny_models.without_tokenizer(folder / "no-tokenizer.gguf")
    paths["adapter"] = tiny_models.write_adapter(folder / "adapter.gguf")
    return paths


def cases(folder: Path, good: Path):
    trio = dict.fromkeys(("base", "reference"), good) | {"tuned": families.twin(good, folder)}
    emulator = Emulator.from_files(**trio, n_ctx=64, n_threads=1)
    for name, options in GENERATIONS.items():
        yield (
            name,
            lambda options=options: emulator.generate("the", **{"max_tokens": 2} | options()),
        )
    for name, prompt in PROMPTS.items():
        yield name, lambda prompt=prompt: emulator.generate(prompt, max_tokens=2)
        yield f"score {name}", lambda prompt=prompt: emulator.score(prompt, "the")
        yield f"submit {name}", lambda prompt=prompt: emulator.submit(Request(prompt))
    for field, constraints in (("json_schema", SCHEMAS), ("gbnf", GRAMMARS)):
        for name, make in constraints.items():
            yield (
                name,
                lambda field=field, make=make: emulator.generate(
                    "the", constraint=Constraint(**{field: make()})
                ),
            )
    end = emulator.vocabulary.end_token
    for text in ("root ::= (", "x ::= y", 'root ::= root "a"', "root ::= <[5]"):
        yield (
            f"grammar {text}",
            lambda text=text: Grammar(GrammarTokens(Model(good), str, 9), text, end),
        )
    for name, (call, _) in CALLS.items():
        yield f"call {name}", lambda call=call: call(emulator)
    yield "request field", lambda: Request.from_dict({"prompt": "the", "volume": 11})
    yield "weights field", lambda: Weights.from_dict({"gamma": 1})
    yield "score completion surrogate", lambda: emulator.score("the", "\ud800")
    for name, settings in SETTINGS.items():
        yield (
            name,
            lambda settings=settings: Emulator.from_files(
                **trio, **{"n_ctx": 64, "n_threads": 1} | settings
            ).generate("the", max_tokens=1),
        )
    for name, path in files(folder, good).items():
        for role in trio:
            yield (
                f"{role} {name}",
                lambda role=role, path=path: Emulator.from_files(
                    **trio | {role: path}, n_threads=1
                ),
            )
        yield f"model {name}", lambda path=path: Model(path)
    yield "prompt format", lambda: Emulator.from_files(**trio, prompt="chatlm")
    bare = tiny_models.write_random(folder / "templateless.gguf", seed=1, chat_template=None)
    yield "no template", lambda: Emulator.from_files(**trio | {"tuned": bare})
    renamed = {300: ("something", 1)}
    other = tiny_models.write_random(folder / "other.gguf", seed=1, rename=renamed)
    yield "vocabularies", lambda: Emulator.from_files(**trio | {"tuned": other})
    model = Model(good)
    context = Context(model, n_ctx=32, n_threads=1)
    token = np.array([300], np.int32)
    yield "sequence 5", lambda: context.advance({5: (token, 1)})
    yield "rows 5", lambda: context.advance({0: (token.repeat(9), 5)})
    yield "token 352", lambda: context.advance({0: (token + 52, 1)})
    yield "piece 352", lambda: model.piece(352)
    yield "piece -1", lambda: model.piece(-1)
    # A decode may have one output per slot, and llama.cpp asserts that they were planned for.
    yield "context of 3 slots", lambda: Context(model, n_ctx=32, n_slots=3, n_threads=1)
    closed = Context(model, n_ctx=32, n_threads=1)
    closed.close()
    yield "closed context", lambda: closed.advance({0: (token, 1)})
    emulator.close()
    emulator.close()
    yield "closed emulator", lambda: emulator.generate("the", max_tokens=2)
    yield "closed emulator chat", lambda: emulator.generate([{"role": "user", "content": "a"}])
    yield "closed emulator score", lambda: emulator.score("the", "the")
    yield "closed emulator submit", lambda: emulator.submit(Request("the"))
    any_json = Request("the", constraint=Constraint(json_schema=True))
    yield "closed emulator constraint", lambda: emulator.submit(any_json)


def main() -> None:
    folder, good = Path(sys.argv[1]), Path(sys.argv[2])
    skipped = set(sys.argv[3:])
    for name, action in cases(folder, good):
        if name in skipped:
            continue
        print(json.dumps({"case": name}), flush=True)
        result = {"case": name, "error": None, "message": ""}
        try:
            action()
        except EdgeEftError as error:
            result |= {"error": "EdgeEftError", "message": str(error)}
        except Exception as error:
            result |= {"error": type(error).__name__, "message": str(error)}
        with contextlib.suppress(OSError):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
