"""Every real file that holds conversations decodes; its counts are the manifest's, or the difference is explained."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import zstandard

from tests.conftest import test_data_folder
from understudy.formats import read_episodes
from understudy.types import Episode, Message, SampledTokens

from .corpus_counts import RULES, Counts, Row

MAPPINGS = Path(__file__).parents[2] / "examples" / "mappings"

FORMATS = {
    "tau": "tau_bench.yaml?tools.file={corpus}/tau_bench/tools.json",
    "mint": "mint.yaml",
    "agentgym": "agentgym.yaml",
    "gym": "nemo_gym.yaml",
    "sweagent": "swe_agent.yaml",
    "messages": "messages",
    "openhands": "openhands.py:episodes",
    "glaive": "sharegpt",
    "lfv1": "messages",
    "whowhen": "who_and_when.yaml",
    "tape": "tape_agents.py:tapes",
    "tokens": "tape_agents.py:training_samples",
    "tm4": "taskmaster.py:dialogues",
    "tm4r": "taskmaster.py:rewards",
    "toolbench": "toolbench.yaml",
    "alpaca": "tool_rl.yaml",
    "tooltalk": "tooltalk.py:episodes",
    "apibank": "api_bank.py:episodes",
    "bfcl": "bfcl.py:episodes?func_docs={corpus}/bfcl/func_docs.json",
    "userrl": "user_rl.yaml",
    "inspect": "inspect_ai.py:episodes",
}
"""How each kind of source is read, by the manifest's name of it."""

WITHOUT_CONVERSATIONS = {
    "tau_bench/tools.json",
    "bfcl/func_docs.json",
    "token_fixtures/nemo_rl_retokenisation_drift.json",
}

COUNTED_BY_TEXT = {"mint", "agentgym", "userrl", "messages", "alpaca"}
"""Where the manifest's characters are those of the messages' text alone; elsewhere it adds calls or markup."""

DIFFERENCES = {
    "nemo_gym/conversational_tool_use_simulation.jsonl.zst": {"assistant": -34},
    "nemo_gym/calendar.jsonl.zst": {"assistant": -5},
    "nemo_gym/newton_bench.jsonl.zst": {"assistant": -5},
    "nemo_gym/xlam_fc.jsonl.zst": {"assistant": -10},
    "nemo_gym/competitive_coding_challenges.jsonl.zst": {"assistant": -5},
    "openhands/multi_swe_bench_output.jsonl.zst": {"user": -1, "tool": -5},
    "who_and_when/algorithm_generated.jsonl.zst": {"system": 342, "user": 1874},
    "taskmaster4/data_07.jsonl.zst": {"assistant": -854},
    "taskmaster4/reward_05.jsonl.zst": {"calls": 373, "api": -1055, "tool": 1055},
    "toolbench/dfs_trees_G1_G2.jsonl.zst": {
        **{"system": 1, "user": 2, "assistant": 2, "calls": 2},
        **{"function": -24, "tool": 25},
    },
    "toolrl/rlla_sft_000-299.jsonl.zst": {"calls": -454},
    "api_bank/level1.jsonl.zst": {"user": -1, "assistant": 133},
}
"""What we count less what the manifest counts. `corpus_counts.RULES` says why, and proves it row by row."""


LEFT_OUT = {
    "agentgym": {"conversations[].from", "reward_model.ground_truth", "extra_info.conversations"},
    "gym": {
        "responses_create_params.input[].content[].type",
        "response.output[].content[].type",
        "response.output[][].content[].type",
    },
    "openhands": {
        "history[].message",
        "history[].args.thought",
        "history[].args.confirmation_state",
        "history[].llm_metrics.accumulated_token_usage.prompt_tokens",
        "history[].llm_metrics.accumulated_token_usage.completion_tokens",
        "history[].tool_call_metadata.model_response.object",
    },
    "tokens": {"text", "labels[]"},
    "tm4": {"utterances[].annotations[].name", "utterances[].annotations[].context"},
    "tm4r": {"context", "generation"},
    "apibank": {"turns[].role"},
    "bfcl": {"ground_truth[][]"},
}
"""Values that an episode does not repeat: words that only name roles and kinds, second copies, and texts that were
parsed (their content is there, in another form)."""

