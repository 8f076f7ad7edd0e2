from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training import make_base
from understudy.errors import ConfigError
from understudy.models.export import base_of, export_model, find_model
from understudy.models.load import load_hf_tokenizer, load_model
from understudy.models.lora import LoraSettings, add_adapter

IDS = torch.arange(12)[None]


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter with an effect, as training leaves it."""
    model = add_adapter(load_model(base), LoraSettings(r=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    load_hf_tokenizer(base).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_is_merged_into_the_base_that_it_names(base, adapter, tmp_path) -> None:
    done = export_model(adapter, tmp_path / "merged")
    assert done == f"merged the adapter in {adapter} into {base}"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not torch.allclose(merged(IDS).logits, load_model(base)(IDS).logits)


def test_another_base_can_be_named(base, adapter, tmp_path) -> None:
    moved = make_base(tmp_path / "moved")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="names no base model; give it with --base"):
        export_model(adapter, tmp_path / "merged")
    export_model(adapter, tmp_path / "merged", base=str(moved))
    assert (tmp_path / "merged" / "model.safetensors").exists()


def test_a_model_is_copied_in_the_type_that_was_asked_for(base, tmp_path) -> None:
    export_model(base, tmp_path / "half", dtype="bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16


def test_a_run_means_its_final_model(base, tmp_path) -> None:
    (tmp_path / "run" / "final").mkdir(parents=True)
    (tmp_path / "run" / "final" / "config.json").write_text("{}")
    assert find_model(tmp_path / "run") == tmp_path / "run" / "final"


def test_a_run_without_a_final_model_lists_its_checkpoints(tmp_path) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    with pytest.raises(ConfigError, match="no final/; it has checkpoint-5, name one"):
        find_model(tmp_path)


@pytest.mark.parametrize("place", ["/nowhere", "/etc"])
def test_a_folder_without_a_model_is_refused(place: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds no model, no adapter and no final/"):
        export_model(place, tmp_path / "out")


def test_nothing_is_written_over(base, tmp_path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        export_model(base, tmp_path)


def test_a_whole_model_has_no_base(base, tmp_path) -> None:
    with pytest.raises(ConfigError, match="is a whole model"):
        export_model(base, tmp_path / "out", base="x")


def test_a_broken_adapter_config_is_refused(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        base_of(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="names no base model"):
        base_of(tmp_path)
