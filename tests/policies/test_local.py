"""The local policy: exact prompts, recorded ids, calls in the template's own syntax, many episodes at once."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from understudy.collect import Play, play_all
from understudy.environments import Observation
from understudy.environments.math import Math
from understudy.errors import ConfigError, PolicyError
from understudy.models.lora import LoraSettings, add_adapter
from understudy.models.tiny import tiny_model, train_tokenizer
from understudy.policies import Context, ContextLengthExceeded, EpisodeStart
from understudy.policies.generation import Generated, Request
from understudy.policies.local import LocalPolicy
from understudy.policies.local_model import Batcher
from understudy.rendering import Renderer, from_transformers
from understudy.types import Episode, Message, Tool

CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "1 + 2"}}</tool_call>'


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = ["Solve the problem. Compute 1 + 2. The answer is 3.", CALL, "think user tool system assistant"] * 20
    return from_transformers(train_tokenizer(texts, vocab_size=400), name="tiny")


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny_model("qwen3", vocab_size=tokenizer.backend.get_vocab_size(), hidden_size=32, num_layers=2)


def test_a_model_that_cannot_be_loaded_ends_the_collection_and_not_one_episode_after_another(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot load a tokenizer"):
        play(LocalPolicy(str(tmp_path)), 3)


def play(policy: LocalPolicy, num: int, **options: Any) -> list[Episode]:
    tasks = Math().tasks("train")
    episodes: list[Episode] = []
    which = [Play(id=str(i), task=tasks[i]) for i in range(num)]
    asyncio.run(play_all(which, Math, {"agent": policy}, episodes.append, concurrency=num, **options))
    return sorted(episodes, key=lambda episode: int(episode.id))


class Scripted:
    """Stands in for the model's weights: writes given texts, so that what is around the weights can be looked at."""

    def __init__(self, tokenizer: Any, *texts: str, stops: bool = True) -> None:
        self.tokenizer = tokenizer
        self.texts = list(texts)
        self.stops = stops
        self.batches: list[int] = []

    def generate(self, requests: list[Request]) -> list[Generated]:
        self.batches.append(len(requests))
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        ids = self.tokenizer.encode(text + "<|im_end|>" * self.stops)
        return [Generated(tuple(ids), (0.0,) * len(ids), self.stops) for _ in requests]


def scripted(model: Any, tokenizer: Any, *texts: str, stops: bool = True, **arguments: Any) -> LocalPolicy:
    policy = LocalPolicy.of(model, tokenizer, **arguments)
    policy._model._now.generating._answer = Scripted(tokenizer, *texts, stops=stops).generate
    return policy


def act(policy: LocalPolicy, *messages: Message, tools: tuple[Tool, ...] = ()) -> Any:
    shown = messages or (Message("user", "Compute 1 + 2."),)
    return asyncio.run(policy.act(Context(shown, tools, Observation(shown), 0, 0)))


def test_episodes_carry_ids_that_training_takes_over_exactly(model: Any, tokenizer: Any) -> None:
    policy = LocalPolicy.of(model, tokenizer, max_new_tokens=8, temperature=1.0)
    episodes = play(policy, 6, max_turns=3)
    renderer = Renderer(tokenizer, audit=True)
    for episode in episodes:
        assert episode.error is None
        rendered = renderer.render(episode.trajectories[0])
        turns = [turn for turn in episode.trajectories[0].turns if turn.action is not None]
        for turn, done in zip(turns, rendered.turns, strict=True):
            assert turn.sampled is not None
            assert turn.sampled.logprobs is not None
            assert len(turn.sampled.logprobs) == len(turn.sampled.output_ids)
            ids = rendered.tree.sequence_ids(done.sequence).tolist()
            assert ids == [*turn.sampled.prompt_ids, *turn.sampled.output_ids]
            assert turn.annotations["usage"]["prompt_tokens"] == len(turn.sampled.prompt_ids)


def test_the_prompt_has_the_ids_of_transformers_own_template(model: Any, tokenizer: Any) -> None:
    episode = play(scripted(model, tokenizer, CALL, "The answer is 3."), 1)[0]
    hf = train_tokenizer(["x"], vocab_size=300)
    trajectory = episode.trajectories[0]
    hf = type(hf)(tokenizer_object=tokenizer.backend, chat_template=hf.chat_template)
    for k, turn in enumerate(trajectory.turns):
        messages = [message.to_openai() for message in trajectory.messages(k)[:-1]]
        expected = hf.apply_chat_template(
            messages,
            tools=[tool.definition for tool in trajectory.tools()],
            add_generation_prompt=True,
            return_dict=False,
        )
        assert turn.sampled is not None
        assert list(turn.sampled.prompt_ids) == expected


def test_calls_and_answers_are_understood(model: Any, tokenizer: Any) -> None:
    episodes = play(scripted(model, tokenizer, "I compute." + CALL, "The answer is 3."), 3)
    for episode in episodes:
        first, second = episode.trajectories[0].turns
        assert first.action is not None
        assert (first.action.content, first.action.tool_calls[0].name) == ("I compute.", "calculator")
        assert first.action.tool_calls[0].arguments == {"expression": "1 + 2"}
        assert second.observation[0].text() == "3"
        assert second.action == Message("assistant", "The answer is 3.")
        assert second.annotations["finish_reason"] == "stop"


