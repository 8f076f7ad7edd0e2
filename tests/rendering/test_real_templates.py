"""Every real chat template times every conversation shape, held against transformers' own `apply_chat_template`."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken

from tests.conftest import test_data_folder
from tests.rendering.conversation_shapes import SHAPES
from understudy.rendering import RefusalCode, Renderer, ServerProfile, from_transformers
from understudy.types import Episode, Message, SpanKind, Tool, ToolCall

CLOCK = datetime(2025, 3, 4, 5, 6, 7)
CONTROL = re.compile(
    r"<\|[A-Za-z0-9_▁ ./-]{1,40}\|>|<｜[^｜<>{}\n]{1,40}｜>|</?s>|<(?:bos|eos)>|<(?:start|end)_of_(?:turn|image)>|"
    r"\[/?(?:INST|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|SYSTEM_PROMPT|THINK|ARGS|CALL_ID|TOOL_CONTENT)\]|"
    r"<\|[a-z_]+>|<[a-z_]+\|>|<SPECIAL_\d+>|<end_of_utterance>|</?escape>|<(?:start|end)_function_(?:call|response)>|"
    r"\[(?:e~\[|\]~[!b]\[)|\]<\]minimax\[>\[|</?(?:seed|think):[a-z_:]+>|<extra_id_\d>"
)

_folder = test_data_folder()
TEMPLATES = sorted((_folder / "templates").glob("*.jinja")) if _folder else []


class _FixedDatetime(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return CLOCK


@pytest.fixture(scope="session")
def tokenizer(test_data: Path) -> Any:
    """Qwen3's vocabulary with the control tokens that all the templates write, and with a bos and an eos token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(test_data / "tokenizers" / "qwen3"))
    controls = sorted({"<s>", "</s>"}.union(*(CONTROL.findall(path.read_text()) for path in TEMPLATES)))
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return tokenizer


@pytest.fixture(scope="session")
def stop_table(test_data: Path) -> list[dict[str, Any]]:
    return json.loads((test_data / "templates" / "stops.json").read_text())["stops"]


def template_source(path: Path) -> str:
    """Return the template; the ones laid out for reading are joined up, as their repository says to before use."""
    source = path.read_text()
    return source.replace("    ", "").replace("\n", "") if path.stem.endswith("__chujie") else source


def stops_for(name: str, table: list[dict[str, Any]]) -> tuple[str, ...]:
    return next((tuple(row["stop_tokens"]) for row in table if row["name_contains"] in name), ())


def to_message(raw: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(c["function"]["name"], json.dumps(c["function"]["arguments"]), c["id"])
        for c in raw.get("tool_calls", ())
    )
    kept = {key: value for key, value in raw.items() if key != "tool_calls"}
    return Message(**kept, tool_calls=calls)


def oracle_messages(messages: list[dict[str, Any]], arguments_as: str) -> list[dict[str, Any]]:
    """What a client sends: null content as an empty text, arguments as the template takes them."""
    sent = copy.deepcopy(messages)
    for message in sent:
        message["content"] = message["content"] or ""
        for call in message.get("tool_calls", ()):
            if arguments_as == "text":
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return sent


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_accepted_turns_equal_what_the_template_prompts_and_end_in_a_stop_token(
    path: Path, tokenizer: Any, stop_table: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", _FixedDatetime)
    source = template_source(path)
    stops = tuple(stop for stop in stops_for(path.stem, stop_table) if stop in source)
    profile = ServerProfile(clock=CLOCK.isoformat(), stop_tokens=stops or None)
    wrapped = from_transformers(tokenizer, name=path.stem, chat_template=source)
    renderer = Renderer(wrapped, profile, on_refusal="skip", verify_every=1)
    stop_ids = {tokenizer.backend_tokenizer.token_to_id(text) for text in renderer.stops.texts}
    num_accepted, refused = 0, Counter()
    for shape, (messages, tools) in SHAPES.items():
        episode = Episode.from_messages(
            [to_message(m) for m in messages], id=shape, tools=[Tool.from_openai(t) for t in tools or ()]
        )
        rendered = renderer.render(episode.trajectories[0])
        actions = [k for k, m in enumerate(messages) if m["role"] == "assistant"]
        assert len(rendered.turns) + len(rendered.refusals) == len(actions)
        assert all(refusal.code in RefusalCode for refusal in rendered.refusals)
        refused.update(f"{refusal.code}" for refusal in rendered.refusals)
        sent = oracle_messages(messages, renderer.profile.tool_arguments)
        for turn in rendered.turns:
            k = actions[turn.turn]
            expected = tokenizer.apply_chat_template(
                sent[:k], tools=tools, chat_template=source, add_generation_prompt=True, tokenize=True,
                return_dict=False, **turn.arguments,
            )  # fmt: skip
            ids = rendered.tree.sequence_ids(turn.sequence)
            assert ids[: turn.num_prompt_tokens].tolist() == expected, (shape, k, turn.how)
            if rendered.drops_tools:
                without = tokenizer.apply_chat_template(
                    sent[:k], chat_template=source, add_generation_prompt=True, return_dict=False, **turn.arguments
                )
                assert without == expected, (shape, k)
            assert len(ids) == turn.num_prompt_tokens + turn.num_target_tokens
            assert int(ids[-1]) in stop_ids, (shape, k)
            num_accepted += 1
        supervised = {int(t) for span, tokens in rendered.tree.spans() if span.kind == SpanKind.ACTION for t in tokens}
        targets = {
            int(t)
            for turn in rendered.turns
            for t in rendered.tree.path(rendered.tree.sequences[turn.sequence][0])[turn.num_prompt_tokens :]
        }
        assert supervised == targets == set(np.flatnonzero(rendered.tree.action_weights()).tolist())
    print(f"{path.stem}: {num_accepted} accepted, {dict(refused)}")
