"""The smoke test passes on a healthy run and names the fault of a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.models import small_settings, small_workspace

from ocrmem.config import RunConfig
from ocrmem.dataset.build import build_dataset
from ocrmem.errors import CheckFailed, MissingInputError
from ocrmem.gradflow import smoke as smoke_module
from ocrmem.gradflow.smoke import CHECKS, smoke
from ocrmem.model.modeling import MEMModel


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> RunConfig:
    return small_workspace(tmp_path_factory.mktemp("smoke"))


@pytest.fixture
def model(workspace) -> MEMModel:
    return MEMModel.from_run_config(workspace, with_encoder=False)


def failing(config: RunConfig, model: MEMModel | None = None) -> tuple[list[str], dict]:
    """The names of the failed checks, as raised, and the report as written."""
    with pytest.raises(CheckFailed) as caught:
        smoke(config, model)
    assert caught.value.exit_code == 1
    report = json.loads((Path(config.paths.smoke) / "report.json").read_text(encoding="utf-8"))
    failed = [check["name"] for check in report["checks"] if check["status"] == "failed"]
    assert [problem.place for problem in caught.value.problems] == [f"smoke: {name}" for name in failed]
    assert not report["ok"]
    assert [check["name"] for check in report["checks"]] == list(CHECKS)
    return failed, {check["name"]: check for check in report["checks"]}


def test_a_healthy_run_passes_every_check(workspace):
    result = smoke(workspace)
    written = json.loads((Path(workspace.paths.smoke) / "report.json").read_text(encoding="utf-8"))
    assert written == {key: value for key, value in result.items() if key != "summary"}
    assert [check["name"] for check in written["checks"]] == list(CHECKS)
    assert {check["status"] for check in written["checks"]} == {"passed"}
    assert written["ok"]
    assert written["memory_from"] == "stored features"
    summary = "\n".join(result["summary"])
    for text in ("trainable params: ", "loss requires grad: requires_grad True", "all checks passed"):
        assert text in summary
    assert f"loss {result['loss']:.4f}" in summary


def test_before_encode_the_pages_go_through_the_encoder(workspace, tmp_path):
    run = workspace.model_copy(
        update={
            "paths": workspace.paths.model_copy(
                update={"features": str(tmp_path / "none"), "smoke": str(tmp_path / "smoke")}
            )
        }
    )
    result = smoke(run)
    assert result["memory_from"] == "encoder"
    assert result["loss"] == pytest.approx(smoke(workspace)["loss"], abs=1e-5)


def test_the_model_is_left_without_gradients(workspace, model):
    smoke(workspace, model)
    assert all(p.grad is None for p in model.parameters())


def test_frozen_proj(workspace, model):
    model.proj.requires_grad_(False)
    failed, checks = failing(workspace, model)
    assert failed == ["trainable", "loss_requires_grad"]
    assert {checks[name]["status"] for name in ("backward", "proj_gradients")} == {"skipped"}


def test_a_part_of_proj_is_frozen(workspace, model):
    model.proj.fc1.bias.requires_grad_(False)
    failed, checks = failing(workspace, model)
    assert failed == ["trainable", "proj_gradients"]
    assert "proj.fc1.bias (none)" in checks["proj_gradients"]["evidence"]


def test_the_language_model_is_trainable(workspace, model):
    model.base_llm_model.requires_grad_(True)
    failed, checks = failing(workspace, model)
    assert failed == ["trainable", "frozen_gradients"]
    assert "base_llm_model" in checks["frozen_gradients"]["evidence"]


def test_detach_between_proj_and_the_language_model(workspace, model):
    model.proj.register_forward_hook(lambda _m, _i, output: output.detach())
    assert failing(workspace, model)[0] == ["loss_requires_grad"]


def test_the_detach_requires_grad_repair_that_trains_nothing(workspace, model):
    model.proj.register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_(True))
    failed, checks = failing(workspace, model)
    assert failed == ["proj_gradients"]
    assert "proj.fc1.weight (none)" in checks["proj_gradients"]["evidence"]


def test_proj_under_no_grad(workspace, model):
    model.proj.forward = torch.no_grad()(model.proj.forward)
    assert failing(workspace, model)[0] == ["loss_requires_grad"]


def test_stored_features_read_under_inference_mode(workspace, monkeypatch):
    gather = smoke_module.FeatureStore.gather
    monkeypatch.setattr(smoke_module.FeatureStore, "gather", torch.inference_mode()(gather))
    failed, checks = failing(workspace)
    assert failed == ["forward"]
    assert "torch.inference_mode()" in checks["forward"]["evidence"]


def without_features(workspace, tmp_path) -> RunConfig:
    paths = workspace.paths.model_copy(update={"features": str(tmp_path / "none")})
    return workspace.model_copy(update={"paths": paths})


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_an_encoder_under_no_grad_is_healthy(workspace, tmp_path, guard):
    """Picking the kept tokens copies them, so inference tensors of the encoder itself do no harm."""
    run = without_features(workspace, tmp_path)
    model = MEMModel.from_run_config(run, with_encoder=True)
    model.ocr_embed.forward = guard()(model.ocr_embed.forward)
    assert smoke(run, model)["ok"]


def test_a_loss_that_is_not_finite(workspace, model):
    with torch.no_grad():
        model.proj.fc2.bias.fill_(torch.inf)
    failed, _ = failing(workspace, model)
    assert failed[0] == "loss_finite"
    assert "proj_gradients" in failed


def test_gradients_that_are_zero(workspace, model):
    with torch.no_grad():
        model.proj.fc2.weight.zero_()
    failed, checks = failing(workspace, model)
    assert failed == ["proj_gradients", "memory_matters"]
    assert "proj.fc1.weight (all zero)" in checks["proj_gradients"]["evidence"]


def test_backward_that_cannot_run(workspace, model):
    def change_saved_tensor(_module, _inputs, output):
        inner = output.exp()
        result = inner * 1.0
        inner.add_(1)
        return result

    model.proj.register_forward_hook(change_saved_tensor)
    failed, checks = failing(workspace, model)
    assert failed == ["backward"]
    assert "inplace" in checks["backward"]["evidence"]


def test_features_that_do_not_depend_on_the_page(workspace, tmp_path):
    run = without_features(workspace, tmp_path)
    model = MEMModel.from_run_config(run, with_encoder=True)
    whole = model.ocr_embed.forward
    model.ocr_embed.forward = lambda pixels: whole(torch.ones_like(pixels))
    assert failing(run, model)[0] == ["memory_matters"]


def test_no_training_sample_with_memory(tmp_path):
    workspace = small_workspace(tmp_path, features=False)
    (Path(workspace.data.path) / "train.jsonl").unlink()
    build_dataset(workspace)
    failed, checks = failing(workspace)
    assert failed == ["samples"]
    assert "context_threshold" in checks["samples"]["remedy"]
    assert {check["status"] for name, check in checks.items() if name != "samples"} == {"skipped"}


def test_one_page_alone_is_compared_with_itself_in_reverse(workspace, monkeypatch):
    dataset = smoke_module.MemoryDataset.open(Path(workspace.paths.dataset))
    store = smoke_module.FeatureStore.open(Path(workspace.paths.features))
    (sample,) = smoke_module.pick_samples(dataset, 1)
    (page,) = sample.pages
    monkeypatch.setattr(dataset, "page_hashes", lambda: [page])
    features = torch.arange(6.0).reshape(3, 2)
    changed = smoke_module.other_memory({"memory_features": features}, dataset, store, [sample])
    assert torch.equal(changed["memory_features"], features.flip(0))
    pixels = torch.arange(12.0).reshape(1, 3, 2, 2)
    changed = smoke_module.other_memory({"pixel_values": pixels}, dataset, None, [sample])
    assert torch.equal(changed["pixel_values"], pixels.flip(2))


def test_samples_with_the_same_pages_are_picked_once(workspace):
    dataset = smoke_module.MemoryDataset.open(Path(workspace.paths.dataset))
    picked = smoke_module.pick_samples(dataset, 5)
    assert len(picked) == 5
    assert len({sample.pages for sample in picked}) == 5


def test_without_a_dataset_the_verb_to_run_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="ocrmem render"):
        smoke(RunConfig.from_dict(small_settings(tmp_path)))
