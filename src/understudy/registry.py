"""Names of components and where they live.

One literal table for each family. A component is imported only when it is named. Other packages add theirs through the
entry-point groups ``understudy.<family>``, and a user's own is named in place as ``package.module:Class`` or
``path/to/file.py:Class``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from .errors import ConfigError, did_you_mean

TABLES: dict[str, dict[str, str]] = {
    "formats": {
        "native": "understudy.formats.native:Native",
        "messages": "understudy.formats.messages:Messages",
        "prompt_completion": "understudy.formats.prompt_completion:PromptCompletion",
        "input_output": "understudy.formats.input_output:InputOutput",
        "sharegpt": "understudy.formats.sharegpt:ShareGPT",
        "alpaca": "understudy.formats.alpaca:Alpaca",
        "record_data": "understudy.formats.record_data:RecordData",
        "trajectories": "understudy.formats.trajectories:Trajectories",
    },
    "environments": {
        "math": "understudy.environments.math:Math",
        "grid": "understudy.environments.grid:Grid",
        "tools": "understudy.environments.tools:Tools",
        "function_gym": "understudy.environments.function_gym:FunctionGymEnvironment",
        "code": "understudy.environments.code:Code",
        "search": "understudy.environments.search:Search",
        "debate": "understudy.environments.debate:Debate",
        "user_gym": "understudy.environments.user_gym:UserGymEnvironment",
        "team": "understudy.environments.team:Team",
        "mix": "understudy.environments.mix:Mix",
        "dream": "understudy.world_models.dream:Dream",
        "gymnasium": "understudy.environments.adapters.gymnasium:GymnasiumEnvironment",
        "minigrid": "understudy.environments.adapters.minigrid:MiniGridEnvironment",
        "mrlm": "understudy.environments.adapters.mrlm:MrlmEnvironment",
        "petting_llms": "understudy.environments.adapters.petting_llms:PettingLLMsEnvironment",
        "pettingzoo": "understudy.environments.adapters.pettingzoo:PettingZooEnvironment",
        "reasoning_gym": "understudy.environments.adapters.reasoning_gym:ReasoningGymEnvironment",
        "remote": "understudy.environments.remote.client:RemoteEnvironment",
        "textarena": "understudy.environments.adapters.textarena:TextArenaEnvironment",
        "textworld": "understudy.environments.adapters.textworld:TextWorldEnvironment",
        "user_rl": "understudy.environments.adapters.user_rl:UserRLEnvironment",
    },
    "policies": {
        "expert": "understudy.policies.scripted:ExpertPolicy",
        "endpoint": "understudy.policies.openai_endpoint:EndpointPolicy",
        "local": "understudy.policies.local:LocalPolicy",
        "random": "understudy.policies.random_policy:RandomPolicy",
        "mixture": "understudy.policies.mixture:MixturePolicy",
        "replay": "understudy.policies.replay:ReplayPolicy",
        "human": "understudy.policies.human:HumanPolicy",
        "planner": "understudy.world_models.planner:PlannerPolicy",
    },
    "augmentations": {
        "shuffle_tools": "understudy.curate.augment:ShuffleTools",
        "drop_unused_tools": "understudy.curate.augment:DropUnusedTools",
    },
    "scorers": {
        "environment": "understudy.world_models.scorers:EnvironmentScorer",
        "text": "understudy.world_models.scorers:TextScorer",
    },
    "stores": {
        "sqlite": "understudy.stores.sqlite:SqliteStore",
    },
    "objectives": {
        "behavioral_cloning": "understudy.objectives.behavioral_cloning:BehavioralCloning",
        "world_model": "understudy.objectives.world_model:WorldModel",
        "combined": "understudy.objectives.combined:Combined",
    },
}


def names(family: str) -> list[str]:
    """Return all names of a family, built in first, then those of other installed packages."""
    return [*TABLES[family], *sorted(_entry_points(family))]


def load(family: str, name: str) -> Any:
    """Import and return the component called `name`.

    Raises:
        ConfigError: the name is unknown, or what it names cannot be imported.
    """
    target = TABLES[family].get(name)
    if target is not None:
        return _import(target, name)
    entry_points = _entry_points(family)
    if name in entry_points:
        return _import(entry_points[name], name)
    if ":" in name:
        return _import(name, name)
    known = ", ".join(names(family))
    kind = family.removesuffix("ies") + "y" if family.endswith("ies") else family.removesuffix("s")
    raise ConfigError(
        f"unknown {kind} {name!r}.{did_you_mean(name, names(family))} Known: {known}; or package.module:Class"
    )


def create(family: str, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Make the component called `name` with keyword arguments, as a config gives them.

    Raises:
        ConfigError: the name is unknown, an argument is unknown, missing or of a wrong type, or the component refuses
            one.
    """
    component = load(family, name)
    parameters = inspect.signature(component).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    takes_any = len(known) < len(parameters)
    given = dict(arguments or {})
    for key in given:
        if key not in known and not takes_any:
            takes = f"Known: {', '.join(known)}" if known else "It takes none"
            raise ConfigError(f"{name} has no argument {key!r}.{did_you_mean(key, known)} {takes}")
    required = {
        p.name for p in parameters if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    missing = sorted(required - set(given))
    if missing:
        raise ConfigError(f"{name} needs the argument {missing[0]!r}")
    try:
        return component(**given)
    except (TypeError, AttributeError) as error:
        problem = _first_of_wrong_type(component, given)
        if problem is None:
            raise
        raise ConfigError(f"{name}: {problem}") from error


def _first_of_wrong_type(component: Any, given: Mapping[str, Any]) -> str | None:
    """Say which argument does not fit its type hint, and what would; None where all that have hints do, or none has.

    Asked only once a component has failed: whatever a component takes is for it to say.
    """
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        hints = get_type_hints(component.__init__ if inspect.isclass(component) else component)
    except (NameError, TypeError, AttributeError):  # hints that only a type checker can follow
        return None
    for key, value in given.items():
        try:
            # As JSON, where a list also stands for a tuple; strictly, because 3 and "3" differ.
            TypeAdapter(hints[key]).validate_json(json.dumps(value), strict=True)
        except (KeyError, TypeError, PydanticSchemaGenerationError):  # no hint, no JSON, or a hint of no such type
            continue
        except ValidationError as error:
            said = error.errors()[0]
            place = "".join(f"[{part}]" for part in said["loc"] if isinstance(part, int))
            return f"{key}{place} is {value!r:.100}: {said['msg'][:1].lower()}{said['msg'][1:]}"
    return None


def _entry_points(family: str) -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=f"understudy.{family}")}


def _import(target: str, name: str) -> Any:
    module_name, _, attribute = target.partition(":")
    try:
        module = _from_file(Path(module_name)) if module_name.endswith(".py") else importlib.import_module(module_name)
        return getattr(module, attribute)
    except (ImportError, AttributeError, FileNotFoundError) as error:
        raise ConfigError(f"cannot import {name!r} ({target}): {error}") from error


def _from_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that it hides no package of the same name."""
    spec = importlib.util.spec_from_file_location(f"understudy_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pydantic look a class's module up by its name.
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
