"""memory: the estimate by hand, what is shared, and the refusal."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.gguf_builder import (
    ARR,
    F32,
    F64,
    I32,
    STR,
    TOKENS,
    U16,
    U32,
    U64,
    File,
    adapter,
    with_matrix,
)
from helpers.tiny_models import write_random

from edge_eft.cli.machine_checks import bytes_read
from edge_eft.errors import ModelFileError
from edge_eft.files import buffers, gguf_tokenizer, memory
from edge_eft.files.gguf_check import read_header
from edge_eft.files.hub_file import HubFile
from edge_eft.files.recipe import ModelSpec, from_files

N_VOCAB = len(TOKENS)
WEIGHTS = 136 + 128 + N_VOCAB * buffers.BYTES_PER_TOKEN


def model(path: Path, **keys: tuple[object, ...]) -> Path:
    file = File()
    file.keys |= {f"llama.{key.replace('__', '.')}".encode(): keys[key] for key in keys}
    path.write_bytes(file.build())
    return path


ODD: tuple[tuple[object, ...], ...] = (
    (F32, math.nan), (F32, math.inf), (F64, 1e308), (I32, -1), (U64, 2**64 - 1), (STR, b"x"),
    (ARR, U32, []), (ARR, STR, [b"a", b"b"]), (ARR, F32, [math.nan, 1.0]), (ARR, U32, [1, 2, 3]),
)  # fmt: skip
UNCHECKED = (
    "ssm.inner_size", "ssm.state_size", "ssm.conv_kernel", "shortconv.l_cache",
    "full_attention_interval", "attention.recurrent_layers", "attention.shared_kv_layers",
    "expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count",
)  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=str)
def test_what_a_header_states_and_nobody_checks_gives_an_estimate_nevertheless(tmp_path, value):
    """Tracebacks came of what llama.cpp itself would refuse, or not read at all."""
    spec = ModelSpec(model(tmp_path / "m.gguf", **dict.fromkeys(UNCHECKED, value)))
    needed = estimated({"base": spec}, n_gpu_layers=None)
    assert all(part >= 0 for row in needed.roles for part in (row.kv_cache, row.compute))
    assert not memory.fits(needed, memory.Free(0, 0)).fits
    assert bytes_read(memory.headers({"base": spec})["base"]) > 0


def estimated(roles: dict[str, ModelSpec], **changes: object) -> memory.MemoryEstimate:
    options: dict[str, object] = {"n_ctx": 256, "n_slots": 1, "n_outputs": 2} | changes
    return memory.estimate(roles, memory.headers(roles), **options)  # type: ignore[arg-type]


def test_the_estimate_of_one_role_is_what_is_worked_out_by_hand(tmp_path: Path) -> None:
    """2 layers of 2 and 4 key-value heads, head size 32 / 4 = 8, keys and values."""
    roles = {"base": ModelSpec(model(tmp_path / "b.gguf", feed_forward_length=(U32, 64)))}
    (row,) = estimated(roles, n_ctx=512, n_slots=3).roles
    assert row.weights == WEIGHTS
    assert row.kv_cache == (2 + 4) * (8 + 8) * 1536 * 34 / 32
    assert row.logits == (2 + 1) * N_VOCAB * 4, "the rows, and a list of all ids"
    graph = 4 * 512 * (3 * 64 + 3 * 32 + 32 + 512 // 2) + 2 * 256 + 2**17
    scratch = 512 * 64 * 9 // 8 + 2**18
    assert row.compute == graph + scratch + 1024 * 1650 + 1536 * 150
    assert row.total == row.weights + row.kv_cache + row.logits + row.compute
    (float16,) = estimated(roles, n_ctx=512, n_slots=3, kv_bytes=2.0).roles
    assert float16.kv_cache == (2 + 4) * (8 + 8) * 1536 * 2


@pytest.mark.parametrize(
    ("keys", "elements_per_token"),
    [
        ({"attention__head_count_kv": (U32, 2)}, 2 * 2 * (8 + 8)),
        ({"attention__head_count_kv": (ARR, U32, [1, 4])}, 5 * (8 + 8)),
        ({"attention__key_length": (U32, 64), "attention__value_length": (U32, 64)}, 6 * (64 + 64)),
    ],
)
def test_kv_cache_follows_the_heads(
    tmp_path: Path, keys: dict[str, tuple[object, ...]], elements_per_token: int
) -> None:
    (row,) = estimated({"base": ModelSpec(model(tmp_path / "b.gguf", **keys))}, kv_bytes=1.0).roles
    assert row.kv_cache == elements_per_token * 256


def test_heads_without_stated_kv_heads_have_their_own(tmp_path: Path) -> None:
    file = File()
    del file.keys[b"llama.attention.head_count_kv"]
    (tmp_path / "b.gguf").write_bytes(file.build())
    (row,) = estimated({"base": ModelSpec(tmp_path / "b.gguf")}, kv_bytes=1.0).roles
    assert row.kv_cache == 2 * 4 * (8 + 8) * 256


def test_a_context_is_padded_to_256_cells(tmp_path: Path) -> None:
    roles = {"base": ModelSpec(model(tmp_path / "b.gguf"))}
    assert estimated(roles, n_ctx=100) == estimated(roles, n_ctx=256)
    assert estimated(roles, n_ctx=257).total > estimated(roles, n_ctx=256).total


def test_weights_are_counted_once_for_a_file_under_any_name(tmp_path: Path) -> None:
    path = model(tmp_path / "b.gguf")
    (tmp_path / "link.gguf").symlink_to(path)
    estimate = estimated(from_files(path, tmp_path / "link.gguf", path).roles())
    assert [row.weights for row in estimate.roles] == [WEIGHTS, 0, 0]
    assert [row.shares for row in estimate.roles] == [None, "base", "base"]
    assert all(row.kv_cache > 0 for row in estimate.roles), "each has a context of its own"
    assert estimate.total == sum(row.total for row in estimate.roles) + estimate.runtime


def test_a_reference_of_two_deltas_has_one_context(tmp_path: Path) -> None:
    path = model(tmp_path / "r.gguf")
    shared = ModelSpec(path, prompt="plain")
    roles = {"reference:a": shared, "reference:b": shared}
    assert estimated(roles).roles[1].total == 0
    roles["reference:b"] = ModelSpec(path, prompt="chatml")
    assert estimated(roles).roles[1].kv_cache > 0, "another prompt needs another context"


def test_an_adapter_adds_its_own_weights_to_its_model(tmp_path: Path) -> None:
    path, lora = tmp_path / "r.gguf", tmp_path / "l.gguf"
    path.write_bytes(with_matrix().build())
    lora.write_bytes(adapter().build())
    roles = {"reference:d": ModelSpec(path), "tuned:d": ModelSpec(path, lora=lora)}
    reference, tuned = estimated(roles).roles
    assert (reference.weights, tuned.weights) == (WEIGHTS + 4 * 32 * 64, lora.stat().st_size)
    assert tuned.kv_cache == reference.kv_cache


def test_files_in_the_wrong_place_are_refused(tmp_path: Path) -> None:
    path, lora = model(tmp_path / "m.gguf"), tmp_path / "l.gguf"
    lora.write_bytes(adapter().build())
    with pytest.raises(
        ModelFileError, match=r"it changes blk\.0\.attn_q\.weight, which that model la"
    ):
        memory.headers({"tuned": ModelSpec(path, lora=lora)})
    with pytest.raises(ModelFileError, match=r"l\.gguf: is an adapter, not a model; .* lora ="):
        memory.headers({"tuned": ModelSpec(lora)})
    with pytest.raises(ModelFileError, match=r"m\.gguf: is not an adapter"):
        memory.headers({"tuned": ModelSpec(path, lora=path)})
    later = File(keys={b"split.count": (U16, 3), b"split.no": (U16, 1)})
    path.write_bytes(later.build())
    with pytest.raises(ModelFileError, match="is part 2 of 3 of a model; give the first part"):
        memory.headers({"base": ModelSpec(path)})


def test_models_on_the_hub_are_estimated_from_their_headers_alone(tmp_path: Path) -> None:
    """Two repositories have files of one name; of an adapter its size is known."""
    path = tmp_path / "r.gguf"
    path.write_bytes(with_matrix().build())
    header = read_header(path)
    path.unlink()
    name = Path("model.gguf")
    base = ModelSpec(name, source=HubFile("one/large", "model.gguf"))
    small = ModelSpec(name, source=HubFile("one/small", "model.gguf"))
    tuned = ModelSpec(name, lora=Path("l.gguf"), source=HubFile("one/small", "l.gguf", size=7))
    roles = {"base": base, "reference:d": small, "tuned:d": tuned}
    headers = dict.fromkeys(roles, header)
    options = {"n_ctx": 256, "n_slots": 1, "n_outputs": 2}
    first, second, _ = memory.estimate(roles, headers, **options).roles
    assert first.weights == second.weights > 0, "two files, whatever their names"
    without = memory.estimate(roles | {"tuned:d": small}, headers, **options).roles[2].weights
    by_size = memory.estimate(roles, headers, **options).roles[2].weights
    assert by_size >= without + 7


def test_layers_on_a_gpu_are_counted_there_from_the_last_one_on(tmp_path: Path) -> None:
    path = write_random(tmp_path / "m.gguf", seed=1, n_layer=4)
    roles = {"base": ModelSpec(path)}
    none, output, two, everything = (
        estimated(roles, n_gpu_layers=n).roles[0] for n in (0, 1, 3, None)
    )
    assert none.on_device == 0
    header = read_header(path)
    size = buffers.ContextSize(256, 1, 2)
    graph = buffers.graph(header, size)
    assert output.on_device == buffers.output_weights(header) + graph
    layer = buffers.layers_weights(header)[0] + buffers.layers_kv(header, size)[0]
    assert two.on_device == output.on_device + 2 * layer
    assert everything.on_device == output.on_device + 4 * layer
    assert everything.total == none.total, "the same parts in other places"


def test_an_output_that_is_the_embedding_is_copied_to_the_gpu(tmp_path: Path) -> None:
    path = model(tmp_path / "b.gguf")
    roles = {"base": ModelSpec(path)}
    header = read_header(path)
    assert buffers.is_tied(header)
    here, there = (estimated(roles, n_gpu_layers=n).roles[0] for n in (0, None))
    assert there.weights - here.weights == buffers.output_weights(header)


def test_recurrent_layers_keep_a_state_whatever_n_ctx_is(tmp_path: Path) -> None:
    """A hybrid as Qwen3.5 is: every fourth layer has keys and values, the others a state."""
    file = File()
    ssm = {"conv_kernel": 4, "inner_size": 64, "state_size": 16, "group_count": 2}
    file.keys |= {f"llama.ssm.{name}".encode(): (U32, n) for name, n in ssm.items()}
    file.keys[b"llama.full_attention_interval"] = (U32, 2)
    (tmp_path / "h.gguf").write_bytes(file.build())
    header = read_header(tmp_path / "h.gguf")
    state = 4 * (3 * (64 + 2 * 2 * 16) + 16 * 64)
    for n_ctx in (256, 4096):
        size = buffers.ContextSize(n_ctx, 3, 3)
        keys_and_values = int(4 * (8 + 8) * 3 * n_ctx * 34 / 32)
        assert buffers.layers_kv(header, size) == (3 * state, keys_and_values)


def test_one_vocabulary_is_checked_once_for_all_models(tmp_path, monkeypatch):
    checked = []
    check = gguf_tokenizer._check_texts
    monkeypatch.setattr(
        gguf_tokenizer, "_check_texts", lambda *args: (checked.append(args), check(*args))
    )
    for name in ("base", "tuned", "reference"):
        write_random(tmp_path / name, seed=len(name))
    recipe = from_files(*(tmp_path / name for name in ("base", "tuned", "reference")))
    assert set(memory.headers(recipe.roles())) == set(recipe.roles())
    assert len(checked) == 1
