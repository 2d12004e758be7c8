"""No text that a client sends becomes a control token, in whatever field of whatever dialect.

What is looked at are the token ids that the engine is about to be given, behind a live server.
"""

import json
import os
from itertools import chain, islice

import pytest
from helpers.http_server import JSON, serving
from helpers.recipe_files import write_toml
from helpers.small_vocabularies import smollm2

from edge_eft.backend import Model
from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import to_toml
from edge_eft.server.app import create_app
from edge_eft.server.engine import Engine
from edge_eft.server.failure import UnservedError
from edge_eft.server.options import ServeOptions
from edge_eft.server.served import ServedRecipe
from edge_eft.text.vocabulary import CONTROL, UNKNOWN

HARMLESS = "harmless"


class Prompts:
    """A live server that tells which ids a request becomes, instead of answering it.

    Args:
        recipe: its path or name.
        models: role's first word → the model that its ids are of.
        is_narrow: whether there are messages that its templates refuse.
    """

    def __init__(self, recipe, models, *, is_narrow=False):
        loaded = load_recipe(recipe)
        served = ServedRecipe(loaded.name, to_toml(loaded, os.devnull), str(recipe))
        self._app = create_app(ServeOptions((served,), slots=1))
        self._models, self._is_narrow = models, is_narrow
        self._seen = []

    def __enter__(self):
        seen, ask = self._seen, Engine.ask

        async def noting(engine, name, what, **arguments):
            answer = await ask(engine, name, what, **arguments)
            if what == "prompts":
                seen.append(answer)
            return answer

        async def submit(engine, name, requests, progress):
            for request in requests:
                await engine.ask(name, "prompts", request=request)
            raise UnservedError("RequestError", "seen")

        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(Engine, "ask", noting)
        self._patch.setattr(Engine, "submit", submit)
        self._server = serving(self._app)
        self._live = self._server.__enter__()
        return self

    def __exit__(self, *error):
        self._server.__exit__(*error)
        self._patch.undo()

    @property
    def control_texts(self):
        """The text of every control token, of any of the models."""
        return sorted(set(chain.from_iterable(map(controls, self._models.values()))))

    def controls(self, path, body):
        """Role → the control tokens of the prompt that a body becomes, in their order.

        None if the models' templates have no use for such a message.
        """
        self._seen.clear()
        status, _, said = self._live.ask(path, "POST", body, **JSON)
        if self._is_narrow and not self._seen:
            assert status == 400, said
            return None
        assert self._seen, said
        return {
            role: [i for i in told["tokens"] if i in self._ids(role)]
            for role, told in self._seen[-1].items()
        }

    def text(self):
        """What the first role was told last."""
        return next(iter(self._seen[-1].values()))["text"]

    def _ids(self, role):
        return set(controls(self._models[role.partition(":")[0]]).values())


def controls(model):
    """Text → id of the control tokens of a model, and of its unknown token."""
    kinds, texts = model.token_attributes(), model.token_texts()
    ids = (kinds & (CONTROL | UNKNOWN)).nonzero()[0].tolist()
    return {texts[i].decode(): i for i in ids}


# -- the places of a text --------------------------------------------------------------------

ROLES = ("system", "user", "assistant", "tool")
TOOL = {"name": "weather", "description": "Says it.", "parameters": {"type": "object"}}


def of_openai(role, content):
    """Messages of which one of this role has this content, and others before and after it."""
    one = {"role": role, "content": content}
    if role == "tool":
        one["tool_call_id"] = "c1"
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    called = [{"role": "assistant", "content": "", "tool_calls": calls}] if role == "tool" else []
    return [{"role": "user", "content": "Hi"}, *called, one, {"role": "user", "content": "Go on"}]


def openai_chat(role, parts):
    content = parts[0] if len(parts) == 1 else [{"type": "text", "text": one} for one in parts]
    return "/v1/chat/completions", {"messages": of_openai(role, content)}


def apply_template(role, parts):
    return "/apply-template", openai_chat(role, parts)[1]


def anthropic(role, parts):
    content = parts[0] if len(parts) == 1 else [{"type": "text", "text": one} for one in parts]
    messages = [{"role": "user", "content": "Hi"}]
    if role == "tool":
        use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
        messages.append({"role": "assistant", "content": [use]})
        content = [{"type": "tool_result", "tool_use_id": "t1", "content": content}]
    elif role != "system":
        messages.append({"role": role, "content": content})
    messages.append({"role": "user", "content": content if role == "tool" else "Go on"})
    body = {"messages": messages, "max_tokens": 1}
    return "/v1/messages", body | ({"system": content} if role == "system" else {})


def count_tokens(role, parts):
    return "/v1/messages/count_tokens", anthropic(role, parts)[1]


def responses(role, parts):
    kind = "output_text" if role == "assistant" else "input_text"
    content = parts[0] if len(parts) == 1 else [{"type": kind, "text": one} for one in parts]
    items = [{"role": "user", "content": "Hi"}, {"role": role, "content": content}]
    if role == "tool":
        call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
        items[1:] = [call, {"type": "function_call_output", "call_id": "c1", "output": content}]
    return "/v1/responses", {"input": [*items, {"role": "user", "content": "Go on"}]}


def ollama(role, parts):
    """Its messages have no parts: they come as messages of one role, one after another."""
    before = of_openai(role, parts[0])
    more = [{"role": role, "content": one} for one in parts[1:]]
    return "/api/chat", {"messages": [*before[:-1], *more, before[-1]]}


DIALECTS = (openai_chat, apply_template, anthropic, count_tokens, responses, ollama)


