"""job: from a pair of tiny GGUF files to a recipe and a report; nothing here needs torch."""

import json

import pytest
from helpers import tiny_models
from helpers.convert_tools import convert_quietly, left_in, run
from helpers.gguf_parts import split_model

from edge_eft.errors import EdgeEftError
from edge_eft.files.gguf_check import read_header
from edge_eft.files.hashes import verify
from edge_eft.files.recipe_names import load_recipe


def test_convert_writes_a_pair_a_recipe_and_a_report(pair, text, tiny, tmp_path):
    reference, tuned = pair
    result = run(
        "--reference", reference, "--tuned", tuned, "--base", tiny.base, "--text", text,
        "--name", "mine", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert left_in(tmp_path / "out") == [
        *("mine-reference-Q8_0.gguf", "mine-tuned-Q8_0.gguf", "mine.fidelity.json", "mine.toml")
    ]
    assert "Q8_0" in result.stdout
    recipe = load_recipe(tmp_path / "out" / "mine.toml")
    assert verify(recipe) == ()
    assert recipe.base is not None
    assert recipe.base.file == tiny.base
    assert recipe.deltas["tuned"].tuned.prompt == "template"
    header = read_header(recipe.deltas["tuned"].tuned.file)
    assert header.quantisation == "Q8_0"
    assert header.metadata["edge_eft.source"] == "tuned.gguf"
    assert len(header.metadata["edge_eft.source_sha256"]) == 64
    assert "--type q8_0" in header.metadata["edge_eft.command"]
    report = json.loads((tmp_path / "out" / "mine.fidelity.json").read_text())
    assert set(report["types"]["Q8_0"]) >= {
        *("size_bytes", "kl_mean", "kl_p99", "top1_agreement"),
        *("delta_mae", "delta_correlation", "error_correlation"),
    }
    sizes = [(tmp_path / "out" / f"mine-{s}-Q8_0.gguf").stat().st_size
             for s in ("reference", "tuned")]  # fmt: skip
    assert report["types"]["Q8_0"]["size_bytes"] == sum(sizes)


def test_several_deltas_share_one_reference(pair, text, tmp_path):
    reference, tuned = pair
    other = tiny_models.write_random(tmp_path / "other.gguf", seed=3, quantised=False)
    result = run(
        "--reference", reference, "--tuned", f"chat={tuned}", "--tuned", f"other={other}",
        "--text", text, "--name", "two", "--out", tmp_path / "files",
        "--recipe", tmp_path / "two.toml", "--format", "tuned=plain",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    recipe = load_recipe(tmp_path / "two.toml")
    assert {name: delta.weight for name, delta in recipe.deltas.items()} == {"chat": 1, "other": 0}
    assert recipe.deltas["chat"].reference == recipe.deltas["other"].reference
    assert recipe.deltas["chat"].tuned.prompt == "plain"
    verify(recipe)


def test_share_names_a_file_of_the_same_content(pair, text, tmp_path):
    reference, tuned = pair
    files = "{part}.gguf"
    convert_quietly(reference, tuned, tmp_path, text=text, name="one", files=files)
    convert_quietly(reference, tuned, tmp_path, text=text, name="two", files=files, share=True)
    recipe = load_recipe(tmp_path / "two.toml")
    assert recipe.deltas["tuned"].tuned.file == tmp_path / "tuned.gguf"
    assert recipe.deltas["tuned"].reference.file == tmp_path / "reference.gguf"
    assert left_in(tmp_path) == [
        *("one.fidelity.json", "one.toml", "reference.gguf", "tuned.gguf"),
        *("two.fidelity.json", "two.toml"),
    ]


def test_calibration_is_joint_and_reported(pair, text, tmp_path):
    outcome = convert_quietly(*pair, tmp_path, text=text, calibrate=text, type="Q4_0")
    figures = outcome.report.types["Q4_0"]
    both = figures["calibration"]
    best = min(both.values(), key=lambda variant: variant["kl_mean"])
    assert figures["kl_mean"] == best["kl_mean"]
    assert figures["calibration_helped"] is best["calibrated"]
    assert both["calibrated"]["kl_mean"] != both["uncalibrated"]["kl_mean"]
    assert "Q4_0 calibrated" in outcome.report.table()


def test_an_adapter_is_kept_beside_its_reference(pair, text, tmp_path):
    reference, _ = pair
    adapter = tiny_models.write_adapter(tmp_path / "adapter.gguf")
    outcome = convert_quietly(reference, adapter, tmp_path / "out", text=text)
    spec = load_recipe(outcome.recipe).deltas["tuned"]
    assert spec.tuned.lora == tmp_path / "out" / "pair-tuned-lora.gguf"
    assert spec.tuned.file == spec.reference.file
    assert left_in(tmp_path / "out") == [
        *("pair-reference-Q8_0.gguf", "pair-tuned-lora.gguf", "pair.fidelity.json", "pair.toml")
    ]


def test_a_crash_in_native_code_is_one_line(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_eft.child.sys.executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nread line\nkill -ABRT $$\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(EdgeEftError, match="SIGABRT"):
        convert_quietly(*pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inputs_may_be_split_models(pair, text, tiny, tmp_path):
    """The same bytes come out as from whole files, and a split base is stated part by part."""
    reference, tuned = pair
    parts = {
        name: split_model(path, tmp_path, 3, name)
        for name, path in (("reference", reference), ("tuned", tuned), ("base", tiny.base))
    }
    whole = convert_quietly(reference, tuned, tmp_path / "whole", base=tiny.base, text=text)
    split = convert_quietly(
        parts["reference"], parts["tuned"], tmp_path / "split", base=parts["base"], text=text
    )
    ours, theirs = load_recipe(split.recipe), load_recipe(whole.recipe)
    for role in ("tuned", "reference"):
        headers = [
            read_header(getattr(recipe.deltas["tuned"], role).file) for recipe in (ours, theirs)
        ]
        assert headers[0].tensors == headers[1].tensors
        assert not [key for key in headers[0].metadata if key.startswith("split.")]
    assert ours.base is not None
    assert ours.base.file == parts["base"]
    assert isinstance(ours.base.sha256, tuple)
    assert len(ours.base.sha256) == 3
    assert verify(ours) == ()
    based = convert_quietly(
        reference, tuned, tmp_path / "base", base=parts["base"], base_type="Q4_0", text=text,
        allow_requantize=True,
    )  # fmt: skip
    assert read_header(load_recipe(based.recipe).base.file).quantisation == "Q4_0"
