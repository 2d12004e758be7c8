"""llama.cpp without edge_eft: logits and greedy replies to compare with, token by token."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from scipy.special import log_softmax


class BareModel:
    """One model and one context: Q8_0 cache, flash attention, one thread, as edge_eft has them."""

    def __init__(self, path: Path, n_ctx: int = 512) -> None:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.eos = llama_cpp.llama_vocab_eos(self.vocab)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = n_ctx
        options.n_threads = options.n_threads_batch = 1
        options.type_k = options.type_v = llama_cpp.GGML_TYPE_Q8_0
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        self._memory = llama_cpp.llama_get_memory(self._context)

    def tokenize(self, text: str) -> list[int]:
        """BOS as the file says, special parsing off."""
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), True, False)
        return list(buffer[:n])

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        """(vocab,) float64 logits after a prompt, in an empty cache."""
        llama_cpp.llama_memory_clear(self._memory, True)
        return self.go_on(prompt)

    def go_on(self, tokens: Sequence[int]) -> np.ndarray:
        """(vocab,) float64 logits after these tokens, behind what is in the cache."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        assert llama_cpp.llama_decode(self._context, batch) == 0
        pointer = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self.n_vocab,)).astype(np.float64)

    def log_probabilities(self, prompt: Sequence[int], reply: Sequence[int]) -> np.ndarray:
        """(len(reply), vocab) float64: the distributions from which the reply's tokens came."""
        rows = [self.start(prompt), *(self.go_on([token]) for token in reply[:-1])]
        return np.array([log_softmax(row) for row in rows])

    def greedy(self, prompt: Sequence[int], n: int) -> list[int]:
        """At most n tokens, without the end token."""
        reply: list[int] = []
        row = self.start(prompt)
        while len(reply) < n and (token := int(row.argmax())) != self.eos:
            reply.append(token)
            row = self.go_on([token])
        return reply


@functools.lru_cache(maxsize=8)
def bare(path: Path) -> BareModel:
    """Kept for the whole run; `start` empties its cache."""
    return BareModel(path)
