"""What `show` tells people: a screenful of it, or in full; tables of what `show` has as data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ..system import byte_size, mebibytes
from .console import line, show, text
from .show_source import prompt_name, source_line
from .tables import WORDS, Column, Facts, Listing, whole

_FITS = {
    "yes": "fits here",
    "tight": "fits here once other programs are closed",
    "no": "more than this machine has",
}
_TEXTS = {"exact": "texts stay exactly the same", "rounding": "texts equal up to rounding"}

Fact = tuple[str, Text | str]


def show_loaded(about: Mapping[str, Any], *, full: bool) -> None:
    """Show a recipe that was loaded: `show.description`."""
    tables = [*_title(about, full=full), text("")]
    if full:
        for role, file in about["roles"].items():
            tables += [text(role, "bold"), Facts(_role_facts(file)), text("")]
        tables += _instruct(about)
    else:
        tables += [_roles(about["roles"]), text("")]
    tables.append(Facts(_verdicts(about, full=full)))
    if full:
        tables += [text(""), _memory(about)]
    show(*tables)


def show_to_pull(about: Mapping[str, Any], *, full: bool) -> None:
    """Show a recipe whose models are to be pulled: `show_source.description`."""
    tables = [*_title(about, full=full), text("")]
    if full:
        for role, model in about["models"].items():
            if role != "instruct":
                tables += [text(role, "bold"), Facts(_model_facts(model)), text("")]
        tables += _instruct(about["models"])
    else:
        tables += [_models(about["models"]), text("")]
    show(*tables, Facts(_prospects(about)))


def _title(about: Mapping[str, Any], *, full: bool) -> Iterator[RenderableType]:
    name = line(about["name"], "bold")
    yield Text.assemble(name, "  ", line(about["description"])) if about["description"] else name
    facts: list[Fact] = [("license", line(about["license"]))] if about["license"] else []
    if full and about["path"]:
        facts.append(("path", whole(about["path"])))
    yield from [Facts(facts)] if facts else []


# -- what is here and was loaded -----------------------------------------------------------


def _roles(roles: Mapping[str, Mapping[str, Any]]) -> Listing:
    table = Listing(
        Column("role"),
        Column("file", least=WORDS),
        Column("type"),
        Column("size", right=True),
        Column("parameters", right=True),
        Column("prompt"),
        Column("ends by", least=WORDS),
        run_in=True,
        lead=2,
    )
    for role, file in roles.items():
        table.add(
            line(role),
            line(os.path.basename(file["file"])),
            line(file["type"]),
            byte_size(file["bytes"]),
            _count(file["parameters"]),
            _short_prompt(file["prompt"]),
            line(", ".join(token for _, token in file["end_tokens"]) or "nothing"),
        )
    return table


def _role_facts(file: Mapping[str, Any]) -> Iterator[Fact]:
    yield "file", whole(file["file"])
    if file["on"]:
        yield "on", whole(file["on"])
    size = f"{byte_size(file['bytes'])}, {_count(file['parameters'])} parameters"
    yield "holds", line(f"{file['type']} {file['architecture']}, {size}")
    if file["source"]:
        yield "source", line(source_line(file["source"]))
    yield from _hash_facts(file["sha256"], "as stated" if file["stated"] else "not stated")
    yield "prompt", prompt_name(file["prompt"])
    if file["template_sha256"]:
        yield "template", whole(file["template_sha256"])
    ends = (f"{text} {token}" for token, text in file["end_tokens"])
    yield "ends by", line(", ".join(ends) or "nothing")


def _hash_facts(hashes: str | tuple[str, ...], said: str) -> Iterator[Fact]:
    for each in [hashes] if isinstance(hashes, str) else hashes:
        yield "sha256", whole(f"{each} {said}")


def _verdicts(about: Mapping[str, Any], *, full: bool) -> Iterator[Fact]:
    yield "deltas", _deltas(about)
    yield "vocabulary", Text("\n").join(_vocabulary(about["vocabulary"]))
    yield "context", f"{about['n_ctx']:,} tokens"
    for key in ("threads", "cache"):
        chosen, reason = about[key]
        reason = Text("  ").append_text(line(reason, "dim")) if full else Text()
        yield key, line(chosen) + reason
    yield "memory", f"{mebibytes(about['memory_total'], 1)} MiB together"
    instruct = about["instruct"]
    if instruct and not full:
        yield "instruct", line(f"{_model_name(instruct)}, the base for --lora ADAPTER")
    yield from (("warning", line(warning, "yellow")) for warning in about["warnings"])


def _vocabulary(vocabulary: Mapping[str, Any]) -> Iterator[Text]:
    yield line(f"{vocabulary['n_vocab']:,} tokens, one meaning in every model")
    if vocabulary["padding"]:
        yield line(vocabulary["padding"])
    adopted: dict[str, list[str]] = {}
    for token, content, role in vocabulary["adopted"]:
        adopted.setdefault(role, []).append(f"{content} {token}")
    for role, tokens in adopted.items():
        yield line(f"adopted from {role}: {', '.join(tokens)}")
    yield from (line(f"warning: {each}", "yellow") for each in vocabulary["warnings"])


def _memory(about: Mapping[str, Any]) -> Listing:
    """Return what each role takes, in MiB."""
    parts = ("weights", "kv_cache", "compute", "logits", "total")
    headings = ("weights", "KV cache", "compute", "logits", "sum")
    figures = (Column(heading, right=True) for heading in headings)
    table = Listing(Column("MiB"), *figures, Column("", least=WORDS), run_in=True)
    rows = about["memory"]
    for row in rows:
        note = f"shares with {row['shares']}" if row["shares"] else ""
        table.add(line(row["role"]), *(mebibytes(row[part], 1) for part in parts), line(note))
    total = about["memory_total"]
    blank, on_device = [""] * (len(parts) - 1), sum(row["on_device"] for row in rows)
    runtime = total - sum(row["total"] for row in rows)
    table.add("runtime", *blank, mebibytes(runtime, 1), "")
    on_gpu = f"{mebibytes(on_device, 1)} of it on the GPU" if on_device else ""
    table.add("together", *blank, mebibytes(total, 1), on_gpu, is_sum=True)
    return table


# -- what is to be pulled ------------------------------------------------------------------


def _models(models: Mapping[str, Mapping[str, Any]]) -> Listing:
    table = Listing(
        Column("role"),
        Column("model", least=WORDS),
        Column("to fetch", right=True),
        Column("prompt"),
        run_in=True,
    )
    for role, model in sorted(models.items(), key=lambda item: item[0] == "instruct"):
        size = "?" if model["bytes"] is None else byte_size(model["bytes"])
        size = "is here" if model["here"] else size
        prompt = _short_prompt(model["prompt"]) if model["prompt"] else ""
        table.add(line(role), line(_model_name(model)), size, prompt)
    if "instruct" in models:
        table.remark(text("instruct: the base for --lora ADAPTER", "dim"))
    return table


def _model_name(model: Mapping[str, Any]) -> str:
    if model["file"] is not None:
        return os.path.basename(model["file"])
    source = model["source"]
    return f"{source['repo']} {source['file']}" if isinstance(source, Mapping) else str(source)


def _model_facts(model: Mapping[str, Any]) -> Iterator[Fact]:
    size = "" if model["bytes"] is None else f", {byte_size(model['bytes'])}"
    if model["file"] is None:
        yield "file", f"to be pulled{size}"
    else:
        yield "file", whole(f"{model['file']}{size if model['here'] else ', missing'}")
    if model["source"]:
        yield "source", line(source_line(model["source"]))
    yield from _hash_facts(model["sha256"] or (), "stated")
    if model["prompt"]:
        yield "prompt", prompt_name(model["prompt"])


def _instruct(models: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what there is to tell of the large instruct model, which adapters run on."""
    if model := models.get("instruct"):
        yield Text.assemble(("instruct", "bold"), ("  the base for --lora ADAPTER", "dim"))
        yield Facts(_model_facts(model))
        yield text("")


