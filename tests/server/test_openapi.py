"""openapi, body_schemas: the document says what is served, and no body makes the server fail."""

import os
import subprocess
import sys

import jsonschema
import pytest
from starlette.routing import Route

from edge_eft.server import (
    anthropic,
    llama_routes,
    llama_server,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    openai_routes,
)
from edge_eft.server.app import OPEN_PATHS, create_app
from edge_eft.server.body_schemas import BODIES, FIELDS
from edge_eft.server.openapi import OPERATIONS, document
from edge_eft.server.options import ServeOptions
from edge_eft.server.served import ServedRecipe

KNOWN = {
    "/v1/chat/completions": openai_chat.KNOWN,
    "/apply-template": openai_chat.KNOWN,
    "/v1/chat/completions/control": openai_routes.CONTROL,
    "/completions": openai_completions.KNOWN,
    "/v1/responses": openai_responses.KNOWN,
    "/v1/messages": anthropic.KNOWN,
    "/v1/messages/count_tokens": anthropic.KNOWN,
    "/completion": (*llama_server.KNOWN, *llama_server.NAMES),
    "/tokenize": llama_routes.TOKENIZE,
    "/detokenize": llama_routes.DETOKENIZE,
    "/api/chat": ollama.CHAT,
    "/api/generate": ollama.GENERATE,
}
# For schemathesis. What is served with and without /v1 is asked for once, and of a body that only
# loads a model, Ollama's way, nothing else is read.
CONFIG = """
request-timeout = 30
continue-on-failure = true
warnings = false
[checks]
enabled = false
not_a_server_error.enabled = true
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_schema_conformance.enabled = true
negative_data_rejection.enabled = true
[phases.examples]
checks.positive_data_acceptance.enabled = true
[phases.coverage]
unexpected-methods = []
[output.sanitization]
enabled = false
[[operations]]
include-path-regex = "^/(models|chat|completions|embeddings|responses|v1/health)"
enabled = false
[[operations]]
include-path = ["/api/chat", "/api/generate"]
checks.negative_data_rejection.enabled = false
"""
EXAMPLES = os.environ.get("EDGE_EFT_TEST_EXAMPLES", "2")


@pytest.fixture(scope="module")
def described(live):
    """The document of a live server."""
    return live.http.get("/openapi.json").json()


def operations(described):
    return [(path, method) for path, each in described["paths"].items() for method in each]


def test_what_is_served_is_in_the_document_and_nothing_else_is(described):
    served = create_app(ServeOptions((ServedRecipe("atlas", "", ""),)))
    routes = served._app._app.routes  # behind the counting and the guard
    methods = [
        (route.path_format, method.lower())
        for route in routes
        for method in route.methods
        if method != "HEAD" or route.methods == {"HEAD"}
    ]
    assert sorted(operations(described)) == sorted(methods)
    assert {path.removeprefix("/v1") for path in described["paths"]} == OPERATIONS.keys()


@pytest.mark.parametrize("path", KNOWN)
def test_a_body_has_the_fields_that_its_dialect_reads(described, path):
    assert set(body_of(described, path)["properties"]) == set(KNOWN[path])


def test_every_body_of_the_document_is_looked_at(described):
    bodies = [described["paths"][path].get("post", {}) for path in described["paths"]]
    looked_at = [id(body_of(described, path)) for path in (*KNOWN, "/api/show")]
    assert {id(resolved(described, body)) for body in bodies if "requestBody" in body} == {
        *looked_at
    }


def test_nothing_is_described_that_nobody_reads():
    own = {name for body in BODIES.values() for name in set(body.names) - body.own.keys()}
    assert own == FIELDS.keys()


def body_of(described, path):
    return resolved(described, described["paths"][path]["post"])


def resolved(described, operation):
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return described["components"]["schemas"][reference.rpartition("/")[2]]


def test_its_schemas_are_schemas_and_its_examples_fit_them(described):
    for schema in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
        whole = {**schema, "components": described["components"]}
        for example in schema.get("examples", ()):
            jsonschema.validate(example, whole, jsonschema.Draft202012Validator)


def test_options_of_ollama_are_those_that_it_reads(described):
    schemas = described["components"]["schemas"]
    assert set(schemas["OllamaOptions"]["properties"]) == set(ollama.OPTIONS)
    for name in ("OllamaChat", "OllamaGenerate"):
        told = schemas[name]["properties"]["options"]
        assert told == {"$ref": "#/components/schemas/OllamaOptions"}


def test_a_key_is_asked_for_where_the_server_asks_for_one(described):
    assert described["security"] == []
    routes = [Route(path, print, methods=["GET"]) for path in ("/health", "/metrics")]
    told = document(routes, OPEN_PATHS, has_keys=True)
    assert told["security"] == [{"Bearer": []}, {"ApiKey": []}]
    assert told["components"]["securitySchemes"].keys() == {"Bearer", "ApiKey"}
    assert told["paths"]["/health"]["get"]["security"] == []
    assert "security" not in told["paths"]["/metrics"]["get"]


@pytest.mark.timeout(3600)  # with more examples
@pytest.mark.parametrize(
    "words",
    [
        ("--phases=examples",),
        pytest.param(("--phases=coverage,fuzzing", f"-n{EXAMPLES}"), marks=pytest.mark.slow),
    ],
)
def test_no_body_makes_the_server_fail(served, tmp_path, pytestconfig, words):
    """schemathesis sends what the document allows, and what it does not."""
    server = served("atlas", "--n-ctx", "32")  # short replies
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    tables = pytestconfig.rootpath / ".hypothesis"  # of characters, which take 10 s to make
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", "--workers=4", "--no-color", *words],
        cwd=tmp_path,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tables)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr
    assert server.http.get("/health").json()["deaths"] == 0
    server.process.terminate()
    said = server.process.communicate(timeout=20)[0]
    assert "failed" not in said
    assert "Warning" not in said
