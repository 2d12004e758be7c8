"""Model: split files, and adapters that act as the merged model would or are refused."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import tiny_models
from helpers.context_tools import fresh_logits, some_tokens
from helpers.gguf_builder import F32, STR, U32
from helpers.gguf_parts import Parts, Tensor, size_of, split_model
from helpers.small_vocabularies import sentencepiece, smollm2

from edge_eft.backend import Context, Model
from edge_eft.backend.library import CacheKind
from edge_eft.errors import ModelFileError
from edge_eft.files.gguf_header import GGML_TYPES
from edge_eft.files.gguf_operators import NO_PRODUCT

EXACT = CacheKind("f32", False)


def test_a_split_model_gives_the_logits_of_the_whole_one(atlas, tmp_path):
    parts = Model(split_model(atlas.base, tmp_path, 3))
    whole = Model(atlas.base)
    assert parts.header.n_bytes == whole.header.n_bytes
    assert parts.header.n_parameters == whole.header.n_parameters
    assert parts.header.quantisation == whole.header.quantisation == "Q8_0"
    tokens = some_tokens(whole, 40)
    assert np.array_equal(fresh_logits(parts, tokens, 9), fresh_logits(whole, tokens, 9))


def test_a_split_model_is_refused_in_python_where_a_part_is_wrong(atlas, tmp_path):
    path = split_model(atlas.reference, tmp_path, 3)
    with pytest.raises(ModelFileError, match="give the first part"):
        Model(tmp_path / "split-00002-of-00003.gguf")
    (tmp_path / "split-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"1 are missing: split-00002-of-00003\.gguf"):
        Model(path)


def test_what_a_listener_raises_while_a_model_loads_ends_the_loading(tiny):
    """ctypes prints what is raised in a callback, and forgets it."""
    shares = []

    def listen(share):
        shares.append(share)
        if share > 0.4:
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        Model(tiny.base, on_progress=listen)
    assert [share > 0.4 for share in shares] == [False] * (len(shares) - 1) + [True]
    assert Model(tiny.base).n_vocab


# -- adapters ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(folder):
    """A model of float32 weights, whose head is its own."""
    return tiny_models.write_random(folder / "plain.gguf", seed=5, quantised=False)


def tensor(name, values):
    values = np.ascontiguousarray(values, np.float32)
    return Tensor(name.encode(), values.shape[::-1], 0, values.tobytes())


def write_adapter(path, pairs, alpha):
    """An adapter of these pairs: tensor name → a and b, as NumPy has them."""
    keys = {
        b"general.architecture": (STR, b"llama"),
        b"general.type": (STR, b"adapter"),
        b"adapter.type": (STR, b"lora"),
        b"adapter.lora.alpha": (F32, alpha),
    }
    tensors = [
        tensor(f"{name}.lora_{side}", values)
        for name, both in pairs.items()
        for side, values in zip("ab", both, strict=True)
    ]
    path.write_bytes(Parts(keys, tensors).build())
    return path


def merged(path, target, changes):
    """The model with these added to its tensors."""
    parts = Parts.read(path)
    for each in parts.tensors:
        if each.name.decode() in changes:
            change = changes[each.name.decode()].astype(np.float32)
            each.data = (np.frombuffer(each.data, np.float32) + change.ravel()).tobytes()
    target.write_bytes(parts.build())
    return target


@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "output.weight", "token_embd.weight"])
def test_an_adapter_acts_as_the_merged_model_does(plain, tmp_path, name):
    """α/r times b·a; of embeddings llama.cpp looks rows of a up, and has both the other way."""
    rng = np.random.default_rng(3)
    model, rank, alpha = Model(plain), 4, 10.0
    shape = {each.name: each.shape for each in model.header.tensors}[name]
    n_out, n_in = shape[::-1]
    a, b = rng.standard_normal((rank, n_in)) / 9, rng.standard_normal((n_out, rank)) / 9
    delta = alpha / rank * b @ a
    pair = (b, a.T) if name == "token_embd.weight" else (a, b)
    adapter = model.load_adapter(write_adapter(tmp_path / "lora.gguf", {name: pair}, alpha))
    tokens = some_tokens(model, 12)
    seen = fresh_logits(model, tokens, cache=EXACT, lora=adapter)
    wanted = fresh_logits(
        Model(merged(plain, tmp_path / "m.gguf", {name: delta})), tokens, cache=EXACT
    )
    before = fresh_logits(model, tokens, cache=EXACT)
    assert np.abs(wanted - before).max() > 0.1
    assert np.abs(seen - wanted).max() < 1e-3


def mixture(plain, target):
    """The model with two experts in each layer, of which a token asks one."""
    parts, rng, tensors = Parts.read(plain), np.random.default_rng(8), []
    for each in parts.tensors:
        name = each.name.decode()
        if ".ffn_" in name and "norm" not in name:
            values = np.frombuffer(each.data, np.float32).reshape(each.shape[::-1])
            tensors.append(tensor(name.replace(".weight", "_exps.weight"), [values, values[::-1]]))
        else:
            tensors.append(each)
    for layer in range(2):
        tensors.append(tensor(f"blk.{layer}.ffn_gate_inp.weight", rng.standard_normal((2, 64))))
    parts.tensors = tensors
    parts.keys |= {b"llama.expert_count": (U32, 2), b"llama.expert_used_count": (U32, 1)}
    target.write_bytes(parts.build())
    return target


def test_an_adapter_of_experts_has_a_third_dimension_and_acts(plain, tmp_path):
    rng = np.random.default_rng(4)
    path, name = mixture(plain, tmp_path / "experts.gguf"), "blk.0.ffn_down_exps.weight"
    model = Model(path)
    a = rng.standard_normal((2, 4, 128)) / 5
    b = rng.standard_normal((2, 64, 4)) / 5
    adapter = model.load_adapter(write_adapter(tmp_path / "lora.gguf", {name: (a, b)}, 8.0))
    tokens = some_tokens(model, 12)
    seen, before = (fresh_logits(model, tokens, cache=EXACT, lora=lora) for lora in (adapter, None))
    whole = Model(merged(path, tmp_path / "m.gguf", {name: 8.0 / 4 * b @ a}))
    wanted = fresh_logits(whole, tokens, cache=EXACT)
    assert np.abs(wanted - before).max() > 0.1
    assert np.abs(seen - wanted).max() < 1e-3


@pytest.mark.parametrize("name", ["output.weight", "token_embd.weight"])
def test_an_adapter_on_a_tied_head_is_refused_with_the_reason(plain, tmp_path, name):
    """In the shape of a look-up it would end the process, in that of a product do nothing."""
    parts = Parts.read(plain)
    parts.tensors = [each for each in parts.tensors if each.name != b"output.weight"]
    tied = tmp_path / "tied.gguf"
    tied.write_bytes(parts.build())
    model = Model(tied)
    a, b = np.zeros((4, 64)), np.zeros((model.n_vocab, 4))
    pair = (b, a.T) if name == "token_embd.weight" else (a, b)
    with pytest.raises(ModelFileError, match=rf"it changes {name}, .*\(tied\).* merge it"):
        model.load_adapter(write_adapter(tmp_path / "lora.gguf", {name: pair}, 4.0))


def test_an_adapter_of_norms_is_refused_where_llama_cpp_would_skip_it(plain, tmp_path):
    model = Model(plain)
    name = "blk.0.attn_norm.weight"
    pair = (np.ones((1, 64)), np.ones((1, 1)))
    with pytest.raises(
        ModelFileError, match=f"it changes {name}, and llama.cpp applies no adapter"
    ):
        model.load_adapter(write_adapter(tmp_path / "lora.gguf", {name: pair}, 4.0))
    assert Context(model, n_ctx=32)


# -- what the checks of the header are right about -----------------------------------------------

_THROUGH_US = """
import sys
import numpy as np
from edge_eft.backend import Context, Model
for path in sys.argv[1:]:
    tokens = np.array([1, 300, 301], np.int32)
    Context(Model(path), n_ctx=32).advance({0: (tokens, 1)})
    print(path)
