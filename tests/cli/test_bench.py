"""`edge-eft bench`: a table for people, and one object for programs."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.families import Family

from edge_eft.cli.bench import command

PROMPTS = ["the red one", "It is", "a test of the in"]


def run(family: Family, *arguments: str) -> tuple[dict[str, object], str]:
    files = [str(path) for path in family[:3]]
    roles = ["--base", files[0], "--tuned", files[1], "--reference", files[2]]
    result = CliRunner().invoke(command, [*roles, "--threads", "1", *arguments])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.fixture
def prompts_file(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in PROMPTS))
    return str(path)


def test_bench_prints_an_object_on_stdout_and_a_table_on_stderr(tiny: Family, prompts_file: str):
    result, table = run(tiny, "--prompts", prompts_file, "--tokens", "8", "--rounds", "2")
    alone = ["base_alone_tps", "tuned_alone_tps", "bare_sum_tps"]
    emulated = ["emulated_tps", "auto_tps", "predicted_auto_tps", "prefill_tps"]
    for key in [*alone, *emulated, "second_turn_ttft_s", "peak_mib"]:
        assert isinstance(result[key], float), key
        assert result[key] > 0, key
    assert set(result["drafted_tps"]) == {"2", "4", "8"}
    assert 0 <= result["acceptance"] <= 1
    assert result["machine"]["usable_cpus"] >= 1
    assert {tuple(counts) for counts in result["equal"].values()} == {(6, 6)}
    for text in ("auto / base alone", "A/A", "time, auto", "decode of n tokens", "same tokens"):
        assert text in table
