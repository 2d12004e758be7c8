"""Run in a child process by test_bad_input.py: everything that must be refused, not crash.

Prints one JSON line before and one after each case, so that the parent knows what died.
"""

import contextlib
import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np

from edge_eft import EdgeEftError, Emulator, Request, Weights
from edge_eft.backend import Context, Model
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
    "logit_bias nan": lambda: {"logit_bias": {300: math.nan}},
    "logit_bias -5": lambda: {"logit_bias": {-5: 1.0}},
    "logit_bias 99999": lambda: {"logit_bias": {99999: 1.0}},
    "logit_bias ['a']": lambda: {"logit_bias": ["a"]},
}

PROMPTS = {
    "prompt None": None,
    "prompt 5": 5,
    "prompt b'abc'": b"abc",
    "prompt []": [],
    "prompt ['abc']": ["abc"],
    "prompt [5]": [5],
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
    "score request": (lambda e: e.score(Request("a"), "b"), "prompt is Request"),
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
