"""`edge-eft match`: what is shown, what is written, and that nothing else is touched."""

import json
import os
import re
import shlex
from dataclasses import replace

import pytest
from helpers import tiny_models
from helpers.cli_tools import invoke
from helpers.json_keys import unseen_keys
from helpers.model_tree import CHAT, Shape, Stores, Tokens, Written

from edge_eft.files.recipe_names import load_recipe

SMALL = Shape("llama", 2, 256, 512, Tokens(9, 400, 390), 1)
LARGE = Shape("llama", 8, 512, 1024, Tokens(9, 400, 390), 2)


@pytest.fixture
def stores(tmp_path):
    """Three stores with one trio."""
    kept = Stores(tmp_path / "home")
    kept.on_hub("x/fam-8B-base-GGUF", "fam-8B-base.Q4_0.gguf", Written(LARGE, "Q4_0"))
    kept.in_ollama("fam:1b-base", Written(SMALL))
    chat = Written(SMALL, tuned=0.02, template=CHAT)
    kept.in_lm_studio("x/fam-1B-it-GGUF", "fam-1B-it-Q8_0.gguf", chat)
    return kept


@pytest.fixture
def call(stores, tmp_path):
    def called(*arguments):
        home = {"EDGE_EFT_HOME": str(tmp_path / "eft")}
        return invoke("match", *arguments, environment=stores.environment() | home)

    return called


def recipes(tmp_path):
    return sorted(path.name for path in (tmp_path / "eft" / "recipes").glob("*"))


def test_the_trios_are_listed_for_people(call):
    result = call()
    assert result.exit_code == 0, result.output
    head, _, base, tuned, reference, needs, new = result.stdout.splitlines()
    assert head.split("  ")[0] == "trio 1"
    assert re.match(r"base +fam-8B-base\.Q4_0 +Q4_0 +[\d.]+ [kM]B +Hugging Face, x/fam-8B", base)
    assert re.match(r"tuned +fam-1B-it-Q8_0 +Q8_0 +[\d.]+ [kM]B +LM Studio, fam-1B-it", tuned)
    assert re.match(r"reference +fam:1b-base +Q8_0 +[\d.]+ [kM]B +Ollama", reference)
    assert re.match(r" +needs \d+ MiB of [\d,]+ free: fits; ratio 0\.\d\d; drafts are exact", needs)
    assert re.match(r" +edge-eft new NAME --base \S+ --tuned \S+ --reference \S+$", new)
    assert "edge-eft match --write NAME" in result.stderr


def test_the_commands_that_are_said_can_be_typed(call, stores, tmp_path):
    own = tmp_path / "my own"
    own.mkdir()
    result = call(own)
    assert f"edge-eft match '{own}' --write NAME" in result.stderr
    words = shlex.split(result.stdout.splitlines()[-1])
    assert words[:3] == ["edge-eft", "new", "NAME"]
    assert all(os.path.isfile(file) for file in words[4::2])


def test_what_is_missing_is_said_with_its_size_and_the_command_that_gets_it(tmp_path):
    kept = Stores(tmp_path)
    shapes = [replace(each, architecture="qwen3") for each in (SMALL, LARGE)]
    kept.on_hub("x/Qwen3-8B-Base-GGUF", "Qwen3-8B-Base.Q4_K_M.gguf", Written(shapes[1], "Q4_0"))
    chat = Written(shapes[0], tuned=0.02, template=CHAT)
    kept.in_lm_studio("x/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", chat)
    result = invoke("match", environment=kept.environment())
    table = result.stdout.partition("\n\n")[2].splitlines()
    assert table[0].split("  ")[0] == "missing"
    for cell in ("reference", "Qwen3-0.6B-Base.Q8_0 of", "~639 MB", "edge-eft pull qwen3-8b"):
        assert cell in table[2]
    assert "mradermacher/Qwen3-0.6B-Base-GGUF" in table[3], "no name is broken"
    assert "Qwen3-8B-Base.Q4_K_M (base), Qwen3-0.6B-Q8_0 (tuned)" in " ".join(
        " ".join(line[52:76] for line in table[2:]).split()
    )
    below = invoke("match", environment=kept.environment() | {"COLUMNS": "80"}).stdout
    assert below.partition("\n\n")[2].splitlines() == [
        "missing",
        "─" * 80,
        "reference",
        "  model Qwen3-0.6B-Base.Q8_0 of mradermacher/Qwen3-0.6B-Base-GGUF; size ~639 MB;",
        "  to go with Qwen3-8B-Base.Q4_K_M (base), Qwen3-0.6B-Q8_0 (tuned); get it with",
        "  edge-eft pull qwen3-8b",
    ]
    (lack,) = json.loads(invoke("match", "--json", environment=kept.environment()).stdout)[
        "missing"
    ]
    assert lack["pull"] == "qwen3-8b"


