"""Small moves that the emulator's tests share."""

import numpy as np

from edge_eft import Emulator
from helpers.bare_llama import BareModel

# Counts of decoded tokens are stated without drafts, which decode more in `tuned`.
UNDRAFTED = {"draft": 0}
DRAFTED = [UNDRAFTED, {"draft": 4}]
GREEDY = {"temperature": 0.0}
ROLES = {"base", "tuned:tuned", "reference:tuned"}


def open_emulator(family, **options):
    """The family's three files, one thread."""
    options = {"n_ctx": 256, "n_threads": 1} | options
    return Emulator.from_files(base=family[0], tuned=family[1], reference=family[2], **options)


def run(emulator, n_max=500):
    """Steps until nothing is left to do: request id → its steps."""
    replies = {}
    for _ in range(n_max):
        if not emulator.busy:
            return replies
        for step in emulator.step():
            replies.setdefault(step.request_id, []).append(step)
    raise AssertionError(f"there is still work after {n_max} calls of step()")


def text_of(steps):
    return "".join(step.text for step in steps)


def tokens_of(steps):
    return [step.token for step in steps]


def alone(family, requests, **options):
    """The steps that each request gives in an emulator of its own."""
    replies = []
    for request in requests:
        with open_emulator(family, **options) as emulator:
            replies.append(list(emulator.stream(request)))
    return replies


def decoded(emulator):
    """Tokens decoded so far: context → number."""
    return {runner.name: runner.context.decoded_tokens for runner in emulator.contexts}


def decoded_since(emulator, before):
    return {name: n - before[name] for name, n in decoded(emulator).items()}


def reference_reply(family, prompt, schedule):
    """Greedy tokens of the float64 sum of bare logits; `schedule` has every token's weights."""
    models = [BareModel(path) for path in family[:3]]
    rows = [model.start(model.tokenize(prompt)) for model in models]
    reply = []
    for weights in schedule:
        coefficients = weights.coefficients({"tuned": 1.0}).values()
        total = sum(c * row for c, row in zip(coefficients, rows, strict=True))
        token = int(np.argmax(total))
        reply.append(token)
        if token == models[0].eos:
            break
        rows = [model.go_on([token]) for model in models]
    return reply


def solved_alpha(candidates):
    """The α that the candidates of a step stand for: emulated = base + α · δ, up to a constant."""
    of = {
        role: np.array([one.logprobs[role] for one in candidates]) for role in ("emulated", *ROLES)
    }
    delta = of["tuned:tuned"] - of["reference:tuned"]
    a, b = delta.argmax(), delta.argmin()
    gained = of["emulated"] - of["base"]
    return (gained[a] - gained[b]) / (delta[a] - delta[b])