NUM_ROWS_SEARCHED = 20


def manifest() -> list[dict[str, Any]]:
    folder = test_data_folder()
    if folder is None:
        return []
    entries: list[dict[str, Any]] = json.loads((folder / "corpus" / "manifest.json").read_text())
    return [entry for entry in entries if entry["dest"] == "corpus"]


ENTRIES = [pytest.param(entry, id=entry["file"]) for entry in manifest() if entry["file"] not in WITHOUT_CONVERSATIONS]
EXPLAINED = [entry for entry in ENTRIES if entry.values[0]["file"] in DIFFERENCES]  # type: ignore[index, call-overload]
MAPPED = [
    entry for entry in ENTRIES if FORMATS[entry.values[0]["format"]].partition("?")[0][-5:] not in ("sages", "regpt")
]
every_file = pytest.mark.parametrize("entry", ENTRIES)


def episodes(corpus: Path, entry: dict[str, Any]) -> Iterator[Episode]:
    name = FORMATS[entry["format"]].format(corpus=corpus)
    is_mapping = ".yaml" in name or ".py:" in name
    return iter(read_episodes(corpus / entry["file"], f"{MAPPINGS}/{name}" if is_mapping else name))


def messages(episode: Episode) -> Iterator[Message]:
    for _, _, turn in episode.turns():
        yield from turn.observation
        if turn.action is not None:
            yield turn.action


def counts_of(episode: Episode) -> Counts:
    counts: Counts = Counter()
    for message in messages(episode):
        counts[message.role] += 1
        counts["calls"] += len(message.tool_calls)
        counts["parallel"] += len(message.tool_calls) > 1
        counts["characters"] += len(message.text())
    return counts


def raw_rows(file: Path) -> Iterator[Row]:
    """Read the rows with other people's readers only."""
    if file.suffix == ".parquet":
        yield from pyarrow.parquet.read_table(file).to_pylist()
    elif file.suffix == ".eval":
        with zipfile.ZipFile(file) as archive:
            yield from (json.loads(archive.read(n)) for n in sorted(archive.namelist()) if n.startswith("samples/"))
    elif file.suffix == ".json":
        yield json.loads(file.read_text())
    else:
        stream: Any = zstandard.open(file, "rb") if file.suffix == ".zst" else file.open("rb")
        with stream, io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)


def test_the_table_of_differences_names_only_files_that_exist() -> None:
    if not ENTRIES:
        pytest.skip("no test data")
    assert DIFFERENCES.keys() <= {entry["file"] for entry in manifest()}
    assert {entry["format"] for entry in manifest() if entry["file"] not in WITHOUT_CONVERSATIONS} == FORMATS.keys()


@every_file
def test_counts_are_the_manifests_but_for_the_listed_differences(test_data: Path, entry: dict[str, Any]) -> None:
    stats = entry["stats"]
    total: Counts = Counter()
    num_episodes = num_successes = 0
    for episode in episodes(test_data / "corpus", entry):
        num_episodes += 1
        num_successes += episode.success is True
        total += counts_of(episode)
    differences = Counter(DIFFERENCES.get(entry["file"], {}))
    expected = Counter(stats["roles"]) + Counter(calls=stats["tool_calls"])
    expected.update(differences)
    assert num_episodes == stats["episodes"]
    assert {key: total[key] for key in total if key not in ("parallel", "characters")} == {
        k: n for k, n in expected.items() if n
    }
    if not differences:
        assert total["parallel"] == stats["parallel_turns"]
        assert sum(total[role] for role in stats["roles"]) == stats["messages"]
    if entry["format"] in ("tau", "mint", "whowhen"):
        assert round(num_successes / num_episodes, 3) == stats["success"]
    if entry["format"] in COUNTED_BY_TEXT:
        assert total["characters"] == stats["chars"]


