"""Render trajectories for one model as its server would.

A `Renderer` is made once for a model: its tokenizer, templates, server profile and stop tokens, all of them in its
fingerprint. `render` then turns each trajectory into a token tree in which every supervised token stands behind exactly
the ids that the server would have computed. A turn for which that cannot be had is refused with a code.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from understudy.errors import RenderError, did_you_mean
from understudy.types import Trajectory

from .continuation import TurnWriter
from .huggingface import ModelTokenizer
from .profile import ServerProfile, prepare_tools
from .rendered import Rendered
from .segments import VERIFY_EVERY, SegmentTokenizer
from .stops import StopTokens
from .trajectory import ON_REFUSAL, OnRefusal, RenderOptions, TrajectoryRendering
from .writers import ModelWriters


class Renderer:
    """Render trajectories for one model as its server would.

    Args:
        tokenizer: the model's tokenizer, from `load_tokenizer`.
        profile: what the server does around the template.
        on_refusal: ``fail`` raises at the first refused turn; ``skip`` leaves the turn out (later turns still see it as
            the template prints it); ``context`` also inserts its prompt, so that observations in it can be trained.
        observations: locate observed messages too, for the world-model objective. Costs one more render per turn.
        audit: hold recorded ids against the rendering of the same turn.
        verify_every: compare one tokenised text in so many with a plain encode; 1 compares all.

    Raises:
        RenderError: the model has no chat template, or it cannot be compiled.
    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        profile: ServerProfile | None = None,
        *,
        on_refusal: OnRefusal = "fail",
        observations: bool = False,
        audit: bool = False,
        verify_every: int = VERIFY_EVERY,
    ) -> None:
        if on_refusal not in ON_REFUSAL:
            raise RenderError(
                f"on_refusal is {on_refusal!r}.{did_you_mean(on_refusal, ON_REFUSAL)} Known: {ON_REFUSAL}"
            )
        self.tokenizer = tokenizer
        self.segments = SegmentTokenizer(tokenizer, verify_every=verify_every)
        self._writers = ModelWriters(tokenizer, profile or ServerProfile(), self.segments)
        self._options = RenderOptions(on_refusal, observations=observations, audit=audit)

    @property
    def profile(self) -> ServerProfile:
        """The server's profile, with everything settled that it may leave open."""
        return self._writers.profile

    @property
    def stops(self) -> StopTokens:
        """The tokens at which the server stops."""
        return self._writers.stops

    @property
    def reads_clock(self) -> bool:
        """True when the template prints the date, which the profile pins."""
        return self._writers.reads_clock

    def fingerprint(self) -> str:
        """Return a hash of all that decides the tokens: vocabulary, templates, variables, profile, stop tokens."""
        parts = [
            self.tokenizer.fingerprint(),
            dict(sorted(self.tokenizer.templates.items())),
            dict(sorted(self.tokenizer.variables.items())),
            self.profile.canonical(),
            self.stops.texts,
        ]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]

    def render(self, trajectory: Trajectory) -> Rendered:
        """Render every turn of a trajectory that has an action and a weight.

        Raises:
            RenderError: a turn was refused and `on_refusal` is ``fail``.
        """
        return TrajectoryRendering(trajectory, self._writers, self._options).run()

    def flat_length(self, trajectory: Trajectory) -> int:
        """Return how many tokens the trajectory's conversations count as plain rows, each rendered once as a whole.

        This is what a trainer that masks one rendered conversation computes, exact or not.

        Raises:
            TurnRefused: the template refuses a conversation.
        """
        total = 0
        for leaf in trajectory.leaves():
            messages = [self.profile.prepare(message) for message in trajectory.messages(leaf)]
            text = self._writers.whole(messages, prepare_tools(trajectory.tools(leaf)))
            total += len(self.segments.encode(text))
        return total

    def writer_for(self, tools: Any) -> TurnWriter:
        """Return the writer with the template that transformers picks for these tools."""
        return self._writers.for_tools(tools)
