from __future__ import annotations

from typing import Any

import peft
import pytest

from tests.train.small import model
from understudy.errors import ConfigError
from understudy.train.tensor_parallel import layer_plan


def adapted(**settings: Any) -> Any:
    return peft.get_peft_model(model(), peft.LoraConfig(r=2, **settings))


def test_heads_and_mlp_are_cut_as_transformers_plans_it() -> None:
    plan = layer_plan(model(num_layers=1), 2)
    styles = {name.removeprefix("model.layers.0."): style for name, style in plan.items()}
    norms = {f"self_attn.{name}_norm": "replicated_with_grad_allreduce" for name in "qk"}
    columns = dict.fromkeys([*(f"self_attn.{name}_proj" for name in "qkv"), "mlp.gate_proj", "mlp.up_proj"], "colwise")
    assert styles == norms | columns | dict.fromkeys(["self_attn.o_proj", "mlp.down_proj"], "rowwise")


def test_the_narrow_middle_of_an_adapter_is_whole() -> None:
    plan = layer_plan(adapted(target_modules=["q_proj", "o_proj"]), 2)
    layer = "base_model.model.model.layers.0.self_attn"
    for part in ("base_layer", "lora_B.default"):
        assert plan[f"{layer}.q_proj.{part}"] == "colwise"
    for part in ("base_layer", "lora_A.default"):
        assert plan[f"{layer}.o_proj.{part}"] == "rowwise"
    assert not {f"{layer}.q_proj", f"{layer}.q_proj.lora_A.default", f"{layer}.o_proj.lora_B.default"} & plan.keys()


@pytest.mark.parametrize(
    ("made", "size", "said"),
    [
        (model, 3, "4 attention heads, which cannot be dealt out to 3 processes; set it to a divisor of 4"),
        (model, 4, "2 key and value heads, which cannot be dealt out to 4 processes"),
        (lambda: model(intermediate_size=33), 2, "mlp.gate_proj is 33 wide"),
        (lambda: model("qwen3_moe"), 2, "not supported here .*packed_colwise.*; leave train.tp_size out, .*fsdp: true"),
        (lambda: model("gpt_oss"), 2, "transformers has no plan for cutting the layers of GptOssModel; leave"),
        (lambda: adapted(target_modules=["q_proj"], use_dora=True), 2, "q_proj is a Linear.* without lora.use_dora"),
        (
            lambda: adapted(target_modules=["q_proj"], modules_to_save=["k_proj"]),
            2,
            "k_proj is a ModulesToSaveWrapper.* leave layers out of lora.modules_to_save",
        ),
        (
            lambda: adapted(target_modules=["q_proj"], modules_to_save=["k_norm"]),
            2,
            "k_norm is a ModulesToSaveWrapper.* leave layers out of lora.modules_to_save",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_with_its_mend(made: Any, size: int, said: str) -> None:
    with pytest.raises(ConfigError, match=f"train.tp_size: .*{said}"):
        layer_plan(made(), size)


def test_weights_within_heads_that_the_plan_passes_over_are_refused() -> None:
    network = model()
    plan = {name: style for name, style in network.config.base_model_tp_plan.items() if "q_norm" not in name}
    network.config.base_model_tp_plan = plan
    with pytest.raises(ConfigError, match=r"says nothing of layers.0.self_attn.q_norm.weight; upgrade transformers"):
        layer_plan(network, 2)
