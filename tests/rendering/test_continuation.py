"""The ways in which a turn's text is found after the server's prompt, and the reasons for which it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.rendering.conversation_shapes import PARIS, PARIS_RESULT, assistant, system, user
from tests.rendering.small_tokenizers import byte_level
from understudy.rendering import MENDS, ModelTokenizer, RefusalCode, Rendered, Renderer, ServerProfile
from understudy.types import Episode, ImagePart, Message, SampledTokens, TextPart, ToolCall, Trajectory, Turn

HISTORY = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHATML = HISTORY + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WITH_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
SWITCHED = WITH_REASONING + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
CLOSED = HISTORY + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
OPENED = HISTORY + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
CONTROLS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|user|>", "<|assistant|>", "<|observation|>")


def small(template: str) -> ModelTokenizer:
    return byte_level(*CONTROLS, template=template)


def render(tokenizer: ModelTokenizer, messages: list[dict[str, Any]], **profile: Any) -> Rendered:
    renderer = Renderer(tokenizer, ServerProfile(**profile), on_refusal="skip", verify_every=1)
    return renderer.render(Episode.from_messages(messages).trajectories[0])


def ways(rendered: Rendered) -> list[tuple[str, str | None]]:
    assert not rendered.refusals
    return [(turn.how, turn.target) for turn in rendered.turns]


def prompts(tokenizer: ModelTokenizer, rendered: Rendered) -> list[str]:
    """The decoded ids before each target."""
    return [
        tokenizer.backend.decode(
            rendered.tree.sequence_ids(turn.sequence)[: turn.num_prompt_tokens].tolist(), skip_special_tokens=False
        )
        for turn in rendered.turns
    ]


def test_a_template_that_appends_gives_the_rest_of_its_text() -> None:
    rendered = render(small(CHATML), [user("Hello"), assistant("Hi."), user("Bye"), assistant("See you.")])
    assert ways(rendered) == [("direct", "Hi.<|im_end|>"), ("direct", "See you.<|im_end|>")]


def test_qwen3_thinks_in_its_last_turns_and_forgets_it_in_history(qwen3: ModelTokenizer) -> None:
    talk = [user("1?"), assistant("1", reasoning="One."), user("2?"), assistant("2", reasoning="Two.")]
    rendered = render(qwen3, talk)
    assert ways(rendered) == [
        ("direct", "<think>\nOne.\n</think>\n\n1<|im_end|>"),
        ("direct", "<think>\nTwo.\n</think>\n\n2<|im_end|>"),
    ]
    assert "One." not in prompts(qwen3, rendered)[1]


def test_qwen3_without_reasoning_writes_an_empty_block_unless_thinking_is_off(qwen3: ModelTokenizer) -> None:
    talk = [user("1?"), assistant("1")]
    assert ways(render(qwen3, talk)) == [("direct", "<think>\n\n</think>\n\n1<|im_end|>")]
    off = render(qwen3, talk, template_arguments={"enable_thinking": False})
    assert ways(off) == [("direct", "1<|im_end|>")]
    assert prompts(qwen3, off)[0].endswith("assistant\n<think>\n\n</think>\n\n")


def test_qwen3_with_thinking_off_refuses_a_turn_that_reasons(qwen3: ModelTokenizer) -> None:
    talk = [user("1?"), assistant("1", reasoning="One.")]
    rendered = render(qwen3, talk, template_arguments={"enable_thinking": False})
    assert [refusal.code for refusal in rendered.refusals] == [RefusalCode.REASONING_AFTER_CLOSED_THINK]


def test_reasoning_inside_the_content_counts_as_reasoning(qwen3: ModelTokenizer) -> None:
    rendered = render(qwen3, [user("1?"), assistant("<think>\nOne.\n</think>\n\n1")])
    assert ways(rendered) == [("direct", "<think>\nOne.\n</think>\n\n1<|im_end|>")]


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        ("Well. <think>One.</think>1", "Well."),
        ("<think>One.</think>Perhaps 2.<think>No.</think>1", "Perhaps 2."),
        ("<think>One.</think><think>Two.</think>1", "Two."),
    ],
)
def test_what_a_template_leaves_out_around_reasoning_is_missed(qwen3: ModelTokenizer, content: str, lost: str) -> None:
    rendered = render(qwen3, [user("1?"), assistant(content)])
    assert [(refusal.code, refusal.excerpt) for refusal in rendered.refusals] == [(RefusalCode.DROPS_CONTENT, lost)]
    verbatim = render(small(CHATML), [user("1?"), assistant(content)])
    assert [turn.target for turn in verbatim.turns] == [f"{content}<|im_end|>"]


def test_a_turn_with_reasoning_switches_a_template_to_thinking_where_it_must() -> None:
    rendered = render(small(SWITCHED), [user("1?"), assistant("1", reasoning="One.")])
    assert ways(rendered) == [("direct", "<think>\nOne.\n</think>\n\n1<|im_end|>")]
    assert rendered.turns[0].arguments == {"enable_thinking": True}
    assert prompts(small(SWITCHED), rendered)[0].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("profile", [{"thinking": "fixed"}, {"template_arguments": {"enable_thinking": False}}])
def test_thinking_is_never_switched_against_the_profile(profile: dict[str, Any]) -> None:
    rendered = render(small(SWITCHED), [user("1?"), assistant("1", reasoning="One.")], **profile)
    assert [refusal.code for refusal in rendered.refusals] == [RefusalCode.REASONING_AFTER_CLOSED_THINK]


def test_after_closed_thinking_only_what_follows_the_block_is_the_models() -> None:
    tokenizer = small(CLOSED)
    rendered = render(tokenizer, [user("1?"), assistant("1"), user("2?"), assistant("2")])
    assert ways(rendered) == [
        ("header after closed thinking", "1<|im_end|>"),
        ("header after closed thinking", "2<|im_end|>"),
    ]
    assert prompts(tokenizer, rendered)[1] == (
        "<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n<|im_start|>user\n2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_after_opened_thinking_the_profile_says_how_reasoning_ends() -> None:
    talk = [user("1?"), assistant("1", reasoning="One.")]
    rendered = render(small(OPENED), talk, think_close="\n</think>\n\n")
    assert ways(rendered) == [("header after opened thinking", "One.\n</think>\n\n1<|im_end|>")]
    assert [refusal.code for refusal in render(small(OPENED), talk).refusals] == [RefusalCode.PROMPT_NOT_PREFIX]


def test_a_header_that_differs_by_white_space_before_it_is_found() -> None:
    """The prompt opens the turn after a line feed that history lacks."""
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n<|assistant|>' }}{% endif %}"
    )
    rendered = render(small(template), [user("1?"), assistant("1"), user("2?"), assistant("2")])
    assert ways(rendered) == [("header", "1<|im_end|>"), ("header", "2<|im_end|>")]
    assert prompts(small(template), rendered)[0] == "<|user|>1?<|im_end|>\n<|assistant|>"


@pytest.mark.parametrize("echo", ["<|assistant|>2<|im_end|>", "2", "<|assistant|>", "\n<|assistant|>2"])
def test_a_header_written_by_an_earlier_message_is_not_taken_for_the_turns(echo: str) -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n<|assistant|>' }}{% endif %}"
    )
    rendered = render(small(template), [user("1?"), assistant("2"), user(echo), assistant("2")])
    assert ways(rendered) == [("header", "2<|im_end|>")] * 2


def test_a_header_inside_the_message_before_is_not_the_turns_where_history_writes_another() -> None:
    template = (
        "{% for m in messages %}<|{{ 'observation' if m.role == 'assistant' else m.role }}|>{{ m.content }}"
        "{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    rendered = render(small(template), [user("Say <|assistant|>"), assistant("2")])
    assert [refusal.code for refusal in rendered.refusals] == [RefusalCode.PROMPT_NOT_PREFIX]


@pytest.mark.parametrize("questions", [("same", "same"), ("x", "y", "x")])
def test_the_header_of_an_earlier_turn_is_not_taken_where_the_last_has_another(questions: tuple[str, ...]) -> None:
    template = (
        "{% for m in messages %}<|{{ 'observation' if m.role == 'assistant' and loop.last else m.role }}|>"
        "{{ m.content }}{% if loop.last %}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    talk = [message for question in questions for message in (user(question), assistant("1"))]
    rendered = render(small(template), talk)
    assert {refusal.code for refusal in rendered.refusals} == {RefusalCode.PROMPT_NOT_PREFIX}
    assert not rendered.turns


def test_a_turn_that_the_next_messages_opener_ends_takes_that_opener() -> None:
    """GLM's turns have no end token: the model stops by writing the next role."""
    template = (
        "{% for m in messages %}<|{{ 'observation' if m.role == 'tool' else m.role }}|>\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    rendered = render(
        small(template),
        [user("Paris?"), assistant("", PARIS), PARIS_RESULT, assistant("21.")],
        stop_tokens=("<|user|>", "<|observation|>"),
    )
    call_text = 'get_weather {"city": "Paris", "unit": "celsius"}'
    assert ways(rendered) == [("direct", call_text + "<|observation|>"), ("direct", "21.<|user|>")]