def _prospects(about: Mapping[str, Any]) -> Iterator[Fact]:
    yield "deltas", _deltas(about)
    if about["ratio"] is not None:
        ratio = f"each reads {about['ratio']:.2g} of the base's bytes"
        yield "drafts", f"{ratio}; {_TEXTS[about['drafts']]}"
    if about["memory"] is not None:
        n_ctx = about["n_ctx"] or "the default"
        memory = f"about {byte_size(about['memory'])} at n_ctx {n_ctx}: {_FITS[about['fits']]}"
        yield "memory", memory
    if about["for_lora"]:
        yield "here for", whole(f"edge-eft chat {about['name']} --lora ADAPTER")
    get = "the rest" if about["for_lora"] else "get it with"
    yield get, whole(about["pull"])
    if about["bytes_to_pull"] is not None:
        yield "to fetch", byte_size(about["bytes_to_pull"])
    if about["gated"]:
        yield "gated", "accept the licence on the hub's page first"


def _deltas(about: Mapping[str, Any]) -> Text:
    return line(", ".join(f"{name} × {w:g}" for name, w in about["deltas"].items()))


def _short_prompt(prompt: str) -> str:
    return prompt_name(prompt).removeprefix("inline ")


def _count(n_parameters: int) -> str:
    return f"{n_parameters / 1e6:,.1f} M" if n_parameters >= 1e5 else f"{n_parameters:,}"
