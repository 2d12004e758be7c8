"""`edge-eft bench`: a table for people, and one object for programs."""

from helpers.cli_tools import run_bench
from helpers.families import Family

from edge_eft.bench.measure import AUTO, EMULATED
from edge_eft.bench.report import AGAIN, BARE_SUM, BASE
from edge_eft.cli.bench import command
from edge_eft.cli.bench_tables import as_tables
from edge_eft.cli.console import rendered


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
    for text in ("auto / base alone", "A/A", "time, auto", "ms per decode of", "same tokens"):
        assert text in table


def test_figures_fit_forty_columns_and_end_in_a_sentence(monkeypatch):
    tps = {BASE: [10.0], AGAIN: [10.0], BARE_SUM: [4.0], EMULATED: [4.0], AUTO: [6.0]}
    tps |= {"drafts of 2": [7.0]}
    result = {
        "drafted_tps": {"2": 7.0},
        "ratios": {"auto / base alone": {"median": 0.6, "low": 0.5, "high": 0.7}},
        "decode_ms": {"base": {1: 2.0, 2: 3.0}, "tuned:\x1b[31mchat": {1: 1.0}},
        "second_turn_ttft_s": None,
        "first_turn_ttft_s": 0.1,
        "reply_tokens": {"least": 1, "most": 3, "mean": 2.0},
        **dict.fromkeys(("predicted_auto_tps", "predicted_endless_tps", "auto_tps"), 6.0),
        **dict.fromkeys(("acceptance", "prefill_tps", "peak_mib"), 1.0),
        "acceptance_of": {AUTO: 1.0},
        "shares": {AUTO: {"base": 0.5, "other": 0.5}},
        "equal": {AUTO: [6, 6]},
    }
    for columns in (40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = str(rendered(*as_tables(result, tps)))
        assert max(map(len, shown.splitlines())) <= columns
        assert "\x1b[31m" not in shown
        words = " ".join(shown.split())
        assert words.startswith("drafts of 2 is fastest: 7.0 tokens/s; auto reaches 6.0, 0.60 × ")
        assert "how far their ratio is from 1 is noise (A/A)." in words
