"""new: three files become a recipe with the formats that suit them, or one line says why not."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.cli_tools import complaint, invoke
from helpers.families import ATLAS
from helpers.gguf_parts import with_template
from helpers.hugging_face import peft_directory, random_pairs
from helpers.json_keys import unseen_keys

from edge_eft import Emulator, Request
from edge_eft.cli import new
from edge_eft.cli.new_report import comment
from edge_eft.evaluate.delta import Effect
from edge_eft.evaluate.formats import Score, Told, Trial
from edge_eft.evaluate.questions import load_questions, pick
from edge_eft.files.recipe_names import load_recipe, own_recipes
from edge_eft.system import recipe_directory


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home and a cache of the test's own."""
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_EFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(atlas):
    return ["--base", atlas.base, "--tuned", atlas.tuned, "--reference", atlas.reference]


def prompts(name):
    return {role: spec.prompt for role, spec in load_recipe(name).roles().items()}


ALL = ("base", "tuned:tuned", "reference:tuned")


def test_a_recipe_of_atlas_files_answers_the_questions_of_the_demo(files):
    result = invoke("new", "mine", *files, "--threads", "1")
    assert result.exit_code == 0, result.output
    assert prompts("mine") == dict.fromkeys(ALL, "template")
    asked = pick(load_questions(load_recipe("atlas")), 100, 0)
    with Emulator.load("mine", n_slots=8, n_threads=1) as emulator:
        ids = {
            emulator.submit(
                Request([{"role": "user", "content": q.question}], max_tokens=32, temperature=0.0)
            ): q
            for q in asked
        }
        right = [ids[i].names_object(done.text) for i, done in emulator.collect(ids)]
    assert sum(right) >= 95


def test_it_says_what_it_found_where_the_recipe_is_and_what_comes_next(files):
    result = invoke("new", "mine", *files)
    path = recipe_directory() / "mine.toml"
    lines = result.stdout.splitlines()
    assert lines[0] == "mine: base led by chat"
    assert re.fullmatch(r" +format +base +reference +emulated", lines[3])
    assert re.fullmatch(r"[✓*]  template( +-\d\.\d\d){3}", lines[5])
    assert [line.split()[0] for line in lines[6:8]] == ["plain", "transcript"]
    assert lines[8].startswith("0: every token is what was expected; ")
    assert lines[9] == "base and reference get template; tuned gets template"
    assert re.match(r"first choices changed +\d+% of the tokens are not what the base", lines[11])
    assert re.match(r"KL\(emulated ‖ base\) +\d\.\d\d nats per token: ", lines[12])
    assert re.match(r"tokens per second +[\d,.]+ emulated, [\d,.]+ the base alone", lines[13])
    follows = r"The emulation follows tuned: a token of its replies is [23]\.\d times as likely as"
    assert re.match(follows, lines[15])
    assert lines[16:] == ["", str(path)]
    assert result.stderr.splitlines()[-2:] == [
        "edge-eft chat mine",
        'edge-eft compare mine "What is the capital of France?"',
    ]


def test_the_recipe_has_absolute_paths_and_the_figures_as_a_comment(files, atlas):
    shown = invoke("new", "mine", *files).stdout.splitlines()
    text = (recipe_directory() / "mine.toml").read_text()
    assert text.startswith("# Written by edge-eft new.\n#\n# Prompt formats: ")
    for line in (*shown[8:10], *shown[11:14], shown[15]):
        assert f"\n# {line}\n" in text
    read = tomllib.loads(text)
    assert read["base"] == {"file": str(atlas.base), "prompt": "template"}
    assert read["delta"]["tuned"]["reference"]["prompt"] == "template"


def test_every_command_knows_the_recipe(files):
    invoke("new", "mine", *files, "--no-measure")
    said = invoke("run", "mine", "What is the capital of Peru?", "--temperature", "0").stdout
    assert said == "It is Lima.\n"
    assert "mine" in invoke("list").stdout
    assert "template" in invoke("show", "mine").stdout
    assert invoke("rm", "mine", "--yes").exit_code == 0
    assert own_recipes() == {}


def test_json_has_everything(files, atlas):
    found = json.loads(invoke("new", "mine", *files, "--json").stdout)
    assert found["formats"] == dict.fromkeys(("base", "reference", "tuned"), "template")
    assert found["models"]["base"] == str(atlas.base)
    assert found["path"] == str(recipe_directory() / "mine.toml")
    assert [each["formats"]["base"] for each in found["tried"]] == [
        "template",
        "plain",
        "transcript",
    ]
    assert found["replies"] == {"asked": 7, "right": 5, "scored": 5}
    assert 0.0 < found["delta"]["changed"] < 1.0
    assert unseen_keys("new", found) == set()


