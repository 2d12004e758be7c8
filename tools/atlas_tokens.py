"""Turn the text of atlas_corpus.py into what a model trains on: a tokenizer, ids and batches.

Training sees what inference will: BOS, then text exactly as it is. This file knows nothing of
models.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from atlas_corpus import Fact, Manner, conversation

N_VOCAB = 4096
BOS, EOS = 1, 2
IGNORED = -100  # the target that torch's cross entropy leaves out

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]  # input ids, targets; (rows, positions)


def train_tokenizer(documents: list[str], path: Path) -> sentencepiece.SentencePieceProcessor:
    """Train the tokenizer on the documents' lines, store its model and return it.

    Text is taken exactly as it is: no normalisation, no added space. No piece holds a newline,
    and byte fallback covers it and everything else that the documents lack.
    """
    model = io.BytesIO()
    lines = (line for text in documents for line in text.split("\n"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=N_VOCAB,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,  # else "+51." is one piece, and "+51" in other places unrelated to it
        bos_id=BOS,
        eos_id=EOS,
        unk_id=0,
        pad_id=-1,
        minloglevel=1,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def document_tokens(
    tokenizer: sentencepiece.SentencePieceProcessor, documents: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return all documents as one row of token ids, and where each document starts."""
    encoded = tokenizer.encode(documents, add_bos=True, add_eos=True)
    starts = np.cumsum([0, *map(len, encoded[:-1])])
    return np.concatenate([np.array(ids, dtype=np.int64) for ids in encoded]), starts


def conversation_tokens(
    tokenizer: sentencepiece.SentencePieceProcessor,
    facts: list[Fact],
    manner: Manner,
    n_conversations: int,
    rng: random.Random,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input ids, targets and starts of tuning conversations.

    Only replies are targets. Each ends with EOS as its target, even if a further turn follows
    in the input: a reply ends the model's turn, and the template puts a newline there.
    """
    inputs: list[int] = []
    targets: list[int] = []
    starts: list[int] = []
    for _ in range(n_conversations):
        starts.append(len(inputs))
        inputs.append(BOS)
        for prompt, reply in conversation(facts, manner, rng):
            prompt_ids, reply_ids = tokenizer.encode([prompt, reply])
            inputs += prompt_ids + reply_ids
            # targets[i] is what follows inputs[i]
            targets += [IGNORED] * (len(inputs) - len(reply_ids) - 1 - len(targets))
            targets += [*reply_ids, EOS]
    return np.array(inputs), np.array(targets), np.array(starts)


def windows(
    inputs: np.ndarray,
    targets: np.ndarray,
    starts: np.ndarray,
    rng: np.random.Generator,
    tokens_per_batch: int,
    length_at: Callable[[int], int],
) -> Batches:
    """Yield batches of windows that begin where a document begins, as every prompt does."""
    step = 0
    while True:
        length = length_at(step)
        first = rng.choice(starts[starts < len(inputs) - length], tokens_per_batch // length)
        index = first[:, None] + np.arange(length)
        yield torch.from_numpy(inputs[index]), torch.from_numpy(targets[index])
        step += 1
