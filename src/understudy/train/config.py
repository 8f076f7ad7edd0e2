"""The config of a training run: one class for each section of the YAML file.

Keys that others' trainers have too keep their names. Every value is used as it is written: a validator may refuse one,
none replaces one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializationInfo, ValidationError, field_validator, model_serializer, model_validator

from understudy.batching import Layout
from understudy.config import ConfigModel
from understudy.rendering.profile import ServerProfile

from .data_config import DataSection, Paths, SourceSection
from .playing_config import EvaluationSection

_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
_FOLDERS_OF_A_RUN = ("final", "base", "rollouts")


TINY_SIZES = ("hidden_size", "num_layers", "num_heads", "num_kv_heads")
"""What may be chosen of a tiny model beside its vocabulary, by the names that `models.tiny_model` has for it."""


class ModelSection(ConfigModel):
    """The model to train: one that is there (`path`), or a small new one (`tiny`)."""

    path: str | None = Field(None, validation_alias="model_name_or_path")
    """Model folder or hub name. Only safetensors are read."""

    tiny: str | None = None
    """Make a small model of this architecture with random weights, and a tokenizer from the data: qwen3, llama, …; for
    tests and for trying things out."""

    vocab_size: int | None = Field(None, ge=300)
    """Vocabulary of a tiny model (default 2048)."""

    hidden_size: int | None = Field(None, ge=8)
    """Width of a tiny model (default 64)."""

    num_layers: int | None = Field(None, ge=1)
    """Layers of a tiny model (default 2)."""

    num_heads: int | None = Field(None, ge=1)
    """Attention heads of a tiny model (default 4), each hidden_size / num_heads wide. Fewer and wider ones learn sooner
    to copy words that they have to look up."""

    num_kv_heads: int | None = Field(None, ge=1)
    """Key and value heads of a tiny model (default 2)."""

    tokenizer: str | None = None
    """Folder or hub name of another tokenizer; by default the model's own."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """What the weights are held in; `auto` is what the model was saved in. By default float32 where the weights are
    trained, and `auto` where LoRA keeps them frozen."""

    load_in_4bit: bool = False
    """Hold the frozen weights in 4 bits (QLoRA: NF4 with double quantisation); needs lora, bitsandbytes and a GPU."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.path is None) == (self.tiny is None):
            raise ValueError("give either path (a model that is there) or tiny (a small new one)")
        sizes = [name for name in ("vocab_size", *TINY_SIZES) if getattr(self, name) is not None]
        if self.path is not None and sizes:
            raise ValueError(f"{', '.join(sizes)} can be chosen for a tiny model only")
        if self.vocab_size is not None and self.tokenizer is not None:
            raise ValueError("vocab_size is for a tokenizer made of the data; leave it out, or leave out tokenizer")
        return self


class RenderingSection(ServerProfile):
    """How messages become tokens: what the model's server does to them, and the chat template."""

    chat_template: str | None = None
    """File of a chat template in place of the model's own."""

    on_refusal: Literal["fail", "skip", "context"] = "fail"
    """What is done with a turn that cannot be rendered exactly: stop, leave it out, or keep it as context only."""

    def profile(self) -> ServerProfile:
        """Return the server's part alone, as the fingerprint of what is rendered wants it."""
        return ServerProfile(**{name: getattr(self, name) for name in ServerProfile.model_fields})


class ObjectiveSection(ConfigModel):
    """What is trained."""

    name: str = Field("behavioral_cloning", validation_alias="mode")
    """behavioral_cloning (actions), world_model (what the environment answers), combined (both in one forward pass), or
    package.module:Class."""

    bc_weight: float | None = Field(None, ge=0)
    """Coefficient of behavioural cloning (default 1)."""

    world_model_weight: float | None = Field(None, ge=0)
    """Coefficient of the world model (default 1)."""

    weight_by: str = "none"
    """What a turn counts beside its own weight: none, reward (the trajectory's, else the episode's), turn_reward, or an
    annotation of the turn such as score or advantage."""

    observation_roles: tuple[str, ...] | None = None
    """Roles of the messages that the world model predicts, e.g. [tool]; null for all."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of an objective of your own."""

    @model_validator(mode="after")
    def _fits_the_name(self) -> Self:
        settled = {
            key for key in ("bc_weight", "world_model_weight", "observation_roles") if getattr(self, key) is not None
        }
        twice = sorted(self.arguments.keys() & (settled | ({"weight_by"} if self.weight_by != "none" else set())))
        if twice:
            raise ValueError(f"{', '.join(twice)} is given twice: as a key, and in arguments")
        taken = {"behavioral_cloning": ("bc_weight",), "world_model": ("world_model_weight", "observation_roles")}
        for key in ("bc_weight", "world_model_weight", "observation_roles"):
            if self.name in taken and key not in taken[self.name] and getattr(self, key) is not None:
                raise ValueError(f"{key} means nothing to {self.name}; leave it out or use combined")
        return self


