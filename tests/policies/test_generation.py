"""Batched generation, held against transformers' own `generate`, row by row."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch

from understudy.models.lora import LoraSettings, add_adapter
from understudy.models.tiny import tiny_model
from understudy.policies.generation import Continuation, Generator, Request, Sampling

VOCABULARY = 97
STOP = 5


def prompts(shared: int, lengths: tuple[int, ...], seed: int = 0) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    head = tuple(rng.randrange(6, VOCABULARY) for _ in range(shared))
    return [head + tuple(rng.randrange(6, VOCABULARY) for _ in range(n)) for n in lengths]


def model_of(architecture: str) -> Any:
    model = tiny_model(architecture, vocab_size=VOCABULARY, hidden_size=32, num_layers=2, seed=3)
    model.generation_config.eos_token_id = None
    return model.eval()


def greedy(model: Any, prompt: tuple[int, ...], num: int) -> tuple[list[int], list[float]]:
    """Generate one prompt alone with transformers; cut at the stop token."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num, do_sample=False, eos_token_id=STOP,
        pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    new = output.sequences[0, len(prompt) :].tolist()
    logprobs = [torch.log_softmax(step[0], -1)[i].item() for step, i in zip(output.logits, new, strict=True)]
    return new, logprobs


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gemma3_text", "qwen3_moe"])
@pytest.mark.parametrize("shared", [0, 40])
def test_a_batch_gives_what_each_prompt_gives_alone(architecture: str, shared: int) -> None:
    model = model_of(architecture)
    given = prompts(shared, (3, 17, 1, 9, 30))
    generator = Generator(model, frozenset({STOP}), Sampling(max_new_tokens=12))
    for _ in range(2):  # the second time with what the first one kept
        results = generator.generate([Request(prompt, 12, 0) for prompt in given])
        for prompt, result in zip(given, results, strict=True):
            ids, logprobs = greedy(model, prompt, 12)
            assert list(result.ids) == ids
            assert result.logprobs == pytest.approx(logprobs, abs=1e-4)
            assert result.is_stopped == (ids[-1] == STOP)


@pytest.mark.parametrize("has_adapter", [False, True])
def test_transformers_has_nothing_to_warn_of(has_adapter: bool) -> None:
    model = model_of("qwen3")
    if has_adapter:
        model = add_adapter(model, LoraSettings()).eval()
    generator = Generator(model, frozenset({STOP}), Sampling())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator.generate([Request(prompt, 4, 0) for prompt in prompts(40, (3, 5))])


def test_rows_end_at_their_own_limits_and_stop_tokens() -> None:
    model = model_of("qwen3")
    given = prompts(20, (4,) * 8)
    whole = Generator(model, frozenset(), Sampling()).generate([Request(p, 10, 0) for p in given])
    stops = {result.ids[3] for result in whole}
    results = Generator(model, frozenset(stops), Sampling()).generate(
        [Request(prompt, 1 + n, 0) for n, prompt in enumerate(given)]
    )
    for n, (result, full) in enumerate(zip(results, whole, strict=True)):
        end = next((i for i, token in enumerate(full.ids) if token in stops), 10) + 1
        assert result.ids == full.ids[: min(end, 1 + n)]
        assert result.is_stopped == (result.ids[-1] in stops)


def test_what_is_kept_of_a_shared_beginning_follows_the_prompts() -> None:
    model = model_of("qwen3")
    generator = Generator(model, frozenset({STOP}), Sampling(max_new_tokens=4))
    for shared, seed in ((30, 0), (60, 0), (20, 0), (30, 1), (0, 2), (30, 0)):
        given = prompts(shared, (2, 5), seed)
        for prompt, result in zip(given, generator.generate([Request(p, 4, 0) for p in given]), strict=True):
            assert list(result.ids) == greedy(model, prompt, 4)[0]


def test_new_weights_are_used_after_forgetting() -> None:
    model = model_of("qwen3")
    given = prompts(30, (2, 5))
    generator = Generator(model, frozenset({STOP}), Sampling(max_new_tokens=6))
    generator.generate([Request(p, 6, 0) for p in given])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    generator.forget()
    for prompt, result in zip(given, generator.generate([Request(p, 6, 0) for p in given]), strict=True):
        assert list(result.ids) == greedy(model, prompt, 6)[0]


