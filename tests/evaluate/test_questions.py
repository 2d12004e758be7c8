"""questions: which are picked and timed, and what a question file must hold."""

import re
from pathlib import Path

import pytest
from helpers.recipe_files import CAPITAL, held_out, write_recipe

from edge_eft.errors import RecipeError
from edge_eft.evaluate import questions
from edge_eft.files.recipe_names import load_recipe


def test_those_that_are_timed_are_of_every_relation():
    asked = [questions.Question(r, str(i), "o", "q", "r") for r in "abc" for i in range(30)]
    picked = questions.pick(asked, 50, seed=1)
    assert len({(q.relation, q.entity) for q in picked}) == 50
    timed = [q.relation for q in picked[: questions.N_TIMED]]
    assert {relation: timed.count(relation) for relation in "abc"} == dict.fromkeys("abc", 4)


def test_a_question_file_may_have_a_byte_order_mark(tmp_path):
    recipe = write_recipe(tmp_path / "family.toml", "none.gguf")
    held_out(recipe, [CAPITAL])
    path = Path(recipe).with_suffix("") / "heldout.json"
    path.write_text(path.read_text(), "utf-8-sig")
    assert len(questions.load_questions(load_recipe(recipe))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"questions": []}',
        '{"questions": [{"object": 1}]}',
        '{"questions": ' + "[" * 99999,
    ],
)
def test_a_damaged_question_file_is_named(tmp_path, text):
    recipe = write_recipe(tmp_path / "family.toml", "none.gguf")
    held_out(recipe, [])
    path = Path(recipe).with_suffix("") / "heldout.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=re.escape(f"{path}: holds no question")):
        questions.load_questions(load_recipe(recipe))
