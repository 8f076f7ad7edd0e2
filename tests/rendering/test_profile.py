"""What the server's profile does to messages before the template sees them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rendering.chatml import CHATML, sequences, small, talk
from tests.rendering.conversation_shapes import assistant, user
from understudy.errors import RenderError
from understudy.rendering import ModelTokenizer, RefusalCode, Renderer, ServerProfile
from understudy.types import (
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    Trajectory,
    Turn,
)


def prompt_of(trajectory: Trajectory, template: str = CHATML, **profile: Any) -> str:
    """The prompt of the last turn, through the tokens."""
    tokenizer = small(template)
    return sequences(tokenizer, Renderer(tokenizer, ServerProfile(**profile)).render(trajectory))[-1][0]


SHOWS = CHATML.replace("{{ m.content }}", "{{ '(absent)' if m.content is not defined else m.content }}")


@pytest.mark.parametrize(("null_content", "shown"), [("empty", ""), ("null", "None"), ("absent", "(absent)")])
def test_absent_content_becomes_what_the_profile_says(null_content: str, shown: str) -> None:
    trajectory = Trajectory((Turn(None, (Message("user", None),), Message("assistant", "1")),))
    prompt = prompt_of(trajectory, SHOWS, null_content=null_content)
    assert prompt.startswith(f"<|im_start|>user\n{shown}<|im_end|>")


def test_content_parts_are_joined_or_kept() -> None:
    parts = (TextPart("one"), TextPart("two"))
    trajectory = Trajectory((Turn(None, (Message("user", parts),), Message("assistant", "1")),))
    assert "user\none\ntwo<" in prompt_of(trajectory)
    lists = CHATML.replace(
        "{{ m.content }}",
        "{% if m.content is string %}{{ m.content }}"
        "{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}",
    )
    assert "[one][two]" in prompt_of(trajectory, lists, content_parts="keep")


def test_reasoning_parts_become_the_reasoning(qwen3: ModelTokenizer) -> None:
    action = Message("assistant", (ReasoningPart("One."), TextPart("1")))
    rendered = Renderer(qwen3).render(Trajectory((Turn(None, (Message("user", "1?"),), action),)))
    assert rendered.turns[0].target == "<think>\nOne.\n</think>\n\n1<|im_end|>"


@pytest.mark.parametrize("text", ["Two.", "One. "])
def test_two_different_reasonings_of_a_message_are_refused(qwen3: ModelTokenizer, text: str) -> None:
    action = Message("assistant", (ReasoningPart(text), TextPart("1")), reasoning_content="One.")
    trajectory = Trajectory((Turn(None, (Message("user", "1?"),), action),))
    rendered = Renderer(qwen3, on_refusal="skip").render(trajectory)
    codes = [refusal.code for refusal in rendered.refusals]
    assert codes == ([RefusalCode.DROPS_REASONING] if text == "Two." else [])


CALLS = CHATML.replace(
    "{{ m.content }}", "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}ARGUMENTS{% endfor %}"
)
PRINTS_OBJECTS = CALLS.replace(
    "ARGUMENTS", "{% for k, v in c.function.arguments.items() %}|{{ k }}={{ v }}{% endfor %}"
)
PRINTS_TEXT = CALLS.replace("ARGUMENTS", "{{ '|' + c.function.arguments }}")
PRINTS_BOTH = CALLS.replace(
    "ARGUMENTS", "|{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}"
)


@pytest.mark.parametrize(
    ("template", "settled"),
    [(PRINTS_OBJECTS, "object"), (PRINTS_TEXT, "text"), (PRINTS_BOTH, "object"), (CHATML, "object")],
)
def test_the_template_is_asked_how_it_wants_arguments(template: str, settled: str) -> None:
    assert Renderer(small(template)).profile.tool_arguments == settled


def test_arguments_are_given_as_objects_or_verbatim_as_text() -> None:
    call = ToolCall("look", '{"where":   "here"}')
    trajectory = Trajectory((Turn(None, (Message("user", "?"),), Message("assistant", "", tool_calls=(call,))),))
    targets = {}
    for form in ("object", "text"):
        tokenizer = small(PRINTS_BOTH)
        targets[form] = Renderer(tokenizer, ServerProfile(tool_arguments=form)).render(trajectory).turns[0].target
    assert targets == {
        "object": 'look|{"where": "here"}<|im_end|>',
        "text": 'look|{"where":   "here"}<|im_end|>',
    }


@pytest.mark.parametrize("arguments", ["{where", '{"a": ' * 100_000], ids=["no JSON", "nested too deeply"])
def test_arguments_that_are_not_json_are_refused_as_objects_and_fine_as_text(arguments: str) -> None:
    call = ToolCall("look", arguments)
    trajectory = Trajectory((Turn(None, (Message("user", "?"),), Message("assistant", "", tool_calls=(call,))),))
    rendered = Renderer(small(PRINTS_BOTH), on_refusal="skip").render(trajectory)
    assert [(refusal.code, refusal.excerpt) for refusal in rendered.refusals] == [
        (RefusalCode.ARGUMENTS_NOT_JSON, arguments[:80])
    ]
    rendered = Renderer(small(PRINTS_BOTH), ServerProfile(tool_arguments="text")).render(trajectory)
    assert rendered.turns[0].target == f"look|{arguments}<|im_end|>"


def test_template_arguments_reach_the_template() -> None:
    template = "{{ greeting | default('none') }}" + CHATML
    assert prompt_of(talk(user("1?"), assistant("1")), template, template_arguments={"greeting": "Hi"}).startswith(
        "Hi<"
    )


def test_the_clock_is_pinned() -> None:
    template = "{{ strftime_now('%d %B %Y, %H:%M') }}" + CHATML
    trajectory = talk(user("1?"), assistant("1"))
    assert prompt_of(trajectory, template).startswith("01 January 2025, 12:00<")
    assert prompt_of(trajectory, template, clock="2031-02-03T04:05:06").startswith("03 February 2031, 04:05<")
    assert Renderer(small(template)).reads_clock
    assert not Renderer(small()).reads_clock


def test_a_clock_that_is_no_time_is_an_error() -> None:
    with pytest.raises(RenderError, match="clock 'noon' is not an ISO 8601 time"):
        Renderer(small(), ServerProfile(clock="noon"))
