"""`edge-eft demo`: answers are judged and summed up, for people and for programs."""

import json
import os
import re
from pathlib import Path

import pytest
from helpers.cli_tools import invoke, process
from helpers.documents import ROOT, blocks
from helpers.recipe_files import CAPITAL, CODE, held_out, write_recipe

from edge_eft import Emulator
from edge_eft.cli import terminal
from edge_eft.cli.console import show
from edge_eft.cli.demo import tables
from edge_eft.evaluate import gap, questions
from edge_eft.files.recipe_names import list_recipes, load_recipe


def test_the_demo_judges_answers_and_sums_up(recipe, scripted):
    held_out(recipe, [CAPITAL, CODE])
    write_recipe(Path(recipe).with_name("family-down.toml"), "none.gguf")
    answers = {
        gap.BASE: ["I asked my teacher: N'Djamena.", "Bump."],
        gap.TUNED: ["It is Paris.", "It is +1."],
        gap.EMULATED: ["It is N'Djamena.", "It is +23."],
        gap.LARGE: ["It is N'Djamena.", "It is +235."],
    }
    asked = questions.load_questions(load_recipe(recipe))
    order = [q.relation for q in questions.pick(asked, 2, seed=0)]
    script = [
        text for way in answers.values() for text in (way if order[0] == "capital" else way[::-1])
    ]
    scripted(*script)
    about = json.loads(invoke("demo", recipe, "--json").stdout)
    assert {way: s["knowledge"] for way, s in about["scores"].items()} == {
        gap.BASE: 0.5,
        gap.TUNED: 0.0,
        gap.EMULATED: 0.5,
        gap.LARGE: 1.0,
    }
    assert [s["manner"] for s in about["scores"].values()] == [0.0, 1.0, 1.0, 1.0]
    assert about["gap_recovered"] == {"knowledge": 0.5, "manner": 1.0}
    scripted(*script)
    text = invoke("demo", recipe, environment={"COLUMNS": "100"}).stdout
    assert max(map(len, text.splitlines())) <= 100
    assert "✓✓ It is N'Djamena." in text
    assert "gap recovered" in text
    assert "50.0%" in text
    assert "\x1b" not in text


def test_the_demo_asks_real_models_in_slots(tiny, tmp_path):
    path = tmp_path / "tiny.toml"
    sides = (
        f'{side} = {{ file = "{getattr(tiny, side)}", prompt = "plain" }}\n'
        for side in ("tuned", "reference")
    )
    path.write_text(f'[base]\nfile = "{tiny.base}"\n[delta.chat]\n{"".join(sides)}')
    held_out(path, [("city", f"City {i}", "Peru", f"Where is City {i}?", "-") for i in range(13)])
    about = json.loads(invoke("demo", path, "--threads", "1", "--json").stdout)
    assert len(about["questions"]) == 13
    assert list(about["scores"]) == [gap.BASE, gap.TUNED, gap.EMULATED]
    assert about["scores"][gap.BASE]["tokens_per_second"] > 0
    told = []
    options = {"delta": None, "n_questions": 13, "seed": 0, "n_threads": 1}
    gap.run(load_recipe(path), **options, told=lambda *how_far: told.append(how_far))
    ways = enumerate(about["scores"])
    assert told == [(i, 3, way, n, 13) for i, way in ways for n in range(14)]
    # Whoever is asked singly or in a slot, the answer to a question is the same.
    with Emulator.load(path) as emulator:
        last = about["questions"][-1]
        prompt = [{"role": "user", "content": last["question"]}]
        alone = emulator.generate(prompt, temperature=0.0, max_tokens=gap.MAX_TOKENS)
    assert terminal.tidy(alone.text) == last["answers"][gap.EMULATED]["text"]


def found(n=20):
    """What came of as many questions, to which the base has three replies."""
    relations = ("city", "capital")
    asked = [
        questions.Question(relations[i % 2], f"E{i}", "Port-au-Prince", f"What of E{i}, then?", "-")
        for i in range(n)
    ]
    rare = {3: "Port-au-Prince, I think.\nQ: And", 8: "The city of E8 is a city\nof some size."}
    said = {
        gap.BASE: [rare.get(i, "I was wondering the same.\nQ: Who?") for i in range(n)],
        gap.TUNED: ["It is Paris."] * n,
        gap.EMULATED: ["It is Port-au-Prince."] * n,
    }
    right = {gap.BASE: (False, False), gap.TUNED: (False, True), gap.EMULATED: (True, True)}
    marks = {way: [right[way]] * n for way in said}
    return gap.Gap("chat", asked, said, marks, dict.fromkeys(said, 1234.5))


@pytest.mark.parametrize("columns", [100, 80, 40])
def test_the_tables_fit_and_hold_what_matters(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    show(*tables(found()))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert text.count("✓✓ It is") == text.count("✗✓ It is Paris.") == gap.N_SHOWN
    assert text.count("Port-au-Prince") >= gap.N_SHOWN, "the truth is whole"
    assert "The city of" in text
    assert "shown: the 12 of 20 where the base's replies differ most, whoever is right" in text
    assert "most often the base says: 'I was wondering the same.' (18 of 20)" in text
    for heading in ("question", "20 held-out questions", "right object", "right manner", "both"):
        assert heading in text


def test_the_tables_are_these(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    show(*tables(found(1)))
    assert capsys.readouterr().out.splitlines() == [
        "question",
        "─" * 40,
        "What of E0, then?",
        "  base alone         ✗✗ I was wondering",
        "                        the same. Q:",
        "                        Who?",
        "  small tuned alone  ✗✓ It is Paris.",
        "  emulated           ✓✓ It is",
        "                        Port-au-Prince.",
        "  truth              Port-au-Prince",
        "",
        "first mark ✓ or ✗: the right object;",
        "second: the manner of 'chat'",
        "",
        "1 held-out questions",
        "─" * 40,
        "base alone",
        "  right object 0.0%; right manner 0.0%;",
        "  both 0.0%; tokens/s 1,234",
        "small tuned alone",
        "  right object 0.0%; right manner",
        "  100.0%; both 0.0%; tokens/s 1,234",
        "emulated",
        "  right object 100.0%; right manner",
        "  100.0%; both 100.0%; tokens/s 1,234",
    ]


@pytest.mark.skipif("atlas" not in list_recipes(), reason="needs the atlas family")
def test_the_demo_of_the_embedded_family_fits_100_columns_and_sums_up():
    run = process("demo", "--questions", "60", env=os.environ | {"COLUMNS": "100"})
    out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    assert "gap recovered" in out


@pytest.mark.slow
@pytest.mark.skipif("atlas" not in list_recipes(), reason="needs the atlas family")
def test_the_demo_of_the_embedded_family_is_what_the_readme_shows():
    run = process("demo", env=os.environ | {"COLUMNS": "100"})
    out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (0, "")
    (excerpt,) = [b.text for b in blocks(ROOT / "README.md") if b.text.startswith("question ")]
    speed = re.compile(r"(%) +[\d,]+$")  # of the machine
    printed = {speed.sub(r"\1", line) for line in out.splitlines()}
    other = [line for line in excerpt.splitlines() if speed.sub(r"\1", line) not in {*printed, "…"}]
    # Another processor's rounding may change a reply, and a score by a question.
    assert len(other) <= 4, other