def test_a_turn_may_hold_control_tokens_that_do_not_stop() -> None:
    rendered = render(small(CHATML), [user("1?"), assistant("<think>hm</think>1<|user|>")])
    assert ways(rendered) == [("direct", "<think>hm</think>1<|user|><|im_end|>")]


@dataclass(frozen=True)
class Case:
    """A turn that must be refused, and the profile under which."""

    template: str
    turns: tuple[Turn, ...]
    profile: dict[str, Any] = field(default_factory=dict)


def answer(action: Message, *, template: str = CHATML, sampled: SampledTokens | None = None, **profile: Any) -> Case:
    return Case(template, (Turn(None, (Message("user", "1?"),), action, sampled=sampled),), profile)


ONE = Message("assistant", "1")
CALL = Message("assistant", "", tool_calls=(ToolCall("look", {"where": "here"}),))
FOREVER = "{% for a in range(10 ** 9) %}x{% endfor %}"
RAISES_AT_ONE = "{% if messages[1] and messages[1].content == '1' %}{{ raise_exception('No.') }}{% endif %}"
CASES: dict[RefusalCode, Callable[[], Case]] = {
    RefusalCode.PROMPT_NOT_PREFIX: lambda: answer(ONE, template=CHATML.replace("assistant\n", "assistant\nSo: ")),
    RefusalCode.REASONING_AFTER_CLOSED_THINK: lambda: answer(Message("assistant", "1", "One."), template=CLOSED),
    RefusalCode.DROPS_CONTENT: lambda: answer(
        ONE, template=CHATML.replace("m.content", "m.role"), stop_tokens=("<|im_end|>",)
    ),
    RefusalCode.DROPS_REASONING: lambda: answer(Message("assistant", "1", "One.")),
    RefusalCode.DROPS_TOOL_CALL: lambda: answer(CALL),
    RefusalCode.NO_STOP: lambda: answer(ONE, stop_tokens=("<|observation|>",)),
    RefusalCode.TEXT_AFTER_STOP: lambda: answer(ONE, template=CHATML.replace("<|im_end|>", "<|im_end|>over")),
    RefusalCode.STOP_INSIDE_TURN: lambda: answer(Message("assistant", "1<|im_end|> and 2")),
    RefusalCode.TEMPLATE_RAISED: lambda: answer(ONE, template=RAISES_AT_ONE + CHATML),
    RefusalCode.TEMPLATE_TOO_LONG: lambda: answer(ONE, template=CHATML + FOREVER, stop_tokens=("<|im_end|>",)),
    RefusalCode.ARGUMENTS_NOT_JSON: lambda: answer(Message("assistant", "", tool_calls=(ToolCall("look", "{"),))),
    RefusalCode.HAS_IMAGES: lambda: Case(
        CHATML, (Turn(None, (Message("user", (TextPart("This?"), ImagePart("http://a/b.png"))),), ONE),)
    ),
    RefusalCode.LONE_SURROGATE: lambda: answer(Message("assistant", "\ud83d")),
    RefusalCode.EMPTY_CONTEXT: lambda: Case(CHATML, (Turn(None, (), ONE),)),
    RefusalCode.RECORDED_IDS_EMPTY: lambda: answer(ONE, sampled=SampledTokens((1, 2), ())),
}


