"""Low-rank adapters, made and read by PEFT."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError, did_you_mean

from .load import ADAPTER_CONFIG, require_peft

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What an adapter is like; the names are PEFT's.

    Args:
        r: rank.
        lora_alpha: scale; the adapter's output is multiplied by alpha / r, or alpha / sqrt(r) with `use_rslora`.
        lora_dropout: dropout before the adapter.
        target_modules: names of layers, a regular expression, or ``all-linear``.
        modules_to_save: layers that are trained whole.
    """

    r: int = 16
    lora_alpha: float = 32
    lora_dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    modules_to_save: Sequence[str] = ()
    use_dora: bool = False
    use_rslora: bool = False


def add_adapter(model: PreTrainedModel, settings: LoraSettings, *, seed: int = 0) -> PeftModel:
    """Return the model with a new adapter whose output is zero; everything else is frozen.

    Raises:
        ConfigError: no layer is called what `target_modules` names, or they are embeddings tied to the output layer.
        MissingDependency: PEFT is not installed.
    """
    peft = require_peft("LoRA")
    import torch

    _check_names(model, settings)
    targets = settings.target_modules
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(settings.modules_to_save) or None,
        ensure_weight_tying=bool(settings.modules_to_save) and model.config.get_text_config().tie_word_embeddings,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
    )
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        try:
            adapted = peft.get_peft_model(model, config)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"lora: PEFT refuses these settings: {' '.join(str(error).split())[:300]}") from error
    _check_embeddings(adapted)
    return adapted


def load_adapter(model: PreTrainedModel, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """Return the model with the adapter that a folder holds.

    Raises:
        ConfigError: the adapter does not fit the model: it cannot be read, lacks weights or has others.
        MissingDependency: PEFT is not installed.
    """
    peft = require_peft("an adapter")
    from safetensors import SafetensorError

    try:
        with _quiet():
            # Layers without their weights would be as new, and the model as if it had no adapter: PEFT only warns.
            warnings.filterwarnings("error", message=".*missing adapter keys", category=UserWarning)
            loaded = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
            # PEFT passes over weights of layers that the model lacks, and tells of them only here.
            strange = peft.set_peft_model_state_dict(loaded, peft.load_peft_weights(str(folder), "cpu")).unexpected_keys
    except (ValueError, KeyError, RuntimeError, OSError, SafetensorError, UserWarning) as error:
        raise ConfigError(
            f"{folder}: this adapter does not fit the model: {' '.join(str(error).split())[:300]}"
        ) from error
    if strange:
        more = f" and {len(strange) - 3:,} more" if len(strange) > 3 else ""
        raise ConfigError(
            f"{folder}: this adapter does not fit the model, which has no layers for {', '.join(strange[:3])}{more}; "
            "load it on the model that it was made for"
        )
    return loaded


def continue_adapter(model: PreTrainedModel, folder: str | Path, settings: LoraSettings) -> PeftModel:
    """Return the model with the adapter that a folder holds, to be trained on.

    Raises:
        ConfigError: the adapter is not as the settings say.
    """
    import torch

    with torch.device("meta"):
        asked_for = _trained_names(add_adapter(type(model)(deepcopy(model.config)), settings))
    loaded = load_adapter(model, folder, trainable=True)
    config = loaded.peft_config["default"]
    for name in ("r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora"):
        found, wanted = getattr(config, name), getattr(settings, name)
        if found != wanted:
            raise ConfigError(f"lora.{name}: {folder} has {found!r}, not {wanted!r}; to train it on, set it so")
    trained = _trained_names(loaded)
    differing = sorted(trained ^ asked_for)
    if differing:
        which = "has" if differing[0] in trained else "lacks"
        raise ConfigError(
            f"lora.lora_target_modules, lora.modules_to_save: {folder} trains other layers than they name; it {which} "
            f"{differing[0]}. To train it on, set them as its {ADAPTER_CONFIG} says"
        )
    return loaded


def _trained_names(model: PeftModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _check_expression(expression: str, modules: Sequence[str]) -> None:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ConfigError(f"lora.lora_target_modules: {expression!r} is no regular expression: {error}") from error
    if not any(pattern.fullmatch(name) for name in modules):
        raise ConfigError(f"lora.lora_target_modules: no layer matches the expression {expression!r}")


def _check_embeddings(model: PeftModel) -> None:
    """Refuse an adapter on embeddings that are the output layer too: merged, it would change both."""
    base = model.get_base_model()
    if base.config.get_text_config().tie_word_embeddings and hasattr(base.get_input_embeddings(), "base_layer"):
        raise ConfigError(
            "lora.lora_target_modules: this model's embeddings are its output layer too, so an adapter on them alone "
            "could not be merged; leave them out, or train them whole through modules_to_save"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide that PEFT reads an attribute which transformers is about to rename."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _check_names(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Refuse names that no layer has, with the nearest that one has."""
    layers = {name.rpartition(".")[2]: None for name, module in model.named_modules() if not any(module.children())}
    names: list[Any] = list(settings.modules_to_save)
    if not isinstance(settings.target_modules, str):
        names += settings.target_modules
    modules = [name for name, _ in model.named_modules()]
    if isinstance(settings.target_modules, str) and settings.target_modules != "all-linear":
        _check_expression(settings.target_modules, modules)
    for wanted in names:
        if not any(name == wanted or name.endswith(f".{wanted}") for name in modules):
            known = ", ".join(sorted(name for name in layers if name and not name.isdigit()))
            raise ConfigError(
                f"lora: no layer of this model is called {wanted!r}.{did_you_mean(wanted, layers)} Layers: {known}"
            )
