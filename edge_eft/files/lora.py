"""One adapter, any size of its family: the large instruct model is led by what a LoRA changes.

The adapter was trained on the small instruct model. That model with it is the tuned side, without
it the reference, and the base is the large instruct model: each is asked through its own chat
template, as it was tuned to be. What the adapter is (a GGUF file, or a directory of PEFT's, which
is converted) and whether it fits is found out here; it acts in llama.cpp.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..errors import ConversionError, EdgeEftError, ModelFileError, RecipeError
from ..system import byte_size
from .adapter_cache import converted
from .adapter_check import check_adapter_fits
from .gguf_check import GGUFHeader, read_header
from .gguf_header import quoted
from .gguf_split import model_stem
from .hf_directory import added_tokens, chat_template, end_tokens, first_of
from .hub_file import HubFile
from .model_names import MAX_NAME, plain_name, says_before_tuning
from .peft import CONFIG, WEIGHTS, PeftAdapter, read_peft
from .peft_gguf import places
from .plain_text import reason
from .pulled import bytes_to_pull, pull_command
from .recipe import Delta, ModelSpec, Recipe, absolute, check_prompt
from .recipe_names import list_recipes, load_recipe

log = logging.getLogger(__name__)

FILES = "--base LARGE-INSTRUCT.gguf --reference SMALL-INSTRUCT.gguf --lora ADAPTER"
_ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_TEMPLATE_KEY = "tokenizer.chat_template"


def with_lora(
    recipe: Recipe, adapter: str | os.PathLike[str], *, base: ModelSpec | None = None
) -> Recipe:
    """Return the recipe of an adapter on the small instruct model of `recipe`; see `Recipe`."""
    found = inspect(absolute(adapter))  # before anybody pulls gigabytes for it
    large = base or recipe.instruct
    if large is None:
        raise RecipeError(
            f"recipe {recipe.name!r} names no large instruct model for an adapter to lead; add one "
            "as [instruct] to its file, or give it: --base LARGE-INSTRUCT.gguf"
        )
    small = small_instruct(recipe)
    if small is None:
        raise RecipeError(
            f"the tuned side of recipe {recipe.name!r} is an adapter itself, and there is no "
            f"model to put another on; give files: {FILES}"
        )
    if large.needs_pull or small.needs_pull:
        raise _to_be_pulled(recipe, large, small, found)
    large = replace(
        large,
        prompt=large.prompt or "template",
        template_kwargs=large.template_kwargs or small.template_kwargs,
    )
    return _led(recipe, large, small, found)


def lora_on_files(
    base: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    adapter: str | os.PathLike[str],
    *,
    prompt: str | None = None,
) -> Recipe:
    """Return the recipe of an adapter on the model in `reference`, which is to lead `base`.

    Args:
        base, reference: GGUF files of the large and the small instruct model.
        adapter: a LoRA GGUF or a PEFT directory.
        prompt: the format of all three; None: the chat template of each.

    Raises:
        RecipeError: `prompt` is not a format, or one of them is no path.
        ModelFileError: the reference or the adapter is not what it should be, or they do not fit.
    """
    if prompt is not None:
        check_prompt("prompt", prompt)
    large, small = (
        ModelSpec(absolute(file), prompt=prompt or "template") for file in (base, reference)
    )
    plain = Recipe(
        name=model_stem(large.file),
        description="",
        license="",
        n_ctx=None,
        base=large,
        deltas=MappingProxyType({"tuned": Delta("tuned", 1.0, small, small)}),
        path=None,
    )
    return _led(plain, large, small, inspect(absolute(adapter)))


def small_instruct(recipe: Recipe) -> ModelSpec | None:
    """Return the small instruct model of a recipe, its first tuned one; None if that is none."""
    tuned = next(iter(recipe.deltas.values())).tuned
    return tuned if tuned.lora is None else None


def _to_be_pulled(
    recipe: Recipe, large: ModelSpec, small: ModelSpec, adapter: Adapter
) -> RecipeError:
    """Return the error that says what to pull; the adapter is looked at as far as can be."""
    if small.needs_pull:
        _say_doubt(adapter, list(_names(small)), recipe.name)
    else:
        _check_on(recipe, small, adapter)
    lacking = {"large": large, "small": small}
    lacking = {which: spec for which, spec in lacking.items() if spec.needs_pull}
    size = bytes_to_pull(lacking.values())
    amount = f" ({byte_size(size)} to fetch)" if size else ""
    if small.needs_pull and not adapter.base_name:
        amount += f"; {adapter.path.name} does not say which model it was trained on"
    return RecipeError(
        f"not on this machine yet: the {' and the '.join(lacking)} instruct model of "
        f"{recipe.name!r}; get what is missing with {pull_command(recipe)} --for-lora{amount}"
    )


def _check_on(recipe: Recipe, small: ModelSpec, adapter: Adapter) -> GGUFHeader:
    """Return the header of the small model, which the adapter fits; say if it may be another's."""
    model = read_header(small.file)
    if model.is_adapter:
        raise ModelFileError(f"{small.file} is an adapter; --reference takes its model")
    try:
        adapter.check(model)
    except ModelFileError as error:
        raise ModelFileError(f"{error}; {_others(adapter, recipe.name)}") from None
    _say_doubt(adapter, list(_names(small, model)), recipe.name)
    return model


