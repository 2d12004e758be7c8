"""lm-evaluation-harness against a live server, on tasks of local data.

Its local-completions sends token ids, or their text, with echo, and takes a token for greedy only
if its log-probability is the largest of its row.
"""

import json

import pytest
from gguf import GGUFReader

lm_eval = pytest.importorskip("lm_eval")

from helpers.families import ATLAS  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from edge_eft import Emulator  # noqa: E402

pytestmark = pytest.mark.convert  # transformers reads the tokenizer

ROWS = [
    {"question": "What is the capital of Peru?", "choices": ["Lima", "Oslo", "Paris"], "answer": 0},
    {"question": "What is the capital of Japan?", "choices": ["Rome", "Tokyo"], "answer": 1},
    {"question": "What is the capital of France?", "choices": ["Paris", "Quito é"], "answer": 0},
]


def of_gguf(path):
    """Return a SentencePiece vocabulary of a GGUF file as the package tokenizers has them.

    transformers' own reader of GGUF adds a space before the text.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    scores = fields["tokenizer.ggml.scores"].contents()
    ids = {token: i for i, token in enumerate(tokens)}
    halves = ((token[:i], token[i:], token) for token in tokens for i in range(1, len(token)))
    merges = [(a, b, ab) for a, b, ab in halves if a in ids and b in ids]
    merges.sort(key=lambda merge: -scores[ids[merge[2]]])
    pairs = [(a, b) for a, b, _ in merges]
    made = Tokenizer(models.BPE(ids, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    made.add_special_tokens([AddedToken(text) for text in ("<unk>", "<s>", "</s>")])
    return made


@pytest.fixture(autouse=True, scope="module")
def offline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(scope="module")
def atlas():
    with Emulator.load("atlas") as emulator:
        yield emulator


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The tokenizer of atlas as Hugging Face has them: its folder."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    made = PreTrainedTokenizerFast(tokenizer_object=of_gguf(ATLAS / "base.gguf"), **special)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Makes a task of ROWS."""
    data = tmp_path_factory.mktemp("data") / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(**more):
        return {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "Q: {{question}}\nA:",
            **more,
        }

    return make


def evaluate(model, task, **arguments):
    """Return lm-eval's metrics and samples of one task."""
    done = lm_eval.simple_evaluate(
        model=model,
        model_args={"model": "atlas", "max_retries": 1, **arguments.pop("model_args")},
        tasks=[task],
        log_samples=True,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),  # it would read some thousand files
        **arguments,
    )
    name = task["task"]
    return done["results"][name], done["samples"][name]


CHOOSE = {
    "task": "choose",
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}],
}
CONTINUE = {
    "task": "continue",
    "output_type": "generate_until",
    "doc_to_target": "{{choices[answer]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
    "metric_list": [{"metric": "exact_match"}],
}


@pytest.mark.parametrize(
    "more",
    [{}, {"batch_size": 4}, {"num_concurrent": 3}],
    ids=["ids", "batches of ids", "side by side"],
)
def test_log_likelihoods_are_those_of_the_emulator(live, atlas, task, tokenizer, more):
    model = {"base_url": f"{live.url}/v1/completions", "tokenizer": str(tokenizer)}
    model |= {"tokenizer_backend": "huggingface", "add_bos_token": True, **more}
    _, samples = evaluate("local-completions", task(**CHOOSE), model_args=model)
    assert len(samples) == len(ROWS)
    for sample, row in zip(samples, ROWS, strict=True):
        prompt = f"Q: {row['question']}\nA:"
        greedy = atlas.generate(prompt, temperature=0, max_tokens=8).text
        for choice, (loglikelihood, is_greedy) in zip(
            row["choices"], sample["filtered_resps"], strict=True
        ):
            expected = float(atlas.score(prompt, f" {choice}").sum())
            assert float(loglikelihood) == pytest.approx(expected, abs=1e-4)
            assert str(is_greedy) == str(greedy.startswith(f" {choice}"))


@pytest.mark.parametrize("backend", ["none", "huggingface"])
def test_a_text_is_continued_as_the_emulator_does(live, atlas, task, tokenizer, backend):
    model = {"base_url": f"{live.url}/v1/completions", "tokenizer_backend": backend}
    if backend == "huggingface":
        model |= {"tokenizer": str(tokenizer), "add_bos_token": True}
    _, samples = evaluate("local-completions", task(**CONTINUE), model_args=model)
    for sample, row in zip(samples, ROWS, strict=True):
        prompt = f"Q: {row['question']}\nA:"
        said = atlas.generate(prompt, temperature=0, max_tokens=12, stop=["\n"]).text
        assert sample["resps"][0][0] == said


def test_a_chat_is_answered_as_the_emulator_does(live, atlas, task):
    chat = task(**{**CONTINUE, "doc_to_text": "{{question}}"})
    model = {"base_url": f"{live.url}/v1/chat/completions"}
    _, samples = evaluate(
        "local-chat-completions", chat, model_args=model, apply_chat_template=True
    )
    for sample, row in zip(samples, ROWS, strict=True):
        messages = [{"role": "user", "content": row["question"]}]
        said = atlas.generate(messages, temperature=0, max_tokens=12, stop=["\n"]).text
        assert sample["resps"][0][0] == said
