"""Tiny models and tokenizers: real code paths, small sizes, the same bits every time."""

from __future__ import annotations

import pytest
import torch

from understudy.errors import ConfigError
from understudy.models.tiny import SPECIAL_TOKENS, architectures, tiny_model, train_tokenizer
from understudy.rendering import Renderer, from_transformers
from understudy.types import Message, Tool, ToolCall, Trajectory, turns_from_messages

TEXTS = ["the cat sat on the mat", "the cat ate the rat", "héllo wörld"] * 5


@pytest.mark.parametrize("architecture", architectures())
def test_every_architecture_runs_and_its_weights_depend_on_the_seed_alone(architecture: str) -> None:
    state = torch.get_rng_state()
    first, same, other = (tiny_model(architecture, vocab_size=40, hidden_size=32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    logits = [network(input_ids=torch.arange(20)[None]).logits for network in (first, same, other)]
    assert logits[0].shape == (1, 20, 40)
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_sizes_and_any_key_of_the_config_can_be_set() -> None:
    network = tiny_model("mistral", vocab_size=40, hidden_size=48, num_layers=3, num_heads=6, sliding_window=5)
    config = network.config
    assert (config.hidden_size, config.num_hidden_layers, config.sliding_window) == (48, 3, 5)
    assert tiny_model("qwen3", vocab_size=40, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_start_as_large_as_the_width_asks_for_unless_told_otherwise() -> None:
    for given, expected in (({}, 1 / 8), ({"initializer_range": 0.02}, 0.02)):
        network = tiny_model("qwen3", vocab_size=500, hidden_size=64, **given)
        assert network.get_input_embeddings().weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("architecture", "sizes", "message"),
    [
        ("qwem3", {}, "Did you mean 'qwen3'"),
        ("qwen3", {"hidden_size": 30}, "multiple of num_heads"),
        ("qwen3", {"hidden_size": 12}, "multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused(architecture: str, sizes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_model(architecture, vocab_size=40, **sizes)


def test_a_trained_tokenizer_encodes_any_text_and_keeps_special_tokens_whole() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    text = "<|im_start|>user\nthe cat 猫<|im_end|>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert len(tokenizer) <= 300
    assert len(tokenizer("the cat sat")["input_ids"]) < len("the cat sat")
    assert tokenizer.get_vocab() == train_tokenizer(TEXTS, vocab_size=300).get_vocab()


def test_a_tokenizer_is_trained_on_texts_with_half_of_a_utf16_pair_too() -> None:
    with_half, replaced = (train_tokenizer([*TEXTS, text], vocab_size=300) for text in ("half \ud83d", "half ?"))
    assert with_half.get_vocab() == replaced.get_vocab()


def test_a_vocabulary_that_cannot_hold_all_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="bytes and special tokens"):
        train_tokenizer(TEXTS, vocab_size=200)
    with pytest.raises(ConfigError, match="stop token"):
        train_tokenizer(TEXTS, vocab_size=300, stop_token="</s>")


def test_our_chat_template_prints_all_there_is_and_every_turn_renders_exactly() -> None:
    messages = [
        Message("system", "be brief"),
        Message("user", "weather?"),
        Message(
            "assistant", "let me see", "I should look", (ToolCall("look", {"city": "Rome"}), ToolCall("sit", "{}"))
        ),
        Message("tool", "sunny", tool_call_id="1"),
        Message("assistant", "sunny"),
        Message("user", "bye"),
    ]
    tool = Tool.from_openai({"name": "look", "parameters": {"type": "object"}})
    renderer = Renderer(from_transformers(train_tokenizer(TEXTS, vocab_size=300), name="tiny"), observations=True)
    rendered = renderer.render(Trajectory(turns_from_messages(messages, tools=[tool])))
    tree = rendered.tree
    assert not rendered.refusals
    assert int(tree.depth.max()) + 1 == tree.num_tokens, "every message is always printed in the same way"
    text = renderer.tokenizer.backend.decode(tree.ids.tolist(), skip_special_tokens=False)
    for part in ("be brief", '"look"', "I should look", '{"city": "Rome"}', '"sit", "arguments": {}', "sunny"):
        assert part in text
    trained = renderer.tokenizer.backend.decode(tree.ids[tree.action_weights() > 0].tolist(), skip_special_tokens=False)
    assert trained.count("<|im_end|>") == 2
    assert "weather" not in trained
