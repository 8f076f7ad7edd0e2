"""The language of declared field mappings: every key, and every error with its place and mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.errors import ConfigError, FormatError
from understudy.formats import get_format
from understudy.formats.mapping.paths import MISSING, compile_path, without
from understudy.types import Episode, SampledTokens

Read = Callable[..., Episode]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """A function that writes a mapping's YAML and reads one row by it."""

    def read_one(yaml: str, row: dict[str, Any], options: str = "") -> Episode:
        file = tmp_path / "mapping.yaml"
        file.write_text(yaml)
        (episode,) = get_format(f"{file}{options}").decode(row, id="row-1")
        return episode

    return read_one


def user(text: str = "hi") -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


ONE = [user()]
"""The least conversation."""


def texts(episode: Episode) -> list[tuple[str, str]]:
    return [(message.role, message.text()) for message in episode.trajectories[0].messages()]


class TestPaths:
    ROW: ClassVar = {"a": {"b": [{"c": 1}, {"c": 2}, {"d": 3}]}, "x.y": {"z": None}, "list": [10, 20]}

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("a.b[0].c", 1),
            ("a.b[-1].d", 3),
            ("a.b[*].c", [1, 2]),
            ('["x.y"].z', None),
            ("list[1]", 20),
            ("list[2]", MISSING),
            ("a.b.c", MISSING),
            ("list.a", MISSING),
            ("a[0]", MISSING),
            ("nothing", MISSING),
        ],
    )
    def test_a_path_leads_where_it_says_or_nowhere(self, path: str, found: Any) -> None:
        assert compile_path(path).find(self.ROW) == found

    @pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[0]b", 'a["b]', "a.[0]"])
    def test_what_is_no_path_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ConfigError, match="is not a path: write it like"):
            compile_path(text)

    def test_what_is_taken_leaves_no_empty_shells_behind(self) -> None:
        row = {"a": {"b": 1}, "c": {"d": 1, "e": 2}, "l": [{"t": 1, "u": 2}, {"t": 3}], "one": [5], "two": [5, 6]}
        taken = [compile_path(text) for text in ("a.b", "c.d", "l[*].t", "one[0]", "two[0]")]
        assert without(row, taken) == {"c": {"e": 2}, "l": [{"u": 2}, {}], "two": [5, 6]}

    def test_taking_nothing_leaves_the_row_as_it_is(self) -> None:
        assert without(self.ROW, []) == self.ROW

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=12,
    )

    @given(
        st.dictionaries(st.sampled_from("abc"), json_values), st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
    )
    def test_what_stands_at_a_path_and_what_is_left_make_up_the_row(
        self, row: dict[str, Any], steps: list[str]
    ) -> None:
        path = compile_path(".".join(steps))
        value = path.find(row)
        rest = without(row, [path])
        if value is MISSING:
            assert rest == row
            return
        node = rest
        for step in steps[:-1]:
            node = node.setdefault(step, {})
        assert steps[-1] not in node
        node[steps[-1]] = value
        assert rest == row


