"""DeepSpeed configurations: what is generated, what a file may say, and every contradiction by name."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from support.models import small_settings
from support.ocr_mem import DS_CONFIG, DS_CONFIG_AUTO

from ocrmem.config import RunConfig
from ocrmem.config.deepspeed import deepspeed_config
from ocrmem.errors import ConfigError
from ocrmem.training.deepspeed import require_deepspeed

AUTO_SIZES = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "gradient_clipping": "auto",
}


def config(model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    """Settings that were not checked: what reads them must not rely on it."""
    return RunConfig.model_validate({"train": train, "model": model or {}})


def checked(model: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    """Settings after all rules, faulty in nothing but what is given."""
    values = small_settings(Path("somewhere"))
    values["train"] |= train
    values["model"] |= {"vision_embedding_size": 64} | (model or {})
    return RunConfig.from_dict(values)


def generated(*, on_cpu: bool = False, **train: Any) -> dict[str, Any]:
    made = deepspeed_config(config(**train), on_cpu=on_cpu)
    assert made is not None
    return made


def test_without_deepspeed_there_is_none() -> None:
    assert deepspeed_config(config(), on_cpu=False) is None


@pytest.mark.parametrize(("name", "stage"), [("zero1", 1), ("zero2", 2), ("zero3", 3)])
@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_generated_configuration(name: str, stage: int, on_cpu: bool, precision: str) -> None:
    made = deepspeed_config(config({"precision": precision}, deepspeed=name), on_cpu=on_cpu)
    assert made is not None
    assert made.items() >= AUTO_SIZES.items()
    assert made["bf16"] == made["fp16"] == {"enabled": False}  # proj stays in float32
    assert made["zero_force_ds_cpu_optimizer"] is False
    zero = made["zero_optimization"]
    assert zero["stage"] == stage
    assert zero["overlap_comm"] is not on_cpu
    assert zero.get("stage3_gather_16bit_weights_on_model_save") == (True if stage == 3 else None)
    assert not [key for key in zero if key.startswith("offload")]


@pytest.mark.parametrize(
    ("offload", "parts"), [("none", []), ("optimizer", ["optimizer"]), ("all", ["optimizer", "param"])]
)
def test_offload(offload: str, parts: list[str]) -> None:
    zero = generated(deepspeed="zero3", offload=offload)["zero_optimization"]
    assert sorted(key for key in zero if key.startswith("offload")) == [f"offload_{part}" for part in parts]
    assert all(zero[f"offload_{part}"] == {"device": "cpu", "pin_memory": True} for part in parts)
    on_cpu = generated(deepspeed="zero3", offload=offload, on_cpu=True)["zero_optimization"]
    assert all(on_cpu[f"offload_{part}"]["pin_memory"] is False for part in parts)


def write(path: Path, values: Any) -> str:
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return str(path)


def test_file_is_merged_over_what_would_be_generated(tmp_path: Path) -> None:
    values = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}, "wall_clock_breakdown": True}
    made = generated(deepspeed=write(tmp_path / "ds.json", values))
    assert made["wall_clock_breakdown"] is True
    assert made["zero_optimization"]["reduce_bucket_size"] == 1000
    assert made["zero_optimization"]["contiguous_gradients"] is True
    assert made.items() >= AUTO_SIZES.items()


def test_file_that_agrees_is_taken(tmp_path: Path) -> None:
    values = {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": "auto",
        "train_batch_size": 16,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
    }
    name = write(tmp_path / "ds.json", values)
    train = {"per_device_batch_size": 4, "gradient_accumulation_steps": 2, "processes": 2, "max_grad_norm": 0.5}
    checked(deepspeed=name, offload="optimizer", **train)


@pytest.mark.parametrize(
    ("values", "refused"),
    [(DS_CONFIG, ["enables bf16"]), (DS_CONFIG_AUTO, ["enables bf16", "has scheduler WarmupLR"])],
    ids=["ds_config.json", "ds_config_auto.json"],
)
def test_of_ocr_mem_s_files_what_agrees_is_taken_and_each_other_key_is_refused(
    values: dict[str, Any], refused: list[str], tmp_path: Path
) -> None:
    train: dict[str, Any] = {
        "offload": "optimizer" if "offload_optimizer" in values["zero_optimization"] else "none",
        "learning_rate": 2e-4,
        "weight_decay": 0.01,
        "per_device_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "processes": 8,
    }
    with pytest.raises(ConfigError) as caught:
        checked(deepspeed=write(tmp_path / "ds.json", values), **train)
    assert [said for problem in caught.value.problems for said in refused if said in problem.message] == refused
    assert len(caught.value.problems) == len(refused)
    rest = {key: value for key, value in values.items() if key not in ("bf16", "scheduler")}
    made = generated(**checked(deepspeed=write(tmp_path / "ds.json", rest), **train).train.model_dump())
    assert made["steps_per_print"] == 10
    assert not [key for key in made if key.startswith("_comment") or key == "optimizer"]


CONTRADICTIONS = [
    ({"train_micro_batch_size_per_gpu": 3}, {}, r"per_gpu 3, but train.per_device_batch_size is \d"),
    ({"gradient_accumulation_steps": 3}, {}, r"steps 3, but train.gradient_accumulation_steps is 1"),
    ({"train_batch_size": 9}, {}, r"train_batch_size 9, but .* x processes is \d"),
    ({"gradient_clipping": 2.0}, {}, r"gradient_clipping 2.0, but train.max_grad_norm is 1.0"),
    ({"bf16": {"enabled": True}}, {}, r"enables bf16, which casts proj"),
    ({"fp16": {"enabled": True}}, {}, r"enables fp16"),
    ({"amp": {"enabled": True}}, {}, r"enables amp"),
    ({"optimizer": {"type": "Adam"}}, {}, r"has optimizer Adam, but proj is optimized by AdamW"),
    ({"optimizer": {"type": "AdamW", "params": {"lr": 0.5}}}, {}, r"params.lr 0.5, but train.learning_rate is 0.001"),
    ({"optimizer": {"type": "AdamW", "params": {"betas": [0.9, 0.9]}}}, {}, r"betas \[0.9, 0.9\], but 0.9 and train"),
    ({"optimizer": {"type": "AdamW", "params": {"torch_adam": True}}}, {}, r"params.torch_adam, which no setting says"),
    ({"scheduler": {"type": "WarmupLR"}}, {}, r"has scheduler WarmupLR, but train.lr_scheduler_type cosine"),
    ({"tensor_parallel": {"autotp_size": 2}}, {}, r"tensor_parallel.autotp_size 2"),
    ({"zero_optimization": {"stage": 0}}, {}, r"stage 0. Use 1, 2 or 3"),
    ({"zero_optimization": {}}, {}, r"stage None"),
    (
        {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
        {},
        r"offload_optimizer.device cpu, but train.offload is none",
    ),
    (
        {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
        {"offload": "all"},
        r"offload_param.device nvme, but train.offload is all, which means cpu",
    ),
    ({"zero_optimization": {"stage": 2}}, {"offload": "all"}, r"stage 2, at which parameters cannot be offloaded"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "train", "message"), CONTRADICTIONS)
def test_contradiction_is_refused_by_name(
    values: dict[str, Any], train: dict[str, Any], message: str, tmp_path: Path
) -> None:
    name = write(tmp_path / "ds.json", {"zero_optimization": {"stage": 2}} | values)
    with pytest.raises(ConfigError, match=message):
        checked(deepspeed=name, **train)
    with pytest.raises(ConfigError, match=message):
        deepspeed_config(config(deepspeed=name, **train), on_cpu=True)


def test_all_contradictions_are_named_at_once(tmp_path: Path) -> None:
    values = {
        "train_batch_size": 1,
        "gradient_clipping": 9,
        "fp16": {"enabled": True},
        "zero_optimization": {"stage": 9},
    }
    with pytest.raises(ConfigError) as error:
        checked(deepspeed=write(tmp_path / "ds.json", values))
    assert len(error.value.problems) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "which is not JSON"),
        ("[]", "has no section zero_optimization"),
        ('{"zero_optimization": 3}', "has no section zero_optimization"),
    ],
)
def test_broken_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(deepspeed=write(tmp_path / "ds.json", content))


@pytest.mark.parametrize(
    ("train", "model", "message"),
    [
        ({"deepspeed": "zero4"}, {}, r"train.deepspeed: is 'zero4', which cannot be read.*zero1, zero2, zero3"),
        ({"offload": "optimizer"}, {}, r"train.offload: is optimizer, but train.deepspeed is not set"),
        ({"deepspeed": "zero2", "offload": "all"}, {}, r"train.offload: is all, but zero2"),
        ({"deepspeed": "zero2"}, {"precision": "float16"}, r"model.precision: is float16, which DeepSpeed"),
    ],
)
def test_settings_that_contradict_each_other(train: dict[str, Any], model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(model, **train)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "deepspeed" else real(name, *rest)
    )
    require_deepspeed(config())
    with pytest.raises(ConfigError, match=r"is zero2, but the package deepspeed is not installed.*ocrmem\[deepspeed\]"):
        require_deepspeed(config(deepspeed="zero2"))
