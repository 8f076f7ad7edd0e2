"""From a config to the parts of a run: objective, renderer, model, plans, engine.

Each function builds one part, and refuses what cannot work with a message that names the key.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy import registry
from understudy.batching import Planner, Sampler
from understudy.errors import ConfigError
from understudy.objectives import Objective
from understudy.objectives.behavioral_cloning import BehavioralCloning
from understudy.rendering import Renderer, load_tokenizer

from .config import LoraSection, ModelSection, ObjectiveSection, RenderingSection, TrainConfig, TrainSection
from .data import PreparedData
from .optimization import num_steps as count_steps

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .adapter import ModelAdapter
    from .engine import Engine
    from .runner import Runner

log = logging.getLogger("understudy.train")


def make_objective(config: ObjectiveSection) -> Objective:
    """Return the objective that the config names.

    Raises:
        ConfigError: it is unknown, or does not take these arguments.
    """
    given = {
        "bc_weight": config.bc_weight,
        "world_model_weight": config.world_model_weight,
        "observation_roles": config.observation_roles,
        "weight_by": config.weight_by if config.weight_by != "none" else None,
    }
    arguments = {name: value for name, value in given.items() if value is not None} | config.arguments
    component: Any = registry.load("objectives", config.name)
    try:
        objective = component(**arguments)
    except TypeError as error:
        raise ConfigError(f"objective: {config.name} does not take these settings: {error}") from error
    if not isinstance(objective, Objective):
        raise ConfigError(f"objective.name: {config.name!r} is no Objective (see understudy.objectives.base)")
    return objective


def make_renderer(
    config: RenderingSection, model: ModelSection, tokenizer: str | Path, objective: Objective
) -> Renderer:
    """Return the renderer for a model's tokenizer; it locates observations where the objective may weigh them.

    Raises:
        RenderError: there is no tokenizer or no chat template.
    """
    loaded = load_tokenizer(tokenizer, chat_template=config.chat_template, trust_remote_code=model.trust_remote_code)
    return Renderer(
        loaded,
        config.profile(),
        on_refusal=config.on_refusal,
        observations=not isinstance(objective, BehavioralCloning),
    )


def make_planner(data: PreparedData, config: TrainSection, world_size: int) -> tuple[Planner, Sampler, int]:
    """Return the planner of training steps, its sampler, and the number of steps of the run."""
    sampler = Sampler(
        [len(source.examples) for source in data.train],
        batch_size=examples_per_step(config, world_size),
        seed=config.seed,
        ratios=data.ratios,
    )
    planner = Planner(
        data.train,
        sampler,
        layout=config.layout,
        max_tokens_per_batch=config.max_tokens_per_batch,
        world_size=world_size,
    )
    return planner, sampler, count_steps(config, sampler.steps_per_epoch)


def examples_per_step(config: TrainSection, world_size: int) -> int:
    """Return the trajectories of one optimiser step, over all devices."""
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * world_size


def num_data_ranks(config: TrainSection, num_processes: int) -> int:
    """Return how many parts a step is dealt out in: one for each process, or for each group that shares its layers.

    Raises:
        ConfigError: the processes do not come out even.
    """
    if num_processes % config.tp_size:
        raise ConfigError(
            f"train.tp_size: groups of {config.tp_size} cannot be made of {num_processes} process(es); start a "
            f"multiple of {config.tp_size} with torchrun, or set it to a divisor of {num_processes}"
        )
    return num_processes // config.tp_size


def is_sharded(config: TrainSection, num_processes: int) -> bool:
    """Return whether each process holds a part of the model; that of one process is all of it, so nothing is cut."""
    return config.cuts_by is not None and num_processes > 1


def check_fits(data: PreparedData, config: TrainSection, *, takes_trees: bool = True) -> None:
    """Refuse rows that are longer than a batch in the layouts that cannot cut them.

    Args:
        takes_trees: whether the model can have another layout than ``rows``.

    Raises:
        ConfigError: names the longest.
    """
    if config.layout == "depth_first":
        return
    examples = [example for side in (data.train, data.validation) for source in side for example in source.examples]
    longest = max(examples, key=lambda example: example.longest_path)
    if longest.longest_path > config.max_tokens_per_batch:
        other = " (train.layout: depth_first could cut it)" if takes_trees else ": this model takes whole rows only"
        raise ConfigError(
            f"{longest.name}: a row of {longest.longest_path:,} tokens does not fit train.max_tokens_per_batch "
            f"{config.max_tokens_per_batch:,}; raise it or set data.max_length{other}"
        )


def check_vocabulary(data: PreparedData, num_embeddings: int) -> None:
    """Refuse token ids that the model has no embedding for: they are of another model's tokenizer.

    Raises:
        ConfigError: names the first row with one.
    """
    for source in (*data.train, *data.validation):
        for example in source.examples:
            largest = max(int(example.ids.max()), int(example.label.max()))
            if largest >= num_embeddings:
                raise ConfigError(
                    f"{example.name}: token id {largest:,} is beyond the model's {num_embeddings:,} embeddings; set "
                    "model.tokenizer to the tokenizer that the model was trained with (recorded ids are that of the "
                    "model that wrote them)"
                )


def load_trainable(config: TrainConfig, base: str | Path, checkpoint: Path | None, device: torch.device) -> nn.Module:
    """Return the model to train, on its device: new, or as a checkpoint left it.

    Args:
        base: the model that the run starts from; adapters stand on it. It may be an adapter, that is trained on.

    Raises:
        ConfigError: it cannot be loaded, the adapter does not fit it, or its weights are not for a scaled loss.
    """
    from understudy.models.export import whole_model
    from understudy.models.load import load_model
    from understudy.models.lora import add_adapter, continue_adapter, load_adapter

    dtype = config.model.dtype or ("float32" if config.lora is None else "auto")
    trust = config.model.trust_remote_code
    whole = whole_model(base)
    if config.lora is None:
        if whole != str(base):
            raise ConfigError(
                f"model.path: {base} is an adapter; give a lora section to train it on, or merge it: understudy export"
            )
        model: Any = load_model(checkpoint or base, dtype=dtype, trust_remote_code=trust, device=device)
    else:
        quantised = config.model.load_in_4bit
        model = load_model(whole, dtype=dtype, trust_remote_code=trust, load_in_4bit=quantised, device=device)
        if checkpoint is None and whole != str(base):
            model = continue_adapter(model, base, lora_settings(config.lora))
        elif checkpoint is None:
            model = add_adapter(model, lora_settings(config.lora), seed=config.train.seed)
        else:
            model = load_adapter(model, checkpoint, trainable=True)
    if config.train.fp16:
        _check_scalable(model)
    model.train()
    return model


def empty_trainable(config: TrainConfig, base: str | Path) -> Any:
    """Return the model to train without its weights: names, sizes and what of it is trained."""
    import torch
    from transformers import AutoModelForCausalLM

    from understudy.models.export import whole_model
    from understudy.models.load import load_model_config
    from understudy.models.lora import add_adapter

    trust = config.model.trust_remote_code
    model_config = load_model_config(whole_model(base), trust_remote_code=trust)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config, trust_remote_code=trust)
        if config.lora is not None:
            model = add_adapter(model, lora_settings(config.lora))
    return model


def _check_scalable(model: nn.Module) -> None:
    """Refuse trained weights in float16: their gradients cannot be brought back from a scaled loss."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and str(parameter.dtype) == "torch.float16":
            raise ConfigError(
                f"train.fp16 scales the loss, for which trained weights must be in float32, but {name} is in float16; "
                "set model.dtype: float32"
            )