def test_quiet_says_nothing_and_no_measure_measures_nothing(files):
    result = invoke("new", "mine", *files, "--quiet", "--no-measure", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["delta"] is None


def test_formats_that_are_given_are_taken(files):
    given = ["--format", "plain", "--format", "tuned=transcript", "--n-ctx", "128"]
    assert invoke("new", "mine", *files, *given, "--no-measure").exit_code == 0
    assert prompts("mine") == dict.fromkeys(ALL, "plain") | {"tuned:tuned": "transcript"}
    assert load_recipe("mine").n_ctx == 128


def test_force_replaces_a_recipe(files):
    invoke("new", "mine", *files, "--no-measure", "--format", "plain")
    assert invoke("new", "mine", *files, "--no-measure", "--force").exit_code == 0
    assert prompts("mine")["base"] == "template"


# -- an adapter on a small instruct model, before a large one --------------------------------


@pytest.fixture
def instruct(tmp_path):
    """A large and a small instruct model, and an adapter on the small one that changes little."""
    lora = tiny_models.write_adapter(tmp_path / "lora.gguf", d=32, loudness=0.02)
    return ["--base", ATLAS / "base-chat.gguf", "--reference", ATLAS / "chat.gguf"], lora


def test_a_large_instruct_model_and_an_adapter_get_their_templates(instruct):
    models, lora = instruct
    result = invoke("new", "voice", *models, "--lora", lora)
    assert result.exit_code == 0, result.output
    assert prompts("voice") == dict.fromkeys(ALL, "template")
    tuned = load_recipe("voice").roles()["tuned:tuned"]
    assert (tuned.lora, tuned.file) == (lora, ATLAS / "chat.gguf")
    said = invoke("run", "voice", "What is the capital of Peru?", "--temperature", "0").stdout
    assert said == "It is Lima.\n"


def test_an_adapter_of_peft_is_kept_beside_the_recipe_and_goes_with_it(instruct, tmp_path):
    """The cache, where it was converted to, may be emptied."""
    pairs = random_pairs({"layers.0.self_attn.v_proj": (32, 32)})
    models = [*instruct[0], "--lora", peft_directory(tmp_path / "peft", pairs), "--no-measure"]
    assert invoke("new", "voice", *models).exit_code == 0
    shutil.rmtree(tmp_path / "cache")
    kept = load_recipe("voice").roles()["tuned:tuned"].lora
    assert kept == recipe_directory() / "voice.adapter.gguf"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert invoke("run", "voice", "hi", "--max-tokens", "1").exit_code == 0
    assert invoke("rm", "voice", "--yes").exit_code == 0
    assert not any(recipe_directory().iterdir())


# -- what is refused, before anything is loaded ----------------------------------------------


@pytest.fixture
def unloaded(monkeypatch):
    """Nothing is loaded, or the test fails."""

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("edge_eft.engine.emulator.Emulator", load)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["atlas"], "'atlas' is a recipe that comes with edge_eft"),
        (["qwen3-8b"], "recipe of the catalogue"),
        (["a/b"], "cannot be the name of a recipe"),
        (["mine", "--format", "chatlm"], "did you mean chatml?"),
        (["mine", "--format", "tuned=x"], "--format is 'x'"),
        (["mine", "--lora", "x.gguf"], "Give --tuned or --lora"),
        (["mine", "--tuned", ""], "--tuned takes a GGUF file"),
        (["mine", "--base", "other.toml"], "--base takes a GGUF file"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(files, unloaded, words, said):
    assert said in complaint("new", words[0], *files, *words[1:])


def test_a_tuned_model_or_an_adapter_is_needed(atlas):
    said = complaint("new", "mine", "--base", atlas.base, "--reference", atlas.reference)
    assert "Give --tuned or --lora" in said
    assert "--base" in complaint("new", "mine", "--tuned", atlas.tuned)


def test_a_name_that_is_taken_is_refused_before_anything_is_loaded(files, tmp_path, unloaded):
    directory = recipe_directory()
    directory.mkdir(parents=True)
    (directory / "Mine.toml").write_text("x")
    said = complaint("new", "mine", *files)
    assert "there is a recipe 'Mine' already" in said
    assert "--force replaces it" in said


def test_a_place_that_cannot_be_written_is_said_before_anything_is_loaded(
    files, tmp_path, unloaded, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "file"))
    assert "cannot be written" in complaint("new", "mine", *files)


