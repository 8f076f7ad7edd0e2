"""Statistics of episodes agree with plain computations that keep everything in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.curate import EpisodeStatistics
from understudy.errors import ConfigError
from understudy.types import Episode, Message, Tool, ToolCall, Trajectory, Turn

TOOL = Tool.from_openai({"name": "add", "parameters": {"type": "object", "properties": {}}})

TEXTS = st.sampled_from(["", "a", "ab", "abc", "b", "abc abc", "\U0001f600a", "\0", "a\0"])
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["add", "mul"]), st.sampled_from(["{}", '{"x": 1}'])), max_size=2)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.none() | TEXTS,
    reasoning_content=st.none() | TEXTS,
    tool_calls=CALLS.map(tuple),
)
EPISODES = st.builds(
    lambda messages, tools, reward, success, environment: Episode.from_messages(
        messages, id="x", tools=tools, reward=reward, success=success, environment=environment
    ),
    messages=st.lists(MESSAGES, max_size=5),
    tools=st.sampled_from([(), (TOOL,)]),
    reward=st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
    success=st.none() | st.booleans(),
    environment=st.sampled_from([None, "a", "b"]),
)


def report(episodes: list[Episode], **options) -> dict:
    statistics = EpisodeStatistics(**options)
    for episode in episodes:
        statistics.add(episode)
    value = statistics.report()
    json.dumps(value, allow_nan=False)
    return value


def text_pieces(message: Message) -> list[str]:
    pieces = [message.reasoning_content or "", message.text()]
    for call in message.tool_calls:
        pieces += [call.name, call.arguments_text()]
    return pieces


def plain_prefix_share(episodes: list[Episode], encode) -> float | None:
    """One minus nodes over tokens of the trie of all conversations, built with whole prefixes as dictionary keys."""
    nodes: set[tuple] = set()
    total = 0
    for episode in episodes:
        for trajectory in episode.trajectories:
            prefix: tuple = (json.dumps([tool.definition for tool in trajectory.tools()]),)
            for message in trajectory.messages():
                prefix = (*prefix, ("role", message.role))
                for number, piece in enumerate(text_pieces(message)):
                    prefix = (*prefix, ("piece", min(number, 2 + number % 2)))
                    for code in encode(piece):
                        prefix = (*prefix, code)
                        nodes.add(prefix)
                        total += 1
    return 1 - len(nodes) / total if total else None


@settings(deadline=None)
@given(st.lists(EPISODES, max_size=8))
def test_counts_agree_with_counting_everything(episodes: list[Episode]) -> None:
    found = report(episodes, by=["environment"])
    overall = found["overall"]
    messages = [[m for t in e.trajectories for m in t.messages()] for e in episodes]
    flat = [message for conversation in messages for message in conversation]
    characters = [sum(len(p) for m in conversation for p in text_pieces(m)) for conversation in messages]
    assert overall["num_episodes"] == overall["num_trajectories"] == len(episodes)
    assert overall["num_turns"] == sum(m.role == "assistant" for m in flat)
    assert overall["num_messages"] == len(flat)
    assert overall["num_characters"] == sum(characters)
    assert overall["messages_by_role"] == Counter(m.role for m in flat)
    assert overall["tool_calls_by_name"] == Counter(c.name for m in flat for c in m.tool_calls)
    assert overall["num_tool_calls"] == sum(len(m.tool_calls) for m in flat)
    assert overall["per_episode"]["characters"]["max"] == max(characters, default=None)
    assert overall["per_episode"]["tools"]["total"] == sum(bool(e.trajectories[0].tools()) for e in episodes)
    rewards = [e.reward for e in episodes if e.reward is not None]
    assert overall["reward"]["count"] == len(rewards)
    assert overall["reward"]["mean"] == (pytest.approx(sum(rewards) / len(rewards)) if rewards else None)
    known = [e.success for e in episodes if e.success is not None]
    assert overall["success"] == {
        "num_known": len(known),
        "num_successes": sum(known),
        "rate": sum(known) / len(known) if known else None,
    }
    groups = {name: group["num_episodes"] for name, group in found["by"]["environment"].items()}
    assert groups == Counter(e.environment or "(unknown)" for e in episodes)


@settings(deadline=None)
@given(st.lists(EPISODES, max_size=8))
def test_shared_prefixes_agree_with_a_trie_of_characters_and_of_tokens(episodes: list[Episode]) -> None:
    def encode(text: str) -> list[int]:
        return list(text.encode())

    shared = report(episodes, encode=encode)["overall"]["shared_prefix"]
    for name, plain in (
        ("characters", plain_prefix_share(episodes, str)),
        ("tokens", plain_prefix_share(episodes, encode)),
    ):
        assert shared[name] == (plain if plain is None else pytest.approx(plain, abs=1e-12))


def test_the_prefix_that_a_repeated_conversation_shares_is_all_of_it() -> None:
    chat = [Message("system", "be kind"), Message("user", "hi"), Message("assistant", "hello")]
    once = Episode.from_messages(chat, id="1")
    other_tools = Episode.from_messages(chat, id="2", tools=(TOOL,))
    assert report([once])["overall"]["shared_prefix"]["characters"] == 0.0
    assert report([once, once])["overall"]["shared_prefix"]["characters"] == 0.5
    assert report([once, other_tools])["overall"]["shared_prefix"]["characters"] == 0.0


def test_a_branch_counts_only_what_is_new_in_it() -> None:
    turns = (
        Turn(None, (Message("user", "question"),), Message("assistant", "first")),
        Turn(0, (Message("user", "go on"),), Message("assistant", "left")),
        Turn(0, (Message("user", "go on"),), Message("assistant", "right")),
    )
    overall = report([Episode("x", (Trajectory(turns),))])["overall"]
    assert overall["num_characters"] == len("questionfirst" + "go onleft" + "go onright")
    assert overall["shared_prefix"]["characters"] == pytest.approx(len("go on") / overall["num_characters"])


def test_each_agent_has_its_own_lengths_rewards_and_success() -> None:
    def line(agent: str, text: str, reward: float | None, success: bool | None) -> Trajectory:
        turn = Turn(None, (Message("user", text),), Message("assistant", text))
        return Trajectory((turn,), agent=agent, policy=f"{agent}-model", reward=reward, success=success)

    pair = Episode("1", (line("pro", "ab", 1.0, True), line("con", "abcd", -1.0, False)), reward=0.25, success=True)
    alone = Episode("2", (line("pro", "ab", None, None),), reward=0.5, success=False)
    found = report([pair, alone], by=["agent", "policy"])
    agents = found["by"]["agent"]
    assert agents["pro"]["reward"]["mean"] == pytest.approx(0.75)
    assert agents["pro"]["success"] == {"num_known": 2, "num_successes": 1, "rate": 0.5}
    assert agents["con"]["num_characters"] == 8
    assert agents["con"]["reward"]["total"] == -1.0
    assert set(found["by"]["policy"]) == {"pro-model", "con-model"}
    assert found["overall"]["num_trajectories"] == 3
    assert found["overall"]["reward"]["total"] == 0.75


def test_metadata_groups_and_groups_beyond_the_bound() -> None:
    episodes = [Episode(str(n), metadata={"model": {"name": n % 150}}) for n in range(300)]
    groups = report(episodes, by=["metadata.model.name", "metadata.none"])["by"]
    assert len(groups["metadata.model.name"]) == 101
    assert groups["metadata.model.name"]["(others)"]["num_episodes"] == 100
    assert groups["metadata.none"]["(unknown)"]["num_episodes"] == 300


def test_an_unknown_dimension_is_refused_with_a_guess() -> None:
    with pytest.raises(ConfigError, match=r"cannot group by 'enviroment'\. Did you mean 'environment'"):
        EpisodeStatistics(by=["enviroment"])


def test_memory_does_not_grow_with_the_number_of_episodes() -> None:
    statistics = EpisodeStatistics(by=["environment", "agent", "metadata.n"])

    def feed(start: int, num: int) -> int:
        for n in range(start, start + num):
            chat = [Message("user", f"question {n} " * 20), Message("assistant", f"answer {n * 7} " * 20)]
            statistics.add(Episode.from_messages(chat, id=str(n), reward=n * 0.1, metadata={"n": n}))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        half, whole = feed(0, 2000), feed(2000, 2000)
    finally:
        tracemalloc.stop()
    assert whole < half * 1.25
