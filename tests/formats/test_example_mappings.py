"""Shapes that the example mappings promise to read and that the corpus of real files does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.formats import get_format
from understudy.types import Episode

MAPPINGS = Path(__file__).resolve().parents[2] / "examples" / "mappings"


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
