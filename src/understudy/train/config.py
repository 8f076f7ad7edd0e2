"""The config of a training run: one class for each section of the YAML file.

Keys that others' trainers have too keep their names. Every value is used as it is written: a validator may refuse one,
none replaces one.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from understudy.batching import Layout
from understudy.config import Component, ConfigModel
from understudy.rendering.profile import ServerProfile

from .data_config import DataSection, Paths


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
        sizes = [name for name in ("vocab_size", "hidden_size", "num_layers") if getattr(self, name) is not None]
        if self.path is not None and sizes:
            raise ValueError(f"{', '.join(sizes)} can be chosen for a tiny model only")
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
    """Names of layers that are trained whole and saved with the adapter, such as embed_tokens."""

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

    optim: Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit"] = "adamw_torch_fused"
    """The optimiser; adamw_8bit needs bitsandbytes."""

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

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

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
        if self.load_best_model_at_end and not self.save_best:
            raise ValueError("load_best_model_at_end needs the best checkpoint; set save_best: true")
        return self

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `report_to`."""
        names = (self.report_to,) if isinstance(self.report_to, str) else self.report_to
        return () if names == ("none",) else names


class EvaluationSection(ConfigModel):
    """Let the model play held-out tasks whenever it is validated, as policy `local` would. Changes no loss."""

    environment: Component
    """What it acts in: math, grid, tools, function_gym, or your own."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of policy `local`, such as max_new_tokens, temperature or max_batch_size. How the model is loaded and
    asked is as it is trained."""

    policies: dict[str, Component] = Field(default_factory=dict)
    """Who acts for agents that are not the model, by the agent's name."""

    split: Literal["train", "validation", "test"] = "validation"
    """The tasks to play."""

    num_tasks: int = Field(20, ge=1)
    """How many of them are played, the same ones every time."""

    samples_per_task: int = Field(1, ge=1)
    """How often each is played."""

    max_turns: int | None = Field(50, ge=1)
    """An episode is truncated when an agent has acted so often; null for no limit."""

    seed: int = 0
    """Seed of the environments: task i is played with seed + i."""

    concurrency: int = Field(64, ge=1)
    """How many episodes are under way at the same time."""

    episode_timeout_seconds: float | None = Field(None, gt=0)
    """An episode that takes longer ends by a fault; null for no limit."""

    @field_validator("arguments")
    @classmethod
    def _of_playing_only(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        loading = ("model", "device", "dtype", "trust_remote_code", "chat_template", "profile")
        settled = [name for name in loading if name in arguments]
        if settled:
            raise ValueError(f"{', '.join(settled)} is settled by the training itself; leave it out")
        return arguments


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

    @model_validator(mode="after")
    def _make_sense_together(self) -> Self:
        if self.model.load_in_4bit and self.lora is None:
            raise ValueError("model.load_in_4bit needs lora: weights in 4 bits cannot be trained themselves")
        return self
