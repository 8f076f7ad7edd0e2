"""Which models are measured, and on whose trajectories: each on what the agents did that it plays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from understudy.collect.fingerprint import local_model
from understudy.config import Component
from understudy.errors import ConfigError
from understudy.formats import read_episodes
from understudy.train.data import EpisodeSource
from understudy.types import Episode

from .config import EvaluateConfig, MeasuredRows


@dataclass(frozen=True, slots=True)
class Measured:
    """A model to be measured.

    Args:
        model: its name.
        agents: whose trajectories; None for all.
        without: agents that others play; their trajectories are left out.
    """

    model: str
    agents: tuple[str, ...] | None = None
    without: frozenset[str] = frozenset()

    def source(self, config: MeasuredRows, name: str) -> EpisodeSource:
        """Return the rows to measure it on.

        Args:
            name: what they are called in messages.

        Raises:
            FormatError: a path leads to no file.
        """
        paths = [config.data_path] if isinstance(config.data_path, str) else list(config.data_path)
        reader = read_episodes(paths, config.format)

        def episodes() -> Iterator[tuple[str, Episode]]:
            for number, episode in enumerate(reader):
                if number == config.max_samples:
                    return
                kept = tuple(t for t in episode.trajectories if t.agent not in self.without)
                yield reader.place, replace(episode, trajectories=kept)

        return EpisodeSource(name, episodes(), agents=self.agents, held_out=True)


def label_of_measured(model: str, agents: tuple[str, ...] | None) -> str:
    """Return what a model is called in reports: its name, and whose part it plays where that is not all."""
    return model if agents is None else f"{model} ({', '.join(agents)})"


def models_to_measure(config: EvaluateConfig, section: MeasuredRows) -> list[Measured]:
    """Return the models that a section measures: those under test first, then the baseline's.

    Raises:
        ConfigError: it cannot be told which model is meant.
    """
    tested = [Measured(section.model)] if section.model is not None else _played(config.policy, config.policies)
    if not tested:
        name = "loss" if section is config.loss else "world_model"
        raise ConfigError(f"{name}.model: name the model to measure; no policy runs on this machine (local)")
    before = _played(*config.before) if config.plays_baseline else []
    return list(dict.fromkeys([*tested, *before]))


def check_measured(config: EvaluateConfig) -> None:
    """Refuse sections that do not say which model they measure.

    Raises:
        ConfigError: as `models_to_measure`.
    """
    for section in (config.loss, config.world_model):
        if section is not None:
            models_to_measure(config, section)


def _played(policy: Component | None, policies: Mapping[str, Component]) -> list[Measured]:
    """Return the local models among policies, each with the agents that it plays."""
    agents: dict[str, list[str]] = {}
    for agent, component in policies.items():
        model = local_model(component)
        if model is not None:
            agents.setdefault(model, []).append(agent)
    shared = local_model(policy)
    found = [] if shared is None else [Measured(shared, without=frozenset(policies))]
    return found + [Measured(model, tuple(played)) for model, played in agents.items()]
