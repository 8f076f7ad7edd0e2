"""Configs: overrides, aliases, and errors that name place, key, reason and mend."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, Field, ValidationError, field_validator

from understudy.config import ConfigModel, config_from_dict, dump_config, load_config
from understudy.errors import ConfigError


class Tiny(ConfigModel):
    kind: Literal["tiny"] = "tiny"
    num_layers: int = Field(2, gt=0)


class Pretrained(ConfigModel):
    kind: Literal["pretrained"]
    name: str


class Source(ConfigModel):
    path: str
    ratio: float = 1.0


class Train(ConfigModel):
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate. Reached after the warm-up."""
    max_length: int | Literal["auto"] = Field(4096, validation_alias=AliasChoices("max_length", "cutoff_len"))
    """Longest row in tokens."""
    lora_r: int | None = None
    shuffle: bool = True
    mode: Literal["fast", "slow"] = "fast"
    betas: tuple[float, float] = (0.9, 0.999)

    @field_validator("lora_r")
    @classmethod
    def _even(cls, value: int | None) -> int | None:
        if value is not None and value % 2:
            raise ValueError("must be even; use 8 or 16")
        return value


class Run(ConfigModel):
    train: Train = Train()
    model: Annotated[Tiny | Pretrained, Field(discriminator="kind")] = Tiny()
    sources: tuple[Source, ...] = ()
    tags: dict[str, Any] = Field(default_factory=dict)


def problems(*overrides: str, text: str | None = None, tmp_path=None) -> str:
    path = None
    if text is not None:
        path = tmp_path / "run.yaml"
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path, overrides)
    return str(caught.value).replace(str(path), "run.yaml")


def test_a_file_overrides_the_defaults_and_an_override_the_file(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(
        "train:\n  learning_rate: 1e-5\n  shuffle: off\nsources:\n- path: a\n- path: b\n"
    )
    run = load_config(
        Run, tmp_path / "run.yaml", ["train.learning_rate=5e-5", "sources.1.ratio=0.5", "tags.a.b=[1, x]"]
    )
    assert run.train == Train(learning_rate=5e-5, shuffle=False)
    assert run.sources == (Source(path="a"), Source(path="b", ratio=0.5))
    assert run.tags == {"a": {"b": [1, "x"]}}


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("train.lora_r=null", lambda run: run.train.lora_r is None),
        ("train.betas=[0.8, 0.95]", lambda run: run.train.betas == (0.8, 0.95)),
        ("train.max_length=auto", lambda run: run.train.max_length == "auto"),
        ("train={lora_r: 8}", lambda run: run.train == Train(lora_r=8)),
        ("model={kind: pretrained, name: no}", lambda run: run.model == Pretrained(kind="pretrained", name="no")),
        ("sources.0.path=a", lambda run: run.sources == (Source(path="a"),)),
        ("tags.url=http://x?a=b", lambda run: run.tags == {"url": "http://x?a=b"}),
    ],
)
def test_overrides_are_yaml_typed(override: str, check) -> None:
    assert check(load_config(Run, None, [override]))


def test_a_lone_dash_is_standard_input_and_no_list_of_nothing() -> None:
    source = {"path": "rows.jsonl"}
    assert config_from_dict(Source, source, ["path=-"]).path == "-"
    assert config_from_dict(Source, source, ["path= - "]).path == "-"
    with pytest.raises(ConfigError, match="path: should be a valid string"):
        config_from_dict(Source, source, ["path=- -"])


def test_the_last_override_of_a_key_holds() -> None:
    assert load_config(Run, None, ["train.lora_r=8", "train.lora_r=16"]).train.lora_r == 16


def test_an_alias_is_the_same_key_in_a_file_and_in_an_override(tmp_path) -> None:
    (tmp_path / "run.yaml").write_text("train: {cutoff_len: 10}\n")
    assert load_config(Run, tmp_path / "run.yaml").train.max_length == 10
    assert load_config(Run, tmp_path / "run.yaml", ["train.max_length=20"]).train.max_length == 20
    assert load_config(Run, None, ["train.cutoff_len=30"]).train.max_length == 30