def test_on_forty_columns_a_trios_models_stand_one_below_the_other(stores):
    result = invoke("match", environment=stores.environment() | {"COLUMNS": "40"})
    lines = result.stdout.splitlines()
    assert lines[:11] == [
        "trio 1",
        "─" * 40,
        "base  fam-8B-base.Q4_0",
        "  type Q4_0; size 12.0 MB; kept by",
        "  Hugging Face, x/fam-8B-base-GGUF",
        "tuned  fam-1B-it-Q8_0",
        "  type Q8_0; size 1.5 MB; kept by LM",
        "  Studio, fam-1B-it-GGUF",
        "reference  fam:1b-base",
        "  type Q8_0; size 1.5 MB; kept by",
        "  Ollama, fam:1b-base",
    ]
    assert max(len(line) for line in lines if "edge-eft new" not in line) <= 40, "it is copied"
    assert re.fullmatch(
        r"needs \d+ MiB of [\d,]+ free: fits; ratio 0\.13; drafts are exact; paired by their names",
        " ".join(lines[11:-1]),
    )


def test_json_says_all_of_it(call, stores):
    about = json.loads(call("--json").stdout)
    assert {key.partition(".")[0] for key in unseen_keys("match", about)} <= {"families", "missing"}
    (trio,) = about["trios"]
    assert trio["tuned"]["file"].startswith(str(stores.lm_studio))
    assert trio["reference"]["owner"] == "Ollama"
    assert (trio["exact"], trio["fits"], trio["why"]) == (True, True, "by their names")
    assert trio["memory"] > 0 < about["available"]
    assert about["models"] == 3
    assert {place["owner"] for place in about["places"]} >= {"Hugging Face", "Ollama", "Jan"}
    assert about["written"] is None


def test_a_recipe_is_written_and_no_store_is_touched(call, stores, tmp_path):
    def contents():
        return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in stores.home.rglob("*")}

    before = contents()
    result = call("--write", "mine")
    assert result.exit_code == 0, result.output
    path = tmp_path / "eft" / "recipes" / "mine.toml"
    assert result.stdout == f"{path}\n"
    assert contents() == before
    recipe = load_recipe(path)
    (delta,) = recipe.deltas.values()
    assert recipe.base.file.name == "fam-8B-base.Q4_0.gguf", "the link, with the name people know"
    assert (delta.tuned.prompt, delta.reference.prompt) == ("template", None)
    assert delta.reference.file.name.startswith("sha256-")


