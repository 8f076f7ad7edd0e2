"""What the launcher (`torchrun`, `accelerate launch`) tells a process about its place. No torch."""

from __future__ import annotations

import os

from understudy.errors import ConfigError

# What `accelerate launch` says of the sharding that it was asked for, or that `accelerate config` has noted.
_SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
_PRECISION = "ACCELERATE_MIXED_PRECISION"


def world_size() -> int:
    """Return the number of processes that were started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number among them."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def check_launcher(precision: str) -> None:
    """Refuse what the launcher was asked for and training would not do.

    Args:
        precision: what the config computes in: ``no`` (as it is), ``bf16`` or ``fp16``.

    Raises:
        ConfigError: it was asked to shard the model, or to compute in another precision than the config.
    """
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise ConfigError(
                f"the launcher was told to use {name}, but how the model is spread is said by the config; launch "
                "without it, and set train.fsdp: true or train.tp_size to cut the model over processes"
            )
    asked = os.environ.get(_PRECISION, "no")
    if asked not in ("no", precision):
        mend = f"set train.{asked}: true, or " if asked in ("bf16", "fp16") else ""
        raise ConfigError(
            f"the launcher was told to compute in {asked}, but the config says otherwise; {mend}launch with "
            "--mixed_precision no"
        )