def test_an_alias_beside_its_key_is_refused(tmp_path) -> None:
    text = "train:\n  max_length: 10\n  cutoff_len: 20\n"
    message = problems(text=text, tmp_path=tmp_path)
    assert message.startswith(
        "run.yaml:3: train.max_length: the same setting is given as 'max_length' and as 'cutoff_len'"
    )


def test_all_problems_come_at_once_each_with_its_place(tmp_path) -> None:
    text = """\
train:
  lerning_rate: 1
  lora_r: 7
learning_rate: 2
model: {kind: tiny, num_layers: 0}
sources:
  - ratio: fast
"""
    message = problems("train.cutoff_len=long", "modle.kind=tiny", text=text, tmp_path=tmp_path)
    assert message.splitlines() == [
        "run.yaml: 8 problems",
        "  run.yaml:2: train.lerning_rate: unknown key. Did you mean 'train.learning_rate'?",
        "  run.yaml:4: learning_rate: unknown key. Did you mean 'train.learning_rate'?",
        "  override 'modle.kind=tiny': modle.kind: unknown key. Did you mean 'model'?",
        "  override 'train.cutoff_len=long': train.max_length: should be a valid integer, unable to parse string as an "
        "integer, got 'long'; or should be 'auto', got 'long' (max_length: Longest row in tokens)",
        "  run.yaml:3: train.lora_r: must be even; use 8 or 16",
        "  run.yaml:5: model.num_layers: should be greater than 0, got 0",
        "  run.yaml:7: sources.0.path: is required",
        "  run.yaml:7: sources.0.ratio: should be a valid number, unable to parse string as a number, got 'fast'",
    ]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rate=-1", "should be greater than 0, got -1 (learning_rate: Peak learning rate)"),
        ("train.learning_rate=.nan", "finite number"),
        ("train.mode=fsat", "should be 'fast' or 'slow', got 'fsat'. Did you mean 'fast'?"),
        ("train.lora_r=true", "train.lora_r: should be a number, got true"),
        ("train.max_length=yes", "should be a valid integer"),
        ("train=5", "train: should be a section (a mapping of keys), got 5"),
        ("train.learning_rate.x=5", "train.learning_rate: should be a valid number, got {'x': 5}"),
        ("sources.1.path=a", "sources is a list of 0"),
        ("train.learning_rate", "write it as dotted.key=value"),
        ("=5", "write it as dotted.key=value"),
        ("train.lora_r=", "write train.lora_r=null for none"),
        ("train.betas=[1", "not YAML"),
        ("model.kind=tyni", "model.kind: should be one of 'tiny', 'pretrained', got 'tyni'"),
        ("zzz=1", "Known here: model, sources, tags, train"),
    ],
)
def test_a_bad_override_is_named_with_its_reason(override: str, words: str) -> None:
    message = problems(override)
    assert words in message
    assert override in message


def test_a_list_has_no_position_beyond_its_end(tmp_path) -> None:
    message = problems("sources.3.path=x", text="sources: [{path: a}, {path: b}]\n", tmp_path=tmp_path)
    assert "sources is a list of 2; name a position from 0 to 2" in message


def test_a_config_cannot_be_changed() -> None:
    run = load_config(Run)
    with pytest.raises(ValidationError, match="frozen"):
        run.train.learning_rate = 1.0  # type: ignore[misc]


def test_a_mapping_is_checked_like_a_file() -> None:
    assert config_from_dict(Run, {"train": {"cutoff_len": 5}}).train.max_length == 5
    with pytest.raises(ConfigError, match=r"settings: trian: unknown key\. Did you mean 'train'"):
        config_from_dict(Run, {"trian": {}}, source="settings")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.learning_rate=1e-7", "train.lora_r=8", "model={kind: pretrained, name: '1e-5'}"],
        ["sources=[{path: 'no'}, {path: 'ü: #x', ratio: 1e20}]", "tags={a: {b: [1, 2.5, null, 'true', '~']}}"],
    ],
)
def test_a_dumped_config_loads_back_identically(overrides: list[str], tmp_path) -> None:
    run = load_config(Run, None, overrides)
    (tmp_path / "config.yaml").write_text(dump_config(run))
    again = load_config(Run, tmp_path / "config.yaml")
    assert again == run
    assert dump_config(again) == dump_config(run)