def _led(recipe: Recipe, large: ModelSpec, small: ModelSpec, adapter: Adapter) -> Recipe:
    """Return `recipe` with these two models and the adapter."""
    model = _check_on(recipe, small, adapter)
    # Its maker's large and small model have the same tokens renamed, so that neither adopts any.
    small = replace(small, prompt=small.prompt or "template", adopt=())
    path = adapter.path
    delta = Delta("tuned", 1.0, adapter.on(small, model), small)
    return replace(
        recipe,
        name=f"{recipe.name}+{path.stem if path.suffix == '.gguf' else path.name}",
        base=large,
        deltas=MappingProxyType({delta.name: delta}),
    )


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that was looked at: a GGUF file, or a directory of PEFT's.

    `base_name` is the model that it says it was trained on, "" if it does not.
    """

    path: Path
    source: GGUFHeader | PeftAdapter
    base_name: str

    def check(self, model: GGUFHeader) -> None:
        """Raise ModelFileError unless it can be put on `model`."""
        if isinstance(self.source, GGUFHeader):
            check_adapter_fits(self.source, model)
        else:
            places(self.source, model)

    def on(self, small: ModelSpec, model: GGUFHeader) -> ModelSpec:
        """Return `small` with the adapter on it, converted if need be.

        What PEFT's directory says of the chat template and the tokens that end a reply is what the
        adapter was trained with, so that it goes before what the model's file says.
        """
        if isinstance(self.source, GGUFHeader):
            return replace(small, lora=self.path, sha256=None, source=None)
        try:
            template = chat_template(self.path)
            ends = end_tokens(self.path)
            _check_tokens(self.source, small, ends)
        except ConversionError as error:
            raise ModelFileError(f"{str(error).partition(': ')[0]}; correct it there") from None
        if template in (None, model.metadata.get(_TEMPLATE_KEY)) or small.prompt != "template":
            template = small.prompt
        return replace(
            small,
            lora=converted(self.source, model),
            sha256=None,
            source=str(self.path),
            prompt=template,
            end_tokens=tuple(dict.fromkeys([*small.end_tokens, *ends])),
        )


def _check_tokens(adapter: PeftAdapter, small: ModelSpec, ends: Sequence[int | str]) -> None:
    """Raise ModelFileError if the adapter was trained with tokens that its model lacks."""
    from .gguf_vocabulary import read_vocabulary  # not at the top: it needs NumPy

    added = added_tokens(adapter.path)
    if not added and not ends:
        return
    # Where SentencePiece writes ▁, GGUF has ▁ or a blank.
    texts = read_vocabulary(small.file).token_texts()
    there = {_blank(text.decode("utf-8", "replace")) for text in texts}
    for end in ends:
        if _blank(end) not in there if isinstance(end, str) else not 0 <= end < len(texts):
            raise ModelFileError(
                f"{adapter.path} says that {end!r:.60} ends a reply, a token that {small.file.name}"
                " lacks; give the model that it was trained on"
            )
    if new := {text for text in added if _blank(text) not in there}:
        raise ModelFileError(
            f"{adapter.path} adds tokens to the vocabulary ({first_of(new)}), which an adapter of "
            "llama.cpp cannot carry; train it without new tokens"
        )


def _blank(text: str) -> str:
    return text.replace("▁", " ")


def inspect(path: Path) -> Adapter:
    """Return the adapter at `path`.

    Raises:
        ModelFileError: there is none, with what is there instead and what to do.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        pass  # said below, unless its name says more
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ModelFileError(f"{path}: cannot be read ({reason(error)})") from None
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise ModelFileError(f"{path} {_no_adapter(path)}")
        peft = read_peft(path)
        return Adapter(path, peft, peft.base_name)
    if path.name == WEIGHTS or path.name == CONFIG:
        raise ModelFileError(f"{path} is part of a PEFT adapter; give its directory, {path.parent}")
    if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise ModelFileError(
            f"{path} is a pickle, which could run code when it is read; give a LoRA as .gguf, or "
            "a PEFT directory with safetensors"
        )
    if not path.exists():
        raise ModelFileError(
            f"{path}: no such adapter; give a LoRA as .gguf, or a PEFT directory (one on the hub: "
            "hf download OWNER/NAME --local-dir DIR)"
        )
    header = read_header(path)
    if not header.is_adapter:
        raise ModelFileError(
            f"{path} is a whole model and not an adapter; give it as --tuned, with the model that "
            "it was tuned from as --reference"
        )
    name = header.metadata.get("general.base_model.0.name")
    url = header.metadata.get("general.base_model.0.repo_url")
    stated = [each for each in (url, name) if isinstance(each, str) and len(each) <= MAX_NAME]
    return Adapter(path, header, next(iter(stated), ""))


