"""LoRA beside proj through stages, resumption, evaluation, the package and an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.models import small_workspace

from ocrmem.adapter import package_adapter
from ocrmem.config import RunConfig
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.errors import CheckFailed, TrainingError
from ocrmem.evaluation.evaluate import evaluate
from ocrmem.files import write_json
from ocrmem.generation.generate import generate
from ocrmem.json_files import with_sha256
from ocrmem.model.modeling import MEMModel
from ocrmem.registry.registration import _lora_tag
from ocrmem.smoke_test import smoke
from ocrmem.training.frozen import hash_model
from ocrmem.training.train import train

LORA = {"rank": 2, "targets": ["v_proj"]}
STAGES = [
    {"objective": "align", "steps": 2},
    {"objective": "distil", "steps": 3, "mix": {"distil": 1, "answer": 1}},
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    section = {"stages": STAGES, "max_steps": 5, "save_steps": 1, "save_total_limit": 5, "learning_rate": 0.05}
    root = tmp_path_factory.mktemp("lora")
    return small_workspace(root, train=section | {"lora": LORA}, evaluate={"max_samples": 4, "max_new_tokens": 2})


def with_lora(config: RunConfig, lora: Any) -> RunConfig:
    values = config.as_dict()
    values["train"]["lora"] = lora
    return RunConfig.from_dict(values)


@pytest.fixture(scope="module")
def trained(config: RunConfig) -> Any:
    return train(config)


def test_the_proof_of_frozen_weights_covers_all_but_lora(config: RunConfig, trained: Any) -> None:
    model, features = MEMModel.from_run_config(with_lora(config, None), with_encoder=False), config.paths.features
    model.set_feature_statistics(FeatureStore.open(features).mean, FeatureStore.open(features).std)
    plain = hash_model(model)
    assert trained["frozen_sha256"] == {"before": plain.frozen_hash, "after": plain.frozen_hash}
    assert trained["proj_sha256"]["before"] == plain.proj_hash
    assert trained["lora_sha256"]["before"] != trained["lora_sha256"]["after"]
    assert "parameters of proj and LoRA" in trained["summary"][0]


def test_it_waits_while_no_language_model_runs(config: RunConfig, trained: Any) -> None:
    for step, waits in ((2, True), (3, False)):
        state = load_file(Path(config.paths.checkpoints) / f"checkpoint-{step}" / "proj.safetensors")
        ups = [tensor for name, tensor in state.items() if name.endswith("lora_B.weight")]
        assert len(ups) == 2
        assert all(bool((up == 0).all()) is waits for up in ups)


def test_a_run_resumes_before_and_after_it_begins_to_learn(config: RunConfig, trained: Any) -> None:
    for last in (4, 2):
        for path in Path(config.paths.checkpoints).glob("checkpoint-*"):
            if int(path.name.removeprefix("checkpoint-")) > last:
                shutil.rmtree(path)
        assert train(config, resume=True)["adapter_sha256"] == trained["adapter_sha256"], last
    with pytest.raises(TrainingError, match=r"lora was \{'rank': 2, 'alpha': 16.0"):
        train(with_lora(config, LORA | {"alpha": 8}), resume=True)


def test_the_doctor_checks_it_where_it_learns(config: RunConfig) -> None:
    model = MEMModel.from_run_config(config, with_encoder=False)
    result = smoke(config, model)
    assert result["ok"]
    assert result["findings"] == []
    assert "v_proj.lora_A" in "\n".join(result["summary"])
    assert all(result["losses"].values())
    assert all(weight.requires_grad for weight in model.lora_weights().values())
    next(iter(model.lora_weights().values())).requires_grad_(False)
    with pytest.raises(CheckFailed, match="requires_grad is False"):
        smoke(config, model)


def test_what_it_does_to_the_base_is_measured_and_told(config: RunConfig, trained: Any, tmp_path: Path) -> None:
    write_json(Path(config.paths.smoke) / "report.json", with_sha256({"ok": True}))
    result = evaluate(config)
    assert result["base_text"]["loss"] != result["full_text"]["loss"]
    package_adapter(config, tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    assert "changes the base model" in card
    assert "| LoRA | rank 2, alpha 16, on `v_proj` |" in card
    assert "| base_text |" in card
    assert _lora_tag(tmp_path / "package") == {"ocrmem.lora": "rank 2, on v_proj"}
    question = {"messages": [{"role": "user", "content": "ask kim"}]}
    (tmp_path / "question.json").write_text(json.dumps(question), encoding="utf-8")
    answer = generate(config, str(tmp_path / "package"), tmp_path / "question.json")
    assert answer["summary"][-1] == "The adapter's LoRA changes the language model."
