"""Collecting in a dream: the config of a collection, with a world model in the environment's place."""

from __future__ import annotations

from pydantic import Field

from understudy.config import Component
from understudy.world_models import WorldModelSettings

from .config import CollectConfig


class DreamConfig(CollectConfig):
    """A collection in which a world model answers in place of the environment. From the environment are the tasks, the
    tools and the first observation, and it reads off the text when a dream is over, where it can."""

    world_model: WorldModelSettings
    """The model that writes what is observed."""

    agent: str | None = None
    """Whose part is played, where the environment has several agents; the others are imagined too."""

    ends: dict[str, str] = Field(default_factory=dict)
    """Stop reason -> regular expression, searched in `role: text` of the newest message: where one is found, the dream
    is over."""

    max_steps: int = Field(30, ge=1)
    """A dream is truncated after so many actions."""

    def collection(self) -> CollectConfig:
        """Return the same as a collection in the environment `dream`."""
        given = {name: getattr(self, name) for name in CollectConfig.model_fields}
        arguments = {
            "environment": self.environment.model_dump(mode="json"),
            "world_model": self.world_model.model_dump(mode="json", exclude_defaults=True),
            "agent": self.agent,
            "ends": self.ends,
            "max_steps": self.max_steps,
        }
        return CollectConfig(**(given | {"environment": Component(name="dream", arguments=arguments)}))
