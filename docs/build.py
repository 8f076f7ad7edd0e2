"""Write the pages that are made from code: ``python docs/build.py``. A test keeps them up to date."""

from __future__ import annotations

import importlib
from pathlib import Path

from understudy.config import ConfigModel, config_markdown

HERE = Path(__file__).parent

CONFIGS = [
    ("Running", "understudy.api.pipeline.config:RunConfig"),
    ("Training", "understudy.train.config:TrainConfig"),
    ("Collecting", "understudy.collect.config:CollectConfig"),
    ("Recording", "understudy.collect.gateway_config:GatewayConfig"),
    ("Curating", "understudy.curate.config:CurateConfig"),
    ("Evaluating", "understudy.evaluate.config:EvaluateConfig"),
    ("World model", "understudy.world_models.settings:WorldModelSettings"),
    ("Mix", "understudy.environments.mix:MixConfig"),
    ("Judge", "understudy.environments.judge:JudgeConfig"),
    ("Server profile", "understudy.rendering.profile:ServerProfile"),
    ("Field mapping", "understudy.formats.mapping.spec:FieldMapping"),
]
"""Title -> config class, in the order of the page."""

INTRODUCTION = """\
# Configuration

<!-- Written by docs/build.py from the docstrings of the config classes. Edit those. -->

Every config is one YAML file. Each key can also be given on the command line by its dotted name, where a command takes
settings: `train.learning_rate=5e-5`, `sources.0.path=rows.jsonl`, `lora_r=null`. Values are YAML 1.2: `1e-5` is a
number, only `true` and `false` are booleans of their own (`on` and `off` do where a boolean is wanted), and a key that
stands twice is refused. A key that no section knows is refused with what was probably meant, and all problems of a file
are reported at once, before any work starts.
"""


def config_page() -> str:
    """Return the reference of every config class as Markdown."""
    parts = [INTRODUCTION]
    models = {title: _load(target) for title, target in CONFIGS}
    for title, model in models.items():
        others = set(models.values()) - {model}
        parts.append(f"## {title}\n\n{config_markdown(model, level=3, without=others)}")
    return "\n".join(parts)


def _load(target: str) -> type[ConfigModel]:
    module, _, name = target.partition(":")
    model: type[ConfigModel] = getattr(importlib.import_module(module), name)
    return model


if __name__ == "__main__":
    (HERE / "config.md").write_text(config_page(), encoding="utf-8")
