"""What a loaded emulator is, as plain data for a process that has no native code."""

from __future__ import annotations

from typing import Any

from .emulator import Emulator


def facts(emulator: Emulator) -> dict[str, Any]:
    """Return what a front end in another process needs to know of an emulator.

    Returns:
        n_ctx, n_slots, n_ctx_train, n_vocab, n_threads; cache: its kind; memory: bytes; deltas:
        name → weight; bos, eos: texts of the base's tokens; templates: role → source of its chat
        template, "" without one; reads: the names of the variables that any of them reads;
        reply_forms: role → `ReplyForm`; files: role → its file; warnings: lines for the user.
    """
    record = emulator.record
    base = emulator.contexts[0].model
    texts = base.token_texts()
    prompts = {role: runner.prompt for runner in emulator.contexts for role in runner.roles}

    def text(token: int | None) -> str:
        return "" if token is None else texts[token].decode("utf-8", "replace")

    return {
        "n_ctx": record.n_ctx,
        "n_slots": record.n_slots,
        "n_ctx_train": min(file.n_ctx_train for file in record.files.values()),
        "n_vocab": emulator.vocabulary.n_vocab,
        "n_threads": record.n_threads,
        "cache": str(record.cache),
        "memory": record.memory.total,
        "deltas": dict(emulator.deltas),
        "bos": text(base.bos_token),
        "eos": text(base.eos_token),
        "templates": {role: prompt.source for role, prompt in prompts.items()},
        "reads": sorted(set[str]().union(*(prompt.variables for prompt in prompts.values()))),
        "reply_forms": {role: prompt.reply_form.to_dict() for role, prompt in prompts.items()},
        "files": {
            role: {
                "name": file.path.name,
                "n_bytes": file.n_bytes,
                "n_parameters": file.n_parameters,
                "quantisation": file.quantisation,
                "architecture": file.architecture,
                "prompt": file.prompt,
                "end_tokens": list(file.end_tokens.values()),
            }
            for role, file in record.files.items()
        },
        "warnings": [*record.warnings, *record.vocabulary.warnings],
    }
