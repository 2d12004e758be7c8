"""The weights and vocabulary of one GGUF model."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, ModelFileError, RequestError
from ..files.adapter_check import check_adapter_fits
from ..files.gguf_check import GGUFHeader, read_header
from .library import L, interrupted, last_error, native, start_library

# Kinds of tokenizers in which every byte of a text is part of a token; others normalise.
_KEEPING = (L.LLAMA_VOCAB_TYPE_SPM, L.LLAMA_VOCAB_TYPE_BPE)
_SHORT = 128 << 10  # characters, which take a fifth of a second
_STRIP = L.LLAMA_TOKEN_ATTR_LSTRIP | L.LLAMA_TOKEN_ATTR_RSTRIP


class Model:
    """The weights and vocabulary of one GGUF model, shared by any number of contexts.

    Args:
        path: the file, or the first part of a split model; headers are checked before native
            code sees them.
        n_gpu_layers: layers on the GPU; None: all, if there is one.
        vocab_only: load no weights; such a model cannot make a `Context`.
        header: what `read_header` gave for `path`, if the caller has just read it; None: read it.
        on_progress: told the share of the weights that is loaded, as llama.cpp reports it.

    Raises:
        ModelFileError: the file is missing, damaged, or not a model that llama.cpp can load.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_gpu_layers: int | None = None,
        vocab_only: bool = False,
        header: GGUFHeader | None = None,
        on_progress: Callable[[float], object] | None = None,
    ) -> None:
        self.path = Path(path)
        self.header: GGUFHeader = header or read_header(self.path)
        if self.header.is_adapter:
            raise ModelFileError(
                f"{self.path} is a LoRA adapter, not a model: "
                'name it as tuned = { lora = "…", on = "reference" }'
            )
        start_library()
        params = L.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = -1 if n_gpu_layers is None else n_gpu_layers
        self._model = _load(self.path, params, on_progress)
        if not self._model:
            raise ModelFileError(f"llama.cpp cannot load {self.path}: {last_error()}")
        self.close = weakref.finalize(self, L.llama_model_free, self._model)
        self.vocab_only = vocab_only
        self._vocab = L.llama_model_get_vocab(self._model)
        self.name = self.path.name
        self.n_vocab: int = L.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = L.llama_model_n_ctx_train(self._model)
        self.bos_token = self._token(L.llama_vocab_bos)
        self.eos_token = self._token(L.llama_vocab_eos)
        # All ids with which this model ends a reply: llama.cpp knows more of them than EOS and EOT.
        is_end = L.llama_vocab_is_eog
        self.end_tokens = frozenset(t for t in range(self.n_vocab) if is_end(self._vocab, t))
        self.add_bos = bool(L.llama_vocab_get_add_bos(self._vocab))
        template = L.llama_model_chat_template(self._model, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self._pieces: dict[tuple[int, bool], bytes] = {}

    def named_template(self, name: str) -> str | None:
        """Return the chat template of that name (`tokenizer.chat_template.NAME`), if there is one.

        `chat_template` is the default one.
        """
        template = L.llama_model_chat_template(self._model, name.encode("utf-8", "replace"))
        return template.decode("utf-8", "replace") if template else None

    def _token(self, getter: Any) -> int | None:
        token = getter(self._vocab)
        return token if 0 <= token < self.n_vocab else None

    @cached_property
    def _texts(self) -> list[bytes]:
        get_text = L.llama_vocab_get_text
        return [get_text(self._vocab, token) or b"" for token in range(self.n_vocab)]

    def token_texts(self) -> list[bytes]:
        """Return the vocabulary's own text of every id, as the file has it."""
        return self._texts

    @cached_property
    def _attributes(self) -> NDArray[np.int32]:
        get_attr = L.llama_vocab_get_attr
        return np.array([get_attr(self._vocab, t) for t in range(self.n_vocab)], np.int32)

    def token_attributes(self) -> NDArray[np.int32]:
        """Return (n_vocab,) int32 of LLAMA_TOKEN_ATTR_* bits."""
        return self._attributes

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Return the token ids of `text`.

        Args:
            text: any text.
            add_special: add BOS (and EOS) as the file says.
            parse_special: let texts such as `<|im_end|>` become control tokens; never on for
                text that a user or a model wrote.
        """
        if not self.close.alive:
            raise EngineError(f"{self.name} is closed")
        data = text.encode("utf-8", "surrogatepass")
        n_max = len(data) + 16
        for _ in range(2):
            buffer = (L.llama_token * n_max)()
            n = L.llama_tokenize(
                self._vocab, data, len(data), buffer, n_max, add_special, parse_special
            )
            if n >= 0:
                return list(buffer[:n])
            n_max = -n
        raise EngineError(f"{self.name} cannot tokenise a text of {len(data)} bytes")

    def fewest_tokens(self, text: str) -> int:
        """Return a number of tokens that a long text has at least, by its length.

        That costs nothing. 0 says nothing: the text is short, or the tokenizer drops parts of it.
        """
        if len(text) <= _SHORT or L.llama_vocab_type(self._vocab) not in _KEEPING:
            return 0
        if self._strips:
            text = "".join(text.split())
        return -(-len(text.encode("utf-8", "surrogatepass")) // self._longest_piece)

    @cached_property
    def _strips(self) -> bool:
        """Whether a token takes the white space beside it along."""
        return bool((self._attributes & _STRIP).any())

    @cached_property
    def _longest_piece(self) -> int:
        """The most bytes that a token prints; none prints more than its text in the file has."""
        longest = 1
        for token in sorted(range(self.n_vocab), key=lambda one: -len(self._texts[one])):
            if len(self._texts[token]) <= longest:
                break
            longest = max(longest, len(self.piece(token, special=True)))
        return longest

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token prints; b"" for a control token unless `special`."""
        key = (token, special)
        if key not in self._pieces:
            if not self.close.alive:
                raise EngineError(f"{self.name} is closed")
            if not 0 <= token < self.n_vocab:
                raise RequestError(
                    f"token {token} is not in {self.name}: ids end at {self.n_vocab}"
                )
            size = 128
            buffer = ctypes.create_string_buffer(size)
            n = L.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if n < 0:
                buffer = ctypes.create_string_buffer(-n)
                n = L.llama_token_to_piece(self._vocab, token, buffer, -n, 0, special)
            self._pieces[key] = buffer.raw[: max(n, 0)]
        return self._pieces[key]

    def load_adapter(self, path: str | os.PathLike[str]) -> Any:
        """Load a LoRA adapter for contexts of this model; it is freed with the model.

        Raises:
            ModelFileError: not an adapter, or made for another model, or not applied wholly.
        """
        header = read_header(path)
        if not header.is_adapter:
            raise ModelFileError(f"{path} is a model, not a LoRA adapter")
        check_adapter_fits(header, self.header)
        with native(f"loading {path}"):
            adapter = L.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not adapter:
            raise ModelFileError(f"{path} does not fit {self.name}: {last_error()}")
        return adapter


def _load(path: Path, params: Any, on_progress: Callable[[float], object] | None) -> Any:
    """Return llama.cpp's model, falsy if there is none of it; raise what `on_progress` raised."""
    failures: list[Exception] = []

    @L.llama_progress_callback
    def go_on(share: float, _: Any) -> bool:
        try:
            if on_progress is not None:
                on_progress(share)
        except Exception as error:  # ctypes would print and forget it
            failures.append(error)
        return not (failures or interrupted())

    params.progress_callback = go_on
    with native(f"loading {path}"):
        model = L.llama_model_load_from_file(os.fsencode(path), params)
    if failures:
        if model:
            L.llama_model_free(model)
        raise failures[0]
    return model
