from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save

from tests.training import make_base
from understudy.errors import ConfigError
from understudy.models.load import load_model
from understudy.models.lora import LoraSettings, add_adapter, continue_adapter, load_adapter
from understudy.models.tiny import tiny_model

IDS = torch.arange(12)[None]


def trained(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.3}])
def test_a_new_adapter_changes_nothing_yet(base, options) -> None:
    plain = load_model(base).eval()
    before = plain(IDS).logits.detach()
    adapted = add_adapter(plain, LoraSettings(r=4, **options)).eval()
    assert torch.allclose(adapted(IDS).logits, before, atol=1e-6)


def test_only_the_adapter_is_trained_and_the_output_layer_has_none(base) -> None:
    names = trained(add_adapter(load_model(base), LoraSettings(r=4)))
    assert names
    assert all("lora_" in name for name in names)
    assert not any("lm_head" in name or "embed_tokens" in name for name in names)


def test_layers_can_be_chosen_by_name_and_by_expression(base) -> None:
    by_name = trained(add_adapter(load_model(base), LoraSettings(r=2, target_modules=["q_proj", "v_proj"])))
    by_expression = trained(add_adapter(load_model(base), LoraSettings(r=2, target_modules=r".*\.(q|v)_proj")))
    assert by_name == by_expression
    assert len(by_name) == 4


def test_layers_can_be_trained_whole_beside_the_adapter(base) -> None:
    names = trained(add_adapter(load_model(base), LoraSettings(r=2, modules_to_save=["embed_tokens"])))
    assert any("embed_tokens" in name for name in names)


def test_an_adapter_on_tied_embeddings_is_refused_because_it_could_not_be_merged(base) -> None:
    settings = LoraSettings(r=2, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ConfigError, match=r"embeddings are its output layer too.*modules_to_save"):
        add_adapter(load_model(base), settings)
    untied = tiny_model("qwen3", vocab_size=400, tie_word_embeddings=False)
    assert any("embed_tokens" in name for name in trained(add_adapter(untied, settings)))


def test_equal_seeds_give_equal_adapters(base) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = add_adapter(load_model(base), LoraSettings(r=2), seed=seed)
        return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if "lora_A" in name])

    torch.manual_seed(5)
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_an_adapter_comes_back_from_its_folder(base, tmp_path) -> None:
    model = add_adapter(load_model(base), LoraSettings(r=2)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    model.save_pretrained(tmp_path)
    assert torch.equal(load_adapter(load_model(base), tmp_path).eval()(IDS).logits, model(IDS).logits)
    assert trained(load_adapter(load_model(base), tmp_path)) == []
    assert trained(load_adapter(load_model(base), tmp_path, trainable=True)) == trained(model)


def test_an_adapter_for_another_model_is_refused(base, tmp_path) -> None:
    other = load_model(make_base(tmp_path / "other", hidden_size=48))
    add_adapter(other, LoraSettings(r=2)).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match="does not fit the model"):
        load_adapter(load_model(base), tmp_path / "adapter")


def test_an_adapter_that_is_cut_off_or_lacks_weights_is_refused(base, tmp_path) -> None:
    add_adapter(load_model(base), LoraSettings(r=2)).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    whole, weights = file.read_bytes(), load_file(file)
    others = {name.replace("layers.", "blocks."): weight for name, weight in weights.items()}
    for content in (whole[: len(whole) // 2], save(others), save(dict(list(weights.items())[1:]))):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="does not fit the model"):
            load_adapter(load_model(base), tmp_path)


def test_an_adapter_with_layers_that_the_model_lacks_is_refused_with_their_names(base, tmp_path) -> None:
    deeper = load_model(make_base(tmp_path / "deeper", num_layers=3))
    add_adapter(deeper, LoraSettings(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    num_layers = load_model(base).config.num_hidden_layers
    with pytest.raises(ConfigError, match=rf"which has no layers for .*layers\.{num_layers}\..*q_proj.*made for"):
        load_adapter(load_model(base), tmp_path / "adapter")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora_dropout": 0.1, "use_dora": True},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": r".*\.q_proj", "modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_an_adapter_is_trained_on_under_the_settings_that_it_was_made_with(base, tmp_path, options) -> None:
    settings = LoraSettings(r=2, **options)
    made = add_adapter(load_model(base), settings)
    made.save_pretrained(tmp_path)
    assert trained(continue_adapter(load_model(base), tmp_path, settings)) == trained(made)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lora_dropout": 0.5}, r"lora.lora_dropout: .* has 0.0, not 0.5"),
        ({"use_dora": True}, r"lora.use_dora: .* has False, not True"),
        ({"target_modules": ["v_proj"]}, r"lora_target_modules.* it has .*q_proj"),
        ({"target_modules": "all-linear"}, r"lora_target_modules.* it lacks .*down_proj"),
        ({"modules_to_save": ["embed_tokens"]}, r"modules_to_save.* it lacks .*embed_tokens"),
    ],
)
def test_settings_that_an_adapter_was_not_made_with_are_refused_and_not_passed_over(
    base, tmp_path, options, said: str
) -> None:
    add_adapter(load_model(base), LoraSettings(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=said):
        continue_adapter(load_model(base), tmp_path, LoraSettings(**{"r": 2, "target_modules": ["q_proj"]} | options))
