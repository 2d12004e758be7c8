"""Models as Ollama's interface lists and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from .engine import Engine
from .generation import reply_form
from .served import NamedModel, file_of, role_of

_STARTED = datetime.now(UTC).isoformat()
_NEVER = 100_000  # days


def listed(engine: Engine, model: NamedModel) -> dict[str, Any]:
    """Return a model as lists have it; of one that never was loaded, little is known."""
    name = model.id if model.part else f"{model.id}:latest"
    facts = engine.facts(model.recipe)
    made_of = f"{engine.served(model.recipe).toml}\n{model.part}"
    return {
        "name": name,
        "model": name,
        "modified_at": _STARTED,
        "size": file_of(facts, model)["n_bytes"] if facts else 0,
        "digest": sha256(made_of.encode()).hexdigest(),
        "details": _details(facts, model),
    }


def _details(facts: Mapping[str, Any] | None, model: NamedModel) -> dict[str, Any]:
    file = file_of(facts, model) if facts else {}
    family = file.get("architecture", "")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": f"{file['n_parameters'] / 1e9:.1f}B" if file else "",
        "quantization_level": str(file.get("quantisation", "")),
    }


def loaded(engine: Engine, model: NamedModel) -> dict[str, Any]:
    """Return a model that is in memory, and until when."""
    facts = engine.facts(model.recipe)
    assert facts is not None  # it is loaded
    left = engine.idle_left
    expires = datetime.now(UTC) + timedelta(days=_NEVER if left is None else left / 86_400)
    about = {"size_vram": 0, "context_length": facts["n_ctx"], "expires_at": expires.isoformat()}
    return {**listed(engine, model), **about}


def shown(engine: Engine, model: NamedModel, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a model that is or was loaded."""
    file, form = file_of(facts, model), reply_form(engine, model)
    family = file["architecture"]
    return {
        "modelfile": f"# {engine.served(model.recipe).description or model.id}\n",
        "parameters": "",
        "template": facts["templates"][role_of(facts["templates"], model)] or "",
        "license": "",
        "modified_at": _STARTED,
        "details": _details(facts, model),
        "model_info": {
            "general.architecture": family,
            "general.basename": model.id,
            "general.parameter_count": file["n_parameters"],
            f"{family}.context_length": facts["n_ctx"],
        },
        "capabilities": [
            "completion",
            *(["tools"] if form.tool_calls else []),
            *(["thinking"] if form.reasoning else []),
        ],
    }