def lora_settings(config: LoraSection) -> Any:
    """Return the config's adapter as `models.lora` takes it."""
    from understudy.models.lora import LoraSettings

    return LoraSettings(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        modules_to_save=config.modules_to_save,
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
    )


def with_possible_layout(adapter: ModelAdapter, settings: TrainSection) -> TrainSection:
    """Fall back to plain rows where the architecture cannot take a tree, and say so."""
    from .attention import choose_backend

    obstacle = adapter.tree_obstacle(choose_backend(adapter.device)) if settings.layout != "rows" else None
    if obstacle is None:
        return settings
    log.warning("this model cannot take trees: %s. It computes separate rows: same result, slower", obstacle)
    return settings.model_copy(update={"layout": "rows"})


def make_runner(adapter: ModelAdapter, config: TrainSection) -> tuple[Runner, Any]:
    """Return what runs micro-batches, and the attention backend; None where the model gets plain rows."""
    import torch

    from .attention import choose_backend
    from .offloading import ActivationOffloading
    from .runner import RowRunner, TreeRunner

    dtype = torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None
    backend = choose_backend(adapter.device)
    offloading = None
    if config.activation_offloading and adapter.device.type != "cpu":
        offloading = ActivationOffloading(adapter.model, device_type=adapter.device.type)
    if config.layout == "rows":
        return RowRunner(adapter, autocast_dtype=dtype, offloading=offloading), None
    return TreeRunner(adapter, backend, autocast_dtype=dtype, offloading=offloading), backend


def make_engine(
    adapter: ModelAdapter,
    runner: Runner,
    config: TrainSection,
    objective: Objective,
    data: PreparedData,
    num_steps: int,
) -> Engine:
    """Return the engine with its optimiser and schedule.

    Raises:
        MissingDependency: the optimiser's package is not installed.
    """
    import torch

    from .engines.local import LocalEngine
    from .engines.sharded import ShardedEngine
    from .optimization import make_optimizer, make_scheduler

    optimizer = make_optimizer(adapter.model, config)
    engine = LocalEngine if adapter.lockstep is None else ShardedEngine
    return engine(
        adapter,
        runner,
        coefficients=objective.coefficients,
        source_names=[source.name for source in data.train],
        optimizer=optimizer,
        scheduler=make_scheduler(optimizer, config, num_steps),
        max_grad_norm=config.max_grad_norm,
        scaler=torch.amp.GradScaler(adapter.device.type) if config.fp16 else None,
        tp_size=config.tp_size,
    )