class LoraSection(ConfigModel):
    """Low-rank adapters, as PEFT has them. Without this section all weights are trained."""

    lora_r: int = Field(16, ge=1, validation_alias="r")
    """Rank."""

    lora_alpha: float = Field(32, gt=0, validation_alias="alpha")
    """Scale: the adapter's output is multiplied by alpha / r, or by alpha / sqrt(r) with use_rslora."""

    lora_dropout: float = Field(0.0, ge=0, lt=1, validation_alias="dropout")
    """Dropout before the adapter."""

    lora_target_modules: Paths = Field("all-linear", validation_alias="target_modules")
    """Names of the layers that get an adapter, a regular expression for them, or all-linear: every linear layer but the
    output layer."""

    modules_to_save: tuple[str, ...] = ()
    """Names of layers that are trained whole and saved with the adapter, such as embed_tokens. They are held in the
    model's dtype, which for training them is best float32 (model.dtype)."""

    use_dora: bool = False
    """Weight-decomposed adapters (DoRA)."""

    use_rslora: bool = False
    """Rank-stabilised scale (rsLoRA)."""


class TrainSection(ConfigModel):
    """Batches, optimiser, schedule, precision, saving and evaluation."""

    per_device_train_batch_size: int = Field(8, ge=1)
    """Trajectories for each device and accumulated part of an optimiser step."""

    gradient_accumulation_steps: int = Field(1, ge=1)
    """An optimiser step has per_device_train_batch_size × gradient_accumulation_steps × devices trajectories. How they
    are arranged in memory is decided by max_tokens_per_batch alone."""

    max_tokens_per_batch: int = Field(4096, ge=1)
    """Tokens of one forward pass; bounds memory and changes no result."""

    layout: Layout = "depth_first"
    """How the trajectories of a step are arranged; changes no result. `depth_first` shares all prefixes and holds one
    path at a time, `tree` shares within a batch of max_tokens_per_batch, `rows` shares nothing."""

    num_train_epochs: float = Field(3.0, gt=0, validation_alias="num_epochs")
    """How often to go through the data, unless max_steps is given."""

    max_steps: int | None = Field(None, ge=1)
    """Number of optimiser steps."""

    learning_rate: float = Field(5e-5, gt=0)
    """Highest learning rate."""

    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up: down to 0 at the last step, or constant."""

    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""

    warmup_steps: int = Field(0, ge=0)
    """Number of steps in which the learning rate rises from 0, in place of warmup_ratio."""

    optim: Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "muon"] = "adamw_torch_fused"
    """The optimiser; adamw_8bit needs bitsandbytes. `muon` trains the matrices of hidden layers by Muon (momentum 0.95,
    steps as large as AdamW's) and all else by AdamW: a model that begins with nothing learns to look things up in far
    fewer steps."""

    muon_learning_rate: float | None = Field(None, gt=0)
    """Highest learning rate of what Muon trains; null for learning_rate, which is for the rest. Embeddings often want
    less."""

    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay; biases and norms have none."""

    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""

    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of AdamW's second moment."""

    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""

    max_grad_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 for no clipping."""

    seed: int = Field(42, ge=0)
    """Of the order of the data, the validation split, dropout, new adapters and tiny models."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where there is one."""

    bf16: bool = False
    """Compute in bfloat16 (autocast)."""

    fp16: bool = False
    """Compute in float16 (autocast) with a scaled loss."""

    fsdp: bool = False
    """Cut the model over all processes (FSDP2) in place of a copy on each: weights, gradients and optimiser state. For
    models that one device cannot hold; changes no result."""

    fsdp_size: int | None = Field(None, ge=1)
    """Over how many processes fsdp cuts one copy of the model, such as the GPUs of one machine; between the copies only
    gradients go (hybrid sharding, HSDP). Null for one copy over all processes. With tp_size, groups of processes."""

    tp_size: int = Field(1, ge=1)
    """Over how many processes, neighbours, each layer's heads and MLP are cut (tensor parallelism). They compute the
    same trajectories together and count as one device; changes no result. With fsdp the parts are cut further."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    activation_offloading: bool = False
    """Let activations wait in the CPU's memory for the backward pass: less memory of the GPU, and changes no result. On
    a CPU they are there already."""

    torch_compile: bool = False
    """Compile the model with torch.compile."""

    save_steps: int | None = Field(500, ge=0)
    """Save a checkpoint after every so many steps; null for once an epoch, 0 for none on the way. The end is always
    saved."""

    save_total_limit: int | None = Field(None, ge=1)
    """Keep only the newest checkpoints; the best one is kept beside them. Null keeps all."""

    save_best: bool = True
    """Save a checkpoint whenever the validation loss is the lowest so far."""

    load_best_model_at_end: bool = False
    """Put the best checkpoint into final/ instead of the last step."""

    eval_steps: int | None = Field(None, ge=1)
    """Validate, and play where there is an `evaluation` section, after every so many steps; null for once an epoch.
    Always at the end too."""

    eval_on_start: bool = True
    """Validate, and play, before the first step."""

    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after so many validations in a row without a lower loss."""

    early_stopping_threshold: float = Field(0.0, ge=0)
    """By how much a validation loss must be lower to count."""

    report_to: Paths = ()
    """Trackers that get the metrics too: tensorboard, wandb, swanlab, mlflow, trackio, …, each through its own package.
    metrics.jsonl is always written. `none` or an empty list for none."""

    run_name: str | None = Field(None, validation_alias="wandb_run_name")
    """Name of the run in trackers; by default the output folder's."""

    project: str | None = Field(None, validation_alias="wandb_project")
    """Name of the project in trackers that have projects (MLflow: the experiment); by default what the tracker's own
    settings say."""

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other; choose one")
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("give either warmup_ratio or warmup_steps, not both")
        if self.muon_learning_rate is not None and self.optim != "muon":
            raise ValueError(f"muon_learning_rate means nothing to {self.optim}; leave it out, or set optim: muon")
        if self.load_best_model_at_end and not self.save_best:
            raise ValueError("load_best_model_at_end needs the best checkpoint; set save_best: true")
        if self.fsdp_size is not None and not self.fsdp:
            raise ValueError("fsdp_size means nothing without fsdp; leave it out, or set fsdp: true")
        if self.cuts_by is not None:
            self._can_be_sharded(self.cuts_by)
        return self

    def _can_be_sharded(self, by: str) -> None:
        if self.optim not in ("adamw_torch_fused", "adamw_torch"):
            needs = "whole matrices" if self.optim == "muon" else "whole tensors"
            raise ValueError(f"optim: {self.optim} needs {needs}, which {by} cuts; set optim: adamw_torch_fused")
        if self.torch_compile:
            raise ValueError(f"{by} does not go with torch_compile; leave one of them out")
        if self.activation_offloading:
            raise ValueError(
                f"{by} does not go with activation_offloading; set gradient_checkpointing: true in its place"
            )

    @property
    def cuts_by(self) -> str | None:
        """The key by which processes hold parts of the model; None where each holds a copy."""
        return "fsdp" if self.fsdp else "tp_size" if self.tp_size > 1 else None

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `report_to`."""
        names = (self.report_to,) if isinstance(self.report_to, str) else self.report_to
        return () if names == ("none",) else names


class PolicySection(ConfigModel):
    """One of several policies that a run trains: whose trajectories it learns, and what is different for it."""

    agents: tuple[str, ...] | None = None
    """Agents whose trajectories it learns; by default the one of its own name, or all where `policies` is given."""

    policies: tuple[str, ...] | None = None
    """Policies whose trajectories it learns, where the data names policies; null for all."""

    model: ModelSection | None = None
    """In place of the run's `model`."""

    objective: ObjectiveSection | None = None
    """In place of the run's `objective`."""

    lora: LoraSection | None = None
    """In place of the run's `lora`; `lora: null` trains all weights of this policy."""

    train: TrainSection = TrainSection()
    """Keys of `train` that differ from the run's."""

    @model_serializer(mode="wrap")
    def _what_was_given(self, handler: Any, info: SerializationInfo) -> dict[str, Any]:
        """Write nothing but what was given, because any other key would take the place of the run's."""
        written = handler(self) | {"train": self.train.model_dump(mode=info.mode, exclude_unset=True)}
        return {key: value for key, value in written.items() if key in self.model_fields_set}


class TrainConfig(ConfigModel):
    """A training run."""

    output_dir: str
    """The run's folder: checkpoints, final model, metrics, plot, config and provenance."""

    resume: Literal["never", "auto"] = "never"
    """`auto` goes on from the last good checkpoint of output_dir, and starts where there is none."""

    model: ModelSection
    """The model to train."""

    data: DataSection = DataSection()
    """What is trained on."""

    rendering: RenderingSection = RenderingSection()
    """How messages become tokens."""

    objective: ObjectiveSection = ObjectiveSection()
    """What is trained."""

    lora: LoraSection | None = None
    """Train low-rank adapters in place of all weights."""

    train: TrainSection = TrainSection()
    """How it is trained."""

    evaluation: EvaluationSection | None = None
    """Let the model play held-out tasks whenever it is validated."""

    policies: dict[str, PolicySection] | None = None
    """Train a model or adapter for each of these, one after the other, in folders of their names: for agents that do
    not share one. By default a policy learns what the agent of its name did."""

    @field_validator("policies")
    @classmethod
    def _names_of_folders(cls, policies: dict[str, PolicySection] | None) -> dict[str, PolicySection] | None:
        if policies is not None and not policies:
            raise ValueError("policies is empty; name one at least, or leave it out")
        for name in policies or {}:
            if not _FOLDER_NAME.fullmatch(name) or name in _FOLDERS_OF_A_RUN or name.startswith("checkpoint-"):
                raise ValueError(f"{name!r} cannot be the name of a policy's folder; name its agents in {name}.agents")
        return policies

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.policies is None:
            if self.model.load_in_4bit and self.lora is None:
                raise ValueError("model.load_in_4bit needs lora: weights in 4 bits cannot be trained themselves")
            if self.train.cuts_by is not None:
                self._can_be_sharded(self.train.cuts_by)
            return self
        selecting: list[DataSection | SourceSection] = [self.data, *(self.data.sources or {}).values()]
        if any(section.agents is not None or section.policies is not None for section in selecting):
            raise ValueError("who is trained is said by policies; leave out agents and policies of data")
        self.by_policy()
        return self

    def _can_be_sharded(self, by: str) -> None:
        if self.model.load_in_4bit:
            raise ValueError(f"train.{by} cannot cut weights in 4 bits; set model.dtype: bfloat16 in their place")
        if self.evaluation is not None:
            raise ValueError(
                f"evaluation plays with a whole model on each process, and train.{by} leaves none; leave it out, and "
                "play with checkpoints: understudy evaluate"
            )
        if self.train.tp_size > 1 and self.lora is not None and self.lora.use_dora:
            raise ValueError(
                "lora.use_dora needs norms of whole matrices, which train.tp_size cuts; leave one of them out, or set "
                "train.fsdp: true in place of train.tp_size"
            )

    def by_policy(self) -> dict[str, TrainConfig]:
        """Return a config for each model that is trained, by its policy; that of all agents has an empty name.

        Raises:
            ValueError: what is different for a policy does not fit the rest.
        """
        if self.policies is None:
            return {"": self}
        return {name: self._of_policy(name, section) for name, section in self.policies.items()}

    def _of_policy(self, name: str, section: PolicySection) -> TrainConfig:
        agents = section.agents or ((name,) if section.policies is None else None)
        sections = {key: getattr(self, key) for key in TrainConfig.model_fields}
        sections |= {key: getattr(section, key) for key in ("model", "objective") if getattr(section, key) is not None}
        if "lora" in section.model_fields_set:
            sections["lora"] = section.lora
        if self.evaluation is not None:
            others = {
                agent: policy for agent, policy in self.evaluation.policies.items() if agent not in (agents or ())
            }
            sections["evaluation"] = self.evaluation.model_copy(update={"policies": others})
        sections |= {
            "output_dir": str(Path(self.output_dir) / name),
            "data": self.data.model_copy(update={"agents": agents, "policies": section.policies}),
            "policies": None,
        }
        try:
            train = TrainSection(**(self.train.model_dump() | section.train.model_dump(exclude_unset=True)))
            return TrainConfig(**(sections | {"train": train}))
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise ValueError(f"policies.{name}: {reason}") from error
