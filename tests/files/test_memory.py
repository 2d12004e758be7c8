"""memory: the estimate by hand, what is shared, and the refusal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.gguf_builder import (
    ARR,
    TOKENS,
    U16,
    U32,
    File,
    adapter,
    smollm2_path,
    with_matrix,
)

from edge_eft.errors import ModelFileError, NotEnoughMemoryError
from edge_eft.files import memory
from edge_eft.files.recipe import ModelSpec, from_files

N_VOCAB = len(TOKENS)
WEIGHTS = 136 + 128 + N_VOCAB * memory.BYTES_PER_TOKEN


def model(path: Path, **keys: tuple[object, ...]) -> Path:
    file = File()
    file.keys |= {f"llama.{key.replace('__', '.')}".encode(): keys[key] for key in keys}
    path.write_bytes(file.build())
    return path


def estimated(roles: dict[str, ModelSpec], **changes: object) -> memory.MemoryEstimate:
    options: dict[str, object] = {"n_ctx": 256, "n_slots": 1, "n_outputs": 2} | changes
    return memory.estimate(roles, memory.headers(roles), **options)  # type: ignore[arg-type]


def test_the_estimate_of_one_role_is_what_is_worked_out_by_hand(tmp_path: Path) -> None:
    """2 layers of 2 and 4 key-value heads, head size 32 / 4 = 8, keys and values."""
    roles = {"base": ModelSpec(model(tmp_path / "b.gguf", feed_forward_length=(U32, 64)))}
    (row,) = estimated(roles, n_ctx=512, n_slots=3).roles
    assert row.weights == WEIGHTS
    assert row.kv_cache == (2 + 4) * (8 + 8) * 1536 * 34 / 32
    assert row.logits == 2 * N_VOCAB * 4
    assert row.compute == 4 * (512 * (5 * 32 + 2 * 64 + 1536) + 2 * N_VOCAB)
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
    assert estimate.total == sum(row.total for row in estimate.roles)


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


def test_the_table_shows_every_role_and_the_sum(tmp_path: Path) -> None:
    path = model(tmp_path / "b.gguf")
    lines = estimated(from_files(path, path, path).roles()).lines()
    assert [line.split()[0] for line in lines] == [
        "MiB", "base", "tuned:tuned", "reference:tuned", "together",
    ]  # fmt: skip
    assert lines[2].endswith("(shares with base)")
    columns = [line.index("weights") + len("weights") for line in lines[:1]]
    assert all(line[columns[0]] == " " for line in lines[1:-1]), "figures end below their heading"


def test_check_refuses_with_numbers_just_above_what_is_free(tmp_path: Path) -> None:
    mib = 2**20
    rows = (memory.RoleMemory("base", 900 * mib, 100 * mib, 0, 0),)
    estimate = memory.MemoryEstimate(rows)
    memory.check(estimate, 1000 * mib)
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.check(estimate, 999 * mib)
    assert "need 1,000 MiB together (base alone 1,000), and 999 MiB are free" in str(caught.value)
    assert "smaller n_ctx" in str(caught.value)


def test_check_refuses_by_what_the_system_says_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = memory.MemoryEstimate((memory.RoleMemory("base", 2**20, 0, 0, 0),))
    memory.check(estimate)
    free = SimpleNamespace(available=2**20 - 1)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
    with pytest.raises(NotEnoughMemoryError):
        memory.check(estimate)


def test_the_estimate_of_a_published_model_is_near_what_was_measured() -> None:
    """Three contexts of 4,096 on SmolLM2-135M added 315 MiB of resident memory (x86, one file)."""
    path = smollm2_path()
    estimate = estimated(from_files(path, path, path).roles(), n_ctx=4096, n_outputs=8)
    assert estimate.total / 2**20 == pytest.approx(315, rel=0.05)
    assert estimate.roles[1].total / 2**20 == pytest.approx(68, rel=0.05)