@pytest.mark.parametrize("entry", EXPLAINED)
def test_a_listed_difference_is_explained_row_by_row(test_data: Path, entry: dict[str, Any]) -> None:
    rule = RULES[entry["format"]]
    corpus = test_data / "corpus"
    manifest_total: Counts = Counter()
    decoded = episodes(corpus, entry)
    for number, row in enumerate(raw_rows(corpus / entry["file"])):
        manifest_total += rule.manifest(row)
        counts = counts_of(next(decoded))
        del counts["parallel"], counts["characters"]
        assert +counts == +rule.ours(row), f"row {number}: {rule.why}"
    assert next(decoded, None) is None
    assert manifest_total == Counter(entry["stats"]["roles"]) + Counter(calls=entry["stats"]["tool_calls"])


@pytest.mark.parametrize("entry", MAPPED)
def test_no_value_of_a_row_is_lost(test_data: Path, entry: dict[str, Any]) -> None:
    corpus = test_data / "corpus"
    decoded = episodes(corpus, entry)
    for row in itertools.islice(raw_rows(corpus / entry["file"]), NUM_ROWS_SEARCHED):
        num_episodes = len(row["samples"]) if "samples" in row else 1
        values = [value for _, value in leaves(list(itertools.islice(decoded, num_episodes)))]
        text = "\0".join(value for value in values if isinstance(value, str))
        numbers = {value for value in values if isinstance(value, int | float)}
        lost = {
            path for path, value in leaves(row) if value is not None and value not in numbers and str(value) not in text
        }
        assert lost <= LEFT_OUT.get(entry["format"], set())


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every text, number, boolean and null within a value, with its path."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def sampled(corpus: Path, file: str) -> list[SampledTokens]:
    (entry,) = (entry for entry in manifest() if entry["file"] == file)
    return [turn.sampled for episode in episodes(corpus, entry) for _, _, turn in episode.turns() if turn.sampled]


def test_recorded_token_ids_are_taken_over_verbatim(test_data: Path) -> None:
    corpus = test_data / "corpus"
    tapes = sampled(corpus, "tapeagents/rl_gsm8k_tapes.jsonl.zst")
    samples = "tapeagents/rl_gsm8k_training_samples.jsonl.zst"
    for tape, sample, row in zip(tapes, sampled(corpus, samples), raw_rows(corpus / samples), strict=True):
        assert (tape.prompt_ids, tape.output_ids) == (sample.prompt_ids, sample.output_ids)  # one run, stored twice
        assert [*sample.prompt_ids, *sample.output_ids] == row["input_ids"]
        assert [-100] * len(sample.prompt_ids) + [*sample.output_ids] == row["labels"]
        assert list(sample.logprobs or ()) == row["logprobs"]

    rollouts = "nemo_gym/competitive_coding_challenges.jsonl.zst"
    for tokens, row in zip(sampled(corpus, rollouts), raw_rows(corpus / rollouts), strict=True):
        last = row["response"]["output"][-1]
        assert list(tokens.prompt_ids) == last["prompt_token_ids"]
        assert list(tokens.output_ids) == last["generation_token_ids"]
        assert list(tokens.logprobs or ()) == last["generation_log_probs"]


def test_tools_come_from_beside_the_data(test_data: Path) -> None:
    corpus = test_data / "corpus"
    num_tools = Counter[tuple[str, int]]()
    for entry in manifest():
        if entry["format"] in ("tau", "bfcl"):
            for episode in episodes(corpus, entry):
                tools = episode.trajectories[0].tools()
                num_tools[entry["format"], len(tools)] += 1
                names = {tool.name for tool in tools}
                assert {call.name for message in messages(episode) for call in message.tool_calls} <= names
    assert num_tools["tau", 14] == 160
    assert sum(count for (source, _), count in num_tools.items() if source == "bfcl") == 140
