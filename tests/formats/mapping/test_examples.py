"""Shapes that the example mappings promise to read and that the corpus of real files does not hold."""

from __future__ import annotations

import contextlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.errors import FormatError
from understudy.formats import Format, get_format
from understudy.types import Episode

MAPPINGS = Path(__file__).resolve().parents[3] / "examples" / "mappings"


def read(name: str, row: dict[str, Any]) -> Episode:
    (episode,) = get_format(f"{MAPPINGS}/{name}").decode(row, id="x")
    return episode


def shape(episode: Episode, trajectory: int = 0) -> list[tuple[str, str, list[str]]]:
    messages = episode.trajectories[trajectory].messages()
    return [(message.role, message.text(), [call.name for call in message.tool_calls]) for message in messages]


def test_old_openhands_logs_pair_actions_with_observations_and_do_not_say_who_acted() -> None:
    history = [
        [{"action": "message", "args": {"content": "Fix it."}}, {"observation": "null", "content": ""}],
        [{"action": "run", "args": {"command": "ls", "thought": "Look."}}, {"observation": "run", "content": "a.py"}],
        [{"action": "message", "args": {"content": "Which file?"}}, {"observation": "null", "content": ""}],
        [{"action": "message", "args": {"content": "a.py"}}, {"observation": "null", "content": ""}],
        [{"action": "finish", "args": {"outputs": {}}}, {"observation": "null", "content": ""}],
    ]
    episode = read("openhands.py:episodes", {"instance_id": "i", "history": history, "error": None})
    assert shape(episode) == [
        ("user", "Fix it.", []),
        ("assistant", "Look.", ["run"]),
        ("tool", "a.py", []),
        ("assistant", "Which file?", []),
        ("user", "a.py", []),
        ("assistant", "", ["finish"]),
    ]
    assert (episode.stop_reason, episode.error) == ("finish", None)


def test_several_openhands_actions_of_one_response_are_one_message() -> None:
    calls = [{"id": f"c{k}", "function": {"name": "run", "arguments": "{}"}} for k in (1, 2)]
    response = {"id": "r", "choices": [{"message": {"role": "assistant", "content": None, "tool_calls": calls}}]}

    def event(kind: str, call: str) -> dict[str, Any]:
        metadata = {"function_name": "run", "tool_call_id": call, "model_response": response}
        return {kind: "run", "args": {}, "content": call, "tool_call_metadata": metadata}

    history = [event("action", "c1"), event("action", "c2"), event("observation", "c1"), event("observation", "c2")]
    episode = read("openhands.py:episodes", {"history": history, "error": "RuntimeError: the sandbox died"})
    assert shape(episode) == [("assistant", "", ["run", "run"]), ("tool", "c1", []), ("tool", "c2", [])]
    assert episode.error == "RuntimeError: the sandbox died"


def test_hand_crafted_who_and_when_chats_name_the_agent_in_the_role() -> None:
    history = [
        {"role": "human", "content": "Find the price."},
        {"role": "Orchestrator (thought)", "content": "Search first."},
        {"role": "Orchestrator (-> WebSurfer)", "content": "Please search."},
        {"role": "WebSurfer", "content": "It is 5."},
    ]
    episode = read("who_and_when.yaml", {"history": history, "question": "q", "question_ID": "1", "is_correct": False})
    assert [trajectory.agent for trajectory in episode.trajectories] == ["Orchestrator", "WebSurfer"]
    assert [role for role, _, _ in shape(episode)] == ["user", "assistant", "assistant", "user"]
    assert [role for role, _, _ in shape(episode, 1)] == ["user", "user", "user", "assistant"]


def test_a_tau_bench_run_that_failed_is_an_error_without_turns() -> None:
    row = {"task_id": 3, "trial": 1, "reward": 0.0, "info": {"error": "rate limit", "traceback": "…"}, "traj": []}
    episode = read("tau_bench.yaml?tools=null", row)
    assert (episode.id, episode.error, episode.trajectories[0].turns) == ("3-1", "rate limit", ())


def test_mini_swe_agent_trajectories_are_read_like_those_of_swe_agent() -> None:
    messages = [{"role": "user", "content": "fix"}, {"role": "assistant", "content": "```bash\nls\n```"}]
    row = {"instance_id": "django-1", "messages": messages, "info": {"exit_status": "Submitted", "submission": "diff"}}
    episode = read("swe_agent.yaml", row)
    assert (episode.id, episode.stop_reason, len(shape(episode))) == ("django-1", "Submitted", 2)
    assert episode.metadata == {"info": {"submission": "diff"}}


def test_rollouts_of_calls_with_rewritten_contexts_become_branches() -> None:
    user = {"role": "user", "content": "a", "type": "message"}
    first = [user, {"role": "assistant", "content": "b", "type": "message"}]
    second = [{**user, "content": "a (summary)"}, {"role": "assistant", "content": "c", "type": "message"}]
    row = {"responses_create_params": {"input": []}, "response": {"output": [first, second]}, "reward": 1}
    turns = read("nemo_gym.yaml", row).trajectories[0].turns
    assert [(turn.parent, turn.weight) for turn in turns] == [(None, 1.0), (None, 1.0)]


WORDS = sorted({word for file in MAPPINGS.glob("*.*") for word in re.findall(r"[a-z_]+", file.read_text("utf-8"))})
KEYS = [word for word in WORDS if len(word) > 3] + ["id", "role", "content", "tool_calls", "function", "arguments"]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["user", "assistant", "tool", "[", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=15,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": anything, "content": anything}, optional=dict.fromkeys(("type", "tool_calls"), anything)
    )
)
PLACES = {
    "agentgym.yaml": "conversations",
    "mint.yaml": "state.history",
    "nemo_gym.yaml": "response.output",
    "swe_agent.yaml": "history",
    "tau_bench.yaml?tools=null": "traj",
    "tool_rl.yaml": "instruction",
    "toolbench.yaml": "answer_generation.train_messages",
    "user_rl.yaml": "prompt",
    "who_and_when.yaml": "history",
    "openhands.py:episodes": "history",
    "inspect_ai.py:episodes": "messages",
    "taskmaster.py:dialogues": "utterances",
    "tape_agents.py:tapes": "steps",
}
"""Where each mapping looks for its messages, so that random rows hold some there."""


@cache
def example(name: str) -> Format:
    return get_format(f"{MAPPINGS}/{name}")


@pytest.mark.parametrize("name", PLACES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(row=st.dictionaries(st.sampled_from(KEYS), anything, max_size=4), found=messages | anything)
def test_rows_of_any_shape_are_read_or_refused_and_nothing_else(name: str, row: dict[str, Any], found: Any) -> None:
    *above, last = PLACES[name].split(".")
    node = row
    for key in above:
        node[key] = node = {}
    node[last] = found
    with contextlib.suppress(FormatError):
        example(name).decode(row, id="x")


def test_every_declared_example_is_thrown_at() -> None:
    assert {name.partition("?")[0] for name in PLACES} >= {file.name for file in MAPPINGS.glob("*.yaml")}