def test_another_trio_is_written_by_its_number(call, stores, tmp_path):
    stores.in_lm_studio("x/y", "fam-4B-base.gguf", Written(replace(LARGE, n_layer=6, weights=3)))
    assert call("--write", "second", "--trio", "2").exit_code == 0
    recipe = load_recipe(tmp_path / "eft" / "recipes" / "second.toml")
    assert recipe.base.file.name == "fam-4B-base.gguf"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--write", "../mine"), "cannot be the name of a recipe"),
        (("--write", "/tmp/mine"), "cannot be the name of a recipe"),
        *(
            (("--write", name), "cannot be the name of a recipe")
            for name in ("nul", "COM1", "con.txt", "", ".", "..", ".hidden", "~", "a/b", "a\\b")
        ),
        (("--write", "\x1b[2J"), "cannot be the name of a recipe"),
        (("--write", "mine.toml"), "cannot be the name of a recipe"),
        (("--write", "atlas"), "comes with edge_eft"),
        (("--write", "mine", "--trio", "2"), "--trio is 2, and the trios here are 1 to 1"),
        (("--write", "mine", "--trio", "0"), "--trio is 0"),
        (("--trio", "1"), "--trio goes with --write NAME"),
        (("no-such-folder",), "is not a folder here"),
    ],
)
def test_what_cannot_be_written_is_one_line(call, tmp_path, arguments, why):
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert why in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("edge-eft: ")
    assert recipes(tmp_path) == []


def test_a_name_that_is_taken_is_refused(call, tmp_path):
    assert call("--write", "mine").exit_code == 0
    again = call("--write", "Mine")
    assert again.exit_code == 2
    assert "there is a recipe 'mine' already" in again.stderr
    assert recipes(tmp_path) == ["mine.toml"]


def test_a_name_of_the_catalogue_is_not_taken(call, tmp_path):
    result = call("--write", "Qwen3-8B")
    assert result.exit_code == 2
    assert "'Qwen3-8B' is a recipe of the catalogue" in result.stderr
    assert recipes(tmp_path) == []


def test_where_nothing_is_found_it_says_where_it_looked_and_what_to_do(tmp_path):
    empty = Stores(tmp_path)
    result = invoke("match", tmp_path, environment=empty.environment())
    assert result.exit_code == 0
    assert result.stdout == ""
    said = result.stderr.splitlines()
    assert said[0] == "edge-eft: no model was found; looked into"
    assert f"  folder: {tmp_path}" in said
    assert f"  Ollama: {empty.ollama} (is not there)" in said
    assert said[-1].startswith("name other folders: edge-eft match DIR")
    written = invoke("match", "--write", "x", environment=empty.environment())
    assert written.exit_code == 2
    assert "there is no trio to write" in written.stderr


@pytest.fixture
def tuned_only(tmp_path):
    """What most people have: chat models of Ollama and LM Studio, of two vocabularies."""
    kept = Stores(tmp_path / "home")
    for name, shape in (("qwen3:8b", LARGE), ("qwen3:0.6b", SMALL)):
        qwen = Written(replace(shape, architecture="qwen3"), "Q4_0", tuned=0.02, template=CHAT)
        kept.in_ollama(name, qwen)
    llama = Written(replace(LARGE, tokens=Tokens(3, 300, 290)), tuned=0.02, template=CHAT)
    kept.in_lm_studio("m/Llama-3.1-8B-GGUF", "Llama-3.1-8B-Instruct-Q8_0.gguf", llama)
    return kept


def test_without_a_trio_the_models_are_listed_with_what_completes_them(tuned_only):
    result = invoke("match", environment=tuned_only.environment())
    assert result.exit_code == 0, result.output
    qwen, llamas = (part.splitlines() for part in result.stdout.split("\n\n"))
    head, _, large, small, lacks, *missing, pull, leads, chat = qwen
    assert head.split() == ["model", "is", "parameters", "type", "size", "kept", "by"]
    assert re.match(r"qwen3:8b +tuned +[\d.]+ M +Q4_0 +[\d.]+ [kMG]B +Ollama", large)
    assert re.match(r"qwen3:0\.6b +tuned +[\d.]+ M", small)
    assert lacks.startswith("  tuned only: ")
    assert " ".join(" ".join(missing).split()) == (
        "missing of qwen3-8b: base Qwen3-8B-Base.Q4_K_M, reference Qwen3-0.6B-Base.Q8_0; "
        "get it with"
    )
    assert pull == "  edge-eft pull qwen3-8b (6.3 GB to fetch)"
    assert leads == "  an adapter of qwen3:0.6b leads qwen3:8b with"
    assert re.fullmatch(
        r"  edge-eft chat --base \S+/sha256-\w+ --reference \S+/sha256-\w+ --lora ADAPTER", chat
    )
    assert re.match(r"Llama-3\.1-8B-Instruct-Q8_0 +tuned", llamas[2])
    assert re.fullmatch(r"  edge-eft pull llama3\.1-8b(-q8)? \(.*", llamas[-1])
    assert "edge-eft: no trio among the 3 models here\n" in result.stderr
    assert "(is not there)" not in result.stderr, "places are of interest if nothing was found"


