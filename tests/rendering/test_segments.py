"""Tokenising by segments gives the ids of one plain encode, for every tokenizer, or says that it does not."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from tests.rendering.small_tokenizers import byte_level, control, metaspace
from understudy.errors import RenderError
from understudy.rendering import ModelTokenizer
from understudy.rendering.segments import SegmentTokenizer, common_prefix_length

WORDS = [
    "a",
    "hi",
    "Hello there",
    " ",
    "  \n",
    "\n\n",
    "12345",
    "é\u0301",
    "写诗🙂",
    "<",
    "|>",
    "<|",
    "def f(x):\n\treturn x",
]


def texts_with(controls: list[str]) -> st.SearchStrategy[str]:
    """Texts made of words, arbitrary characters, control tokens, and control tokens cut short."""
    cut = st.sampled_from(controls).flatmap(lambda token: st.integers(1, len(token)).map(lambda n: token[:n]))
    pieces = (
        st.sampled_from(WORDS) | st.sampled_from(controls) | cut | st.text(st.characters(codec="utf-8"), max_size=8)
    )
    return st.lists(pieces, max_size=12).map("".join)


def growing(controls: list[str]) -> st.SearchStrategy[list[str]]:
    """Texts that begin like one another, as the prompts of a conversation do."""
    parts = st.lists(texts_with(controls), min_size=1, max_size=5)
    return parts.flatmap(
        lambda parts: st.lists(st.integers(1, len(parts)).map(lambda n: "".join(parts[:n])), min_size=1, max_size=6)
    )


def plain(tokenizer: ModelTokenizer, text: str) -> list[int]:
    return tokenizer.backend.encode(text, add_special_tokens=False).ids


QWEN3 = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "<|endoftext|>"]
DEEPSEEK = ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "<｜"]


@settings(max_examples=150)
@given(texts=growing(QWEN3))
def test_qwen3_gets_the_ids_of_plain_encodes(qwen3: ModelTokenizer, texts: list[str]) -> None:
    segments = SegmentTokenizer(qwen3, verify_every=10**9)
    assert segments.cuts_at_added_tokens
    for text in texts:
        assert segments.encode(text).tolist() == plain(qwen3, text)


@settings(max_examples=150)
@given(texts=growing(DEEPSEEK))
def test_deepseek_v3_gets_the_ids_of_plain_encodes(deepseek_v3: ModelTokenizer, texts: list[str]) -> None:
    segments = SegmentTokenizer(deepseek_v3, verify_every=10**9)
    for text in texts:
        assert segments.encode(text).tolist() == plain(deepseek_v3, text)


SMALL = {
    "prepend first": lambda: metaspace("<s>", "<|user|>", "<|u"),
    "prepend always": lambda: metaspace("<s>", "<|user|>", prepend_scheme="always"),
    "prepend never": lambda: metaspace("<s>", "<|user|>", prepend_scheme="never"),
    "strips on the right": lambda: metaspace(control("<s>", rstrip=True), "<|user|>"),
    "strips on the left": lambda: metaspace(control("<s>", lstrip=True), "<|user|>"),
    "stands alone": lambda: metaspace(control("<s>", single_word=True), "<|user|>"),
    "normalised": lambda: metaspace(
        control("<s>", normalized=True), "<|user|>", normalizer=normalizers.Sequence([normalizers.Lowercase()])
    ),
    "normaliser beside": lambda: metaspace("<s>", "<|user|>", normalizer=normalizers.Replace("ab", "a")),
    "nothing added": metaspace,
}
CUTS = {"prepend first", "prepend always", "prepend never", "normaliser beside"}


@pytest.mark.parametrize("rules", SMALL)
def test_small_tokenizers_of_every_rule_get_the_ids_of_plain_encodes(rules: str) -> None:
    tokenizer = SMALL[rules]()
    assert SegmentTokenizer(tokenizer).cuts_at_added_tokens == (rules in CUTS)

    @settings(max_examples=60)
    @given(texts=growing(["<s>", "<|user|>", "<|u", "<S>", " <s> "]))
    def check(texts: list[str]) -> None:
        segments = SegmentTokenizer(tokenizer, verify_every=10**9)
        for text in texts:
            assert segments.encode(text).tolist() == plain(tokenizer, text)

    check()


def test_an_added_token_that_grows_into_a_longer_one_is_not_reused() -> None:
    tokenizer = byte_level("<|u", "<|user|>")
    segments = SegmentTokenizer(tokenizer, verify_every=10**9)
    for text in ("a<s>", "b", "a<|u", "a<|user|>", "a<|u"):
        assert segments.encode(text).tolist() == plain(tokenizer, text)


def test_only_the_first_segment_gets_the_leading_space() -> None:
    tokenizer = metaspace("<s>")
    vocabulary = tokenizer.backend.get_vocab()
    assert SegmentTokenizer(tokenizer).encode("hi<s>hi").tolist() == [
        vocabulary["▁hi"], vocabulary["<s>"], vocabulary["h"], vocabulary["i"]
    ]  # fmt: skip


@settings(max_examples=80)
@given(prompt=texts_with(QWEN3), target=texts_with(QWEN3))
def test_the_prompt_keeps_its_ids_whatever_follows(qwen3: ModelTokenizer, prompt: str, target: str) -> None:
    prompt_ids, target_ids = SegmentTokenizer(qwen3).encode_continuation(prompt, target)
    assert prompt_ids.tolist() == plain(qwen3, prompt)
    joint = plain(qwen3, prompt + target)
    continues = joint[: len(prompt_ids)] == prompt_ids.tolist()
    assert target_ids.tolist() == (joint[len(prompt_ids) :] if continues else plain(qwen3, target))


def test_a_target_is_encoded_alone_where_a_token_would_span_the_seam(qwen3: ModelTokenizer) -> None:
    prompt, target = "<|im_start|>assistant\n\n", "\nHello<|im_end|>"
    assert plain(qwen3, prompt + target)[: len(plain(qwen3, prompt))] != plain(qwen3, prompt)
    prompt_ids, target_ids = SegmentTokenizer(qwen3).encode_continuation(prompt, target)
    assert (prompt_ids.tolist(), target_ids.tolist()) == (plain(qwen3, prompt), plain(qwen3, target))


def test_a_target_alone_gets_no_leading_space_of_a_first_segment() -> None:
    tokenizer = metaspace("<s>")
    prompt_ids, target_ids = SegmentTokenizer(tokenizer).encode_continuation("<s>a", "b<s>")
    vocabulary = tokenizer.backend.get_vocab()
    assert prompt_ids.tolist() == [vocabulary["<s>"], vocabulary["a"]]
    assert target_ids.tolist() == [vocabulary["b"], vocabulary["<s>"]]


def test_ids_of_segments_that_differ_from_a_plain_encode_raise() -> None:
    segments = SegmentTokenizer(byte_level("<s>"), verify_every=1)
    segments.encode("a<s>b<s>")
    segments._remembered["b"] = np.array([7, 7], np.int32)
    with pytest.raises(RenderError, match="differ from the ids of its segments"):
        segments.encode("<s>b<s>")


def test_one_text_in_so_many_is_verified() -> None:
    segments = SegmentTokenizer(byte_level("<s>"), verify_every=4)
    for text in ("<s>b", "<s>bb"):
        segments.encode(text)
    segments._remembered["b"] = np.array([7], np.int32)
    segments.encode("b<s>")  # the third text: not held against a plain encode
    with pytest.raises(RenderError):
        segments.encode("b<s><s>b")


def oracle_range(tokenizer: ModelTokenizer, text: str, start: int, stop: int) -> tuple[int, int] | None:
    """The tokens of a plain encode that hold any of the characters, by its own offsets."""
    offsets = tokenizer.backend.encode(text, add_special_tokens=False).offsets
    inside = [n for n, (a, b) in enumerate(offsets) if max(a, start) < min(b, stop)]
    return (inside[0], inside[-1] + 1) if inside else None


@settings(max_examples=100)
@given(text=texts_with(QWEN3), data=st.data())
def test_token_ranges_are_those_of_the_tokenizers_own_offsets(
    qwen3: ModelTokenizer, text: str, data: st.DataObject
) -> None:
    # Offsets into normalised text are the tokenizer's guess, in pieces as in one.
    assume(unicodedata.is_normalized("NFC", text))
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    assert SegmentTokenizer(qwen3).token_range(text, start, stop) == oracle_range(qwen3, text, start, stop)


@pytest.mark.parametrize("rules", ["prepend first", "strips on the right", "nothing added"])
def test_token_ranges_hold_for_tokenizers_of_other_rules(rules: str) -> None:
    tokenizer = SMALL[rules]()
    segments = SegmentTokenizer(tokenizer)
    text = "hi ab<s> hi<|user|>ab hi"
    for start in range(len(text) + 1):
        for stop in range(start, len(text) + 1):
            assert segments.token_range(text, start, stop) == oracle_range(tokenizer, text, start, stop), (start, stop)


@given(a=st.text("ab", max_size=30), b=st.text("ab", max_size=30), scale=st.sampled_from([0, 4095, 4096, 20_000]))
def test_the_common_prefix_is_as_long_as_comparing_characters_says(a: str, b: str, scale: int) -> None:
    a, b = "x" * scale + a, "x" * scale + b
    expected = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix_length(a, b) == expected


def test_half_of_a_utf16_pair_is_counted_and_encoded_by_nobody() -> None:
    tokenizer = byte_level()
    assert tokenizer.encode("half \ud83d") == tokenizer.encode("half ?")
    with pytest.raises(TypeError):
        SegmentTokenizer(tokenizer).encode("half \ud83d")
