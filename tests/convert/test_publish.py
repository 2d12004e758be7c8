"""publish: the recipe that a conversion leaves says what its inputs said."""

from helpers import tiny_models
from helpers.cli_tools import invoke
from helpers.convert_tools import convert_quietly

from edge_eft.convert.worker import Worker
from edge_eft.files.recipe_names import load_recipe

TEMPLATE = "{{ messages[0].content }}"


def test_a_recipe_is_called_after_the_repository_of_a_snapshot(pair, text, tmp_path):
    """Its directory's name is the commit; a file in it is a link to one named by its hash."""
    snapshot = tmp_path / "models--org--tiny" / "snapshots" / ("0a" * 20)
    snapshot.mkdir(parents=True)
    (snapshot / "Tiny-chat.gguf").symlink_to(pair[1])
    result = invoke(
        *("convert", "--reference", pair[0], "--tuned", snapshot / "Tiny-chat.gguf"),
        *("--text", text, "--out", tmp_path / "out", "--quiet"),
    )
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "Tiny-chat.toml").is_file()


def test_the_only_named_template_of_a_file_stands_in_the_recipe(pair, text, tmp_path):
    tuned = tiny_models.write_random(
        tmp_path / "tuned.gguf", seed=2, quantised=False, chat_template=[
            {"name": "rag", "template": TEMPLATE}
        ],
    )  # fmt: skip
    outcome = convert_quietly(pair[0], tuned, tmp_path / "out", text=text)
    assert load_recipe(outcome.recipe).deltas["tuned"].tuned.prompt == TEMPLATE


def test_a_mark_before_the_text_to_measure_on_is_not_text(pair, text, tmp_path):
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + text.read_bytes().replace(b"\n", b"\r\n"))
    outcomes = [
        convert_quietly(*pair, tmp_path / name, text=path, type="F16")
        for name, path in (("plain", text), ("marked", marked))
    ]
    assert outcomes[0].report.winner == outcomes[1].report.winner


def test_end_tokens_that_a_file_does_not_name_are_found(pair):
    wanted = [tiny_models.EOS, "</s>", "<reserved>", 5, "<other-end>", 100_000, "<nowhere>", 5]
    with Worker() as worker:
        found = worker.work("ends", model=pair[0], wanted=wanted)
    assert found == {
        "missing": ["<reserved>", 5, "<other-end>"], "unknown": [100_000, "<nowhere>"]
    }  # fmt: skip
