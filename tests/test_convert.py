"""The converter from GGUF to recipe, on tiny models; nothing here needs torch."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from convert_tools import TEXT, command_line, convert_quietly, exact_logits, left_in, run
from scipy.special import log_softmax

from edge_eft.backend import Model
from edge_eft.convert import ConversionError
from edge_eft.convert import workspace as workspaces
from edge_eft.convert.workspace import Workspace, parse_size
from edge_eft.errors import EdgeEftError
from edge_eft.files.gguf_check import read_header
from edge_eft.files.recipe import verify
from edge_eft.files.recipe_toml import load_recipe


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return (reference, tuned): unquantised, of the same shapes."""
    folder = tmp_path_factory.mktemp("pair")
    return tuple(
        tiny_models.write_random(folder / f"{name}.gguf", seed=seed, quantised=False)
        for name, seed in (("reference", 1), ("tuned", 2))
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def test_writes_a_pair_a_recipe_and_a_report(pair, text, tiny, tmp_path):
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


@pytest.mark.parametrize("with_base", [False, True])
def test_figures_agree_with_an_independent_float64_path(pair, text, tiny, tmp_path, with_base):
    reference, tuned = pair
    base = tiny.base if with_base else None
    alpha = 0.7 if with_base else 1.0
    outcome = convert_quietly(
        reference, tuned, tmp_path, base=base, text=text, alpha=alpha, type="Q4_0"
    )
    model = Model(reference, vocab_only=True)
    tokens = [model.bos_token, *model.tokenize(TEXT)]
    assert 100 < len(tokens) <= 256
    files = {
        "r": reference, "t": tuned,
        "rq": tmp_path / "pair-reference-Q4_0.gguf", "tq": tmp_path / "pair-tuned-Q4_0.gguf",
    }  # fmt: skip
    rows = {name: exact_logits(path, tokens) for name, path in files.items()}
    delta, delta_q = rows["t"] - rows["r"], rows["tq"] - rows["rq"]
    stand_in = rows["r"] if base is None else exact_logits(base, tokens)
    log_p = log_softmax(stand_in + alpha * delta, axis=1)
    log_q = log_softmax(stand_in + alpha * delta_q, axis=1)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    errors = (rows["tq"] - rows["t"]).ravel(), (rows["rq"] - rows["r"]).ravel()
    expected = {
        "kl_mean": kl.mean(),
        "kl_p99": np.quantile(kl, 0.99),
        "top1_agreement": np.mean(log_p.argmax(axis=1) == log_q.argmax(axis=1)),
        "delta_mae": np.abs(delta_q - delta).mean(),
        "delta_correlation": np.corrcoef(delta.ravel(), delta_q.ravel())[0, 1],
        "error_correlation": np.corrcoef(*errors)[0, 1],
    }
    measured = outcome.report.types["Q4_0"]
    assert measured["positions"] == len(tokens)
    assert {k: measured[k] for k in expected} == pytest.approx(expected, rel=0.01, abs=1e-3)


def test_an_unquantised_pair_loses_nothing(pair, text, tmp_path):
    outcome = convert_quietly(*pair, tmp_path, text=text, type="F32")
    figures = outcome.report.types["F32"]
    assert figures["kl_mean"] == 0
    assert figures["top1_agreement"] == 1
    assert figures["delta_correlation"] == pytest.approx(1)


def test_several_deltas_share_one_reference(pair, text, tmp_path):
    reference, tuned = pair
    result = run(
        "--reference", reference, "--tuned", f"chat={tuned}", "--tuned", f"other={reference}",
        "--text", text, "--name", "two", "--out", tmp_path / "files",
        "--recipe", tmp_path / "two.toml", "--prompt", "tuned=plain",
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
    convert_quietly(reference, reference, tmp_path, text=text, name="two", files=files, share=True)
    recipe = load_recipe(tmp_path / "two.toml")
    assert recipe.deltas["tuned"].tuned.file == tmp_path / "reference.gguf"
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


def test_auto_takes_the_smallest_that_is_good_enough(pair, text, tmp_path):
    outcome = convert_quietly(*pair, tmp_path, text=text, type="AUTO", max_kl=0.05)
    report = outcome.report
    assert report.winner["kl_mean"] <= 0.05
    smaller = [f for f in report.types.values() if f["size_bytes"] < report.winner["size_bytes"]]
    assert smaller
    assert all(figures["kl_mean"] > 0.05 for figures in smaller)
    names = [name for name in left_in(tmp_path) if name.endswith(".gguf")]
    assert names == [f"pair-reference-{report.chosen}.gguf", f"pair-tuned-{report.chosen}.gguf"]


def test_auto_takes_the_best_that_fits(pair, text, tmp_path):
    limit = 2 * 100_000
    outcome = convert_quietly(*pair, tmp_path, text=text, type="AUTO", max_bytes=limit)
    assert outcome.report.winner["size_bytes"] <= limit
    fitting = [f for f in outcome.report.types.values() if f["size_bytes"] <= limit]
    assert outcome.report.winner["kl_mean"] == min(f["kl_mean"] for f in fitting)


def test_auto_says_when_nothing_is_good_enough(pair, text, tmp_path):
    with pytest.raises(ConversionError, match="no type reaches a mean KL of 1e-30"):
        convert_quietly(
            *pair, tmp_path / "out", text=text, type="AUTO", max_kl=1e-30, max_bytes=9**6
        )
    assert not (tmp_path / "out").exists()


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


# -- bad input ---------------------------------------------------------------------------------


def fails(tmp_path: Path, *arguments: object) -> str:
    """Check for one line on stderr, status 2 and nothing left behind. Returns the line."""
    out = tmp_path / "never"
    result = run(*arguments, "--out", out, "--quiet")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert not out.exists()
    return lines[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"not a model", "text file"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16, "claims"),
    ],
)
def test_a_file_that_is_no_model(pair, tmp_path, content, message):
    bad = tmp_path / "bad.gguf"
    if content is not None:
        bad.write_bytes(content)
    assert message in fails(tmp_path, "--reference", bad, "--tuned", pair[1])


