from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from understudy.errors import ConfigError
from understudy.models.load import is_adapter, load_hf_tokenizer, load_model, load_model_config


def test_a_model_is_loaded_in_the_type_that_was_asked_for(base) -> None:
    assert load_model(base).dtype == torch.float32
    assert load_model(base, dtype="bfloat16").dtype == torch.bfloat16


def test_loading_gives_the_weights_that_were_saved(base) -> None:
    a, b = load_model(base).state_dict(), AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json, so it is no model folder"),
        (lambda f: (f / "model.safetensors").unlink(), "has no safetensors weights, and no others are read"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "cannot load a model"),
        (lambda f: (f / "config.json").write_text("{"), "cannot load a model"),
        (lambda f: (f / "config.json").write_text('{"model_type": "unheard_of"}'), "unheard_of"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_the_reason(tmp_path, base, spoil, said: str) -> None:
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder)
    spoil(folder)
    with pytest.raises(ConfigError, match=said):
        load_model(folder)


def test_weights_that_are_missing_are_not_made_up(tmp_path, base) -> None:
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "gate_proj" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=f"1 weights of this architecture are not there, and would be random: {name}"):
        load_model(folder)


def test_a_place_where_nothing_is_is_refused() -> None:
    for load in (load_model, load_model_config, load_hf_tokenizer):
        with pytest.raises(ConfigError, match="/nowhere/at/all"):
            load("/nowhere/at/all")


def test_an_adapter_is_not_taken_for_a_model(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert is_adapter(tmp_path)
    with pytest.raises(ConfigError, match="understudy export"):
        load_model(tmp_path)


def test_code_that_comes_with_a_model_runs_only_when_it_is_trusted(tmp_path, base) -> None:
    folder = tmp_path / "own_code"
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    settings = json.loads((base / "config.json").read_text())
    settings |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(settings))
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom transformers import Qwen3Config, Qwen3ForCausalLM\n"
        "class Mine(Qwen3Config):\n    model_type = 'mine'\nclass Model(Qwen3ForCausalLM):\n    config_class = Mine\n"
    )
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(ConfigError, match=r"comes with Python code of its own.*model\.trust_remote_code: true"):
        load_model(folder)
    assert not ran.exists()
    assert type(load_model(folder, trust_remote_code=True)).__name__ == "Model"
    assert ran.exists()
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]