def test_reasoning_is_kept_apart(model: Any, tokenizer: Any) -> None:
    action = act(scripted(model, tokenizer, "<think>hm</think>yes"))
    assert action.message == Message("assistant", "yes", reasoning_content="hm")


def test_an_output_that_was_cut_off_says_so(model: Any, tokenizer: Any) -> None:
    action = act(scripted(model, tokenizer, CALL[:40], stops=False), tools=Math().tools)
    assert action.annotations["finish_reason"] == "length"
    assert action.message == Message("assistant", CALL[:40])


def test_episodes_are_generated_together(model: Any, tokenizer: Any) -> None:
    policy = scripted(model, tokenizer, CALL, CALL, CALL, "The answer is 3.", max_batch_size=4)
    play(policy, 12)
    batches = policy._model._now.generating._answer.__self__.batches  # type: ignore[attr-defined]
    assert batches == [4] * 6


def test_a_seed_and_a_greedy_policy_give_the_same_episodes_again(model: Any, tokenizer: Any) -> None:
    for temperature in (0.0, 1.0):
        first, second = (
            play(LocalPolicy.of(model, tokenizer, max_new_tokens=6, temperature=temperature), 4, max_turns=2)
            for _ in range(2)
        )
        assert [e.trajectories[0].messages() for e in first] == [e.trajectories[0].messages() for e in second]


def test_a_prompt_that_is_too_long_is_refused_and_a_long_one_leaves_less_room(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ContextLengthExceeded):
        act(LocalPolicy.of(model, tokenizer, max_context=10), Message("user", "Compute " * 10))
    action = act(LocalPolicy.of(model, tokenizer, max_context=100, max_new_tokens=400, temperature=1.0))
    assert len(action.sampled.prompt_ids) + len(action.sampled.output_ids) <= 100


def test_what_the_template_refuses_is_an_error_of_the_policy(model: Any, tokenizer: Any) -> None:
    with pytest.raises(PolicyError, match="LONE_SURROGATE"):
        act(LocalPolicy.of(model, tokenizer), Message("user", "\ud800"))


def test_a_template_without_calls_cannot_play_with_tools(model: Any, tokenizer: Any) -> None:
    import dataclasses

    source = "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%- endfor -%}"
    silent = dataclasses.replace(tokenizer, templates={"default": source + "{{ '<|im_start|>assistant\n' }}"})
    with pytest.raises(ConfigError, match="writes no tool calls"):
        act(scripted(model, silent, "x"), tools=Math().tools)


def test_a_failing_model_ends_its_episodes_and_no_others(model: Any, tokenizer: Any) -> None:
    policy = LocalPolicy.of(model, tokenizer)
    policy._model._now.generating._answer = lambda requests: 1 / 0
    episodes = play(policy, 3)
    assert ["generation failed: ZeroDivisionError" in (episode.error or "") for episode in episodes] == [True] * 3


def test_a_request_that_nobody_waits_for_any_more_is_not_generated() -> None:
    seen: list[int] = []

    def generate(requests: Any) -> list[Generated]:
        seen.extend(request.seed for request in requests)
        return [Generated((1,), (0.0,), True) for _ in requests]

    async def run() -> None:
        batcher = Batcher(generate, 8)
        tasks = [asyncio.create_task(batcher.submit(Request((1,), 1, seed))) for seed in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert seen == [0, 2]


def test_a_model_folder_is_loaded_when_it_is_first_needed(model: Any, tokenizer: Any, tmp_path: Any) -> None:
    model.save_pretrained(tmp_path)
    hf = train_tokenizer(["x"], vocab_size=300)
    type(hf)(
        tokenizer_object=tokenizer.backend, chat_template=hf.chat_template, eos_token="<|im_end|>"
    ).save_pretrained(tmp_path)
    policy = LocalPolicy(str(tmp_path), max_new_tokens=4)
    start = EpisodeStart(Math(), "agent")
    action = act(policy.for_episode(start))  # type: ignore[arg-type]
    assert np.isfinite(action.sampled.logprobs).all()
    hf = model.__class__.from_pretrained(tmp_path)
    adapter = add_adapter(hf, LoraSettings(r=2))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 if parameter.requires_grad else 0.0)
    adapter.save_pretrained(tmp_path / "run" / "final")
    for file in tmp_path.glob("tokenizer*"):
        (tmp_path / "run" / "final" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "run" / "final" / "chat_template.jinja").write_bytes((tmp_path / "chat_template.jinja").read_bytes())
    config = tmp_path / "run" / "final" / "adapter_config.json"
    config.write_text(
        config.read_text().replace('"base_model_name_or_path": null', f'"base_model_name_or_path": "{tmp_path}"')
    )
    adapted = act(LocalPolicy(str(tmp_path / "run"), max_new_tokens=4).for_episode(start))  # type: ignore[arg-type]
    direct = LocalPolicy.of(adapter, tokenizer, max_new_tokens=4)
    assert adapted.sampled == act(direct).sampled != action.sampled
    with pytest.raises(Exception, match="/nowhere"):
        LocalPolicy("/nowhere").for_episode(start)


def test_bad_settings_are_refused() -> None:
    for arguments in ({"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}, {"profile": {"clokc": "x"}}):
        with pytest.raises(ConfigError):
            LocalPolicy("m", **arguments)
