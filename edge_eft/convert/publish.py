"""The end of a conversion: final names, hashes, recipe and report, and the renames."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.gguf_check import read_header
from ..files.hashes import file_sha256, model_sha256
from ..files.recipe import Delta, ModelSpec, Recipe, Sha256, absolute
from ..files.recipe_names import load_recipe
from ..files.recipe_toml import to_toml
from ..system import versions
from ..text.formats import is_format
from .inputs import Inputs, Masters, template_of
from .options import Options
from .report import Report
from .sources import Source
from .sweep import Candidate
from .workspace import Workspace

_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class Outcome:
    """What a conversion left: the recipe and the report."""

    recipe: Path
    report: Report


class Publisher:
    """Gives the files of a finished conversion their names, the recipe's last."""

    def __init__(
        self,
        options: Options,
        inputs: Inputs,
        masters: Masters,
        ends: Mapping[str, tuple[str | int, ...]],
        workspace: Workspace,
    ) -> None:
        self.options, self.inputs, self.masters = options, inputs, masters
        self.ends = ends  # role → end tokens that its file does not name
        self.workspace = workspace
        self._renames: dict[Path, Path] = {}

    def publish(self, base: Path | None, winner: Candidate, report: Report) -> Outcome:
        """Write recipe and report, then rename everything.

        Args:
            base: the base's file, in the workspace or where the user has it.
        """
        options = self.options
        reference = self._model(
            winner.reference,
            options.model_path("reference", winner.type),
            self.inputs.reference,
            options.prompts.get("reference"),
        )
        deltas: dict[str, Delta] = {}
        for name in self.inputs.tuned:
            tuned = self._tuned(name, winner, reference)
            deltas[name] = Delta(name, 0.0 if deltas else 1.0, tuned, reference)
        recipe = Recipe(
            name=options.name,
            description=options.description,
            license=options.license,
            n_ctx=options.n_ctx,
            base=self._base(base),
            deltas=deltas,
            path=options.recipe_path,
            provenance=self._provenance(report),
        )
        text = to_toml(recipe, options.recipe_path.parent)
        recipe_file = self.workspace.path("recipe.toml")
        recipe_file.write_text(f"# Written by edge-eft convert.\n{text}", encoding="utf-8")
        load_recipe(recipe_file)  # a recipe that `run` would refuse must not be published
        report_file = self.workspace.path("fidelity.json")
        report_file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
        self._renames[report_file] = options.report_path
        self._renames[recipe_file] = options.recipe_path
        self.workspace.publish(self._renames)
        return Outcome(options.recipe_path, report)

    def _base(self, base: Path | None) -> ModelSpec | None:
        if base is None or self.inputs.base is None or self.masters.base is None:
            return None
        source, prompt = self.inputs.base, self.options.prompts.get("base", "plain")
        if base == self.masters.base.gguf and not self.masters.base.temporary:
            return self._spec(absolute(base), model_sha256(base), source, prompt)
        return self._model(base, self.options.final_base_path, source, prompt)

    def _tuned(self, name: str, winner: Candidate, reference: ModelSpec) -> ModelSpec:
        options, source = self.options, self.inputs.tuned[name]
        path, lora = winner.tuned[name], self.masters.tuned[name].lora
        prompt = options.prompts.get("tuned") or self._tuned_prompt(source, path, winner.reference)
        if lora is None:
            return self._model(path, options.model_path(name, winner.type), source, prompt)
        copy = self.workspace.path(f"{name}-lora.gguf")
        shutil.copyfile(path, copy)
        adapter = self._model(copy, options.lora_path(name), source, prompt)
        return replace(adapter, file=reference.file, lora=adapter.file)

    def _model(self, path: Path, final: Path, source: Source, prompt: str | None) -> ModelSpec:
        """Note a file of ours for its rename, unless it has a twin. Returns it for the recipe."""
        sha256 = file_sha256(path)
        twin = _twin(path, sha256, self.options.out) if self.options.share else None
        if twin is None:
            self._renames[path] = final
        return self._spec(absolute(twin or final), sha256, source, prompt)

    def _spec(self, file: Path, sha256: Sha256, source: Source, prompt: str | None) -> ModelSpec:
        ends = self.ends.get(source.role, ())
        return ModelSpec(file, sha256, prompt, source=str(source.path), end_tokens=ends)

    def _tuned_prompt(self, source: Source, path: Path, reference: Path) -> str:
        """Return the format that says the model's own template, inline if its file lacks it."""
        header = read_header(path)
        if header.is_adapter:
            header = read_header(reference)
        carried = header.metadata.get(_TEMPLATE)
        named = [
            text
            for key, text in header.metadata.items()
            if key.startswith(f"{_TEMPLATE}.") and isinstance(text, str) and is_format(text)
        ]
        own = template_of(source, self.inputs.reference)
        own = own or (named[0] if len(named) == 1 and not carried else None)
        if own is None or own == carried:
            return "template" if carried else "plain"
        return own

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
