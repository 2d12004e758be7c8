"""Simon Willison's `llm` against a live server, through its command line."""

import json
import os
import subprocess
import sys

import pytest
import yaml

pytest.importorskip("llm")

QUESTION = "What is the capital of Peru?"


@pytest.fixture
def llm(live, tmp_path):
    """Runs `llm` with a model that leads to the server; its stdout."""
    about = {"model_id": "here", "model_name": "atlas", "api_base": f"{live.url}/v1"}
    models = [{**about, "api_key_name": "none", "supports_schema": True, "supports_tools": True}]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
    (tmp_path / "keys.json").write_text('{"none": "none"}')

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "llm", *words],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def said(live):
    messages = [{"role": "user", "content": QUESTION}]
    done = live.openai.chat.completions.create(model="atlas", messages=messages, temperature=0)
    return done.choices[0].message.content


@pytest.mark.parametrize("how", [(), ("--no-stream",)], ids=["stream", "whole"])
def test_a_prompt_is_answered(llm, said, how):
    assert llm("-m", "here", "-o", "temperature", "0", *how, QUESTION).strip() == said.strip()


@pytest.mark.slow
def test_its_log_has_the_usage(llm):
    llm("-m", "here", "-o", "temperature", "0", QUESTION)
    (entry,) = json.loads(llm("logs", "--json"))
    assert entry["input_tokens"] > 0
    assert entry["output_tokens"] > 0


def test_a_schema_is_kept_to(llm):
    properties = {"city": {"enum": ["Lima", "Oslo"]}, "rivers": {"enum": [1, 2]}}
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    schema["additionalProperties"] = False
    found = json.loads(llm("-m", "here", "--schema", json.dumps(schema), QUESTION))
    assert found["city"] in ("Lima", "Oslo")
    assert found["rivers"] in (1, 2)
