"""What is taken for append-only: pieces of one render must be the prompts that single renders give.

The oracle is the template itself, rendered for every prompt on its own. A wrong proof would train on contexts that no
server computes, so templates are also made at random, from fragments of which many look ahead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.errors import RenderError
from understudy.rendering.refusal import TurnRefused
from understudy.rendering.template import ChatTemplate

CLOCK = "2025-01-01T00:00:00"
LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
GENERATION = "{% if add_generation_prompt %}[assistant]{% endif %}"


def conversation(num_messages: int = 8, *, system: bool = True, same: bool = False) -> list[dict[str, Any]]:
    roles = (["system"] if system else []) + ["user", "assistant"] * num_messages
    return [{"role": role, "content": "ok" if same else f"text {n}"} for n, role in enumerate(roles[:num_messages])]


CONVERSATIONS = [
    conversation(),
    conversation(system=False),
    conversation(same=True),
    [
        *conversation(5),
        *({"role": role, "content": f"more {role}"} for role in ("tool", "tool", "assistant", "system")),
    ],
]


def differences(template: ChatTemplate, messages: list[dict[str, Any]]) -> list[str]:
    """How the pieces of a timeline differ from single renders; nothing where there is no timeline."""
    timeline = template.timeline(messages, None)
    if timeline is None:
        return []
    out = []
    for k in range(len(messages)):
        pieces = timeline.around(k)
        if pieces is None:
            continue
        prompt = template.render(messages[:k], None, add_generation_prompt=True)
        through = template.render(messages[: k + 1], None, add_generation_prompt=False)
        if pieces != (prompt, through):
            out.append(f"{k}: {pieces} is not {(prompt, through)}")
    return out


PROVEN = {
    "plain": LOOP + GENERATION,
    "a default system prompt": "{% if messages[0].role != 'system' %}[system]default{% endif %}" + LOOP + GENERATION,
    "the system prompt apart": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{{ system }}{% for m in rest %}<{{ m.content }}>{% endfor %}" + GENERATION,
    "the message before": "{% for m in messages %}{% if loop.previtem is defined and loop.previtem.role == m.role %}+"
    "{% else %}[{{ m.role }}]{% endif %}{{ m.content }}{% endfor %}" + GENERATION,
    "first and index": "{% for m in messages %}{{ loop.index0 }}{% if loop.first %}!{% endif %}{{ m.content }}"
    "{% endfor %}",
    "state within the loop": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}"
    "{{ m.content }}{% endfor %}" + GENERATION,
    "an inner loop with its own last": "{% for m in messages %}{% for c in m.content %}{{ c }}"
    "{% if not loop.last %}-{% endif %}{% endfor %}{% endfor %}" + GENERATION,
}

NOT_PROVEN = {
    "the last message": "{% for m in messages %}{{ m.content }}{% if loop.last %}!{% endif %}{% endfor %}",
    "how many there are": "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}",
    "the next message": "{% for m in messages %}{{ m.content }}{{ loop.nextitem }}{% endfor %}",
    "from the end": "{% for m in messages %}{{ loop.revindex }}{{ m.content }}{% endfor %}",
    "the length outside": "{{ messages | length }}" + LOOP,
    "the last by index": "{{ messages[-1].content }}" + LOOP,
    "the messages reversed": "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    "two loops": LOOP + LOOP,
    "a filtered loop": "{% for m in messages if m.role != 'system' %}{{ loop.length }}{{ m.content }}{% endfor %}",
    "state read after the loop": "{% set ns = namespace(role='') %}{% for m in messages %}{% set ns.role = m.role %}"
    "{{ m.content }}{% endfor %}{% if ns.role == 'user' %}?{% endif %}",
    "generation prompt in the loop": "{% for m in messages %}{{ m.content }}{% if add_generation_prompt %}.{% endif %}"
    "{% endfor %}",
    "generation prompt before": "{% if add_generation_prompt %}go{% endif %}" + LOOP,
    "a name for the loop": "{% for m in messages %}{% set l = loop %}{{ l.last }}{{ m.content }}{% endfor %}",
    "the loop handed on": "{% macro end(l) %}{{ l.last }}{% endmacro %}"
    "{% for m in messages %}{{ end(loop) }}{{ m.content }}{% endfor %}",
    "a macro that looks at all": "{% macro n() %}{{ messages | length }}{% endmacro %}"
    "{% for m in messages %}{{ n() }}{{ m.content }}{% endfor %}",
    "another name for all": "{% set all = messages %}{% for m in messages %}{{ all | length }}{{ m.content }}"
    "{% endfor %}",
    "an inner loop over the messages": "{% for m in messages %}{% for o in messages %}{{ o.content }}"
    "{% endfor %}{% endfor %}",
    "else": "{% for m in messages %}{{ m.content }}{% else %}none{% endfor %}",
    "a cycler read after": "{% set c = cycler('a', 'b') %}{% for m in messages %}{{ c.next() }}"
    "{% endfor %}{{ c.current }}",
    "the index of a loop variable": "{% for i in range(messages | length) %}{{ messages[i].content }}{% endfor %}",
    "a list grown in the loop": "{% set seen = [] %}{% for m in messages %}{{ m.content }}"
    "{% set _ = seen.append(1) %}{% endfor %}{{ seen | length }}",
}


@pytest.mark.parametrize("name", PROVEN)
def test_append_only_templates_are_rendered_in_one_pass_to_the_same_prompts(name: str) -> None:
    template = ChatTemplate(PROVEN[name], {}, CLOCK)
    for messages in CONVERSATIONS:
        timeline = template.timeline(messages, None)
        assert timeline is not None
        assert sum(timeline.around(k) is not None for k in range(len(messages))) >= len(messages) - 2
        assert differences(template, messages) == []


@pytest.mark.parametrize("name", NOT_PROVEN)
def test_templates_that_may_look_ahead_are_not(name: str) -> None:
    template = ChatTemplate(NOT_PROVEN[name], {}, CLOCK)
    assert all(template.timeline(messages, None) is None for messages in CONVERSATIONS)


INSIDE = (
    "{{ m.content }}",
    "[{{ m.role }}]",
    "{{ loop.index }}",
    "{% if loop.first %}^{% endif %}",
    "{% if loop.last %}${% endif %}",
    "{% if m.role == 'user' %}{% set ns.x = m.content %}{% endif %}",
    "{% set x = m.content %}",
    "{{ ns.x }}",
    "{{ x }}",
    "{{ say(m) }}",
    "{{ loop.length }}",
    "{{ messages[0].role }}",
    "{{ messages[2].role }}",
    "{{ rest[0].content }}",
    "{{ rest | length }}",
    "{% for c in m.content %}{% if loop.last %}{{ c }}{% endif %}{% endfor %}",
    "{% for o in rest %}{{ o.role }}{% endfor %}",
    "{% if loop.nextitem is defined %}>{% endif %}",
    "{% if loop.previtem is defined %}<{% endif %}",
    "{% if add_generation_prompt %}G{% endif %}",
    "{% if loop.index0 == 3 %}{% set rest = messages %}{% endif %}",
    "{% set _ = seen.append(m.role) %}",
)
OUTSIDE = (
    "{{ bos }}",
    GENERATION,
    "{{ ns.x }}",
    "{{ x }}",
    "{{ messages[0].content }}",
    "{{ messages[1].content }}",
    "{{ rest[0].role }}",
    "{% set rest = rest[1:] %}",
    "{% set rest = messages[1:] %}",
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% endif %}",
    "{{ messages | length }}",
    "{{ messages[-1].role }}",
    "{{ seen | length }}",
    "{% set ns.x = 'set' %}",
    "{% if rest %}R{% endif %}",
    "{{ say(messages[0]) }}",
)
HEAD = (
    "{% macro say(m) %}<{{ m.content }}{{ ns.x }}>{% endmacro %}{% set ns = namespace(x='-') %}"
    "{% set x = '' %}{% set seen = [] %}{% set rest = messages %}"
)


@settings(max_examples=400, deadline=None)
@given(
    before=st.lists(st.sampled_from(OUTSIDE), max_size=3),
    inside=st.lists(st.sampled_from(INSIDE), min_size=1, max_size=4),
    after=st.lists(st.sampled_from(OUTSIDE), max_size=2),
    over=st.sampled_from(["messages", "rest", "messages[1:]"]),
    messages=st.sampled_from(CONVERSATIONS),
)
def test_whatever_is_taken_for_append_only_gives_the_same_prompts(
    before: list[str], inside: list[str], after: list[str], over: str, messages: list[dict[str, Any]]
) -> None:
    source = HEAD + "".join(before) + f"{{% for m in {over} %}}" + "".join(inside) + "{% endfor %}" + "".join(after)
    try:
        template = ChatTemplate(source, {"bos": "<s>"}, CLOCK)
        assert differences(template, messages) == []
    except TurnRefused:
        pass  # what a template refuses is refused the slow way too


def test_real_templates_that_are_proven_give_the_same_prompts(test_data: Path) -> None:
    proven = 0
    for path in sorted((test_data / "templates").glob("*.jinja")):
        try:
            template = ChatTemplate(path.read_text(), {"bos_token": "<s>", "eos_token": "</s>"}, CLOCK)
        except RenderError:
            continue
        for messages in CONVERSATIONS:
            try:
                timeline = template.timeline(messages, None)
                proven += timeline is not None
                assert differences(template, messages) == [], path.name
            except TurnRefused:
                continue
    assert proven > 100