def test_a_draw_depends_on_its_seed_and_not_on_its_batch() -> None:
    model = model_of("qwen3")
    (prompt,) = prompts(0, (20,))
    generator = Generator(model, frozenset(), Sampling(temperature=1.0))
    alone = [generator.generate([Request(prompt, 8, seed)])[0].ids for seed in range(4)]
    together = [result.ids for result in generator.generate([Request(prompt, 8, seed) for seed in range(4)])]
    assert alone == together
    assert len(set(alone)) == 4


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(temperature=0.7), VOCABULARY),
        (Sampling(temperature=1.0, top_k=5), 5),
        (Sampling(temperature=1.0, top_p=0.1), None),
    ],
)
def test_draws_have_the_frequencies_that_the_model_gives(sampling: Sampling, allowed: int | None) -> None:
    model = model_of("qwen3")
    (prompt,) = prompts(0, (20,))
    num = 4000
    generator = Generator(model, frozenset(), sampling)
    found = generator.generate([Request(prompt, 1, seed) for seed in range(num)])
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].double()
    expected = (logits / sampling.temperature).softmax(-1)
    order = expected.argsort(descending=True)
    if allowed is None:
        allowed = int((expected[order].cumsum(0) - expected[order] < sampling.top_p).sum())
    expected[order[allowed:]] = 0
    expected /= expected.sum()
    counts = torch.bincount(torch.tensor([result.ids[0] for result in found]), minlength=VOCABULARY).double()
    assert counts[expected == 0].sum() == 0
    deviation = (expected * (1 - expected) / num).sqrt() + 1e-9
    assert ((counts / num - expected).abs() < 5 * deviation + 1e-3).all()
    raw = torch.log_softmax(logits, -1)
    assert [result.logprobs[0] for result in found[:50]] == pytest.approx(
        [raw[result.ids[0]].item() for result in found[:50]], abs=1e-4
    )


def test_the_model_is_left_in_the_mode_that_it_was_in() -> None:
    model = model_of("qwen3").train()
    Generator(model, frozenset(), Sampling()).generate([Request((7, 8, 9), 2, 0)])
    assert model.training


def test_requests_may_end_at_tokens_of_their_own() -> None:
    generator = Generator(model_of("qwen3"), frozenset(), Sampling(max_new_tokens=8))
    (prompt,) = prompts(0, (20,))
    (whole,) = generator.generate([Request(prompt, 8, 0)])
    end = next(token for token in whole.ids[1:] if token != whole.ids[0])
    first = whole.ids.index(end)
    ended, other = generator.generate([Request(prompt, 8, 0, frozenset({end})), Request(prompt, 8, 0)])
    assert (ended.ids, ended.is_stopped) == (whole.ids[: first + 1], True)
    assert (other.ids, other.is_stopped) == (whole.ids, False)


@pytest.mark.parametrize("architecture", ["qwen3", "mistral"])
def test_the_likelihood_of_a_continuation_is_the_sum_of_its_tokens_log_probabilities(architecture: str) -> None:
    model = model_of(architecture)
    generator = Generator(model, frozenset(), Sampling(max_new_tokens=7))
    given = prompts(16, (20, 33, 5))
    written = generator.generate([Request(prompt, 3 + n, 0) for n, prompt in enumerate(given)])
    pairs = [Continuation(prompt, one.ids) for prompt, one in zip(given, written, strict=True)]
    found = generator.log_likelihoods(pairs)
    assert found == pytest.approx([sum(one.logprobs) for one in written], abs=1e-4)
    with torch.no_grad():
        ids = torch.tensor([given[1] + written[1].ids])
        logprobs = torch.log_softmax(model(ids).logits[0].double(), -1)
    expected = sum(logprobs[len(given[1]) - 1 + n, token].item() for n, token in enumerate(written[1].ids))
    assert found[1] == pytest.approx(expected, abs=1e-4)