def test_a_truncated_model(pair, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(pair[0].read_bytes()[:-1000])
    assert "truncated" in fails(tmp_path, "--reference", bad, "--tuned", pair[1])


def test_an_unknown_type(pair, tmp_path):
    line = fails(tmp_path, "--reference", pair[0], "--tuned", pair[1], "--type", "q9_9")
    assert "q9_9" in line
    assert "q8_0" in line


def test_another_family(pair, tmp_path):
    wide = tiny_models.write_random(tmp_path / "wide.gguf", seed=3, d=96, quantised=False)
    line = fails(tmp_path, "--reference", wide, "--tuned", pair[1])
    assert "differ in shape" in line
    assert "96" in line


def test_another_vocabulary(pair, tmp_path):
    renamed = {300: ("other", 1)}
    other = tiny_models.write_random(
        tmp_path / "other.gguf", seed=3, quantised=False, rename=renamed
    )
    line = fails(tmp_path, "--reference", other, "--tuned", pair[1])
    assert "token 300" in line
    assert "other" in line


def test_an_adapter_for_another_model(pair, tmp_path):
    adapter = tiny_models.write_adapter(tmp_path / "adapter.gguf", d=96)
    assert "96" in fails(tmp_path, "--reference", pair[0], "--tuned", adapter)
    assert "only tuned" in fails(tmp_path, "--reference", adapter, "--tuned", pair[1])


def test_a_quantised_source(pair, tiny, tmp_path, text):
    arguments = ("--reference", tiny.reference, "--tuned", tiny.tuned, "--type", "q4_0")
    assert "--allow-requantize" in fails(tmp_path, *arguments)
    result = run(*arguments, "--allow-requantize", "--text", text, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "warning" in result.stderr


def test_an_existing_output(pair, text, tmp_path):
    convert_quietly(*pair, tmp_path, text=text)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConversionError, match="--force"):
        convert_quietly(*pair, tmp_path, text=text)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    convert_quietly(*pair, tmp_path, text=text, force=True)
    assert left_in(tmp_path) == sorted(before)


def test_no_space(pair, text, tmp_path, monkeypatch):
    usage = workspaces.shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(workspaces.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConversionError, match="MiB are free"):
        convert_quietly(*pair, tmp_path / "out", text=text)
    assert not (tmp_path / "out").exists()


def test_type_that_needs_calibration(pair, tmp_path):
    line = fails(tmp_path, "--reference", pair[0], "--tuned", pair[1], "--type", "iq2_xxs")
    assert "--calibrate" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-kl", "0.1"), "--type auto"),
        (("--type", "auto", "--max-kl", "-1"), "positive"),
        (("--type", "auto", "--max-size", "big"), "not a size"),
        (("--alpha", "nan"), "finite"),
        (("--name", "../x"), "letters"),
        (("--files", "{part.__class__}.gguf"), "--files"),
        (("--files", "../{part}.gguf"), "--files"),
        (("--prompt", "nobody=plain"), "--prompt"),
        (("--text", "/nowhere.txt"), "no such text file"),
    ],
)
def test_bad_options(pair, tmp_path, options, message):
    assert message in fails(tmp_path, "--reference", pair[0], "--tuned", pair[1], *options)


def test_a_crash_in_native_code_is_one_line(pair, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_eft.child.sys.executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\nread line\nkill -ABRT $$\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(EdgeEftError, match="SIGABRT"):
        convert_quietly(*pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sizes():
    assert parse_size("700M") == 700_000_000
    assert parse_size("1.5 GiB") == 1.5 * 2**30
    with pytest.raises(ConversionError):
        parse_size("0")


def test_two_runs_of_one_name_exclude_each_other(tmp_path):
    with (
        Workspace(tmp_path, "x", force=False),
        pytest.raises(ConversionError, match="another conversion"),
        Workspace(tmp_path, "x", force=False),
    ):
        pass
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_kill_at_any_moment_leaves_no_broken_file(pair, text, tmp_path):
    """20 times SIGKILL: what has its final name is whole, and a rerun needs no --force."""
    out = tmp_path / "out"
    arguments = ("--reference", pair[0], "--tuned", pair[1], "--text", text,
                 "--name", "killed", "--out", out, "--quiet")  # fmt: skip
    started = time.monotonic()
    assert run(*arguments).returncode == 0
    whole = time.monotonic() - started
    expected = {p.name: p.read_bytes() for p in out.glob("*.gguf")}
    for path in out.iterdir():
        path.unlink()
    rng = random.Random(0)
    finished = 0
    for attempt in range(20):
        # Half of the kills fall into the last part, where the renames are.
        share = rng.uniform(0.0, 1.0) if attempt % 2 else rng.uniform(0.85, 1.1)
        process = subprocess.Popen(
            command_line(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(share * whole)
        process.send_signal(signal.SIGKILL)
        finished += process.wait() == 0
        for path in out.glob("*.gguf") if out.exists() else ():
            assert path.read_bytes() == expected[path.name]
        if (out / "killed.toml").exists():
            verify(load_recipe(out / "killed.toml"))
            json.loads((out / "killed.fidelity.json").read_text())
            (out / "killed.toml").unlink()
            for path in out.glob("killed*"):
                path.unlink()
    assert finished < 20
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert {p.name: p.read_bytes() for p in out.glob("*.gguf")} == expected
    assert [name for name in left_in(out) if name.startswith(".")] == []
