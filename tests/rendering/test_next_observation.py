"""What stands before an observation that is to be written is what stood before it in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.rendering.chatml import CHATML, small, talk
from tests.rendering.conversation_shapes import PARIS, PARIS_RESULT, ROME, ROME_RESULT, SHAPES, TOOLS, assistant, user
from understudy.errors import RenderError
from understudy.models.tiny import train_tokenizer
from understudy.rendering import ModelTokenizer, Renderer, from_transformers, load_tokenizer, next_observation
from understudy.types import Message, SpanKind, Trajectory

REAL = ("Qwen-Qwen3-0.6B__llamacpp", "Qwen3-Coder__llamacpp", "MiMo-VL__llamacpp", "HuggingFaceTB-SmolLM3-3B__llamacpp")
"""Templates whose control tokens are all in Qwen3's vocabulary."""


def compare(tokenizer: ModelTokenizer, trajectory: Trajectory) -> int:
    """Hold every observation that follows an action against its span in the token tree; return how many there are."""
    renderer = Renderer(tokenizer, observations=True, on_refusal="skip")
    rendered = renderer.render(trajectory)
    num = 0
    for number, (_, spans) in enumerate(rendered.tree.sequences):
        ids = rendered.tree.sequence_ids(number).tolist()
        for span in (span for span in spans if span.kind == SpanKind.OBSERVATION):
            turn = trajectory.turns[span.turn]
            assert turn.parent is not None
            if trajectory.turns[turn.parent].action is None:
                continue
            expected = turn.observation[span.message]
            before = [*trajectory.messages(turn.parent), *turn.observation[: span.message]]
            found = next_observation(renderer, before, trajectory.tools(), replace(expected, content=""))
            own = ids[span.start : span.stop]
            assert list(found.prompt_ids) == ids[: span.start]
            assert found.end_id == own[-1]
            text = tokenizer.backend.decode(own[:-1], skip_special_tokens=False)
            assert found.content(text) == expected.text().strip()
            num += 1
    return num


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"white space"}))  # what is written has none around it
def test_a_tiny_model_is_asked_as_it_was_trained(shape: str) -> None:
    messages, tools = SHAPES[shape]
    tokenizer = from_transformers(train_tokenizer(["Weather in Paris?"] * 9, vocab_size=300), name="tiny")
    compare(tokenizer, talk(*messages, tools=tools or ()))


@pytest.mark.parametrize("template", REAL)
def test_a_model_with_a_real_template_is_asked_as_it_was_trained(template: str, test_data: Path) -> None:
    file = test_data / "templates" / f"{template}.jinja"
    tokenizer = load_tokenizer(test_data / "tokenizers" / "qwen3", chat_template=str(file))
    shapes = ("plain", "tools", "system and tools", "parallel calls", "trailing user", "unicode", "inline reasoning")
    found = {shape: compare(tokenizer, talk(*SHAPES[shape][0], tools=SHAPES[shape][1] or ())) for shape in shapes}
    assert found["parallel calls"] >= 2
    assert sum(found.values()) >= 8


def test_results_of_several_calls_are_written_one_after_the_other() -> None:
    renderer = Renderer(small())
    before = talk(user("Both?"), assistant("", PARIS, ROME), PARIS_RESULT, ROME_RESULT, tools=TOOLS).messages()
    first, second = (next_observation(renderer, before[:n], (), before[n]) for n in (2, 3))
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert first.end_id == second.end_id == small().backend.token_to_id("<|im_end|>")


@pytest.mark.parametrize(
    ("written", "opening", "closing", "text"),
    [
        ("{{ m.content }}", "", "", "It is 21."),
        ("Observation: {{ m.content }}", " ", "", " It is 21."),
        ("{{ m.content }}\n</result>", "", "\n</result>", "It is 21.\n</result>"),
    ],
    ids=["no other text", "a space in the first token", "a closing tag"],
)
def test_the_templates_own_text_is_no_content(written: str, opening: str, closing: str, text: str) -> None:
    template = CHATML.replace("{{ m.content }}", written)
    learnt = train_tokenizer(['Observation: qz "seen"'] * 99, vocab_size=300, chat_template=template)
    renderer = Renderer(from_transformers(learnt, name="tiny"))
    found = next_observation(renderer, [Message("user", "?"), Message("assistant", "x")], (), Message("user", ""))
    assert (found.opening, found.closing) == (opening, closing)
    assert found.content(text) == "It is 21."


def refused(template: str) -> str:
    with pytest.raises(RenderError) as caught:
        next_observation(
            Renderer(small(template)), [Message("user", "?"), Message("assistant", "x")], (), Message("user", "")
        )
    return str(caught.value)


def test_templates_that_rewrite_or_hide_contents_are_refused() -> None:
    def only(change: str) -> str:
        return CHATML.replace("{{ m.content }}", change)

    assert "rewrites the content of a user message" in refused(only("{{ m.content | tojson }}"))
    assert "does not show where the content" in refused(only("{{ m.content | reverse if m.role == 'user' else '' }}"))
    forbidding = "{% if m.role == 'user' and not loop.first %}{{ raise_exception('no') }}{% endif %}{{ m.content }}"
    assert "cannot be rendered" in refused(only(forbidding))


def test_a_template_without_an_end_says_so() -> None:
    template: Any = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    found = next_observation(
        Renderer(small(template)), [Message("user", "?"), Message("assistant", "x")], (), Message("user", "")
    )
    assert found.end_id is None