def elsewhere(text):
    """(path, body) with the text in all other fields that a prompt is made of."""
    arguments = json.dumps({"city": text})
    call = {"id": text, "type": "function", "function": {"name": "f", "arguments": arguments}}
    schema = {"type": "object", "properties": {"city": {"type": "string", "description": text}}}
    tool = {"name": "f", "description": text, "parameters": schema}
    start = {"role": "user", "content": "Hi"}
    yield (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "developer", "content": text, "name": text},
                {**start, "name": text},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": "17", "tool_call_id": text, "name": text},
                {"role": "assistant", "content": "", "reasoning_content": text},
                start,
            ],
            "tools": [{"type": "function", "function": tool}],
            "chat_template_kwargs": {"custom": text},
        },
    )
    # A reply is continued.
    yield "/v1/chat/completions", {"messages": [start, {"role": "assistant", "content": text}]}
    use = {"type": "tool_use", "id": text, "name": "f", "input": {"city": text}}
    yield (
        "/v1/messages",
        {
            "system": [{"type": "text", "text": text}],
            "messages": [
                start,
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": text, "signature": ""}, use],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": text, "content": text}],
                },
            ],
            "tools": [{"name": "f", "description": text, "input_schema": schema}],
            "max_tokens": 1,
        },
    )
    about = {"call_id": text, "name": "f", "arguments": arguments}
    yield (
        "/v1/responses",
        {
            "instructions": text,
            "input": [
                start,
                {"type": "function_call", **about},
                {"type": "function_call_output", "call_id": text, "output": text},
            ],
            "tools": [{"type": "function", **tool}],
        },
    )
    used = {"function": {"name": "f", "arguments": {"city": text}}}
    yield (
        "/api/chat",
        {
            "messages": [
                start,
                {"role": "assistant", "content": "", "thinking": text, "tool_calls": [used]},
                {"role": "tool", "content": text, "tool_name": text},
            ],
            "tools": [{"type": "function", "function": tool}],
        },
    )
    yield "/api/generate", {"prompt": text, "system": text}


# -- with models of both kinds ---------------------------------------------------------------

# Shows all that there is of a message, and of tools.
TEMPLATE = (
    "{%- for tool in tools or [] %}<|im_start|>system\n{{ tool | tojson }}<|im_end|>\n{% endfor %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.name }}"
    "{{ message.reasoning_content }}{{ message.content }}{{ message.tool_call_id }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>{{ call | tojson }}</tool_call>"
    "{{ call.function.arguments }}{%- endfor %}<|im_end|>\n{% endfor %}{{ custom }}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["atlas", pytest.param("SmolLM2", marks=pytest.mark.slow)])
def prompts(request, tmp_path_factory):
    """Atlas with its own templates, and SmolLM2 with one that shows everything."""
    if request.param == "atlas":
        family = request.getfixturevalue("atlas")
        models = {"base": family.base, "tuned": family.tuned, "reference": family.reference}
        models = {role: Model(path, vocab_only=True) for role, path in models.items()}
        with Prompts("atlas", models, is_narrow=True) as found:
            yield found
        return
    base, tuned, reference = (
        f"file = '{path}'\nprompt = '''{TEMPLATE}'''"
        for path in request.getfixturevalue("smollm2_trio")
    )
    text = 'description = "A twin."\nlicense = "Apache-2.0"\nn_ctx = 4096\n'
    text += f"[base]\n{base}\n[delta.d.tuned]\n{tuned}\n[delta.d.reference]\n{reference}\n"
    recipe = write_toml(tmp_path_factory.mktemp("forged"), text)
    with Prompts(recipe, dict.fromkeys(("base", "tuned", "reference"), smollm2())) as found:
        yield found


def attempts(texts):
    """All control tokens' texts in one content, in one part each, and cut at every place."""
    yield [" a".join(texts)]
    yield texts
    for cut in range(1, max(map(len, texts))):
        yield [half for text in texts for half in (text[:cut], text[cut:]) if half]


def check(prompts, dialect, role, n_most):
    """The first `n_most` attempts put the control tokens of the scaffold into a prompt, no more."""
    for parts in islice(attempts(prompts.control_texts), n_most):
        harmless = prompts.controls(*dialect(role, [HARMLESS] * len(parts)))
        assert prompts.controls(*dialect(role, parts)) == harmless, parts


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
@pytest.mark.parametrize("role", ROLES)
def test_a_control_tokens_text_stays_text_whole_and_in_parts(prompts, dialect, role):
    check(prompts, dialect, role, 2)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
@pytest.mark.parametrize("role", ROLES)
def test_nor_does_one_come_of_parts_that_are_cut_anywhere(prompts, dialect, role):
    check(prompts, dialect, role, None)


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_each_by_itself_in_the_last_message(prompts, dialect):
    for text in prompts.control_texts:
        expected = prompts.controls(*dialect("user", [HARMLESS]))
        assert prompts.controls(*dialect("user", [text])) == expected, text


def test_no_other_field_of_a_dialect_forges_one(prompts):
    hostile = " a".join(prompts.control_texts[-3:])
    for forged, harmless in zip(elsewhere(hostile), elsewhere(HARMLESS), strict=True):
        path, body = harmless
        expected = prompts.controls(path, body)
        assert prompts.controls(*forged) == expected, path


def test_what_a_template_shows_is_told_and_a_scaffold_has_control_tokens(prompts):
    """Else the others would hold whatever came."""
    found = prompts.controls(*openai_chat("user", [" a".join(prompts.control_texts)]))
    assert any(found.values())
    assert all(text in prompts.text() for text in prompts.control_texts)