def test_json_has_the_families_too(tuned_only):
    about = json.loads(invoke("match", "--json", environment=tuned_only.environment()).stdout)
    assert {key.partition(".")[0] for key in unseen_keys("match", about)} <= {"trios", "missing"}
    qwen = next(family for family in about["families"] if len(family["models"]) == 2)
    assert (qwen["pull"], qwen["bytes_to_pull"] > 6e9) == ("qwen3-8b", True)
    assert qwen["lacking"].keys() == {"base", "reference"}
    ((pair),) = qwen["for_lora"]
    assert pair["base"] == qwen["models"][0]["file"]
    assert pair["reference"] == qwen["models"][1]["file"]


def test_names_drive_no_terminal(call, stores):
    path = stores.home / ".lmstudio" / "models" / "x\u202e" / "evil\u009b2J-8B-base.gguf"
    Written(LARGE, "Q4_0").write(path)
    name = b"\x1b]0;title\x07fam"
    stores.in_ollama("fam:2b-base", Written(replace(SMALL, d=512), name=name))
    result = call()
    for text in (result.stdout, result.stderr):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_many_notes_are_cut_and_json_has_all(call, tmp_path):
    for i in range(15):
        (tmp_path / f"{i}.gguf").write_bytes(b"GGUF")
    result = call(tmp_path)
    assert len(re.findall("left out", result.stderr)) == 10
    assert "and 5 more such lines, which --json lists" in result.stderr
    assert len(json.loads(call(tmp_path, "--json").stdout)["notes"]) == 15


def test_a_written_recipe_of_real_models_runs(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    plain = {"chat_template": None, "name": "Fam"}
    tiny_models.write_random(own / "fam-8m-base.gguf", seed=1, d=96, n_layer=3, **plain)
    tiny_models.write_random(own / "fam-1m-base.gguf", seed=2, **plain)
    tiny_models.write_random(own / "fam-1m-chat.gguf", seed=3)
    environment = Stores(tmp_path / "home").environment()
    environment |= {"EDGE_EFT_HOME": str(tmp_path / "eft")}
    assert invoke("match", own, "--write", "fam", environment=environment).exit_code == 0
    done = invoke("run", "fam", "the red one", "--max-tokens", "4", environment=environment)
    assert done.exit_code == 0, done.output
    assert done.stdout


def test_it_works_in_a_process_without_a_home(tmp_path):
    environment = dict.fromkeys(("HOME", "USERPROFILE", "HF_HOME", "HF_HUB_CACHE"))
    result = invoke("match", tmp_path, environment=environment | {"OLLAMA_MODELS": os.devnull})
    assert result.exit_code == 0, result.output


def test_the_command_for_an_adapter_runs(tmp_path):
    own = tmp_path / "my own"
    own.mkdir()
    tiny_models.write_random(own / "fam-8m-chat.gguf", seed=1, d=128, n_layer=3)
    tiny_models.write_random(own / "fam-1m-chat.gguf", seed=2)
    adapter = tiny_models.write_adapter(tmp_path / "lora.gguf")
    environment = Stores(tmp_path / "home").environment()
    shown = invoke("match", own, environment=environment).stdout
    (line,) = re.findall("edge-eft (chat .*) ADAPTER", shown)
    done = invoke(*shlex.split(line), adapter, stdin="hello\n/bye\n", environment=environment)
    assert done.exit_code == 0, done.output
    assert done.stdout
