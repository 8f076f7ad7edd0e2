"""One rich example row or more for every format."""

from __future__ import annotations

from typing import Any

_TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "dict"}}}]
_CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
_CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "1+1?"}, {"type": "image_url", "image_url": {"url": "a.png"}}],
    },
    {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [_CALL, _CALL], "weight": 0.5},
    {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "2"},
    {"role": "function", "name": "add", "content": "2"},
    {"role": "assistant", "content": "2", "loss": True},
]
_METADATA = {
    "agent_name": "solver",
    "policy_name": "shared",
    "reward": 1.0,
    "env_success": True,
    "env_name": "math_env",
}

EXAMPLE_ROWS: dict[str, list[dict[str, Any]]] = {
    "native": [
        {
            "schema_version": 1,
            "id": "e1",
            "trajectories": [
                {
                    "turns": [
                        {
                            "parent": None,
                            "observation": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
                            "action": {
                                "role": "assistant",
                                "content": "yo",
                                "tool_calls": [{"name": "add", "arguments": {"a": 1}}],
                            },
                            "tools": [{"definition": _TOOLS[0]}],
                            "reward": 1.0,
                            "sampled": {"prompt_ids": [1], "output_ids": [2], "logprobs": [-0.5]},
                            "annotations": {"score": 1},
                        },
                        {"parent": 0, "weight": 0.5},
                    ],
                    "success": True,
                }
            ],
            "metadata": {"x": float("nan")},
        }
    ],
    "messages": [{"messages": _CHAT, "tools": _TOOLS, "metadata": _METADATA, "reward": 0.5, "task": {"n": 1}}],
    "prompt_completion": [
        {"prompt": "1+1?", "completion": "2"},
        {"prompt": _CHAT[:2], "completion": _CHAT[2:], "tools": _TOOLS},
    ],
    "input_output": [
        {"input": "1+1?", "output": "2"},
        {
            "input": '[{"role": "user", "content": "1+1?"}]',
            "output": [{"content": "2"}, {"role": "user", "content": "no"}],
        },
    ],
    "sharegpt": [
        {
            "conversations": [
                {"from": "human", "value": "<image>1+1?"},
                {"from": "gpt", "value": "Let me see."},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "2", "loss": True},
            ],
            "system": "Be brief.",
            "tools": '[{"name": "add", "parameters": {"type": "object"}}]',
            "images": ["a.png"],
        }
    ],
    "alpaca": [
        {
            "instruction": "Add.",
            "input": "1+1",
            "output": "2",
            "system": "Be brief.",
            "history": [["0+0", "0"]],
            "tools": "[]",
        }
    ],
    "record_data": [
        {
            "messages": _CHAT,
            "tools": _TOOLS,
            "scores": {"2": 1.0, "5": 0.5},
            "advantages": {"2": -1.0},
            "created_at_step": {"5": 3},
            "logprobs": {"5": [-0.1]},
            "reward": 1.0,
            "step": -1,
            "record_id": "r1",
        }
    ],
    "trajectories": [
        {
            "trajectories": [
                {
                    "observations": [
                        {
                            "messages": [{"role": "user", "content": "1+1?"}],
                            "state": {"n": 1},
                            "done": False,
                            "info": {},
                        },
                        {"messages": [{"role": "environment", "content": "no"}], "done": False, "info": {"hint": 2}},
                        {"messages": [], "done": True},
                    ],
                    "actions": [{"role": "assistant", "content": "3"}, {"role": "assistant", "content": "2"}],
                    "rewards": [{"value": 0.0}, {"value": 1.0, "components": {"right": 1.0}, "info": {}}],
                    "metadata": {"num_steps": 2},
                }
            ],
            "num_trajectories": 1,
            "num_transitions": 2,
        }
    ],
}
