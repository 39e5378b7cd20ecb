"""The smoke test passes on a healthy run and names the fault of a broken one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
import torch
from support.models import small_settings, small_workspace

from ocrmem import smoke_test as smoke_module
from ocrmem.config import RunConfig
from ocrmem.dataset.build import build_dataset
from ocrmem.errors import CheckFailed, ConfigError, DataError, MissingInputError
from ocrmem.model.modeling import MEMModel
from ocrmem.smoke_test import smoke, smoke_model


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> RunConfig:
    return small_workspace(tmp_path_factory.mktemp("smoke"))


@pytest.fixture
def model(workspace) -> MEMModel:
    return MEMModel.from_run_config(workspace, with_encoder=False)


def failing(config: RunConfig, model: MEMModel | None = None) -> dict[str, dict]:
    """The findings by code, as raised and as written."""
    with pytest.raises(CheckFailed) as caught:
        smoke(config, model)
    assert caught.value.exit_code == 1
    report = json.loads((Path(config.paths.smoke) / "report.json").read_text(encoding="utf-8"))
    errors = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert [problem.place for problem in caught.value.problems] == [finding["place"] for finding in errors]
    assert not report["ok"]
    page = (Path(config.paths.smoke) / "report.html").read_text(encoding="utf-8")
    assert all(finding["code"] in page for finding in errors)
    return {finding["code"]: finding for finding in report["findings"]}


def test_a_healthy_run_passes_every_check(workspace):
    result = smoke(workspace)
    written = json.loads((Path(workspace.paths.smoke) / "report.json").read_text(encoding="utf-8"))
    assert written.pop("sha256")
    assert written == {key: value for key, value in result.items() if key != "summary"}
    schema = json.loads(resources.files("ocrmem.gradflow").joinpath("report.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(written, schema)
    assert written["ok"]
    assert written["loss_grad_fn"] == "LossInPartsBackward"
    assert [part["part"] for part in written["parts"] if part["trainable"]] == ["proj"]
    assert written["findings"] == []
    assert written["memory_from"] == "stored features"
    assert written["batch"]["memory_tokens"] > 0
    assert written["batch"]["samples_with_memory"] == len(written["samples"]) == workspace.smoke.samples
    assert written["loss_with_other_pages"] != written["loss"]
    summary = "\n".join(result["summary"])
    for text in (
        "trainable params: ",
        "requires_grad True grad_fn LossInPartsBackward",
        "backward ok",
        "proj received gradients",
        "all checks passed",
    ):
        assert text in summary


def staged(run: RunConfig, **paths: str) -> RunConfig:
    stages = [{"objective": name, "steps": 1} for name in ("align", "transcribe", "answer")]
    values = run.as_dict()
    values["train"] |= {"stages": stages, "max_steps": 3}
    values["paths"] |= paths
    return RunConfig.from_dict(values)


@pytest.mark.parametrize("source", ["stored features", "encoder"])
def test_every_objective_of_the_stages_is_checked(workspace, tmp_path, source):
    paths = {"features": str(tmp_path / "none"), "smoke": str(tmp_path / "smoke")} if source == "encoder" else {}
    result = smoke(staged(workspace, **paths))
    assert (result["memory_from"], list(result["losses"])) == (source, ["align", "transcribe"])
    assert all(loss > 0 for loss in result["losses"].values())


def test_a_fault_of_one_objective_alone_is_found(workspace, model, monkeypatch):
    compare = MEMModel._compare_with_text
    monkeypatch.setattr(MEMModel, "_compare_with_text", torch.no_grad()(compare))
    assert "GF003" in failing(staged(workspace), model)


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


FAULTS: dict[str, tuple[str, Callable[[MEMModel], object]]] = {
    "frozen proj": ("GF002", lambda m: m.proj.requires_grad_(False)),
    "a part of proj is frozen": ("GF002", lambda m: m.proj.fc1.bias.requires_grad_(False)),
    "the language model is trainable": ("GF015", lambda m: m.base_llm_model.requires_grad_(True)),
    "detach": ("GF006", lambda m: m.proj.register_forward_hook(lambda _m, _i, output: output.detach())),
    "detach and requires_grad_": (
        "GF010",
        lambda m: m.proj.register_forward_hook(lambda _m, _i, output: output.detach().requires_grad_(True)),
    ),
    "proj under no_grad": ("GF003", lambda m: setattr(m.proj, "forward", torch.no_grad()(m.proj.forward))),
    "a loss that is not finite": ("GF018", lambda m: m.proj.fc2.bias.data.fill_(torch.nan)),
}


@pytest.mark.parametrize(("code", "inject"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_and_leaves_with_1(workspace, model, code, inject):
    inject(model)
    found = failing(workspace, model)
    assert list(found) == [code]
    assert "proj" in found[code]["place"] or code == "GF015"


def test_stored_features_read_under_inference_mode(workspace, monkeypatch):
    gather = smoke_module.FeatureStore.gather
    monkeypatch.setattr(smoke_module.FeatureStore, "gather", torch.inference_mode()(gather))
    found = failing(workspace)
    assert list(found) == ["GF001"]
    assert "inference_mode" in found["GF001"]["evidence"]


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


def test_memory_that_does_not_reach_the_loss(workspace, model):
    with torch.no_grad():
        model.proj.fc2.weight.zero_()
    assert list(failing(workspace, model)) == ["GF022"]


def test_backward_that_cannot_run(workspace, model):
    def change_saved_tensor(_module, _inputs, output):
        inner = output.exp()
        result = inner * 1.0
        inner.add_(1)
        return result

    model.proj.register_forward_hook(change_saved_tensor)
    found = failing(workspace, model)
    assert list(found) == ["GF021"]
    assert "inplace" in found["GF021"]["evidence"]


def test_features_that_do_not_depend_on_the_page(workspace, tmp_path):
    run = without_features(workspace, tmp_path)
    model = MEMModel.from_run_config(run, with_encoder=True)
    whole = model.ocr_embed.forward
    model.ocr_embed.forward = lambda pixels: whole(torch.ones_like(pixels))
    assert list(failing(run, model)) == ["GF013"]


def test_no_training_sample(tmp_path):
    workspace = small_workspace(tmp_path, features=False)
    (Path(workspace.data.path) / "train.jsonl").unlink()
    build_dataset(workspace)
    with pytest.raises(DataError, match="no training sample"):
        smoke(workspace)


def test_no_history_over_the_threshold_is_the_cause_and_not_a_missing_grad_fn(workspace, monkeypatch):
    texts = [replace(s, pages=(), memory_tokens=0, history_tokens=5) for s in dataset_of(workspace).samples("train")]
    monkeypatch.setattr(smoke_module.MemoryDataset, "samples", lambda self, split: texts)
    found = failing(workspace)
    assert list(found) == ["GF007"]
    assert "no history exceeds context_threshold (longest 5 tokens, threshold" in found["GF007"]["evidence"]


def dataset_of(workspace) -> smoke_module.MemoryDataset:
    return smoke_module.MemoryDataset.open(Path(workspace.paths.dataset))


def test_one_page_alone_is_compared_with_itself_in_reverse(workspace, monkeypatch):
    dataset = smoke_module.MemoryDataset.open(Path(workspace.paths.dataset))
    store = smoke_module.FeatureStore.open(Path(workspace.paths.features))
    (sample,) = smoke_module.pick_samples(dataset.samples("train"), 1)
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
    picked = smoke_module.pick_samples(dataset.samples("train"), 5)
    assert len(picked) == 5
    assert len({sample.pages for sample in picked}) == 5


def test_without_a_dataset_the_verb_to_run_is_named(tmp_path):
    with pytest.raises(MissingInputError, match="ocrmem render"):
        smoke(RunConfig.from_dict(small_settings(tmp_path)))


MODULE = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(2, 1)
    def forward(self, x):
        return {"loss": self.head(self.body(x)).sum()}

def healthy():
    return Model(), {"x": torch.randn(3, 2)}

def frozen():
    model, batch = healthy()
    model.head.requires_grad_(False)
    return model, batch

def wrong():
    return Model()

class Broken(Model):
    def forward(self, x):
        return {"loss": self.head(x[0, "column"])}

def broken():
    return Broken(), {"x": torch.randn(3, 2)}

def mismatched():
    return Model(), {"x": torch.randn(3, 5)}

def unmade():
    raise OSError("no weights here")

def unfinished():
    import a_module_that_nobody_has

class Vector(Model):
    def forward(self, x):
        return {"loss": self.head(self.body(x)).squeeze(1)}

def vector():
    return Vector(), {"x": torch.randn(3, 2)}
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "their_model.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "unreadable.py").write_text("def make(:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("their_model", None)


def test_a_model_that_is_not_ours(elsewhere):
    assert smoke_model("their_model:healthy", "head")["ok"]
    assert (elsewhere / "smoke" / "report.html").is_file()
    assert smoke_model("their_model:healthy", ["head.weight", "head.bias"])["trainable"] == ["head.weight", "head.bias"]
    with pytest.raises(CheckFailed, match="GF002"):
        smoke_model("their_model:frozen", "head")


@pytest.mark.parametrize(
    ("target", "trainable", "message"),
    [
        ("their_model", "head", "package.module:function"),
        ("nowhere:healthy", "head", "cannot be imported"),
        ("their_model:nothing", "head", "cannot be imported"),
        ("their_model:wrong", "head", r"not \(model, batch\)"),
        ("their_model:healthy", "haed", "did you mean 'head'"),
        ("their_model:vector", "head", r"the loss has 3 elements .*loss.mean\(\)"),
        ("their_model:broken", "head", r"their_model.py:26: .* raised (Type|Index)Error"),
        ("their_model:mismatched", "head", r"their_model.py:11: .* raised RuntimeError: .*mat1 and mat2"),
        ("their_model:unmade", "head", r"their_model.py:35: .* raised OSError: no weights here"),
        ("their_model:unfinished", "head", r"their_model.py:38: .*a_module_that_nobody_has"),
        ("unreadable:make", "head", r"unreadable.py:1: .* raised SyntaxError"),
    ],
)
def test_a_wrong_target_is_an_error_of_usage(elsewhere, target, trainable, message):
    with pytest.raises(ConfigError, match=message):
        smoke_model(target, trainable)
