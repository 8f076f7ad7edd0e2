"""The one module that touches transformers' private or fast-moving parts.

What it relies on: the attention interface (a registered function is called by every attention layer with its queries,
keys, values and whatever keyword arguments `forward` was given), the mask interface, `get_decoder`,
`get_output_embeddings`, and a few config attributes. Everything else in the trainer sees a model only through
`ModelAdapter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, GradientCheckpointingLayer, PreTrainedModel

from understudy.errors import TrainError

from .attention import AttentionLayout, Backend
from .lockstep import Lockstep, Pass
from .loss import Head, no_loss

TREE_ATTENTION = "understudy_tree"

T = TypeVar("T")

KeysAndValues = dict[nn.Module, tuple[Tensor, Tensor]]
"""Each attention layer's keys and values, [1, K, tokens, D]."""

_STATELESS_LAYERS = frozenset({"full_attention", "sliding_attention"})
_LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
_DROPOUT_KEYS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
_LOGIT_SCALE_KEYS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
_LOGIT_SOFTCAP_KEYS = ("final_logit_softcapping", "logits_soft_cap")


class ChunkAttention:
    """What the attention layers need to know while one chunk runs.

    It is no dataclass, because FSDP would look for tensors in one and hand a copy with others to the layers.

    Args:
        layout: who sees whom.
        backend: computes it.
        past: for each part of the path above, the chunk's keys and values and the tokens ``start:stop`` of them.
        kept: where to put this chunk's own keys and values; None when nothing below needs them.
    """

    def __init__(
        self,
        layout: AttentionLayout,
        backend: Backend,
        past: Sequence[tuple[KeysAndValues, int, int]] = (),
        kept: KeysAndValues | None = None,
    ) -> None:
        self.layout = layout
        self.backend = backend
        self.past = past
        self.kept = kept

    def with_past(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values with those of the path above in front, and keep this chunk's own."""
        if self.kept is not None:
            self.kept[layer] = (key, value)
        if not self.past:
            return key, value
        parts = [(held[layer], start, stop) for held, start, stop in self.past]
        keys = torch.cat([*(pair[0][:, :, start:stop] for pair, start, stop in parts), key], dim=2)
        values = torch.cat([*(pair[1][:, :, start:stop] for pair, start, stop in parts), value], dim=2)
        return keys, values


def _tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    chunk: ChunkAttention | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; q [1, H, Q, D], k and v [1, K, Q, D] -> [1, Q, H, D]."""
    if chunk is None:
        raise TrainError(f"{type(module).__name__} did not pass on its keyword arguments: it cannot take a tree")
    if dropout:
        raise TrainError(f"attention dropout is {dropout}, which trees cannot have; set it to 0 in the model's config")
    device_type = query.device.type
    if torch.is_autocast_enabled(device_type):  # what autocast does for torch's own attention
        dtype = torch.get_autocast_dtype(device_type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    keys, values = chunk.with_past(module, key, value)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = chunk.backend.attend(
        query, keys, values, chunk.layout, scale=scale, window=sliding_window, sinks=s_aux, softcap=softcap
    )
    return out, None


AttentionInterface.register(TREE_ATTENTION, _tree_attention)
AttentionMaskInterface.register(TREE_ATTENTION, lambda *_, **__: None)


class ModelAdapter:
    """A causal language model, plain or with PEFT adapters, as the trainer sees it.

    Args:
        model: from transformers, or a PEFT model around one.
        lockstep: runs its passes where it is sharded; None where this process has all of it.

    Raises:
        TrainError: its logits are not made of its last hidden states in a way that is known here.
    """

    def __init__(self, model: nn.Module, lockstep: Lockstep | None = None) -> None:
        self.model = model
        self.lockstep = lockstep
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(base, PreTrainedModel):
            raise TrainError(f"{type(base).__name__} is not a transformers model")
        self.causal_lm: PreTrainedModel = base
        self.backbone: nn.Module = base.get_decoder()
        self.config = base.config.get_text_config()
        self._own_attention: str = self.backbone.config._attn_implementation
        with torch.no_grad():
            self._scale, self._softcap = self.run(self._find_logit_transform)

    @property
    def device(self) -> torch.device:
        return self.backbone.get_input_embeddings().weight.device

    @property
    def num_embeddings(self) -> int:
        """How many token ids the model knows."""
        return min(len(self.backbone.get_input_embeddings().weight), len(self.head.weight))

    @property
    def head(self) -> Head:
        """How the model makes logits; holds the model's own parameters."""
        layer = _active_layer(self.causal_lm.get_output_embeddings())
        return Head(layer.weight, getattr(layer, "bias", None), self._scale, self._softcap)

    def outer_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of embeddings and output layer."""
        outer = (self.causal_lm.get_input_embeddings(), self.causal_lm.get_output_embeddings())
        return [parameter for module in outer for parameter in module.parameters()]

    def tree_obstacle(self, backend: Backend) -> str | None:
        """Return why this model cannot be trained on trees with this backend; None when it can."""
        config = self.config
        kinds = set(getattr(config, "layer_types", None) or ()) - _STATELESS_LAYERS
        if kinds or getattr(self.causal_lm, "_is_stateful", False):
            return f"it has layers whose state runs along the sequence ({', '.join(sorted(kinds)) or 'stateful'})"
        if not getattr(self.backbone, "_supports_attention_backend", False):
            return "its attention layers do not use transformers' attention interface"
        rope = _rope_types(config) & _LENGTH_DEPENDENT_ROPE
        if rope:
            return f"its position encoding ({', '.join(rope)}) depends on the length of the whole row"
        dropout = {key: getattr(config, key) for key in _DROPOUT_KEYS if getattr(config, key, None)}
        if dropout:
            return f"it has attention dropout ({dropout}), which shared prefixes cannot have row by row"
        if getattr(config, "attn_logit_softcapping", None) and not backend.supports_softcap:
            return f"it caps attention logits, which the {backend.name} backend does not compute"
        return None

    @contextmanager
    def attention(self, implementation: str = TREE_ATTENTION) -> Iterator[None]:
        """Let the model's layers use another attention within the block; backward passes that recompute included."""
        config = self.backbone.config
        before = config._attn_implementation
        config._attn_implementation = implementation
        try:
            yield
        finally:
            config._attn_implementation = before

    def enable_gradient_checkpointing(self) -> None:
        """Let every layer run forward a second time in the backward pass instead of holding its activations."""
        # transformers renamed it in 5.23; the old name still works there, with a warning
        enable = getattr(self.causal_lm, "activation_checkpointing_enable", None)
        enable = enable or self.causal_lm.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def sliding_windows(self) -> list[int]:
        """Return the sliding windows that layers of this model may have, in tokens; empty when all see everything."""
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None)
        return [int(window)] if window and (kinds is None or "sliding_attention" in kinds) else []

    def run(self, compute: Callable[[], T]) -> T:
        """Run a pass through the model: all that `compute` does with its layers and its head."""
        return compute() if self.lockstep is None else self.lockstep.run(compute)

    @contextmanager
    def passes_together(self, own: Sequence[Pass]) -> Iterator[None]:
        """Let every rank of a sharded model run its own passes within the block."""
        assert self.lockstep is not None
        with self.lockstep.together(own, self._run_idle):
            yield

    def _run_idle(self, due: Pass) -> None:
        """Run a pass over one token that adds nothing, because another rank runs one."""
        assert self.lockstep is not None
        ids = torch.zeros(1, dtype=torch.long, device=self.device)
        with self.attention(self._own_attention):
            loss = self.lockstep.run_at_once(lambda: no_loss(self.row_hidden(ids)))
            if due is Pass.FORWARD_BACKWARD and loss.requires_grad:
                loss.backward()

    def tree_hidden(self, ids: Tensor, positions: Tensor, chunk: ChunkAttention) -> Tensor:
        """Return [T, D] the last hidden states of a chunk's tokens [T]; only within `attention`."""
        out = self.backbone(
            input_ids=ids[None], position_ids=positions[None], attention_mask=None, use_cache=False, chunk=chunk
        )
        return out.last_hidden_state[0]

    def row_hidden(self, ids: Tensor) -> Tensor:
        """Return [T, D] the last hidden states of one row of tokens [T], with the model's own attention."""
        return self.backbone(input_ids=ids[None], use_cache=False).last_hidden_state[0]

    def row_logits(self, ids: Tensor) -> Tensor:
        """Return [T, V] the model's own logits of one row, the reference of all checks."""
        return self.causal_lm(input_ids=ids[None], use_cache=False).logits[0]

    def _find_logit_transform(self) -> tuple[float, float | None]:
        """Return the scale and softcap of the logits: those among the config's that reproduce the model's own logits.

        The configs of different models use one name for a factor and for its inverse, so it is tried out.
        """
        layer = _active_layer(self.causal_lm.get_output_embeddings())
        scales = [1.0]
        for value in _numbers(self.config, _LOGIT_SCALE_KEYS):
            scales += [value, 1 / value]
        softcaps = [*_numbers(self.config, _LOGIT_SOFTCAP_KEYS), None]
        training = self.causal_lm.training
        self.causal_lm.eval()
        ids = torch.arange(4, device=self.device) % self.config.vocab_size
        hidden, expected = self.row_hidden(ids), self.row_logits(ids)
        self.causal_lm.train(training)
        tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 3e-2
        for scale, softcap in product(scales, softcaps):
            found = Head(layer.weight, getattr(layer, "bias", None), scale, softcap).logits(hidden)
            if torch.allclose(
                found, expected.to(found.dtype), rtol=tolerance, atol=tolerance * float(expected.abs().max())
            ):
                return scale, softcap
        raise TrainError(
            f"{type(self.causal_lm).__name__} makes its logits in a way that is not known here: they are not its last "
            "hidden states times its output embeddings, scaled and capped as its config says"
        )


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model, in their order: most of its weights, and what is recomputed as one."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _active_layer(head: nn.Module) -> Any:
    """Return the linear layer that makes the logits, without PEFT's wrappers.

    Raises:
        TrainError: the head itself has a low-rank adapter, so its weight is not one matrix.
    """
    saved = getattr(head, "modules_to_save", None)
    if saved is not None:
        return saved[head.active_adapters[0]]
    if hasattr(head, "base_layer") or not hasattr(head, "weight"):
        raise TrainError(
            f"the output layer is a {type(head).__name__}: adapters on it are not supported; take it out of "
            "lora_target_modules, or train it whole through modules_to_save"
        )
    return head


def _rope_types(config: Any) -> set[str]:
    """Return the kinds of rotary encoding in a config; some have one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return {str(entry["rope_type"]) for entry in (nested or [rope]) if "rope_type" in entry}


def _numbers(config: Any, keys: Sequence[str]) -> list[float]:
    values = (getattr(config, key, None) for key in keys)
    return [float(value) for value in values if value]
