"""Conversations become turns: calls of one policy, and several agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import FormatError
from understudy.formats.mapping import RECORD
from understudy.formats.mapping.reader import MappedRows

from .reading import Read, assistant, user


class TestCallsOfOnePolicy:
    def test_growing_conversations_become_one_chain(self, read: Read) -> None:
        long = [user("a"), assistant("b"), user("c"), assistant("d"), user("e")]
        turns = read("messages: m", {"m": [long[:2], long[:3], long[:4], long]}).trajectories[0].turns
        assert [turn.parent for turn in turns] == [None, 0, 1]
        assert [turn.weight for turn in turns] == [1.0, 1.0, 1.0]
        assert [turn.action.text() if turn.action else None for turn in turns] == ["b", "d", None]

    def test_a_rewritten_context_starts_afresh_and_trains_only_what_its_call_wrote(self, read: Read) -> None:
        calls = [[user("a"), assistant("b")], [user("a, shortened"), assistant("b"), user("c"), assistant("d")]]
        trajectory = read("messages: m", {"m": calls}).trajectories[0]
        assert [turn.parent for turn in trajectory.turns] == [None, None, 1]
        assert [turn.weight for turn in trajectory.turns] == [1.0, 0.0, 1.0]
        assert [m.text() for m in trajectory.messages(2)] == ["a, shortened", "b", "c", "d"]

    def test_two_answers_to_one_prompt_are_siblings(self, read: Read) -> None:
        calls = [[user("a"), assistant("b")], [user("a"), assistant("c")]]
        turns = read("messages: m\ntools: t", {"m": calls, "t": [{"name": "f"}]}).trajectories[0].turns
        assert [turn.parent for turn in turns] == [None, None]
        assert [[tool.name for tool in turn.tools] for turn in turns] == [["f"], ["f"]]

    def test_what_stands_before_the_list_begins_every_conversation(self, read: Read) -> None:
        row = {
            "system": "s",
            "m": [[user("a"), assistant("b")], [user("a"), assistant("b"), user("c"), assistant("d")]],
        }
        trajectory = read("messages: [{path: system, role: system}, m]", row).trajectories[0]
        assert [m.text() for m in trajectory.messages()] == ["s", "a", "b", "c", "d"]

    @given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=5))
    def test_every_conversation_can_be_read_back_along_its_lineage(self, paths: list[list[str]]) -> None:
        conversations = [
            [message for letter in path for message in (user(letter), assistant(letter * 2))] for path in paths
        ]
        episode = MappedRows(RECORD, Path()).episode({"messages": conversations}, default_id="x")
        trajectory = episode.trajectories[0]
        lineages = [[message.text() for message in trajectory.messages(turn)] for turn in range(len(trajectory.turns))]
        written = {json.dumps(lineage) for lineage, turn in zip(lineages, trajectory.turns, strict=True) if turn.weight}
        assert written == {json.dumps([m["content"] for m in conversation]) for conversation in conversations}


class TestAgents:
    YAML = """
        messages: {path: chat, context: 1}
        agents:
          speaker: {path: [name, role], match: "^(.+?)(?: \\\\(.*\\\\))?$"}
          observed: [terminal]
          system: prompts
        """
    ROW: ClassVar = {
        "prompts": {"Ann": "You are Ann.", "Bob": "You are Bob."},
        "chat": [
            {"role": "assistant", "name": "Ann", "content": "the task"},
            {"role": "user", "name": "Bob", "content": "code"},
            {"role": "user", "name": "terminal", "content": "output"},
            {"role": "user", "name": "Bob", "content": "done"},
        ],
    }

    def test_every_agent_sees_the_chat_from_its_own_place(self, read: Read) -> None:
        ann, bob = read(self.YAML, self.ROW).trajectories
        assert (ann.agent, bob.agent) == ("Ann", "Bob")
        assert [(m.role, m.name, m.text()) for m in ann.messages()] == [
            ("system", None, "You are Ann."),
            ("assistant", "Ann", "the task"),
            ("user", "Bob", "code"),
            ("user", "terminal", "output"),
            ("user", "Bob", "done"),
        ]
        assert [(m.role, m.text()) for m in bob.messages()] == [
            ("system", "You are Bob."),
            ("user", "the task"),
            ("assistant", "code"),
            ("user", "output"),
            ("assistant", "done"),
        ]
        assert [turn.weight for turn in ann.turns if turn.action] == [0.0]
        assert [turn.weight for turn in bob.turns if turn.action] == [1.0, 1.0]

    def test_the_speaker_may_stand_in_the_role(self, read: Read) -> None:
        chat = [
            {"role": "human", "content": "task"},
            {"role": "Orchestrator (-> WebSurfer)", "content": "search"},
            {"role": "WebSurfer", "content": "found"},
        ]
        episode = read(self.YAML.replace("terminal", "human"), {"chat": chat})
        assert [trajectory.agent for trajectory in episode.trajectories] == ["Orchestrator", "WebSurfer"]
        assert [m.role for m in episode.trajectories[1].messages()] == ["user", "user", "assistant"]

    def test_the_prompt_of_an_agent_that_never_speaks_stays_in_the_metadata(self, read: Read) -> None:
        row = {**self.ROW, "prompts": {"Ann": "You are Ann.", "Bob": "You are Bob.", "Cat": "You are Cat."}}
        assert read(self.YAML, row).metadata == {"prompts": {"Cat": "You are Cat."}}

    def test_a_message_without_a_speaker_is_observed_by_all(self, read: Read) -> None:
        yaml = "messages: chat\nagents: {speaker: name}"
        chat = [{"role": "system", "content": "rules"}, {"role": "assistant", "name": "A", "content": "x"}]
        (only,) = read(yaml, {"chat": chat}).trajectories
        assert [(m.role, m.text()) for m in only.messages()] == [("system", "rules"), ("assistant", "x")]

    @pytest.mark.parametrize(
        ("row", "error"),
        [
            ({"chat": [assistant(name="A")], "prompts": {"A": 1}}, "prompts: the agents' system prompts are an object"),
            ({"chat": [[assistant(name="A")], [assistant(name="B")]]}, "agents need one conversation"),
        ],
    )
    def test_what_agents_cannot_be_read_from_is_refused(self, read: Read, row: dict[str, Any], error: str) -> None:
        with pytest.raises(FormatError) as caught:
            read("messages: chat\nagents: {speaker: name, system: prompts}", row)
        assert str(caught.value).startswith(error)