class TestValues:
    def test_the_first_alternative_that_holds_something_is_taken(self, read: Read) -> None:
        yaml = "messages: m\nenvironment: [a, b.c, d]"
        assert read(yaml, {"m": ONE, "a": None, "b": {"c": ""}, "d": "gym"}).environment == "gym"
        assert read(yaml, {"m": ONE, "b": {"c": ""}}).environment == ""
        assert read(yaml, {"m": ONE}).environment is None

    def test_text_constants_defaults_and_patterns(self, read: Read) -> None:
        episode = read(
            """
            messages: m
            id: {text: "{task.id}-{trial}"}
            environment: {value: tau}
            split: {path: nowhere, default: train}
            agent: {path: src, match: "^([^/]+)/"}
            """,
            {"m": ONE, "task": {"id": "t"}, "trial": 3, "src": "gpt-4/run"},
        )
        assert (episode.id, episode.environment, episode.split) == ("t-3", "tau", "train")
        assert episode.trajectories[0].agent == "gpt-4"

    def test_what_is_only_looked_at_stays_in_the_metadata(self, read: Read) -> None:
        row = {"m": ONE, "src": "gpt-4/run", "n": 3, "verdict": "yes", "reward": 2}
        yaml = """
            messages: m
            id: {text: "{n}"}
            policy: {path: src, match: "^([^/]+)/"}
            success: {path: verdict, values: {"yes": true}}
            reward: reward
            """
        assert read(yaml, row).metadata == {"src": "gpt-4/run", "n": 3, "verdict": "yes"}

    @pytest.mark.parametrize(("found", "success"), [(1, True), (1.0, True), (0, False), (True, None), (None, None)])
    def test_values_tell_numbers_from_booleans_and_null(self, read: Read, found: Any, success: bool | None) -> None:
        yaml = "messages: m\nsuccess: {path: r, values: {1: true, 0: false, true: null, null: null}}"
        assert read(yaml, {"m": ONE, "r": found}).success is success

    def test_json_text_is_parsed_and_lists_of_texts_are_joined(self, read: Read) -> None:
        yaml = "messages: m\ntask: {path: t, parse: json}\nerror: {path: 'e[*].text', join: ' / '}"
        episode = read(yaml, {"m": ONE, "t": '{"goal": 1}', "e": [{"text": "a"}, {"text": "b"}]})
        assert (episode.task, episode.error, episode.metadata) == ({"goal": 1}, "a / b", {})

    @pytest.mark.parametrize(
        ("yaml", "row", "message"),
        [
            (
                "id: {text: '{a}-{b}'}",
                {"a": 1},
                "b: the text '{a}-{b}' needs a text or a number here, but it is not there",
            ),
            ("id: {text: '{a}'}", {"a": []}, "a: the text '{a}' needs a text or a number here, but it is a list"),
            ("id: a", {"a": 1.5}, "id: an id is text or a number, not a number"),
            ("policy: {path: a, match: '^(x)'}", {"a": "y"}, "a: 'y' does not match '^(x)'"),
            ("task: {path: a, parse: json}", {"a": "{"}, "a: a value as text that is not JSON"),
            ("error: {path: a, join: ','}", {"a": [1]}, "a: join needs a list of texts"),
            ("reward: a", {"a": "high"}, "reward: expected a number, not text ('high')"),
            ("reward: a", {"a": float("nan")}, "reward: expected a number, not a number (nan)"),
            (
                "success: a",
                {"a": 1},
                "success: expected true or false, not a number (1) (mend: turn the source's words",
            ),
            ("seed: a", {"a": True}, "seed: expected an integer, not true or false"),
            ("environment: a", {"a": {}}, "environment: expected text, not an object"),
            (
                "success: {path: a, values: {resolved: true}}",
                {"a": "resolve"},
                "a: 'resolve' is not among the mapping's values. Did you mean 'resolved'? (mend: add it under values)",
            ),
        ],
    )
    def test_a_value_that_does_not_fit_names_its_field(
        self, read: Read, yaml: str, row: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(FormatError) as caught:
            read(f"messages: m\n{yaml}", {"m": ONE, **row})
        assert str(caught.value).startswith(message)

    def test_rewards_may_be_boolean_negative_or_missing(self, read: Read) -> None:
        rewards = [read("messages: m\nreward: r", {"m": ONE, **row}).reward for row in ({"r": True}, {"r": -0.5}, {})]
        assert rewards == [1.0, -0.5, None]


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
                "m[0].output_ids: recorded token ids are a list of integers from 0 up",
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
        from understudy.formats.mapping import RECORD
        from understudy.formats.mapping.reader import MappedRows

        row = {"messages": messages, "id": "x", "reward": 1}
        mapped = MappedRows(RECORD, Path()).episode(row, default_id="y")
        (built_in,) = get_format("messages").decode(row, id="y")
        assert mapped.trajectories[0].turns == built_in.trajectories[0].turns
        assert (mapped.id, mapped.reward) == (built_in.id, built_in.reward)


class TestPlacesOfMessages:
    def test_several_places_follow_each_other(self, read: Read) -> None:
        yaml = """
            messages:
              - {path: instruction, role: system}
              - {path: context, parse: json, context: all}
              - answer
            """
        row = {
            "instruction": "be brief",
            "context": json.dumps([user(), assistant(), user()]),
            "answer": assistant("yes"),
        }
        episode = read(yaml, row)
        roles = ["system", "user", "assistant", "user", "assistant"]
        assert [role for role, _ in texts(episode)] == roles
        assert [turn.weight for turn in episode.trajectories[0].turns] == [0.0, 1.0]
        assert episode.metadata == {}

    def test_the_first_messages_may_be_context(self, read: Read) -> None:
        row = {"m": [assistant(), user(), assistant(), user(), assistant()]}
        turns = read("messages: {path: m, context: 3}", row).trajectories[0].turns
        assert [turn.weight for turn in turns] == [0.0, 0.0, 1.0]

    def test_an_optional_place_may_be_absent_and_tools_then_stay_in_the_metadata(self, read: Read) -> None:
        row = {"tools": [{"name": "f"}], "won": False}
        episode = read("messages: {path: m, optional: true}\ntools: tools\nsuccess: won", row)
        assert episode.trajectories[0].turns == ()
        assert episode.metadata == {"tools": [{"name": "f"}]}
        assert episode.success is False

    @pytest.mark.parametrize(
        ("source", "row", "error"),
        [
            ("[a.m]", {}, "a.m: the row has no messages here"),
            ("[{path: [m, n]}]", {}, "m or n: the row has no messages here"),
            ("[m]", {"m": "hi"}, "m: this is text, and the mapping names no role for it"),
            ("[m]", {"m": 3}, "m: messages are a list, not a number"),
            ("[{path: m, parse: json}]", {"m": "["}, "m: messages as text that is not JSON"),
            ("[m, n]", {"m": [[], []], "n": [[], []]}, "n: two places hold lists of conversations"),
            ("[m, n]", {"m": [], "n": []}, "m: there is no message (mend: leave the row out"),
        ],
    )
    def test_a_place_without_messages_is_an_error(
        self, read: Read, source: str, row: dict[str, Any], error: str
    ) -> None:
        with pytest.raises(FormatError) as caught:
            read(f"messages: {source}", row)
        assert str(caught.value).startswith(error)

    def test_a_row_that_is_no_object_is_refused(self, read: Read) -> None:
        with pytest.raises(FormatError, match="a row is an object, not a list"):
            read("messages: m", [])  # type: ignore[arg-type]


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
        from understudy.formats.mapping import RECORD
        from understudy.formats.mapping.reader import MappedRows

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


class TestTools:
    TOOLS: ClassVar = {"airline": [{"name": "book", "parameters": {"type": "dict"}}]}

    def test_tools_stand_in_the_row_or_in_json_text(self, read: Read) -> None:
        for tools in (self.TOOLS["airline"], json.dumps(self.TOOLS["airline"])):
            trajectory = read("messages: m\ntools: [x, t]", {"m": [user()], "x": [], "t": tools}).trajectories[0]
            assert [tool.name for tool in trajectory.tools()] == ["book"]

    def test_a_file_is_relative_to_the_mapping(self, read: Read, tmp_path: Path) -> None:
        (tmp_path / "tools.json").write_text(json.dumps(self.TOOLS))
        trajectory = read("messages: m\ntools: {file: tools.json, path: airline}", {"m": [user()]}).trajectories[0]
        assert trajectory.tools()[0].parameters == {"type": "object"}

    def test_a_file_named_as_an_option_is_relative_to_the_working_directory(
        self, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "t.json").write_text(json.dumps({"retail": [{"name": "ship"}]}))
        monkeypatch.chdir(elsewhere)
        yaml = "messages: m\ntools: {file: tools.json, path: airline}"
        episode = read(yaml, {"m": [user()]}, "?tools.file=t.json&tools.path=retail")
        assert [tool.name for tool in episode.trajectories[0].tools()] == ["ship"]

    @pytest.mark.parametrize(
        ("content", "error"),
        [
            (None, r"cannot read .*tools.json: No such file.*\?tools.file=PATH, or go without tools"),
            ("{", "is not JSON"),
            ('{"retail": []}', "holds nothing at airline"),
            ('{"airline": [{}]}', r"tools.json: tools\[0\]: a tool needs a name"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_an_error_before_any_row(
        self, read: Read, tmp_path: Path, content: str | None, error: str
    ) -> None:
        if content is not None:
            (tmp_path / "tools.json").write_text(content)
        with pytest.raises(ConfigError, match=error):
            read("messages: m\ntools: {file: tools.json, path: airline}", {"m": ONE})

    def test_tools_can_be_turned_off(self, read: Read) -> None:
        episode = read("messages: m\ntools: {file: missing.json}", {"m": [user()]}, "?tools=null")
        assert episode.trajectories[0].tools() == ()


class TestTheFileItself:
    @pytest.mark.parametrize(
        ("yaml", "error"),
        [
            ("messages: m\nrewad: r", "mapping.yaml:2: rewad: unknown key. Did you mean 'reward'?"),
            ("messages: m\nmessage: {contents: x}", "contents: unknown key. Did you mean 'message.content'?"),
            ("reward: r", "messages: is required"),
            ("messages: a..b", "is not a path"),
            ("messages: m\nid: {path: a, value: b}", "give exactly one of path, text and value"),
            ("messages: m\nid: {}", "give exactly one of path, text and value"),
            ("messages: m\npolicy: {path: a, match: 'x'}", "put what the value is into a group"),
            ("messages: m\npolicy: {path: a, match: '('}", "not a regular expression"),
            ("messages: m\nmessage: {kind: type}", "kind and kinds belong together"),
            ("messages: {path: m, context: -1}", "a number of messages is 0 or more"),
            ("messages: m\ntools: {}", "give path (within the row), or file"),
            ("messages: m\nid: {text: '{a..b}'}", "is not a path"),
        ],
    )
    def test_what_is_written_wrongly_is_refused_with_its_place(self, read: Read, yaml: str, error: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read(yaml, {"m": ONE})
        assert error in str(caught.value)

    def test_options_override_keys_and_are_checked_like_them(self, read: Read) -> None:
        row = {"m": ONE, "a": "x", "b": "y"}
        assert read("messages: m\nenvironment: a", row, "?environment=b").environment == "y"
        with pytest.raises(ConfigError, match="Did you mean 'environment'"):
            read("messages: m", row, "?enviroment=b")

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot read"):
            get_format("nowhere.yaml")

    def test_a_mapping_only_reads(self, read: Read, tmp_path: Path) -> None:
        episode = read("messages: m", {"m": [user(), assistant()]})
        with pytest.raises(FormatError, match="can only be read"):
            get_format(str(tmp_path / "mapping.yaml")).encode(episode)
