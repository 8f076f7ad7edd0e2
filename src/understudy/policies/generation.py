"""Generate for many prompts at once with a Hugging Face model, one token of each at a time.

Prompts of agents begin alike: the same instructions, the same tools. What all prompts of a batch share is computed once
and kept for the next batch, where the model's cache allows it. Rows that have ended leave the batch.

Each row draws from its own seeded random numbers, so what it draws does not depend on what it is batched with.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MIN_SHARED_TOKENS = 16
KEEP_SHARE = 0.75
"""Ended rows are taken out of the batch once fewer than this share of its rows goes on."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Args:
        max_new_tokens: most tokens of an output.
        temperature: 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that together have this probability.
        top_k: draw from so many likeliest tokens; 0 for all.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to go on with.

    Args:
        stop_ids: tokens that end this output; None for those of the generator.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    seed: int
    stop_ids: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Continuation:
    """A prompt, and ids that may come after it, of which there is one at least."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """What the model wrote: ids with the stop token, and the natural logarithm of each one's probability.

    The probabilities are the model's own, before temperature and cuts. `is_stopped` is False where the limit ended it.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_stopped: bool


class Generator:
    """Generates with one model.

    Args:
        model: any causal language model of transformers.
        stop_ids: tokens that end an output.
        sampling: how tokens are chosen.
    """

    def __init__(self, model: PreTrainedModel, stop_ids: frozenset[int], sampling: Sampling) -> None:
        self._model = model
        self._stop_ids = stop_ids
        self._sampling = sampling
        self._cache_key = _cache_key(model)
        self._shared_ids: tuple[int, ...] = ()
        self._shared_cache: Any = None

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """Go on with every prompt."""
        import torch

        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                return self._generate(requests)
        finally:
            self._model.train(was_training)

    def log_likelihoods(self, continuations: Sequence[Continuation]) -> list[float]:
        """Return how likely each continuation is: the natural logarithm of its probability after its prompt."""
        import torch

        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                return self._log_likelihoods(continuations)
        finally:
            self._model.train(was_training)

    def forget(self) -> None:
        """Drop what was computed before: the weights have changed."""
        self._shared_ids, self._shared_cache = (), None

    def _log_likelihoods(self, continuations: Sequence[Continuation]) -> list[float]:
        import torch

        ids, mask, positions = self._batch([one.prompt_ids + one.ids for one in continuations], 0)
        num_kept = max(len(one.ids) for one in continuations) + 1
        output = self._model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=num_kept)
        found: list[float] = []
        for row, one in zip(output.logits, continuations, strict=True):
            logprobs = torch.log_softmax(row[-len(one.ids) - 1 : -1].float(), dim=-1)
            chosen = torch.tensor(one.ids, device=logprobs.device)
            found.append(float(logprobs.gather(-1, chosen[:, None]).sum()))
        return found

    def _generate(self, requests: Sequence[Request]) -> list[Generated]:
        rows = [_Row(request, self._stop_ids) for request in requests]
        live = list(range(len(rows)))  # the rows in the batch, in its order
        cache, num_shared = self._shared(rows)
        ids, mask, positions = self._batch([row.request.prompt_ids for row in rows], num_shared)
        while True:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_key: cache},
            )
            chosen, logprobs = self._choose(output.logits[:, -1].float(), [rows[i] for i in live])
            for i, token, logprob in zip(live, chosen.tolist(), logprobs.tolist(), strict=True):
                rows[i].take(token, logprob)
            going_on = [n for n, i in enumerate(live) if not rows[i].has_ended]
            if not going_on:
                return [row.result() for row in rows]
            positions = positions[:, -1:] + 1
            mask = _with_column_of_ones(mask)
            ids = chosen[:, None]
            if len(going_on) < KEEP_SHARE * len(live):
                keep = ids.new_tensor(going_on)
                cache.batch_select_indices(keep)
                ids, mask, positions = ids[keep], mask[keep], positions[keep]
                live = [live[n] for n in going_on]

    def _shared(self, rows: Sequence[_Row]) -> tuple[Any, int]:
        """Return a cache of what all prompts begin with, for as many rows, and its length in tokens."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        cache = DynamicCache(config=self._model.config)
        prompts = [row.request.prompt_ids for row in rows]
        length = _common_length(prompts)
        # Layers that forget (sliding windows) or mix (state spaces) cannot be filled in two parts with padding between.
        can_share = bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)
        if not can_share or length < MIN_SHARED_TOKENS:
            return cache, 0
        kept = len(self._shared_ids)
        if not kept or kept > length or 2 * kept < length or self._shared_ids != prompts[0][:kept]:
            self._compute_shared(prompts[0][:length])
        cache = copy.deepcopy(self._shared_cache)
        cache.batch_repeat_interleave(len(rows))
        return cache, len(self._shared_ids)

    def _compute_shared(self, ids: tuple[int, ...]) -> None:
        import torch
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        given = torch.tensor([ids], device=self._model.device)
        self._model(input_ids=given, use_cache=True, logits_to_keep=1, **{self._cache_key: cache})
        self._shared_ids, self._shared_cache = ids, cache

    def _batch(
        self, sequences: Sequence[tuple[int, ...]], num_shared: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids [B, T], mask [B, shared + T] and positions [B, T] of what is not shared, padded on the left."""
        import torch

        rests = [sequence[num_shared:] for sequence in sequences]
        longest = max(map(len, rests))
        ids = torch.zeros(len(rests), longest, dtype=torch.long)
        mask = torch.zeros(len(rests), num_shared + longest, dtype=torch.long)
        mask[:, :num_shared] = 1
        for n, rest in enumerate(rests):
            ids[n, longest - len(rest) :] = torch.tensor(rest, dtype=torch.long)
            mask[n, num_shared + longest - len(rest) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, num_shared:]
        device = self._model.device
        return ids.to(device), mask.to(device), positions.to(device)

    def _choose(self, logits: torch.Tensor, rows: Sequence[_Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the chosen tokens [B] and their log probabilities [B] for logits [B, V]."""
        import torch

        logprobs = torch.log_softmax(logits, dim=-1)
        if self._sampling.temperature == 0:
            chosen = logits.argmax(dim=-1)
        else:
            draws = torch.tensor([row.rng.random() for row in rows], device=logits.device)
            chosen = _draw(logits / self._sampling.temperature, draws, self._sampling)
        return chosen, logprobs.gather(-1, chosen[:, None])[:, 0]


class _Row:
    """One output as it grows."""

    def __init__(self, request: Request, stop_ids: frozenset[int]) -> None:
        self.request = request
        self._stop_ids = stop_ids if request.stop_ids is None else request.stop_ids
        self.rng = random.Random(request.seed)
        self.has_ended = False
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._is_stopped = False

    def take(self, token: int, logprob: float) -> None:
        """Add a token, unless the row has ended."""
        if self.has_ended:
            return
        self._ids.append(token)
        self._logprobs.append(logprob)
        self._is_stopped = token in self._stop_ids
        self.has_ended = self._is_stopped or len(self._ids) >= self.request.max_new_tokens

    def result(self) -> Generated:
        """Return the output."""
        return Generated(tuple(self._ids), tuple(self._logprobs), self._is_stopped)


def _draw(logits: torch.Tensor, draws: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return one token for each row of logits [B, V], by the uniform draws [B]: inverse transform, likeliest first."""
    probabilities, tokens = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    if sampling.top_k:
        probabilities[:, sampling.top_k :] = 0
    if sampling.top_p < 1:
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities[before >= sampling.top_p] = 0
    reached = probabilities.cumsum(dim=-1)
    places = (reached <= (draws * reached[:, -1])[:, None]).sum(dim=-1)
    # Rounding can put a draw beyond the last token that has any probability.
    places = places.minimum((probabilities > 0).sum(dim=-1) - 1)
    return tokens.gather(-1, places[:, None])[:, 0]


def _cache_key(model: PreTrainedModel) -> str:
    """Return what the model calls its cache: `cache` in newer transformers, which warns of the older name."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter passes keywords on
    return "cache" if "cache" in inspect.signature(whole.forward).parameters else "past_key_values"


def _with_column_of_ones(mask: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)


def _common_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all prompts begin with in common; every prompt keeps at least one of its own."""
    first, last = min(prompts), max(prompts)
    length = 0
    most = min(map(len, prompts)) - 1
    while length < most and first[length] == last[length]:
        length += 1
    return length
