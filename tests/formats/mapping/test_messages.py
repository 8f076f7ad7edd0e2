"""One item of a list of messages: fields, kinds, pieces, calls, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import FormatError
from understudy.formats import get_format
from understudy.formats.mapping import RECORD
from understudy.formats.mapping.reader import MappedRows
from understudy.types import SampledTokens

from .reading import Read, assistant, texts, user


class TestMessages:
    def test_openai_keys_need_no_declaration(self, read: Read) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        row = {
            "messages": [
                user(),
                assistant("", tool_calls=[call]),
                {"role": "tool", "tool_call_id": "c", "content": "1"},
            ],
            "tools": [{"name": "f", "parameters": {}}],
        }
        mapped = read("messages: messages\ntools: tools", row)
        (built_in,) = get_format("messages").decode(row, id="row-1")
        assert mapped == built_in

    def test_a_few_declared_fields_read_a_foreign_message(self, read: Read) -> None:
        episode = read(
            """
            messages: log
            message:
              role: who
              roles: {human: user, bot: assistant}
              content: [say, text]
              reasoning: thought
              name: nick
            """,
            {
                "log": [
                    {"who": "human", "say": "hi"},
                    {"who": "bot", "text": "hey", "thought": "greet", "nick": "b", "t": 1},
                ]
            },
        )
        (turn,) = episode.trajectories[0].turns
        assert [message.text() for message in turn.observation] == ["hi"]
        action = turn.action
        assert action is not None
        assert (action.text(), action.reasoning_content, action.name, action.extra) == ("hey", "greet", "b", {"t": 1})

    def test_a_declared_content_that_is_an_object_becomes_json_text(self, read: Read) -> None:
        yaml = "messages: m\nmessage: {role: {value: tool}, content: result}"
        assert texts(read(yaml, {"m": [{"result": {"ö": 1}}]})) == [("tool", '{"ö": 1}')]

    def test_calls_are_read_from_lists_from_json_text_and_from_the_item_itself(self, read: Read) -> None:
        yaml = "messages: m\nmessage: {role: {value: assistant}, calls: %s}"
        listed = read(
            yaml % "{path: apis, name: request.api, arguments: request.args}",
            {"m": [{"apis": [{"request": {"api": "f", "args": {"x": 1}}, "cost": 2}]}]},
        )
        as_text = read(yaml % "{path: call, parse: json}", {"m": [{"call": '{"name": "f", "arguments": {"x": 1}}'}]})
        itself = read(yaml % "{name: api, arguments: args, id: n}", {"m": [{"api": "f", "args": {"x": 1}, "n": "7"}]})
        calls = [episode.trajectories[0].turns[0].action.tool_calls[0] for episode in (listed, as_text, itself)]  # type: ignore[union-attr]
        assert [(call.name, call.arguments, call.id) for call in calls] == [
            ("f", {"x": 1}, None),
            ("f", {"x": 1}, None),
            ("f", {"x": 1}, "7"),
        ]
        action = listed.trajectories[0].turns[0].action
        assert action is not None
        assert action.extra == {"tool_calls[0]": {"cost": 2}}

    def test_weights_rewards_and_token_ids_stand_on_the_turn(self, read: Read) -> None:
        yaml = """
            messages: m
            message:
              weight: train
              reward: score
              sampled: {prompt_ids: p, output_ids: o, logprobs: l}
            """
        row = {"m": [user(), assistant(train=False, score=2, p=[1, 2], o=[3], l=[-0.5]), user(), assistant(p=[], o=[])]}
        first, second = read(yaml, row).trajectories[0].turns
        assert (first.weight, first.reward, first.sampled) == (0.0, 2.0, SampledTokens((1, 2), (3,), (-0.5,)))
        assert (second.weight, second.reward, second.sampled) == (1.0, None, None)

    def test_flags_of_the_source_are_honoured_without_being_declared(self, read: Read) -> None:
        row = {"m": [user(), assistant(loss=False), user(), assistant(loss_weight=0.5)]}
        assert [turn.weight for turn in read("messages: m", row).trajectories[0].turns] == [0.0, 0.5]

    def test_a_kind_changes_only_the_fields_that_it_names(self, read: Read) -> None:
        yaml = """
            messages: m
            message:
              role: who
              content: say
              kind: type
              kinds:
                thought: {role: {value: assistant}, content: {path: nowhere}, reasoning: say}
            """
        row = {"m": [{"who": "user", "say": "hi"}, {"type": "thought", "say": "hm"}]}
        (turn,) = read(yaml, row).trajectories[0].turns
        assert turn.observation[0].text() == "hi"
        assert turn.action is not None
        assert turn.action.reasoning_content == "hm"

    MERGED = """
        messages: m
        message:
          kind: type
          kinds:
            text: {role: {value: assistant}, content: text}
            reasoning: {role: {value: assistant}, reasoning: text}
            call: {role: {value: assistant}, calls: {arguments: args}}
            user: {role: {value: user}, content: text}
          sampled: {prompt_ids: p, output_ids: o}
          merge: true
        """

    @pytest.mark.parametrize(
        ("items", "messages"),
        [
            ("reasoning text call call", ["RTCC"]),
            ("call reasoning", ["CR"]),
            ("text text", ["T", "T"]),
            ("reasoning text reasoning text", ["RT", "RT"]),
            ("text user text", ["T", "T"]),
            ("reasoning reasoning call", ["R", "RC"]),
            ("text reasoning call", ["T", "RC"]),
        ],
    )
    def test_pieces_merge_until_their_place_is_taken(self, read: Read, items: str, messages: list[str]) -> None:
        row = {"m": [{"type": kind, "text": "x", "name": "f", "args": {}} for kind in items.split()]}
        actions = [turn.action for turn in read(self.MERGED, row).trajectories[0].turns if turn.action]
        shapes = [
            "R" * (action.reasoning_content is not None)
            + "T" * (action.content is not None)
            + "C" * len(action.tool_calls)
            for action in actions
        ]
        assert [sorted(shape) for shape in shapes] == [sorted(message) for message in messages]

    def test_recorded_ids_end_a_merged_message(self, read: Read) -> None:
        text = {"type": "text", "text": "a", "p": [1], "o": [2]}
        row = {"m": [{"type": "reasoning", "text": "r"}, text, {"type": "reasoning", "text": "s"}, text]}
        turns = read(self.MERGED, row).trajectories[0].turns
        assert [turn.sampled for turn in turns] == [SampledTokens((1,), (2,))] * 2

    def test_keys_of_merged_pieces_are_kept_piece_by_piece(self, read: Read) -> None:
        row = {"m": [{"type": "reasoning", "text": "r", "id": 1}, {"type": "text", "text": "t", "id": 2}]}
        action = read(self.MERGED, row).trajectories[0].turns[0].action
        assert action is not None
        assert action.extra == {"pieces": [{"type": "reasoning", "id": 1}, {"type": "text", "id": 2}]}

    def test_dropped_keys_are_not_kept(self, read: Read) -> None:
        yaml = "messages: m\nmessage: {drop: [raw.text]}"
        action = read(yaml, {"m": [assistant(raw={"text": "x", "n": 1})]}).trajectories[0].turns[0].action
        assert action is not None
        assert action.extra == {"raw": {"n": 1}}

    @pytest.mark.parametrize(
        ("message", "item", "error"),
        [
            ("{}", "hi", "m[0]: a message is an object, not text"),
            ("{}", {"content": "hi"}, "m[0].role: a message needs a role"),
            (
                "{content: text}",
                {"role": "user", "text": "a", "content": "b"},
                "m[0].content: the mapping takes 'content' from elsewhere, but the item has its own",
            ),
            (
                "{kind: t, kinds: {text: {}}}",
                user() | {"t": "txt"},
                "m[0]: no kind 'txt' is declared. Did you mean 'text'?",
            ),
            ("{calls: {}}", assistant(), "m[0].tool_calls: a tool call needs a name"),
            ("{calls: {path: c}}", assistant(c=[1]), "m[0].tool_calls: a tool call is an object, not a number"),
            ("{weight: w}", assistant(w=-1), "m[0].weight: a weight is 0 or more, not -1.0"),
            ("{weight: w}", assistant(w="no"), "m[0].weight: expected a number, not text ('no')"),
            ("{reward: r}", user() | {"r": 1}, "m[0]: a reward on a message of role 'user'"),
            (
                "{sampled: {prompt_ids: p, output_ids: o}}",
                assistant(p=[1]),
                "m[0].output_ids: recorded token ids are a list of integers from 0 to 2,147,483,647",
            ),
            (
                "{sampled: {prompt_ids: p, output_ids: o, logprobs: l}}",
                assistant(p=[1], o=[1, 2], l=[0.5]),
                "m[0].logprobs: 1 log probabilities for 2 output ids",
            ),
        ],
    )
    def test_an_item_that_does_not_fit_is_named(self, read: Read, message: str, item: Any, error: str) -> None:
        with pytest.raises(FormatError) as caught:
            read(f"messages: m\nmessage: {message}", {"m": [item]})
        assert str(caught.value).startswith(error)

    conversations = st.lists(
        st.builds(
            lambda role, content, name: {"role": role, "content": content, **({"name": name} if name else {})},
            st.sampled_from(["system", "user", "assistant", "tool"]),
            st.none() | st.text(max_size=5),
            st.none() | st.just("n"),
        ),
        min_size=1,
        max_size=6,
    )

    @given(messages=conversations)
    def test_a_mapping_of_openai_rows_reads_what_the_built_in_format_reads(
        self, messages: list[dict[str, Any]]
    ) -> None:
        row = {"messages": messages, "id": "x", "reward": 1}
        mapped = MappedRows(RECORD, Path()).episode(row, default_id="y")
        (built_in,) = get_format("messages").decode(row, id="y")
        assert mapped.trajectories[0].turns == built_in.trajectories[0].turns
        assert (mapped.id, mapped.reward) == (built_in.id, built_in.reward)