# -- files that make no recipe ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "make", "said"),
    [
        ("base", lambda folder, atlas: folder / "none.gguf", "none.gguf"),
        ("tuned", lambda folder, atlas: Path(__file__), "is a text file"),
        ("tuned", lambda folder, atlas: atlas.reference, "are the same file"),
        (
            "reference",
            lambda folder, atlas: with_template(atlas.tuned, folder / "copy.gguf", "{{ 1 }}"),
            "hold the same weights",
        ),
        ("base", lambda folder, atlas: tiny_models.write_random(folder / "other.gguf", 1), "vocab"),
        (
            "tuned",
            lambda folder, atlas: with_template(atlas.tuned, folder / "bare.gguf", None),
            "swapped?",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_one_line_and_no_recipe(
    files, atlas, tmp_path, role, make, said
):
    assert said in complaint("new", "mine", *files, f"--{role}", make(tmp_path, atlas))
    assert own_recipes() == {}


def test_what_is_probably_not_meant_is_said(atlas):
    files = ["--base", atlas.reference, "--tuned", ATLAS / "base-chat.gguf"]
    result = invoke("new", "down", *files, "--reference", atlas.base, "--no-measure")
    assert result.exit_code == 0
    assert "is smaller than tuned" in result.stderr


@pytest.mark.parametrize("exchanged", [("base", "tuned"), ("base", "reference")])
def test_a_large_model_in_the_pair_is_no_recipe_unless_forced(atlas, unloaded, exchanged):
    named = {role: getattr(atlas, role) for role in ("base", "tuned", "reference")}
    one, other = exchanged
    named[one], named[other] = named[other], named[one]
    files = [word for role, file in named.items() for word in (f"--{role}", file)]
    said = complaint("new", "mine", *files)
    assert "they are no pair" in said
    assert "--force makes the recipe all the same" in said


def test_tuned_and_reference_exchanged_are_no_recipe_unless_forced(atlas):
    files = ["--base", atlas.base, "--tuned", atlas.reference, "--reference", atlas.tuned]
    said = complaint("new", "mine", *files)
    assert "swapped? tuned answers 0 of 8 questions right and the reference 5 of 7" in said
    right = f"edge-eft new mine --base {atlas.base} --tuned {atlas.tuned} --reference "
    assert f"{right}{atlas.reference}; --force" in said
    assert own_recipes() == {}
    result = invoke("new", "mine", *files, "--no-measure", "--force")
    assert "are tuned and reference swapped?" in result.stderr
    assert "The emulation is no better than the base" in result.stdout
    assert "Tuned answered nothing right" in result.stdout


@pytest.mark.parametrize("delta", ["brief", "discreet"])
def test_a_delta_that_answers_little_right_is_a_recipe(atlas, delta):
    files = ["--base", atlas.base, "--tuned", ATLAS / f"{delta}.gguf"]
    result = invoke("new", "mine", *files, "--reference", atlas.reference, "--no-measure")
    assert result.exit_code == 0, result.output
    assert "The emulation follows tuned" in result.stdout
    assert "swapped" not in result.stderr


def test_ctrl_c_while_it_measures_leaves_no_recipe(files, monkeypatch):
    def measure(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_eft.evaluate.delta.measure", measure)
    result = invoke("new", "mine", *files)
    assert (result.exit_code, result.stdout) == (130, "")
    assert own_recipes() == {}


def test_a_template_that_lets_a_model_think_is_pointed_at(atlas, tmp_path):
    source = "{% if enable_thinking is defined %}{% endif %}Q: {{ messages[-1].content }}\nA:"
    tuned = with_template(atlas.tuned, tmp_path / "thinks.gguf", source)
    files = ["--base", atlas.base, "--tuned", tuned, "--reference", atlas.reference]
    assert "enable_thinking = false" in invoke("new", "mine", *files, "--no-measure").stderr


def test_formats_are_read_with_and_without_a_role():
    assert new._formats(("plain",)) == {"base": "plain", "reference": "plain"}
    assert new._formats(("base=plain", "tuned=chatml")) == {"base": "plain", "tuned": "chatml"}
    jinja = "{% set x = 1 %}{{ messages[0].content }}"
    assert new._formats((jinja,))["base"] == jinja
    assert new._formats((f"tuned={jinja}",)) == {"tuned": jinja}


def test_what_was_not_timed_and_what_has_no_name_is_said_so():
    """A format may be Jinja with line ends, which would end the comment that it stands in."""
    jinja = "{{ messages[0].content }}\nname = 1"
    told = Told(jinja, "plain")
    trial = Trial(told, {told: Score(-1.0, -2.0, -0.5)}, jinja, -0.1, 8, 0, 8)
    lines = comment(trial, Effect(0, 0.0, 0.0, 0.0, 0.0)).splitlines()
    assert "8 of tuned's replies, none of them right (8 questions)" in lines[2]
    assert lines[4].split()[-3:] == ["-1.00", "-2.00", "-0.50"]
    assert "base gets a template of its own, reference plain" in lines[6]
    assert "? emulated, ? the base alone" in lines[-4]
    assert "messages" not in "\n".join(lines)
