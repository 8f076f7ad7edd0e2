"""Small real tokenizers, made in a moment, for rules and templates that no model at hand has."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from understudy.rendering import ModelTokenizer, from_transformers


def byte_level(
    *added: str | AddedToken, template: str | dict[str, str] | None = None, **special: str
) -> ModelTokenizer:
    """One token for each byte, and the added tokens; `special` are transformers' roles, such as ``eos_token``."""
    vocabulary = {byte: n for n, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return wrap(backend, *added, template=template, **special)


def metaspace(
    *added: str | AddedToken, prepend_scheme: str = "first", normalizer: normalizers.Normalizer | None = None
) -> ModelTokenizer:
    """A SentencePiece-like tokenizer: characters, some merges over the space sign, ``▁`` put before the text."""
    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ<>|_.,!\n"
    words = ["▁a", "▁h", "▁hi", "ab", "▁ab", "▁▁"]
    vocabulary = {piece: n for n, piece in enumerate(["<unk>", *letters, *words])}
    merges = [("▁", "a"), ("▁", "h"), ("▁h", "i"), ("a", "b"), ("▁a", "b"), ("▁", "▁")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme, split=False)
    if normalizer is not None:
        backend.normalizer = normalizer
    return wrap(backend, *added)


def wrap(
    backend: Tokenizer, *added: str | AddedToken, template: str | dict[str, str] | None = None, **special: str
) -> ModelTokenizer:
    """Wrap a `tokenizers.Tokenizer` as a model's, through transformers' own class."""
    from transformers import PreTrainedTokenizerFast

    backend.add_tokens([token if isinstance(token, AddedToken) else control(token) for token in added])
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    if template is not None:
        tokenizer.chat_template = template
    return from_transformers(tokenizer, name="small")


def control(text: str, **rules: bool) -> AddedToken:
    """A control token as chat models have them, matched as it is; `rules` are those of `AddedToken`."""
    return AddedToken(text, special=True, **{"normalized": False, **rules})
