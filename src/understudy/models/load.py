"""Loading models and tokenizers from a folder or the hub.

Weights come from safetensors only, because other files can run code when they are read. Code that comes with a model
runs only when the user has said so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
ADAPTER_CONFIG = "adapter_config.json"


def load_model(
    path: str | Path,
    *,
    dtype: DtypeName = "auto",
    trust_remote_code: bool = False,
    load_in_4bit: bool = False,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """Load a causal language model.

    Args:
        path: model folder or hub name.
        dtype: of the weights; ``auto`` is what they were saved in.
        load_in_4bit: hold the weights of linear layers in 4 bits, frozen.
        device: where to put it.

    Raises:
        ConfigError: nothing is there, it is no causal language model, it has no safetensors, weights are missing, or it
            needs its own code.
        MissingDependency: bitsandbytes is not installed, and 4 bits are wanted.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    wanted: Any = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        with without_bars():
            model, loaded = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=wanted,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                **(_in_4bit(device) if load_in_4bit else {}),
            )
    except ImportError as error:
        raise ConfigError(f"{path}: this model needs a package that is not installed: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ConfigError(_explain(path, error)) from error
    absent = sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"]]))
    if absent:
        raise ConfigError(
            f"{path}: {len(absent)} weights of this architecture are not there, and would be random: {absent[0]}, …"
        )
    return model if load_in_4bit else model.to(device)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers' bars out of the progress display."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _in_4bit(device: torch.device | str) -> dict[str, Any]:
    """Return how transformers is told to quantise while loading, as QLoRA does (https://arxiv.org/abs/2305.14314)."""
    if str(device) == "cpu":
        # bitsandbytes repacks weights on a CPU, with a loss, whenever they are saved or a mode is switched.
        raise ConfigError("model.load_in_4bit needs a GPU: on a CPU bitsandbytes does not keep the weights as they are")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependency("bitsandbytes", needed_for="model.load_in_4bit", install="bitsandbytes") from error
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    return {"quantization_config": settings, "device_map": {"": device}}


def load_model_config(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load a model's config alone.

    Raises:
        ConfigError: nothing is there, or it needs code of its own.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(_explain(path, error)) from error


def load_hf_tokenizer(path: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load transformers' tokenizer of a model, for saving beside the weights.

    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(_explain(path, error)) from error


def is_adapter(path: str | Path) -> bool:
    """Return whether a folder holds a PEFT adapter and not a whole model."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def require_peft(needed_for: str) -> Any:
    """Import PEFT.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingDependency("peft", needed_for=needed_for, install="peft") from error
    return peft


def _explain(path: str | Path, error: Exception) -> str:
    """Say in one line why a model cannot be loaded, and what to do about it."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return (
            f"{path}: this model comes with Python code of its own, which would run on this machine. Read it, then set "
            "model.trust_remote_code: true if you trust it"
        )
    if "safetensors" in text and Path(path).is_dir():
        return f"{path}: has no safetensors weights, and no others are read; convert them with save_pretrained"
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        adapter = (
            " (it holds an adapter: `understudy export` merges it into its base model)" if is_adapter(path) else ""
        )
        return f"{path}: has no config.json, so it is no model folder{adapter}"
    return f"cannot load a model from {str(path)!r}: {text[:300]}"