@pytest.mark.parametrize("code", RefusalCode)
def test_every_refusal_has_a_case_that_reaches_it_and_a_mend(code: RefusalCode) -> None:
    case = CASES[code]()
    renderer = Renderer(small(case.template), ServerProfile(**case.profile), on_refusal="skip")
    rendered = renderer.render(Trajectory(case.turns))
    assert [(refusal.turn, refusal.code) for refusal in rendered.refusals] == [(0, code)]
    assert rendered.tree.num_tokens == 0
    refusal = rendered.refusals[0]
    assert refusal.mend == MENDS[code]
    assert str(refusal).startswith(f"turn 0: {code}: {refusal.reason}")
    assert str(refusal).endswith(f"(mend: {refusal.mend})")


def test_a_refusal_shows_the_text_where_it_went_wrong() -> None:
    case = CASES[RefusalCode.STOP_INSIDE_TURN]()
    (refusal,) = Renderer(small(case.template), on_refusal="skip").render(Trajectory(case.turns)).refusals
    assert refusal.excerpt == "1<|im_end|> and 2<|im_end|>"
    case = CASES[RefusalCode.TEMPLATE_RAISED]()
    (refusal,) = Renderer(small(case.template), on_refusal="skip").render(Trajectory(case.turns)).refusals
    assert "No." in refusal.reason


def test_white_space_around_a_content_may_differ_but_nothing_else() -> None:
    template = CHATML.replace("m.content", "m.content.strip()")
    assert ways(render(small(template), [user("1?"), assistant(" 1\n")])) == [("direct", "1<|im_end|>")]
    template = CHATML.replace("m.content", "m.content.replace('  ', ' ')")
    rendered = render(small(template), [system("Be  brief."), user("1?"), assistant("1  2")])
    assert [refusal.code for refusal in rendered.refusals] == [RefusalCode.DROPS_CONTENT]
