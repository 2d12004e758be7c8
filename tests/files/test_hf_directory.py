"""hf_directory: what names, templates and end tokens the small files of a directory give."""

import json
from pathlib import Path

import pytest

from edge_eft.errors import ConversionError
from edge_eft.files import hf_directory
from edge_eft.files.hf_directory import chat_template, end_tokens, read_json, shown_name

TEMPLATE = "{{ messages[0].content }}"
BOM = "\ufeff"


def write(folder: Path, **files: object) -> Path:
    """Write files (JSON if not text) whose names have `_` for the last dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / ".".join(name.rsplit("_", 1))
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_hub_snapshot_is_called_after_its_repository(tmp_path):
    snapshot = tmp_path / "models--org--Qwen3-0.6B" / "snapshots" / ("0a" * 20)
    assert shown_name(snapshot) == "Qwen3-0.6B"
    assert shown_name(tmp_path / "snapshots" / "mine") == "mine"


def test_a_mark_before_json_is_accepted_and_taken_out_for_the_scripts(tmp_path):
    folder = write(tmp_path / "m", config_json=BOM + '{"a":\r\n 1}', other_json={"b": 2})
    assert read_json(folder / "config.json") == {"a": 1}
    readable = hf_directory.without_marks(folder, tmp_path / "copy")
    assert json.loads((readable / "config.json").read_bytes()) == {"a": 1}
    assert (readable / "other.json").resolve() == folder / "other.json"
    (folder / "config.json").unlink()
    assert hf_directory.without_marks(folder, tmp_path / "none") == folder


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config_json": {"chat_template": TEMPLATE}},
        {"chat_template_json": {"chat_template": TEMPLATE}},
        {"chat_template_jinja": TEMPLATE},
        {"chat_template_jinja": BOM + TEMPLATE},
        {"chat_template_jinja": TEMPLATE, "tokenizer_config_json": {"chat_template": "{{ 1 }}"}},
        {"tokenizer_config_json": {"chat_template": [{"name": "rag", "template": TEMPLATE}]}},
        {
            "tokenizer_config_json": {
                "chat_template": [
                    {"name": "tool_use", "template": "{{ 1 }}"},
                    {"name": "default", "template": TEMPLATE},
                ]
            }
        },
    ],
)
def test_a_template_is_found_wherever_transformers_finds_it(tmp_path, files):
    assert chat_template(write(tmp_path, **files)) == TEMPLATE


def test_templates_in_a_directory_of_their_own_are_found(tmp_path):
    write(tmp_path / "additional_chat_templates", rag_jinja=TEMPLATE)
    assert chat_template(tmp_path) == TEMPLATE
    write(tmp_path / "additional_chat_templates", tool_use_jinja="{{ 1 }}")
    with pytest.raises(ConversionError, match=r"called rag, tool_use.*--format tuned="):
        chat_template(tmp_path)
    write(tmp_path, chat_template_jinja=TEMPLATE + "!")
    assert chat_template(tmp_path) == TEMPLATE + "!"


@pytest.mark.parametrize("bad", [["x"], [{"name": "a"}], {"a": 1}, "no jinja", 7])
def test_what_is_no_template_is_refused(tmp_path, bad):
    with pytest.raises(ConversionError, match=r"--format tuned="):
        chat_template(write(tmp_path, tokenizer_config_json={"chat_template": bad}))


def test_no_template_is_none(tmp_path):
    assert chat_template(tmp_path) is None
    assert chat_template(write(tmp_path, tokenizer_config_json={"chat_template": None})) is None


def test_end_tokens_come_from_all_three_files_and_an_adapters_files_first(tmp_path):
    model = write(
        tmp_path / "model",
        config_json={"eos_token_id": 2},
        generation_config_json={"eos_token_id": [2, 7]},
        tokenizer_config_json={"eos_token": "</s>"},
    )
    assert set(end_tokens(model)) == {2, 7, "</s>"}
    adapter = write(
        tmp_path / "adapter", tokenizer_config_json={"eos_token": {"content": "<|im_end|>"}}
    )
    assert set(end_tokens(adapter, model)) == {2, 7, "<|im_end|>"}
    assert end_tokens(tmp_path) == []
