"""Time rendering against TRL's tokenise-and-mask, on the same rows, in one process, in alternation.

    python benchmarks/render.py ROWS --format FORMAT --model TOKENIZER [--rounds 5] [--rows N]

`TRL flat` is what TRL's SFTTrainer does with one conversation and ``assistant_only_loss=True``: one render with the
template's generation marks and one encode, which is not exact for templates that rewrite history. `TRL per turn` is the
same on one row for each assistant turn, whose last turn is exact. Understudy renders every turn exactly. Figures are
CPU seconds of this process; ratios are of medians over the rounds.

The second table grows one conversation from 25 to 200 turns: with a cost that is linear in the turns, the cost for each
turn stays the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from understudy.formats import read_episodes
from understudy.rendering import Renderer, ServerProfile, from_transformers
from understudy.types import Episode, tools_to_openai

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows")
    parser.add_argument("--format", default="auto")
    parser.add_argument("--model", required=True, help="folder of a Qwen3 tokenizer, for which TRL has a template")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-rows", type=int, default=160)
    args = parser.parse_args()

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    reader = iter(read_episodes(args.rows, args.format))
    episodes = [next(reader) for _ in range(args.num_rows)]
    compare_with_trl(tokenizer, episodes, args.rounds)
    print()
    show_growth("ChatML (append-only)", tokenizer, CHATML)
    show_growth("the model's own template", tokenizer, tokenizer.chat_template)


def compare_with_trl(tokenizer: Any, episodes: list[Episode], num_rounds: int) -> None:
    from trl.chat_template_utils import get_training_chat_template

    template = get_training_chat_template(tokenizer)
    flat = [trl_row(episode, None) for episode in episodes]
    per_turn = [
        trl_row(episode, k) for episode in episodes for k, m in enumerate(openai_messages(episode)) if is_assistant(m)
    ]

    def understudy() -> None:
        # A new renderer each round, so that nothing is remembered from the round before.
        renderer = Renderer(from_transformers(tokenizer, name="benchmark"))
        for episode in episodes:
            renderer.render(episode.trajectories[0])

    def trl(rows: list[dict[str, Any]]) -> Callable[[], None]:
        def run() -> None:
            for row in rows:
                tokenize_and_mask(tokenizer, template, row)

        return run

    candidates = {"Understudy, every turn exact": understudy, "TRL flat": trl(flat), "TRL per turn": trl(per_turn)}
    seconds = alternate(candidates, num_rounds)
    ours = seconds["Understudy, every turn exact"]
    print(f"{len(episodes)} rows, {len(per_turn)} turns, {num_rounds} rounds")
    print(f"{'':30} {'CPU s':>8} {'min':>8} {'max':>8} {'× Understudy':>13}")
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = median / statistics.median(ours)
        print(f"{name:30} {median:8.2f} {min(values):8.2f} {max(values):8.2f} {ratio:13.2f}")


def alternate(candidates: dict[str, Callable[[], None]], num_rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds per candidate and round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_index in range(num_rounds + 1):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            if round_index:
                seconds[name].append(time.process_time() - start)
    return seconds


def tokenize_and_mask(tokenizer: Any, template: str, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The calls that TRL's SFTTrainer makes for one conversational row (trl/trainer/sft_trainer.py, `tokenize_fn`)."""
    out = tokenizer.apply_chat_template(
        row["messages"],
        tools=row["tools"],
        chat_template=template,
        return_assistant_tokens_mask=True,
        tokenize=True,
        return_dict=True,
    )
    return out["input_ids"], [i if m else -100 for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True)]


def openai_messages(episode: Episode) -> list[dict[str, Any]]:
    messages = [message.to_openai() for message in episode.trajectories[0].messages()]
    for message in messages:
        message["content"] = message["content"] or ""
    return messages


def is_assistant(message: dict[str, Any]) -> bool:
    return bool(message["role"] == "assistant")


def trl_row(episode: Episode, last: int | None) -> dict[str, Any]:
    messages = openai_messages(episode)
    return {
        "messages": messages if last is None else messages[: last + 1],
        "tools": tools_to_openai(episode.trajectories[0].tools()),
    }


def show_growth(name: str, tokenizer: Any, template: str) -> None:
    """Print CPU milliseconds per turn as one conversation grows."""
    print(f"{name}: CPU ms per turn")
    for num_turns in (25, 50, 100, 200):
        messages = []
        for turn in range(num_turns):
            messages += [
                {"role": "user", "content": f"Step {turn}: " + "look around and report. " * 10},
                {"role": "assistant", "content": f"Report {turn}: " + "nothing to see here. " * 10},
            ]
        episode = Episode.from_messages(messages, id=f"grown-{num_turns}")
        values = []
        for _ in range(5):
            renderer = Renderer(from_transformers(tokenizer, name="growth", chat_template=template), ServerProfile())
            start = time.process_time()
            renderer.render(episode.trajectories[0])
            values.append(time.process_time() - start)
        print(f"  {num_turns:4} turns: {1000 * statistics.median(values) / num_turns:7.3f}")


if __name__ == "__main__":
    main()
