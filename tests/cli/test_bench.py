"""`edge-eft bench`: a table for people, and one object for programs."""

from helpers.cli_tools import run_bench
from helpers.families import Family

from edge_eft.cli.bench import command


def test_bench_prints_an_object_on_stdout_and_a_table_on_stderr(tiny: Family, prompts_file: str):
    result, table = run_bench(
        command, tiny, "--prompts", prompts_file, "--tokens", "8", "--rounds", "2"
    )
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
