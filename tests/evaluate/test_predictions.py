"""A world model's predictions are those of transformers' own generation, counted observation by observation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.evaluate.playing import run
from tests.training import WEATHER, make_base, metrics, train
from understudy.errors import ConfigError, DataError
from understudy.evaluate import Predictions, Tally
from understudy.formats import write_episodes
from understudy.types import Episode


@pytest.fixture(scope="module")
def world_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt half of the example's observations by heart."""
    folder = tmp_path_factory.mktemp("world")
    base = make_base(folder / "base", hidden_size=64)
    settings = {"max_steps": 40, "per_device_train_batch_size": 3, "learning_rate": 1e-2, "save_steps": 0}
    data = {"validation_path": str(WEATHER), "max_samples": 3}
    train(base, folder / "run", objective={"name": "world_model"}, train=settings, data=data)
    return folder / "run"


def predicted(folder: Path, model: Path, data: Path = WEATHER, **keys: Any) -> Predictions:
    section = {"model": str(model), "data_path": str(data), **keys}
    result = run(folder, environment=None, policy=None, num_tasks=None, world_model=section)
    assert result.metrics is None
    assert result.losses == ()
    (found,) = result.predictions
    return found


def by_transformers(model_folder: Path) -> dict[str, Tally]:
    """Predict every observation that follows an action with plain transformers, from the template's text."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder / "final")
    model = AutoModelForCausalLM.from_pretrained(model_folder / "final")
    tallies: dict[str, Tally] = {}
    for row in map(json.loads, WEATHER.read_text().splitlines()):
        messages = row["messages"]
        names = {call["id"]: call["function"]["name"] for m in messages for call in m.get("tool_calls", ())}
        for n, message in enumerate(messages):
            if message["role"] not in ("tool", "user") or not any(m["role"] == "assistant" for m in messages[:n]):
                continue
            text = tokenizer.apply_chat_template(messages[: n + 1], tools=row["tools"], tokenize=False)
            prefix = text[: text.rindex(message["content"])]
            given = tokenizer(prefix, add_special_tokens=False, return_tensors="pt")
            out = model.generate(**given, max_new_tokens=60, do_sample=False, eos_token_id=tokenizer.eos_token_id)
            written = tokenizer.decode(out[0][given["input_ids"].shape[1] :])
            kind = f"tool {names[message['tool_call_id']]}" if message["role"] == "tool" else message["role"]
            tally = tallies.setdefault(kind, Tally())
            tally.num += 1
            tally.num_exact += written == message["content"].strip() + tokenizer.eos_token
    return dict(sorted(tallies.items()))


def test_what_is_exact_is_what_transformers_writes_too(world_model: Path, tmp_path: Path) -> None:
    found = predicted(tmp_path / "out", world_model)
    assert found.by_kind == by_transformers(world_model)
    assert found.num_observations == sum(tally.num for tally in found.by_kind.values())
    assert 0 < found.exact.value < 1, "some are learnt and some are not, or this says little"
    assert found.exact.value * found.num_observations == sum(tally.num_exact for tally in found.by_kind.values())
    assert (found.num_episodes, found.num_unlocated) == (6, 0)
    assert found.loss.loss == pytest.approx(metrics(world_model, "eval_loss")[-1], rel=1e-6)


def test_how_many_are_predicted_together_changes_nothing(world_model: Path, tmp_path: Path) -> None:
    one, many = (predicted(tmp_path / str(size), world_model, max_batch_size=size) for size in (1, 16))
    assert one == many


def test_roles_can_be_chosen_and_wrong_predictions_are_shown(world_model: Path, tmp_path: Path) -> None:
    every = predicted(tmp_path / "all", world_model)
    tools = predicted(tmp_path / "tools", world_model, observation_roles=["tool"], num_shown=1)
    assert tools.by_kind == {kind: tally for kind, tally in every.by_kind.items() if kind.startswith("tool")}
    num_wrong = every.num_observations - sum(tally.num_exact for tally in every.by_kind.values())
    assert (len(every.wrong), len(tools.wrong)) == (min(num_wrong, 20), 1)
    assert all(one.observed != one.predicted and one.observed.endswith("<|im_end|>") for one in every.wrong)


def test_the_reports_have_the_figures_and_the_wrong_predictions(world_model: Path, tmp_path: Path) -> None:
    found = predicted(tmp_path / "out", world_model)
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())["world_models"]
    assert row["exact"]["value"] == found.exact.value
    assert row["by_kind"][found.wrong[0].kind]["num"] == found.by_kind[found.wrong[0].kind].num
    page = (tmp_path / "out" / "report.html").read_text()
    assert "World model: what the environment answers" in page
    assert f"<title>Evaluation: {world_model}</title>" in page


def test_models_before_and_after_are_compared_on_the_same_observations(world_model: Path, tmp_path: Path) -> None:
    def local(model: Path) -> dict[str, Any]:
        return {"name": "local", "arguments": {"model": str(model), "max_new_tokens": 3}}

    found = run(
        tmp_path / "out", policy=local(world_model), baseline=local(world_model.parent / "base"), num_tasks=2,
        max_turns=1, world_model={"data_path": str(WEATHER)},
    )  # fmt: skip
    after, before = found.predictions
    assert (after.model, before.model) == (str(world_model), str(world_model.parent / "base"))
    assert before.exact.value < after.exact.value
    assert before.loss.loss > after.loss.loss


def test_the_limit_of_length_counts_what_is_predicted_as_it_does_for_the_loss(
    world_model: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in WEATHER.read_text().splitlines()[:2]]
    data = tmp_path / "rows.jsonl"
    for row in rows:  # what comes after the last observation is not measured, however long it is
        row["messages"].append({"role": "assistant", "content": "and so on " * 2000})
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = predicted(tmp_path / "out", world_model, data, max_length=2000)
    assert found.num_observations == predicted(tmp_path / "no_limit", world_model, data).num_observations


def test_rows_without_answers_and_a_missing_model_are_refused(world_model: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Will it rain?"}, {"role": "assistant", "content": "No."}]
    write_episodes(tmp_path / "rows.jsonl", [Episode.from_messages(messages)], "native")
    with pytest.raises(DataError, match=r"world_model.data_path: .*no token that is trained by world_model"):
        predicted(tmp_path / "a", world_model, tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match=r"world_model.model: name the model to measure"):
        run(tmp_path / "b", world_model={"data_path": str(WEATHER)})