"""
_WITHOUT_US = """
import sys
from helpers.bare_llama import BareModel
BareModel(sys.argv[1], n_ctx=64).start([1, 300, 301])
print("lived")
"""


def in_a_child(script, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture(scope="module")
def wide(folder):
    """A model whose rows fill the blocks of every type."""
    return tiny_models.write_random(folder / "wide.gguf", seed=6, d=256)


def retyped(wide, target, name, kind):
    """The model with one tensor of another type, all zero."""
    parts = Parts.read(wide)
    for each in parts.tensors:
        if each.name == name:
            each.kind, each.data = kind, bytes(size_of(each.shape, kind))
    target.write_bytes(parts.build())
    return target


def test_every_type_of_matrix_that_passes_is_computed_with(wide, tmp_path):
    kinds = [kind for kind, (name, *_) in GGML_TYPES.items() if name not in NO_PRODUCT]
    paths = [
        retyped(wide, tmp_path / f"{name[:5].decode()}-{kind}.gguf", name, kind)
        for kind in kinds
        for name in (b"token_embd.weight", b"blk.0.ffn_down.weight")
    ]
    child = in_a_child(_THROUGH_US, *paths)
    assert child.stdout.splitlines() == list(map(str, paths)), child.stderr


def changed(wide, **keys):
    parts = Parts.read(wide)
    parts.keys |= {f"llama.{key.replace('__', '.')}".encode(): keys[key] for key in keys}
    return parts


def misaligned(wide):
    parts = changed(wide)
    parts.alignment = 4
    parts.keys[b"general.alignment"] = (U32, 4)
    while not parts.header_end % 32:  # else the weights lie well by chance
        parts.keys[b"general.name"] = (
            STR,
            parts.keys.get(b"general.name", (STR, b""))[1] + b"1234",
        )
        parts.build()
    return parts


KILLERS = {
    "norm of float16": lambda wide, path: retyped(wide, path, b"output_norm.weight", 1),
    "integer matrix": lambda wide, path: retyped(wide, path, b"blk.0.attn_q.weight", 26),
    "float64 matrix": lambda wide, path: retyped(wide, path, b"blk.0.ffn_up.weight", 28),
    "Q8_1 matrix": lambda wide, path: retyped(wide, path, b"blk.0.ffn_up.weight", 9),
    "epsilon below 0": lambda wide, _: changed(wide, attention__layer_norm_rms_epsilon=(F32, -1.0)),
    "epsilon not a number": lambda wide, _: changed(
        wide, attention__layer_norm_rms_epsilon=(F32, math.nan)
    ),
    "alignment 4": lambda wide, _: misaligned(wide),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLERS)
def test_what_is_refused_would_have_ended_the_process(wide, tmp_path, kind):
    """Else the check would refuse what llama.cpp refuses by itself, or runs."""
    path = tmp_path / "x.gguf"
    made = KILLERS[kind](wide, path)
    if isinstance(made, Parts):
        path.write_bytes(made.build())
    with pytest.raises(ModelFileError):
        Model(path)
    child = in_a_child(_WITHOUT_US, path)
    assert child.returncode < 0, (child.stdout, child.stderr[-500:])


@pytest.mark.parametrize("vocabulary", [sentencepiece, smollm2])
def test_no_text_has_fewer_tokens_than_its_length_says(vocabulary, monkeypatch):
    monkeypatch.setattr("edge_eft.backend.model._SHORT", 0)
    model = vocabulary()
    longest = max((model.piece(i, special=True) for i in range(model.n_vocab)), key=len)
    texts = [longest.decode() * 9, "a" * 99, " " * 500, "é" * 50, "\n\n The <s> red one.", ""]
    bounds = [model.fewest_tokens(text) for text in texts]
    numbers = [len(model.tokenize(text, parse_special=True)) for text in texts]
    assert bounds[0] == 9
    assert bounds[-1] == 0
    assert all(bound <= n for bound, n in zip(bounds, numbers, strict=True))
    assert model.fewest_tokens("the red one " * 1000) > 100


def test_nothing_is_said_of_a_tokenizer_that_drops_parts_of_a_text(monkeypatch):
    assert sentencepiece().fewest_tokens("the red one " * 20_000) > 0
    monkeypatch.setattr("edge_eft.backend.model._KEEPING", ())
    assert sentencepiece().fewest_tokens("the red one " * 20_000) == 0
