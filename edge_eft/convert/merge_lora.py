"""Merges a PEFT LoRA adapter into its model. Run as a script, in a clean environment.

    python merge_lora.py MODEL ADAPTER OUT [KEPT]

It imports nothing of edge_eft. Weights are merged in float32 and saved so: rounding them to the
model's own 16 bits here would lose part of a small adapter. What the merged model says must be
what the adapted model said.

KEPT is a directory for the adapter with PEFT's strength of each module in its weights, under one
lora_alpha for all: α/r is the only strength that a GGUF adapter knows (llama-adapter.h).
"""

import json
import pathlib
import sys
from typing import Any

import peft  # type: ignore[import-not-found,unused-ignore]
import safetensors.torch  # type: ignore[import-not-found,unused-ignore]
import torch  # type: ignore[import-not-found,unused-ignore]
import transformers  # type: ignore[import-not-found,unused-ignore]

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def load(path: str, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options)


def name_of(model: Any, module: Any) -> str:
    return next((name for name, other in model.named_modules() if other is module), "")


def fit_vocabulary(model: Any, weights: dict[str, Any]) -> None:
    """Give the model's embeddings the rows that the adapter's have; it must bring the new ones."""
    tables = [model.get_input_embeddings()]
    if (head := model.get_output_embeddings()) and head.weight is not tables[0].weight:
        tables.append(head)
    names = [PREFIX + name_of(model, table) for table in tables]
    head_name = PREFIX + name_of(model, head) if head else names[0]
    here = tables[0].weight.shape[0]
    rows = {
        tensor.shape[1 if ".lora_embedding_A" in name else 0]
        for name, tensor in weights.items()
        if name.startswith((*(f"{name}." for name in names), f"{head_name}."))
        and (name.endswith((".weight", ".lora_embedding_A")) and ".lora_A." not in name)
    } - {here}
    if not rows:
        return
    brought = [any(f"{n}.{w}" in weights for w in ("weight", "base_layer.weight")) for n in names]
    if len(rows) > 1 or not all(brought):
        sys.exit(
            f"the adapter is for a vocabulary of {max(rows)} tokens and the model has {here}; the "
            "adapter does not bring the rows that are missing (save it with "
            "save_embedding_layers=True)"
        )
    model.resize_token_embeddings(rows.pop(), mean_resizing=False)


def adapted(model: Any, path: str, weights: dict[str, Any]) -> Any:
    """Return the model with the adapter on it; every one of its tensors must have found a place."""
    fit_vocabulary(model, weights)
    whole = peft.PeftModel.from_pretrained(model, path).eval()
    result = peft.set_peft_model_state_dict(whole, dict(weights))
    # Of embeddings that grew or are tied PEFT saves more than it reads.
    copies = {f"{name.removesuffix('.weight')}.modules_to_save.weight" for name in weights}
    copies |= {name for name in weights if name.endswith(".base_layer.weight")}
    if lost := [name for name in result.unexpected_keys if name not in copies]:
        sys.exit(f"PEFT has no place for {lost[0]}, which the adapter holds")
    if absent := [name for name in result.missing_keys if "lora_" in name]:
        sys.exit(f"the adapter lacks {absent[0]}")
    return whole


def logits(model: Any) -> Any:
    n_vocab = model.get_input_embeddings().weight.shape[0]
    ends = [range(3, min(20, n_vocab)), range(max(20, n_vocab - 8), n_vocab)]  # added tokens, too
    tokens = torch.tensor([[token for part in ends for token in part]])
    with torch.inference_mode():
        return model(tokens).logits[0].double()


def agree(ours: Any, theirs: Any) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-3 * max(1.0, float(theirs.std())))


def untied(path: str) -> Any:
    """Return the model with a head of its own, equal to its embeddings."""
    model = load(path, tie_word_embeddings=False)
    table = model.get_input_embeddings().weight.detach().clone()
    model.get_output_embeddings().weight = torch.nn.Parameter(table)
    return model


def write_kept(whole: Any, config: dict[str, Any], weights: dict[str, Any], target: str) -> None:
    """Write the adapter so that one lora_alpha over each rank is the strength of each module."""
    strengths = {  # B's name → PEFT's strength × rank
        f"{name}.lora_B.weight": module.scaling["default"] * module.r["default"]
        for name, module in whole.named_modules()
        if "default" in getattr(module, "lora_B", ()) and "default" in module.scaling
    }
    kept = {name: tensor.float().contiguous() for name, tensor in weights.items()}
    names = [name for name in kept if ".lora_B." in name]
    if unknown := [name for name in names if name not in strengths]:
        sys.exit(f"PEFT does not say how strong {unknown[0]} acts")
    alpha = max((strengths[name] for name in names), key=abs, default=0)
    if not alpha:
        sys.exit("the adapter changes nothing: its strength is 0")
    for name in names:
        if strengths[name] != alpha:
            kept[name] *= strengths[name] / alpha
    folder = pathlib.Path(target)
    folder.mkdir()
    safetensors.torch.save_file(kept, folder / WEIGHTS)
    plain: dict[str, Any] = {
        "use_rslora": False,
        "alpha_pattern": {},
        "rank_pattern": {},
        "lora_alpha": alpha,
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, **plain}))


def keep_configuration(merged: Any, model: pathlib.Path, target: pathlib.Path) -> None:
    """Save the model's own words, which transformers renames between its releases."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    for key in ("vocab_size", "tie_word_embeddings"):
        value = getattr(merged.config.get_text_config(), key, None)
        part = config["text_config"] if key in config.get("text_config", {}) else config
        if value is not None:
            part[key] = value
    (target / "config.json").write_text(json.dumps(config, indent=2))


def main(model_path: str, adapter_path: str, target: str, kept: str = "") -> None:
    weights = safetensors.torch.load_file(pathlib.Path(adapter_path) / WEIGHTS)
    config = json.loads((pathlib.Path(adapter_path) / "adapter_config.json").read_text("utf-8"))
    whole = adapted(load(model_path), adapter_path, weights)
    if kept:
        write_kept(whole, config, weights, kept)
    truth = logits(whole)
    merged = whole.merge_and_unload()
    if not agree(logits(merged), truth):
        # Merged into a table that is both embeddings and head, a change of one changes both.
        merged = adapted(untied(model_path), adapter_path, weights).merge_and_unload()
        if not agree(logits(merged), truth):
            sys.exit("merging changes what the adapted model says: PEFT cannot merge this adapter")
    merged.save_pretrained(target, safe_serialization=True)
    keep_configuration(merged, pathlib.Path(model_path), pathlib.Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
