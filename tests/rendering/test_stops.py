"""Where stop tokens come from, and where they end a turn."""

from __future__ import annotations

import dataclasses

import pytest

from tests.rendering.small_tokenizers import byte_level
from understudy.errors import RenderError
from understudy.rendering import ModelTokenizer, RefusalCode, Renderer, ServerProfile
from understudy.rendering.refusal import TurnRefused
from understudy.rendering.segments import SegmentTokenizer
from understudy.rendering.stops import StopTokens

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENERS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TWO_STOPS = CHATML.replace("<|im_end|>", "{{ '<|eot|>' if loop.last else '<|im_end|>' }}")


def tokenizer(template: str, **special: str) -> ModelTokenizer:
    added = ("<|im_start|>", "<|im_end|>", "<|eot|>", "<|user|>", "<|assistant|>", "</s>")
    return byte_level(*added, template=template, **special)


@pytest.mark.parametrize(
    ("template", "stops"),
    [(CHATML, ("<|im_end|>",)), (TWO_STOPS, ("<|eot|>", "<|im_end|>")), (OPENERS, ("<|user|>",))],
    ids=["ChatML", "another at the end", "the next message's opener"],
)
def test_without_a_generation_config_the_template_tells_its_stop_tokens(template: str, stops: tuple[str, ...]) -> None:
    assert Renderer(tokenizer(template)).stops.texts == stops


def test_a_template_that_insists_on_tools_is_asked_with_one() -> None:
    template = "{% if not tools %}{{ raise_exception('tools please') }}{% endif %}" + CHATML
    assert Renderer(tokenizer(template)).stops.texts == ("<|im_end|>",)


def test_the_end_token_stands_in_where_the_template_writes_no_control_token() -> None:
    assert Renderer(tokenizer(BARE, eos_token="</s>")).stops.texts == ("</s>",)
    assert Renderer(tokenizer(BARE)).stops.texts == ()


def test_the_generation_config_wins_over_the_template_and_the_profile_over_both() -> None:
    model = dataclasses.replace(tokenizer(CHATML), stop_tokens=("</s>", "<|im_end|>"))
    assert Renderer(model).stops.texts == ("</s>", "<|im_end|>")
    assert Renderer(model, ServerProfile(stop_tokens=("<|eot|>",))).stops.texts == ("<|eot|>",)


def test_a_stop_token_that_the_tokenizer_lacks_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(RenderError, match=r"'<\|im_ende\|>' is not a token of 'small'\. Did you mean '<\|im_end\|>'\?"):
        Renderer(tokenizer(CHATML), ServerProfile(stop_tokens=("<|im_ende|>",)))


@pytest.fixture
def stops() -> StopTokens:
    segments = SegmentTokenizer(byte_level("<end>", "<end>!", "<eot>", "<header>"))
    return StopTokens(("<end>", "<eot>"), segments)


def test_stop_tokens_are_found_within_the_given_characters(stops: StopTokens) -> None:
    assert stops.find("a<end>b<eot>") == [(1, 6), (7, 12)]
    assert stops.find("a<end>b<eot>", 2) == [(7, 12)]
    assert stops.find("a<end>b<eot>", 0, 11) == [(1, 6)]


def test_a_stop_token_inside_a_longer_control_token_is_none(stops: StopTokens) -> None:
    assert stops.find("a<end>!") == []
    assert stops.cut("a<end>!") is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a<end>", "a<end>"),
        ("a<end>\n", "a<end>"),
        ("a<end><eot>", "a<end>"),
        ("a<end>\n<header> ", "a<end>"),
        ("a<end>b<eot>\n", "a<end>b<eot>"),
        ("<end>", "<end>"),
        ("no stop", None),
        ("", None),
    ],
)
def test_a_turn_ends_with_its_stop_token_and_what_follows_is_the_servers(
    stops: StopTokens, text: str, kept: str | None
) -> None:
    assert stops.cut(text) == kept


def test_text_after_the_last_stop_token_is_refused(stops: StopTokens) -> None:
    with pytest.raises(TurnRefused) as caught:
        stops.cut("a<end>b")
    assert (caught.value.code, caught.value.excerpt) == (RefusalCode.TEXT_AFTER_STOP, "<end>b")
