"""The one place that touches transformers: loading a tokenizer with its template, and its template sandbox.

transformers moves fast and its template sandbox is private, so everything that could break with a new version stands
here, and the tests compare it with transformers' public `apply_chat_template`. Importing transformers takes about two
seconds; this module does so only inside its functions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.errors import RenderError


def template_environment() -> Any:
    """Return transformers' own environment for chat templates, a new one each time."""
    from transformers.utils import chat_template_utils

    return chat_template_utils._cached_compile_jinja_template("").environment


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """A tokenizer with what its model folder says about chats.

    Args:
        name: how the user named the model.
        backend: the `tokenizers.Tokenizer` that the server runs.
        templates: chat templates by name; the usual one is ``default``, some models have ``tool_use`` as well.
        variables: special tokens by role (``bos_token``, …), which templates may print.
        stop_tokens: the texts of `eos_token_id` in the generation config; empty where the folder has none.
        eos_token: the tokenizer's own end token, if it has one.
        max_length: the context length that the tokenizer declares, or None.
    """

    name: str
    backend: Any
    templates: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    stop_tokens: tuple[str, ...] = ()
    eos_token: str | None = None
    max_length: int | None = None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with no special tokens added, as a server encodes a rendered chat.

        Half of a UTF-16 pair counts as a question mark: no server takes it, and to render it is refused.
        """
        try:
            return list(self.backend.encode(text, add_special_tokens=False).ids)
        except TypeError:
            return list(self.backend.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)

    def fingerprint(self) -> str:
        """Return a hash of the vocabulary and the rules that cut text into ids."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()[:16]


def load_tokenizer(
    model: str | Path, *, chat_template: str | Path | None = None, trust_remote_code: bool = False
) -> ModelTokenizer:
    """Load the tokenizer, chat template and stop tokens of a model folder (or hub name).

    Args:
        chat_template: a template file or its source, in place of the model's own.

    Raises:
        RenderError: there is no tokenizer, it is not a fast one, or the template file cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model), trust_remote_code=trust_remote_code)
    except Exception as error:  # AutoTokenizer raises many types; all of them mean that this model cannot be loaded
        raise RenderError(f"cannot load a tokenizer from {str(model)!r}: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise RenderError(f"{str(model)!r} has no fast tokenizer (tokenizer.json), which exact rendering needs")
    return from_transformers(
        tokenizer,
        name=str(model),
        chat_template=_template_source(chat_template),
        stop_tokens=_generation_config_stops(str(model), tokenizer),
    )


def from_transformers(
    tokenizer: Any, *, name: str, chat_template: str | None = None, stop_tokens: tuple[str, ...] = ()
) -> ModelTokenizer:
    """Wrap a loaded transformers fast tokenizer."""
    source: Any = chat_template if chat_template is not None else tokenizer.chat_template
    templates = dict(source) if isinstance(source, Mapping) else ({"default": source} if source else {})
    declared = tokenizer.model_max_length
    return ModelTokenizer(
        name=name,
        backend=tokenizer.backend_tokenizer,
        templates=templates,
        variables={role: str(token) for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
        stop_tokens=stop_tokens,
        eos_token=tokenizer.eos_token,
        max_length=int(declared) if declared is not None and declared < 10**9 else None,
    )


def _template_source(template: str | Path | None) -> str | None:
    if template is None:
        return None
    if isinstance(template, str) and ("{%" in template or "{{" in template):
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RenderError(f"cannot read the chat template {str(template)!r}: {error}") from error


def _generation_config_stops(model: str, tokenizer: Any) -> tuple[str, ...]:
    """Return the texts of `eos_token_id` of generation_config.json; empty where there is no such file."""
    from transformers.utils import cached_file

    try:
        path = cached_file(model, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    except OSError:
        return ()
    if path is None:
        return ()
    try:
        eos = json.loads(Path(path).read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise RenderError(f"{path} cannot be read: {error}") from error
    ids = [] if eos is None else eos if isinstance(eos, list) else [eos]
    texts = [tokenizer.backend_tokenizer.id_to_token(int(index)) for index in ids]
    if None in texts:
        raise RenderError(f"{path}: eos_token_id {ids[texts.index(None)]} is not in the tokenizer's vocabulary")
    return tuple(texts)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
