from __future__ import annotations

import pytest

from understudy.config import config_from_dict, dump_config, load_config
from understudy.config.reference import sections
from understudy.errors import ConfigError
from understudy.train.config import TrainConfig

SMALLEST = {"output_dir": "run", "model": {"tiny": "qwen3"}}


def checked(*overrides: str, **keys: object) -> TrainConfig:
    return config_from_dict(TrainConfig, SMALLEST | keys, overrides)


def refusal(*overrides: str, **keys: object) -> str:
    with pytest.raises(ConfigError) as caught:
        checked(*overrides, **keys)
    return str(caught.value)


def test_every_key_says_what_it_means() -> None:
    for section in sections(TrainConfig):
        assert section.description
        assert [key.name for key in section.keys if not key.description] == []


def test_a_resolved_config_reads_back_as_itself(tmp_path) -> None:
    config = checked("lora.lora_r=4", "data.sources.a.path=x", "objective.name=world_model", "train.report_to=[wandb]")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(TrainConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("alias", "read"),
    [
        ("data.cutoff_len=100", lambda c: c.data.max_length == 100),
        ("data.train_file=x.jsonl", lambda c: c.data.path == "x.jsonl"),
        ("data.validation_file=x.jsonl", lambda c: c.data.validation_path == "x.jsonl"),
        ("train.num_epochs=2", lambda c: c.train.num_train_epochs == 2),
        ("lora.r=4", lambda c: c.lora.lora_r == 4),
    ],
)
def test_names_that_others_use_are_read_too(alias: str, read) -> None:
    assert read(checked(alias))


def test_model_name_or_path_names_the_model() -> None:
    assert config_from_dict(TrainConfig, {"output_dir": "r", "model": {"model_name_or_path": "m"}}).model.path == "m"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learnin_rate=1", "Did you mean 'train.learning_rate'?"),
        ("max_length=5", "Did you mean 'data.max_length'?"),
        ("lora.lora_r=0", "greater than or equal to 1"),
        ("train.lr_scheduler_type=cosin", "Did you mean 'cosine'?"),
        ("data.max_length_policy=cut", "cut_turns"),
        ("train.per_device_train_batch_size=0", "greater than or equal to 1"),
        ("train.layout=tre", "Did you mean 'tree'?"),
        ("model.path=m", "give either path"),
        ("data.split_by=[reward]", "'reward' is none of id, task"),
    ],
)
def test_a_bad_value_is_refused_with_its_mend(override: str, said: str) -> None:
    assert said in refusal(override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.bf16=true", "train.fp16=true"], "bf16 and fp16 exclude each other"),
        (["train.warmup_ratio=0.1", "train.warmup_steps=5"], "either warmup_ratio or warmup_steps"),
        (["data.path=x", "data.sources.a.path=y"], "either path (one source) or sources"),
        (["data.sources.a.path=x", "data.sources.b.path=y", "data.sources.b.ratio=1"], "sources a have no ratio"),
        (["data.sources.a.path=x", "data.sources.a.ratio=1", "data.temperature=2"], "either ratios of the sources or"),
        (["data.path=x", "data.temperature=2"], "temperature is for several sources"),
        (["data.sources.a.path=x", "data.temperature=0.5"], "greater than or equal to 1"),
        (["data.validation_split=0.1", "data.validation_path=x"], "either validation_path or validation_split"),
        (["objective.name=world_model", "objective.bc_weight=1"], "bc_weight means nothing to world_model"),
        (["objective.bc_weight=2", "objective.arguments.bc_weight=3"], "bc_weight is given twice: as a key, and in"),
        (["objective.weight_by=score", "objective.arguments.weight_by=reward"], "weight_by is given twice"),
        (["train.muon_learning_rate=0.1"], "muon_learning_rate means nothing to adamw_torch_fused"),
        (["train.load_best_model_at_end=true", "train.save_best=false"], "needs the best checkpoint"),
    ],
)
def test_values_that_exclude_each_other_are_refused(overrides: list[str], said: str) -> None:
    assert said in refusal(*overrides)


def test_sizes_of_a_tiny_model_are_refused_for_a_real_one() -> None:
    with pytest.raises(ConfigError, match="hidden_size can be chosen for a tiny model only"):
        config_from_dict(TrainConfig, {"output_dir": "r", "model": {"path": "m", "hidden_size": 32}})


def test_a_vocabulary_size_is_refused_beside_a_tokenizer_that_has_its_own() -> None:
    with pytest.raises(ConfigError, match="vocab_size is for a tokenizer made of the data"):
        config_from_dict(
            TrainConfig, {"output_dir": "r", "model": {"tiny": "qwen3", "tokenizer": "t", "vocab_size": 400}}
        )


def test_the_rendering_section_is_the_server_profile_of_the_check_command() -> None:
    config = checked("rendering.template_arguments.enable_thinking=false", "rendering.on_refusal=skip")
    profile = config.rendering.profile()
    assert profile.template_arguments == {"enable_thinking": False}
    assert not hasattr(profile, "on_refusal")


def test_several_sources_take_the_common_limit_unless_they_say_otherwise() -> None:
    config = checked("data.max_samples=5", "data.sources.a.path=x", "data.sources.b={path: y, max_samples: 2}")
    assert {name: source.max_samples for name, source in config.data.by_name().items()} == {"a": 5, "b": 2}
