"""What cannot be is refused in Python: an EdgeEftError that says what was seen, and no crash.

The cases (bad_inputs.py) run in a child process, because the failures looked for are aborts and
segmentation faults in native code. The child is started again behind each case that kills it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import bad_inputs
from helpers.bad_inputs import CALLS, GENERATIONS, GRAMMARS, PROMPTS, SCHEMAS, SETTINGS
from helpers.emulator_tools import open_emulator

import edge_eft
from edge_eft import EdgeEftError, Emulator

pytestmark = pytest.mark.timeout(100)

PACKAGE = Path(edge_eft.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def results(tiny, tmp_path_factory):
    """case → what came of it; "crash" for what killed the process."""
    results, crashed = {}, []
    script = Path(bad_inputs.__file__)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(script.parents[1])])
    }
    for _ in range(8):
        folder = tmp_path_factory.mktemp("bad")
        child = subprocess.run(
            [sys.executable, str(script), str(folder), str(tiny.base), *crashed],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        results |= {line["case"]: line for line in lines if "error" in line}
        if child.returncode == 0:
            assert "Traceback" not in child.stderr
            return results
        if child.returncode > 0:
            pytest.fail(child.stderr)
        name = lines[-1]["case"]
        crashed.append(name)
        reason = f"signal {-child.returncode}: {child.stderr[-300:]}"
        results[name] = {"case": name, "error": "crash", "message": reason}
    return results


def check(results, *names):
    """Every case was refused by an EdgeEftError of one line; all that were not, at once."""
    wrong = [
        f"{name}: {results[name]['error']} {results[name]['message']}"
        for name in names
        if results[name]["error"] != "EdgeEftError" or "\n" in results[name]["message"]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", GENERATIONS)
def test_impossible_parameters_are_refused_with_their_value(results, name):
    check(results, name)
    value = name.split()[-1].strip("'[]")
    assert value.removesuffix(".0") in results[name]["message"]


@pytest.mark.parametrize("name", PROMPTS)
def test_impossible_prompts_are_refused_by_generate_score_and_submit(results, name):
    check(results, name, f"score {name}", f"submit {name}")


def test_hostile_schemas_and_grammars_are_refused(results):
    check(results, *SCHEMAS, *GRAMMARS)
    check(results, *(name for name in results if name.startswith("grammar ")))


@pytest.mark.parametrize("name", CALLS)
def test_calls_with_wrong_names_or_kinds_say_what_was_seen(results, name):
    """They were TypeErrors and AttributeErrors from somewhere inside."""
    check(results, f"call {name}")
    assert CALLS[name][1] in results[f"call {name}"]["message"]


@pytest.mark.parametrize("name", SETTINGS)
def test_impossible_settings_are_refused(results, name):
    if name == "n_threads 513" and results[name]["error"] is None:
        return  # unwise, and llama.cpp takes it
    check(results, name)
    if name.split()[0] in ("n_threads", "n_slots"):
        assert re.search(r"n_threads|n_slots|n_seq_max|need", results[name]["message"])


def test_damaged_model_files_are_refused_in_every_role(results):
    """Of every kind and in every role; the message names the file."""
    names = [name for name in results if name.split()[0] in ("base", "tuned", "reference", "model")]
    assert len(names) == 4 * 14
    check(results, *names)
    for name in names:
        file = name.partition(" ")[2].replace(" ", "-") + ".gguf"
        assert file in results[name]["message"]


def test_vocabularies_that_differ_name_the_first_token(results):
    check(results, "vocabularies")
    assert re.search(r"token 300 .*':'.*'something'", results["vocabularies"]["message"])


def test_contexts_used_wrongly_or_after_their_end_are_refused(results):
    """Contexts used wrongly, and whatever is used after its end."""
    rest = [name for name in results if name.startswith(("closed", "sequence", "rows", "piece"))]
    assert len(rest) >= 9
    check(results, *rest, "token 352", "no template", "prompt format", "request field")


def test_three_slots_without_planned_outputs_are_given_or_refused(results):
    """One row per slot is what a step needs: given, or refused."""
    if results["context of 3 slots"]["error"] is not None:
        check(results, "context of 3 slots")


def test_a_failed_load_leaves_the_next_load_working(tiny, tmp_path):
    """Models that were loaded before the damaged one are freed, and the next load works."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny.reference.read_bytes()[:-100])
    for _ in range(3):
        with pytest.raises(EdgeEftError, match=r"broken\.gguf"):
            open_emulator((tiny.base, tiny.tuned, broken))
    with open_emulator(tiny, n_ctx=32) as emulator:
        assert len(emulator.generate("the", max_tokens=2).tokens) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[base]", "[basis]"), r"unknown key `basis` \(did you mean base\?\)"),
        (("sha256 = '", "sha256 = '0000"), "sha256"),
        (("reference =", "referee ="), r"unknown key `delta\.a\.referee`"),
        (("weight = 1", "weight = -1"), r"weight is -1"),
        (("n_ctx = 32", "n_ctx = 'many'"), "n_ctx is 'many'"),
        (("n_ctx = 32", "n_ctx = 16777217"), "n_ctx is 16777217, not .* up to 16777216"),
        (("n_ctx = 32", "n_ctx = 32\nn_cxt = 32"), "unknown key `n_cxt`"),
    ],
)
def test_wrong_recipes_are_refused_by_their_key(tiny, tmp_path, change, message):
    sha256 = "0" * 64
    text = f"""
        n_ctx = 32
        [base]
        file = '{tiny.base}'
        [delta.a]
        weight = 1
        tuned = {{ file = '{tiny.tuned}', sha256 = '{sha256}' }}
        reference = {{ file = '{tiny.reference}' }}
    """
    path = tmp_path / "recipe.toml"
    old, new = change
    path.write_text(text.replace(old, new, 1))
    assert new in path.read_text()
    with pytest.raises(EdgeEftError, match=message):
        Emulator.load(path)


def test_a_wrong_sha256_says_both(tiny, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        f"""
        [base]
        file = '{tiny.base}'
        sha256 = '{"5" * 64}'
        [delta.a]
        tuned = {{ file = '{tiny.tuned}' }}
        reference = {{ file = '{tiny.reference}' }}
        """
    )
    with pytest.raises(EdgeEftError, match=r"random0\.gguf: sha256 is \w+…, the recipe states 555"):
        Emulator.load(path)
