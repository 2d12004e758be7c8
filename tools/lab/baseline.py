"""The baseline without edge_eft, as one more way in the rounds: three `Llama` objects, joined."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from joined_llama import PeerPrompts, Peers

from edge_eft.bench.ways import Plan, Reply, active_contexts, room_for
from edge_eft.engine.emulator import Emulator
from edge_eft.engine.request import Prompt
from edge_eft.errors import RequestError
from edge_eft.logits.weights import Weights

NAME = "three Llama objects"


def check_comparable(emulator: Emulator, plan: Plan) -> None:
    """Raise RequestError if three plain objects cannot do what the recipe and the plan ask for."""
    specs = emulator.recipe.roles()
    coefficients = Weights().coefficients(emulator.deltas)
    used = sorted((c for c in coefficients.values() if c), reverse=True)
    if used != [1.0, 1.0, -1.0] or any(specs[c.name].lora for c in active_contexts(emulator)):
        raise RequestError("--peers compares recipes with one delta of weight 1, and no LoRA")
    if plan.temperature or plan.ignore_end:
        raise RequestError("--peers is greedy: leave out --temperature and --ignore-end")


class PeersWay:
    """Greedy replies of `Peers` to the same prompts, as long as the emulation's.

    Args:
        emulator: one that is comparable; its files, threads and cache are taken.
        prompts: given to each model in its own format.
        plan: of the rounds.
        replies: the emulation's; a reply is cut to the length of its own.
        n_gpu_layers: as of the emulator.
    """

    def __init__(
        self,
        emulator: Emulator,
        prompts: Sequence[Prompt],
        plan: Plan,
        replies: Sequence[tuple[int, ...]],
        *,
        n_gpu_layers: int | None,
    ) -> None:
        specs = emulator.recipe.roles()
        by_side = {c.name.partition(":")[0]: c for c in active_contexts(emulator)}
        self._peers = Peers(
            *(specs[by_side[side].name].file for side in PeerPrompts._fields),
            n_ctx=room_for(emulator, prompts, plan.tokens),
            n_threads=by_side["base"].context.n_threads,
            n_gpu_layers=n_gpu_layers,
            cache=emulator.record.cache,
        )
        self.close = self._peers.close
        self._prompts = [
            PeerPrompts(*(by_side[side].encode(prompt) for side in PeerPrompts._fields))
            for prompt in prompts
        ]
        self._replies = replies

    def answer(self, index: int) -> Reply:
        """Stream a reply. Its first token, which the class gives with the prompt, is not timed."""
        stream = self._peers.stream(self._prompts[index])
        begun = perf_counter()
        tokens = [next(stream)]
        if len(self._replies[index]) > 1:
            begun = perf_counter()
        while len(tokens) < len(self._replies[index]):
            token = next(stream, None)
            if token is None:
                break
            tokens.append(token)
        seconds = perf_counter() - begun
        stream.close()
        # It counts as one of the others, so that all ways have the same tokens.
        return Reply(tuple(tokens), seconds * len(tokens) / max(len(tokens) - 1, 1))
