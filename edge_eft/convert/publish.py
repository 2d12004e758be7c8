"""The end of a conversion: final names, hashes, recipe and report, and the renames."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..gguf_check import read_header
from ..recipe import file_sha256, load_recipe
from .inputs import Inputs, Masters
from .masters import kept_chat_template
from .options import Options
from .recipe_text import FileEntry, RecipeContent, recipe_toml, versions
from .report import Report
from .sources import Source
from .sweep import Candidate
from .workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """What a conversion left: the recipe, its model files, and the report."""

    recipe: Path
    files: tuple[Path, ...]
    report: Report


class Publisher:
    """Gives the files of a finished conversion their names, the recipe's last."""

    def __init__(
        self, options: Options, inputs: Inputs, masters: Masters, workspace: Workspace
    ) -> None:
        self.options, self.inputs, self.masters = options, inputs, masters
        self.workspace = workspace
        self._renames: dict[Path, Path] = {}

    def publish(self, base: Path | None, winner: Candidate, report: Report) -> Outcome:
        """Write recipe and report, then rename everything.

        Args:
            base: the base's file, in the workspace or where the user has it.
        """
        options = self.options
        base_entry = self._base_entry(base)
        reference = self._entry(
            winner.reference,
            options.model_path("reference", winner.type),
            self.inputs.reference,
            options.prompts.get("reference"),
        )
        deltas: list[tuple[str, float, FileEntry, FileEntry]] = []
        for name in self.inputs.tuned:
            tuned = self._tuned_entry(name, winner)
            deltas.append((name, 0.0 if deltas else 1.0, tuned, reference))
        content = RecipeContent(
            name=options.name,
            description=options.description,
            license=options.license,
            n_ctx=options.n_ctx,
            base=base_entry,
            deltas=tuple(deltas),
            provenance=self._provenance(report),
        )
        recipe = self.workspace.path("recipe.toml")
        recipe.write_text(recipe_toml(content, options.recipe_path.parent), encoding="utf-8")
        load_recipe(recipe)  # a recipe that `run` would refuse must not be published
        report_file = self.workspace.path("fidelity.json")
        report_file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
        self._renames[report_file] = options.report_path
        self._renames[recipe] = options.recipe_path
        self.workspace.publish(self._renames)
        entries = [*([base_entry] if base_entry else []), reference, *(d[2] for d in deltas)]
        return Outcome(options.recipe_path, tuple(e.path for e in entries), report)

    def _base_entry(self, base: Path | None) -> FileEntry | None:
        if base is None or self.inputs.base is None or self.masters.base is None:
            return None
        source, prompt = self.inputs.base, self.options.prompts.get("base")
        if base == self.masters.base.gguf and not self.masters.base.temporary:
            return FileEntry(base, file_sha256(base), str(source.path), prompt)
        return self._entry(base, self.options.final_base_path, source, prompt)

    def _tuned_entry(self, name: str, winner: Candidate) -> FileEntry:
        options, source = self.options, self.inputs.tuned[name]
        path, lora = winner.tuned[name], self.masters.tuned[name].lora
        prompt = options.prompts.get("tuned") or _tuned_prompt(source, path, winner.reference)
        if lora is None:
            return self._entry(path, options.model_path(name, winner.type), source, prompt)
        copy = self.workspace.path(f"{name}-lora.gguf")
        shutil.copyfile(path, copy)
        return self._entry(copy, options.lora_path(name), source, prompt, lora=True)

    def _entry(
        self, path: Path, final: Path, source: Source, prompt: str | None, *, lora: bool = False
    ) -> FileEntry:
        """Note a file of ours for its rename, unless it has a twin. Returns its recipe entry."""
        sha256 = file_sha256(path)
        twin = _twin(path, sha256, self.options.out) if self.options.share else None
        if twin is None:
            self._renames[path] = final
        return FileEntry(twin or final, sha256, str(source.path), prompt, lora)

    def _provenance(self, report: Report) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC)
        record = {
            "command": self.options.command,
            "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "versions": versions(
                *("edge-eft", "llama-cpp-python", "numpy"),
                *("torch", "transformers", "sentencepiece", "peft"),
            ),
            "report": self.options.report_path.name,
            "kl_mean": f"{report.winner['kl_mean']:.6g}",
        }
        for source in self.inputs.all:
            key = source.role.replace(":", "_")
            record[f"{key}_source"] = str(source.path)
            record[f"{key}_source_sha256"] = source.sha256
        return record


def _twin(path: Path, sha256: str, directory: Path) -> Path | None:
    """Return a file of the same content that `directory` already holds, if there is one."""
    size = path.stat().st_size
    for other in sorted(directory.glob("*.gguf")):
        if other.stat().st_size == size and file_sha256(other) == sha256:
            return other
    return None


def _tuned_prompt(source: Source, path: Path, reference: Path) -> str:
    """Return an adapter's own template; else `template` if the model carries one, or `plain`."""
    if source.is_adapter and (template := kept_chat_template(source)):
        return template
    header = read_header(path)
    if header.is_adapter:
        header = read_header(reference)
    return "template" if header.metadata.get("tokenizer.chat_template") else "plain"
