"""The rendering of one trajectory: each turn's text, its ids, and one insertion into the token tree.

Invariant: a sequence enters the tree as the ids of a prompt followed by the ids of a target, and the only action span
on it is the target. So whatever the server supplies (other roles, headers, prefilled thinking) is never supervised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np

from understudy.errors import RenderError
from understudy.types import Message, SampledTokens, Span, SpanKind, TokenTreeBuilder, Trajectory

from .continuation import Prepared, TurnWriter
from .coverage import holds
from .observations import locate_contents, observed_tokens
from .profile import prepare_tools
from .refusal import Refusal, RefusalCode, TurnRefused
from .rendered import Audit, ControlString, DroppedContext, Rendered, RenderedTurn
from .template import Timeline
from .writers import ModelWriters

OnRefusal = Literal["fail", "skip", "context"]
ON_REFUSAL: tuple[OnRefusal, ...] = ("fail", "skip", "context")

Place = tuple[int, int]
"""A message of a trajectory: its turn, and its index in the turn's observation, -1 for the action. What a message is
cannot stand for it, not even the object itself: an environment may show the same one twice."""

MIN_TURNS_OF_TIMELINE = 3
"""A timeline costs two renders of the whole conversation, so shorter ones gain nothing."""


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What is done with refused turns, observations and recorded ids; see `Renderer`."""

    on_refusal: OnRefusal
    observations: bool
    audit: bool


