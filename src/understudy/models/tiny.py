"""Tiny models of real architectures with random weights, and tokenizers trained on your own texts.

For tests, and for a first run that takes minutes and needs no download. The code paths are those of the real models:
the classes are transformers' own, only the sizes are small.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CHAT_TEMPLATE = Path(__file__).with_name("chat.jinja")
"""The chat template of tokenizers trained here. It always prints a message in the same way, so turns share prefixes."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>")

_SLIDING = {"sliding_window": 64}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}

# What each architecture needs beside the common sizes; keys are those of its config class.
_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {},
    "qwen3_moe": {**_EXPERTS, "moe_intermediate_size": 64, "norm_topk_prob": True},
    "mistral": _SLIDING,
    "gemma3_text": _SLIDING,
    "gpt_oss": {"num_local_experts": 8, "num_experts_per_tok": 2, **_SLIDING},
}


def architectures() -> list[str]:
    """Return the names that `tiny_model` knows."""
    return list(_ARCHITECTURES)


def tiny_model(
    architecture: str,
    *,
    vocab_size: int,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    intermediate_size: int | None = None,
    max_position_embeddings: int = 131072,
    tie_word_embeddings: bool = True,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    eos_token_id: int | None = None,
    **overrides: Any,
) -> PreTrainedModel:
    """Return a model with random weights; the same arguments give the same weights.

    Their standard deviation is ``1 / sqrt(hidden_size)``, or `initializer_range` where that is given. The 0.02 of real
    models is for widths of thousands: a narrow model that starts so small hardly feels what it attends to, and takes
    several times as long to learn to copy.

    Args:
        architecture: see `architectures`.
        intermediate_size: of the feed-forward layers; three times the hidden size when None.
        overrides: any other key of the architecture's config.

    Raises:
        ConfigError: the architecture is unknown or the sizes do not fit together.
    """
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        hint = did_you_mean(architecture, _ARCHITECTURES)
        raise ConfigError(f"unknown tiny architecture {architecture!r}.{hint} Known: {known}")
    if hidden_size % num_heads or num_heads % num_kv_heads:
        raise ConfigError(
            f"hidden_size {hidden_size} must be a multiple of num_heads {num_heads}, and that of "
            f"num_kv_heads {num_kv_heads}"
        )
    if hidden_size // num_heads % 2:  # rotary encodings turn pairs
        raise ConfigError(f"hidden_size {hidden_size} must be a multiple of {2 * num_heads}: heads have an even width")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": hidden_size // num_heads,
        "intermediate_size": intermediate_size or 3 * hidden_size,
        "max_position_embeddings": max_position_embeddings,
        "tie_word_embeddings": tie_word_embeddings,
        "initializer_range": hidden_size**-0.5,
        "bos_token_id": None,
        "eos_token_id": eos_token_id,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(architecture, **settings | _ARCHITECTURES[architecture] | overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return model.to(dtype) if dtype is not None else model


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int = 4096,
    chat_template: str | None = None,
    special_tokens: Sequence[str] = SPECIAL_TOKENS,
    stop_token: str = "<|im_end|>",
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; every text can be encoded, whatever it was trained on.

    Args:
        vocab_size: upper bound of the vocabulary; at least 256 bytes and the special tokens.
        chat_template: source of a template; ours when None.
        special_tokens: what the template writes as single tokens.
        stop_token: one of them: what ends a turn.

    Raises:
        ConfigError: the vocabulary is too small, or the stop token is not a special token.
    """
    if vocab_size < 256 + len(special_tokens):
        raise ConfigError(
            f"vocab_size is {vocab_size}; bytes and special tokens alone need {256 + len(special_tokens)}"
        )
    if stop_token not in special_tokens:
        raise ConfigError(f"the stop token {stop_token!r} is not one of the special tokens")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Half of a UTF-16 pair has no bytes; whoever renders such a text refuses it, with its row.
    tokenizer.train_from_iterator((text.encode(errors="replace").decode() for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=stop_token,
        pad_token=special_tokens[0],
        chat_template=chat_template or CHAT_TEMPLATE.read_text(encoding="utf-8"),
    )


def save_tiny(
    folder: Path, architecture: str, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0, **sizes: Any
) -> None:
    """Write a tiny model for a tokenizer, and the tokenizer, to a new folder; whole or not at all.

    Args:
        sizes: as `tiny_model` takes them.

    Raises:
        ConfigError: as `tiny_model`.
    """
    model = tiny_model(architecture, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, seed=seed, **sizes)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
