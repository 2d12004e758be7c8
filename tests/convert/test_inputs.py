"""inputs: what cannot be converted is one line, status 2, and nothing left behind."""

import json
from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.cli_tools import invoke
from helpers.hugging_face import adapter_directory, model_directory

from edge_eft.convert.inputs import gather, template_of
from edge_eft.convert.options import Options
from edge_eft.convert.sources import inspect


def fails(tmp_path: Path, *arguments: object) -> str:
    """Check for one line on stderr, status 2 and nothing left behind. Returns the line."""
    out = tmp_path / "never"
    result = invoke("convert", *arguments, "--out", out, "--quiet")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
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
def test_a_file_that_is_not_a_model_is_refused_in_one_line(pair, tmp_path, content, message):
    bad = tmp_path / "bad.gguf"
    if content is not None:
        bad.write_bytes(content)
    assert message in fails(tmp_path, "--reference", bad, "--tuned", pair[1])


def test_a_truncated_model_is_refused(pair, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(pair[0].read_bytes()[:-1000])
    assert "truncated" in fails(tmp_path, "--reference", bad, "--tuned", pair[1])


def test_an_unknown_type_is_refused_with_the_choices(pair, tmp_path):
    line = fails(tmp_path, "--reference", pair[0], "--tuned", pair[1], "--type", "q9_9")
    assert "q9_9" in line
    assert "q8_0" in line


def test_a_pair_of_different_shapes_is_refused(pair, tmp_path):
    wide = tiny_models.write_random(tmp_path / "wide.gguf", seed=3, d=96, quantised=False)
    line = fails(tmp_path, "--reference", wide, "--tuned", pair[1])
    assert "differ in shape" in line
    assert "96" in line


def test_a_pair_of_different_vocabularies_is_refused(pair, tmp_path):
    renamed = {300: ("other", 1)}
    other = tiny_models.write_random(
        tmp_path / "other.gguf", seed=3, quantised=False, rename=renamed
    )
    line = fails(tmp_path, "--reference", other, "--tuned", pair[1])
    assert "token 300" in line
    assert "other" in line


def test_one_file_for_tuned_and_reference_is_refused(pair, tmp_path):
    link = tmp_path / "link.gguf"
    link.symlink_to(pair[0])
    for tuned in (pair[0], link):
        line = fails(tmp_path, "--reference", pair[0], "--tuned", tuned)
        assert "tuned and reference are both" in line


def test_an_adapters_template_comes_before_its_models(tmp_path):
    (model := model_directory(tmp_path / "model")).joinpath("chat_template.jinja").write_text(
        "{{ 1 }}"
    )
    reference, adapter = (inspect(model, "reference"), adapter_directory(tmp_path / "adapter"))
    assert template_of(inspect(adapter, "tuned"), reference) == "{{ 1 }}"
    gguf = tiny_models.write_adapter(tmp_path / "adapter.gguf")
    assert template_of(inspect(gguf, "tuned"), reference) == "{{ 1 }}"
    listed = [{"name": "default", "template": "{{ 2 }}"}, {"name": "rag", "template": "{{ 3 }}"}]
    named = adapter / "tokenizer_config.json"
    named.write_text(json.dumps({"chat_template": listed}))
    assert template_of(inspect(adapter, "tuned"), reference) == "{{ 2 }}"


def test_templates_without_a_default_are_refused_unless_a_format_is_given(tmp_path):
    model, adapter = model_directory(tmp_path / "model"), adapter_directory(tmp_path / "adapter")
    listed = [{"name": name, "template": "{{ 2 }}"} for name in ("tool_use", "rag")]
    (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": listed}))
    line = fails(tmp_path, "--reference", model, "--tuned", adapter)
    assert "rag, tool_use and none called default" in line
    options = Options(model, {"tuned": adapter}, tmp_path, "x", prompts={"tuned": "chatml"})
    assert gather(options).tuned["tuned"].kind == "peft"


def test_an_adapter_for_another_model_is_refused(pair, tmp_path):
    adapter = tiny_models.write_adapter(tmp_path / "adapter.gguf", d=96)
    assert "96" in fails(tmp_path, "--reference", pair[0], "--tuned", adapter)
    assert "only tuned" in fails(tmp_path, "--reference", adapter, "--tuned", pair[1])


def test_a_quantised_source_needs_allow_requantize(pair, tiny, tmp_path, text):
    arguments = ("--reference", tiny.reference, "--tuned", tiny.tuned, "--type", "q4_0")
    assert "--allow-requantize" in fails(tmp_path, *arguments)
    arguments += ("--allow-requantize", "--text", text, "--out", tmp_path / "out")
    result = invoke("convert", *arguments)
    assert result.exit_code == 0, result.stderr
    assert "warning" in result.stderr


def test_a_type_that_needs_calibration_is_refused_without_it(pair, tmp_path):
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
        (("--prompt", "base=plain"), "needs --base"),
        (("--base", "b.gguf", "--prompt", "base=chattml"), "did you mean chatml"),
        (("--reference", "x" * 400), "x: File name too long"),
        (("--text", "/nowhere.txt"), "no such text file"),
    ],
)
def test_bad_options_are_named_in_one_line(pair, tmp_path, options, message):
    assert message in fails(tmp_path, "--reference", pair[0], "--tuned", pair[1], *options)