class TrajectoryRendering:
    """Everything that is prepared once for a trajectory, and what is found on the way."""

    def __init__(self, trajectory: Trajectory, writers: ModelWriters, options: RenderOptions) -> None:
        self._trajectory = trajectory
        self._writers = writers
        self._segments = writers.segments
        self._options = options
        self._builder = TokenTreeBuilder()
        self._prepared: dict[int, Prepared | TurnRefused] = {}  # by id(message), which the trajectory keeps alive
        self._tools: dict[int, list[dict[str, Any]] | TurnRefused | None] = {}  # by root turn
        self._contexts: dict[int, list[Message]] = {}  # by turn
        self._places: dict[int, list[Place]] = {}  # by turn
        self._timelines: dict[int, Timeline | None] = {}  # by turn
        self._inspected: set[Place] = set()  # messages that were looked at
        self._observed: set[Place] = set()  # messages whose tokens were looked for
        self._turns: list[RenderedTurn] = []
        self._refusals: list[Refusal] = []
        self._control_strings: list[ControlString] = []
        self._dropped: list[DroppedContext] = []
        self._audits: list[Audit] = []
        self._unlocated: set[Place] = set()  # observations whose tokens could not be told apart

    def run(self) -> Rendered:
        """Render all turns in order.

        Raises:
            RenderError: a turn was refused and the renderer's policy is to fail.
        """
        self._prepare_all()
        for index, turn in enumerate(self._trajectory.turns):
            supervised = turn.action is not None and turn.weight != 0
            if not supervised and not self._holds_unseen_observation(index):
                continue
            try:
                if supervised and turn.sampled is not None:
                    self._insert_recorded(index, turn.sampled)
                elif supervised:
                    self._insert_written(index)
                else:
                    self._insert_prompt(index)
            except TurnRefused as refused:
                self._refuse(index, refused)
        return Rendered(
            tree=self._builder.build(),
            turns=tuple(self._turns),
            refusals=tuple(self._refusals),
            control_strings=tuple(self._control_strings),
            dropped_context=tuple(self._dropped),
            drops_tools=any(
                not isinstance(tools, TurnRefused) and self._writers.drops(tools) for tools in self._tools.values()
            ),
            num_unlocated_observations=len(self._unlocated),
            audits=tuple(self._audits),
        )

    # What each turn starts from.

    def _prepare_all(self) -> None:
        """Prepare every message."""
        self._writers.forget()
        for index, turn in enumerate(self._trajectory.turns):
            if turn.parent is None:
                try:
                    self._tools[index] = prepare_tools(turn.tools)
                except TurnRefused as refused:
                    self._tools[index] = refused
            for message in (*turn.observation, *((turn.action,) if turn.action else ())):
                try:
                    self._prepared[id(message)] = self._writers.profile.prepare(message)
                except TurnRefused as refused:
                    self._prepared[id(message)] = refused

    def _require(self, message: Message) -> Prepared:
        prepared = self._prepared[id(message)]
        if isinstance(prepared, TurnRefused):
            raise prepared
        return prepared

    def _messages_before(self, index: int) -> list[Message]:
        """Return the messages before the turn's action, from those before its parent's."""
        known = self._contexts.get(index)
        if known is None:
            turn = self._trajectory.turns[index]
            if turn.parent is None:
                before = []
            elif turn.parent in self._contexts:
                action = self._trajectory.turns[turn.parent].action
                before = [*self._contexts[turn.parent], *([action] if action else [])]
            else:
                before = self._trajectory.messages(turn.parent)
            known = self._contexts[index] = [*before, *turn.observation]
        return known

    def _places_before(self, index: int) -> list[Place]:
        """Return the places of the messages before the turn's action, from those before its parent's."""
        known = self._places.get(index)
        if known is None:
            above = self._trajectory.lineage(index)[:-1]
            if above and above[-1] in self._places:
                before = [*self._places[above[-1]], *self._action_place(above[-1])]
            else:
                before = [place for k in above for place in (*self._observed_places(k), *self._action_place(k))]
            known = self._places[index] = [*before, *self._observed_places(index)]
        return known

    def _observed_places(self, index: int) -> list[Place]:
        """Return the places of a turn's observation. A label observed nothing of its own: they are those of the turn in
        whose place it stands."""
        turns = self._trajectory.turns
        turn, acted = turns[index], turns[index].annotations.get("label_of")
        if isinstance(acted, int) and 0 <= acted < index:
            taken = turns[acted]
            if (taken.parent, taken.observation) == (turn.parent, turn.observation):
                index = acted
        return [(index, n) for n in range(len(turn.observation))]

    def _action_place(self, index: int) -> list[Place]:
        return [(index, -1)] if self._trajectory.turns[index].action is not None else []

    def _start(self, index: int) -> tuple[list[Message], list[Prepared], Any, TurnWriter]:
        """Return the messages before the turn, the same prepared, the tools, and the writer for them."""
        messages = self._messages_before(index)
        if not messages:
            raise TurnRefused(RefusalCode.EMPTY_CONTEXT, "no message stands before the turn")
        tools = self._tools[self._trajectory.lineage(index)[0]]
        if isinstance(tools, TurnRefused):
            raise tools
        return messages, [self._require(message) for message in messages], tools, self._writers.for_tools(tools)

    def _known(self, index: int, position: int) -> tuple[str, str] | None:
        """Return the prompt of the turn and the text with its action, if a timeline holds them.

        Args:
            position: how many messages stand before the action.
        """
        if index not in self._timelines:
            self._add_timeline(index)
        timeline = self._timelines[index]
        return timeline.around(position) if timeline is not None else None

    def _add_timeline(self, index: int) -> None:
        """Make the timeline of the first whole conversation that goes through this turn."""
        turns = self._trajectory.turns
        leaf = index
        for later in range(index + 1, len(turns)):
            if turns[later].parent == leaf:
                leaf = later
        lineage = self._trajectory.lineage(leaf)
        conversation = [self._prepared[id(message)] for message in self._trajectory.messages(leaf)]
        timeline = None
        if len(lineage) >= MIN_TURNS_OF_TIMELINE and not any(isinstance(m, TurnRefused) for m in conversation):
            tools = self._tools[lineage[0]]
            timeline = self._writers.for_tools(tools).timeline(conversation, tools)  # type: ignore[arg-type]
        for turn in lineage:
            self._timelines.setdefault(turn, timeline)

    def _holds_unseen_observation(self, index: int) -> bool:
        """True for a turn whose observation is to be located and stands in no supervised turn's prompt."""
        turns = self._trajectory.turns
        if not self._options.observations or turns[index].parent is None or not turns[index].observation:
            return False
        below = {index}
        for later, turn in enumerate(turns[index + 1 :], start=index + 1):
            if turn.parent in below:
                if turn.action is not None and turn.weight != 0:
                    return False
                below.add(later)
        return True

    # The three ways into the tree.

    def _insert_written(self, index: int) -> None:
        """Insert a turn as the template writes it."""
        turn = self._trajectory.turns[index]
        messages, context, tools, writer = self._start(index)
        assert turn.action is not None
        found = writer.write(context, self._require(turn.action), tools, self._known(index, len(context)))
        self._inspect(index, messages, context, found.prompt)
        prompt_ids, target_ids = self._segments.encode_continuation(found.prompt, found.target)
        spans = self._observation_spans(index, messages, context, tools, found.prompt, found.arguments)
        self._insert_call(index, prompt_ids, target_ids, spans, found.how, found.arguments, found.target)

    def _insert_recorded(self, index: int, sampled: SampledTokens) -> None:
        """Insert the server's own ids as they are."""
        if not sampled.output_ids or not sampled.prompt_ids:
            raise TurnRefused(RefusalCode.RECORDED_IDS_EMPTY, "the recorded call lacks prompt or output ids")
        prompt_ids = np.asarray(sampled.prompt_ids, np.int32)
        output_ids = np.asarray(sampled.output_ids, np.int32)
        if self._options.audit:
            self._audits.append(self._hold_against_rendering(index, prompt_ids, output_ids))
        spans = self._recorded_spans(index, prompt_ids) if self._options.observations else []
        self._insert_call(index, prompt_ids, output_ids, spans, "recorded", {}, None)

    def _recorded_spans(self, index: int, prompt_ids: np.ndarray[Any, np.dtype[np.int32]]) -> list[Span]:
        """Return the observations in a recorded prompt: none where it cannot be rendered, or not to the same ids. The
        recorded ids need no rendering, so that is no reason to refuse the turn."""
        try:
            messages, context, tools, writer = self._start(index)
            prompt = writer.prompt(context, tools)
        except TurnRefused:
            self._unlocated.update(self._new_observations(index, self._messages_before(index)).values())
            return []
        if np.array_equal(self._segments.encode(prompt), prompt_ids):
            return self._observation_spans(index, messages, context, tools, prompt, {})
        self._unlocated.update(self._new_observations(index, messages).values())
        return []

    def _insert_prompt(self, index: int) -> None:
        """Insert a prompt alone, for the observations in it."""
        messages, context, tools, writer = self._start(index)
        prompt = writer.prompt(context, tools)
        spans = self._observation_spans(index, messages, context, tools, prompt, {})
        if spans:
            self._builder.insert(self._segments.encode(prompt), spans)

    def _insert_call(
        self,
        index: int,
        prompt_ids: np.ndarray[Any, np.dtype[np.int32]],
        target_ids: np.ndarray[Any, np.dtype[np.int32]],
        spans: list[Span],
        how: str,
        arguments: Mapping[str, Any],
        target: str | None,
    ) -> None:
        start, stop = len(prompt_ids), len(prompt_ids) + len(target_ids)
        action = Span(SpanKind.ACTION, index, start, stop, self._trajectory.turns[index].weight)
        ids = np.concatenate([prompt_ids, target_ids])
        sequence = self._builder.insert(ids, [*spans, action])
        checksum = crc32(ids.tobytes())
        self._turns.append(RenderedTurn(index, sequence, start, stop - start, checksum, how, dict(arguments), target))

    def _refuse(self, index: int, refused: TurnRefused) -> None:
        refusal = Refusal(index, refused.code, refused.reason, refused.excerpt)
        if self._options.on_refusal == "fail":
            raise RenderError(str(refusal))
        self._refusals.append(refusal)
        if self._options.on_refusal != "context":
            return
        try:
            self._insert_prompt(index)
        except TurnRefused:
            # Not even its prompt can be rendered; the refusal above has said so.
            self._unlocated.update(self._new_observations(index, self._messages_before(index)).values())

    # What is reported beside the tree.

    def _inspect(self, index: int, messages: Sequence[Message], context: Sequence[Prepared], prompt: str) -> None:
        """Note control tokens written in ordinary text, and messages that the template does not print."""
        pattern = self._segments.added_pattern
        places = self._places_before(index)
        # A conversation is inspected from its beginning on, so the first known message from behind ends the new ones.
        known = next((n for n in reversed(range(len(places))) if places[n] in self._inspected), -1)
        self._inspected.update(places[known + 1 :])
        for message, prepared in zip(messages[known + 1 :], context[known + 1 :], strict=True):
            text = prepared.get("content")
            if not isinstance(text, str):
                continue
            found = pattern.search(text) if pattern else None
            if found:
                self._control_strings.append(ControlString(index, message.role, found.group()))
            if message.role != "assistant" and not holds(prompt, text):
                self._dropped.append(DroppedContext(index, message.role, text.strip()[:60]))

    def _hold_against_rendering(self, index: int, prompt_ids: Any, output_ids: Any) -> Audit:
        turn = self._trajectory.turns[index]
        try:
            _, context, tools, writer = self._start(index)
            assert turn.action is not None
            found = writer.write(context, self._require(turn.action), tools)
        except TurnRefused as refused:
            return Audit(index, False, refusal=Refusal(index, refused.code, refused.reason, refused.excerpt))
        rendered = np.concatenate(self._segments.encode_continuation(found.prompt, found.target))
        recorded = np.concatenate([prompt_ids, output_ids])
        shared = min(len(rendered), len(recorded))
        different = np.flatnonzero(rendered[:shared] != recorded[:shared])
        if len(different):
            return Audit(index, False, int(different[0]))
        return Audit(index, True) if len(rendered) == len(recorded) else Audit(index, False, shared)

    # Observations, for the world model.

    def _new_observations(self, index: int, messages: Sequence[Message]) -> dict[int, Place]:
        """Return the places, by position in `messages`, of those that follow an action and were not located yet."""
        return {
            at: (turn, n)
            for at, (turn, n) in enumerate(self._places_before(index))
            if n >= 0
            and self._trajectory.turns[turn].parent is not None
            and (turn, n) not in self._observed
            and messages[at].text().strip()
        }

    def _observation_spans(
        self,
        index: int,
        messages: Sequence[Message],
        context: Sequence[Prepared],
        tools: Any,
        prompt: str,
        arguments: Mapping[str, Any],
    ) -> list[Span]:
        if not self._options.observations:
            return []
        new = self._new_observations(index, messages)
        writer = self._writers.for_tools(tools)
        located = locate_contents(context, list(new), prompt, lambda changed: writer.prompt(changed, tools, arguments))
        spans: list[Span] = []
        for at, (turn, n) in new.items():
            self._observed.add((turn, n))
            tokens = observed_tokens(self._segments, prompt, *located[at]) if at in located else None
            if tokens is None:
                self._unlocated.add((turn, n))
                continue
            self._unlocated.discard((turn, n))
            spans.append(Span(SpanKind.OBSERVATION, turn, *tokens, message=n, label=messages[at].role))
        return spans