def _no_adapter(path: Path) -> str:
    """Return what a directory is that is no adapter, and what to do."""
    inside = sorted(path.glob(f"*/{CONFIG}"), key=lambda each: each.stat().st_mtime)
    if inside:
        return f"is no PEFT adapter itself, but {inside[-1].parent} in it is one; give that"
    if (path / "config.json").is_file():
        return (
            "is a whole model and not an adapter; edge-eft convert --reference MODEL-DIR --tuned "
            f"{path} makes a recipe of it"
        )
    if found := sorted(path.glob("*.gguf")):
        return f"is a directory; give the .gguf file in it, such as {found[0].name}"
    return f"is not a PEFT adapter: it has no {CONFIG}"


def _say_doubt(adapter: Adapter, names: Sequence[str], but: str) -> None:
    if doubt := _doubt(adapter, names, but):
        log.warning("%s", doubt)


def _doubt(adapter: Adapter, names: Sequence[str], but: str) -> str:
    """Return what the name of the adapter's own model gives to think about it; "" if nothing."""
    told = f"by its name, {adapter.path.name} was trained on {quoted(adapter.base_name)[1:-1]}"
    if says_before_tuning(adapter.base_name, names):
        return (
            f"{told}, which is the model before tuning, and not on {names[0]}; the large model "
            "answers best if it was trained on the small instruct model"
        )
    wanted = plain_name(adapter.base_name)
    if not _ON_THE_HUB.fullmatch(adapter.base_name) or wanted in map(plain_name, names):
        return ""
    found = _recipes(but, lambda small: wanted in map(plain_name, _names(small)))
    instead = f", the small model of {', '.join(found)}" if found else ""
    return f"{told}{instead}, and not on {names[0]}; if that is another model, replies will be off"


def recipes_for(path: Path) -> list[str]:
    """Return the recipes of whose small instruct model the adapter at `path` is, or may be.

    Raises as `inspect`.
    """
    adapter = inspect(path)
    return _recipes("", lambda small: _fits(adapter, small))


def _others(adapter: Adapter, but: str) -> str:
    """Return which recipes have a small model that the adapter fits, for a message."""
    if found := _recipes(but, lambda small: _fits(adapter, small)):
        return f"it fits the small model of {', '.join(found)}"
    return f"no recipe here has a small model that it fits; with files: {FILES}"


def _recipes(but: str, fits: Callable[[ModelSpec], bool]) -> list[str]:
    """Return the names of the other recipes for adapters whose small model fits."""
    found = []
    for name, path in list_recipes().items():
        try:
            recipe = load_recipe(path)
            small = small_instruct(recipe)
            if name != but and recipe.instruct and small and fits(small):
                found.append(name)
        except EdgeEftError:
            continue  # a broken recipe of one's own is told when it is used
    return sorted(found)


def _fits(adapter: Adapter, small: ModelSpec) -> bool:
    """Return whether the adapter fits a recipe's small model: by its header, else by its name."""
    if not small.needs_pull and small.file.is_file():
        try:
            adapter.check(read_header(small.file))
        except ModelFileError:
            return False
        return True
    wanted = plain_name(adapter.base_name)
    return bool(wanted) and wanted in map(plain_name, _names(small))


def _names(small: ModelSpec, header: GGUFHeader | None = None) -> Iterator[str]:
    """Yield what a model is called: by its place on the hub, its file and itself."""
    if isinstance(small.source, HubFile):
        yield small.source.repo
    yield model_stem(small.file)
    name = header.metadata.get("general.name") if header else None
    if isinstance(name, str):
        yield name
