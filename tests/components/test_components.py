"""Every component through its python function, on real small data: outputs, metadata, and failures as the CLI's."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from support.models import small_workspace, write_random_base

from ocrmem.facts import RUN_ID
from ocrmem.files import sha256_file, sha256_tree
from ocrmem.steps import TASKS
from ocrmem.workflow.records import RUNS, read_records

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
GATE = {"min_recall": 0.0, "max_shuffled_recall": 0.0, "max_no_memory_recall": 0.0, "min_loss_gain": -1e9}


class Made:
    """Artifacts by task and name, and what the tasks returned.

    Attributes:
        settings: what validate_config handed out, by step.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.returned: dict[str, Any] = {}
        self.settings: dict[str, str] = {}

    def run(self, component: str, /, **inputs: Any) -> None:
        function = getattr(importlib.import_module(f"components.{component}"), component)
        outputs = {
            name: KINDS[spec.type.split(".")[1].split("@")[0]](uri=str(self.root / component / name))
            for name, spec in function.component_spec.outputs.items()
            if spec.type.startswith("system.")
        }
        self.artifacts[component] = outputs
        read = [value.path for value in inputs.values() if isinstance(value, dsl.Artifact)]
        before = [sha256_tree(Path(path)) for path in read]
        self.returned[component] = function.python_func(**inputs, **outputs)
        assert [sha256_tree(Path(path)) for path in read] == before, f"{component} wrote into its inputs"

    def step(self, component: str, step: str, /, **inputs: Any) -> None:
        self.run(component, settings=self.settings[step], **inputs)


def final(state: str, message: str | None = None) -> dsl.PipelineTaskFinalStatus:
    return dsl.PipelineTaskFinalStatus(state, "pipelines/1", "run", 1 if message else None, message)


KINDS = {kind.__name__: kind for kind in (dsl.Artifact, dsl.Dataset, dsl.Model, dsl.Metrics, dsl.HTML, dsl.Markdown)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The whole chain, run once, in a run that keeps records."""
    root = tmp_path_factory.mktemp("components")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        patch.setenv(RUNS, str(root / "runs"))
        patch.setenv(RUN_ID, "one")
        patch.chdir(root)
        small_workspace(
            _fresh(root / "given"),
            features=False,
            register={"uri": f"sqlite:///{root / 'registry' / 'mlflow.db'}", "gate": GATE},
            version={"remote": str(root / "remote")},
            base={"encoder_steps": 4, "lm_steps": 4, "text_recall": 0.0},
        )
        (root / "remote").mkdir()
        made = Made(root)
        _run_all(made, (root / "given" / "params.yaml").read_text(encoding="utf-8"))
        yield made


def _fresh(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _run_all(made: Made, params: str) -> None:
    made.run("validate_config", params=params, overrides=["smoke.samples=2"], data=str(made.root / "given" / "data"))
    made.settings = made.returned["validate_config"]._asdict()
    digest = made.settings.pop("data_sha256")
    made.step("preflight", "preflight")
    models = dsl.Model(uri=str(made.root / "models"))  # build_base has a test of its own
    write_random_base(Path(models.path))
    data = str(made.root / "given" / "data")
    made.step("render_dataset", "render", data=data, data_sha256=digest)
    inputs = {"dataset": made.artifacts["render_dataset"]["dataset"]}
    made.step("validate_dataset", "check", **inputs)
    made.step("version_dataset", "version", **inputs)
    inputs["models"] = models
    made.step("encode_pages", "encode", **inputs)
    inputs["features"] = made.artifacts["encode_pages"]["features"]
    made.step("smoke_test", "smoke", **inputs)
    made.step("train_adapter", "train", **inputs)
    learnt = {name: made.artifacts["train_adapter"][name] for name in ("adapter", "training")}
    made.step("evaluate_adapter", "evaluate", **inputs, **learnt)
    evaluation = made.artifacts["evaluate_adapter"]["evaluation"]
    made.step("check_gate", "gate", evaluation=evaluation)
    made.step(
        "register_adapter",
        "register",
        **learnt,
        dataset=inputs["dataset"],
        evaluation=evaluation,
        verdict=made.artifacts["smoke_test"]["verdict"],
        versioned=made.artifacts["version_dataset"]["versioned"],
    )
    made.run("summarise_run", pipeline="all", steps=list(TASKS), status=final("SUCCEEDED"))


def metadata(made: Made, component: str, name: str) -> dict[str, Any]:
    return made.artifacts[component][name].metadata


def test_every_component_has_run(made: Made) -> None:
    modules = {path.stem for path in (ROOT / "components").glob("*.py")} - {"__init__", "image", "build_base"}
    assert set(made.artifacts) == modules


def test_every_output_is_on_disk_and_its_metadata_is_json(made: Made) -> None:
    for component, outputs in made.artifacts.items():
        for name, artifact in outputs.items():
            assert Path(artifact.path).exists(), f"{component}.{name}"
            json.dumps(artifact.metadata, allow_nan=False)


def test_the_dataset_carries_hashes_counts_and_ratio(made: Made) -> None:
    found = metadata(made, "render_dataset", "dataset")
    manifest = Path(made.artifacts["render_dataset"]["dataset"].path) / "manifest.json"
    assert found["manifest_sha256"] == sha256_file(manifest)
    assert found["source_sha256"] == made.returned["validate_config"].data_sha256
    assert found["samples_train"] > 0
    assert found["compression_ratio"] > 0
    metrics = metadata(made, "render_dataset", "metrics")
    assert metrics["unique_pages"] == found["unique_pages"] > 0
    assert json.loads(Path(made.artifacts["render_dataset"]["metrics"].path).read_text()) == metrics


def test_the_version_is_pushed_and_its_dvc_file_kept(made: Made) -> None:
    found = metadata(made, "version_dataset", "versioned")
    directory = Path(made.artifacts["version_dataset"]["versioned"].path)
    assert found["md5"] in (directory / "dataset.dvc").read_text()
    assert found["skipped"] is False
    assert list((made.root / "remote").rglob("*.dir"))


def test_features_and_adapter_say_what_they_are_of(made: Made) -> None:
    features, adapter = metadata(made, "encode_pages", "features"), metadata(made, "train_adapter", "adapter")
    assert features["pages"] == metadata(made, "render_dataset", "dataset")["unique_pages"]
    assert len(features["weights_sha256"]) == 64
    report = json.loads((Path(made.artifacts["train_adapter"]["training"].path) / "train.json").read_text())
    assert adapter["adapter_sha256"] == report["adapter_sha256"]
    metrics = metadata(made, "train_adapter", "metrics")
    assert metrics["loss.last"] == report["loss"]["last"]
    assert metrics["steps"] == 4


def test_the_evaluation_is_shown_as_metrics(made: Made) -> None:
    evaluation = json.loads(Path(made.artifacts["evaluate_adapter"]["evaluation"].path).read_text())
    metrics = metadata(made, "evaluate_adapter", "metrics")
    assert metrics["memory.recall"] == evaluation["memory"]["recall"]
    assert metrics["compression_ratio"] == evaluation["compression_ratio"]
    assert {"no_memory.loss", "shuffled.loss", "truncated.loss", "mean_pooled.loss", "full_text.loss"} <= set(metrics)


def test_the_gate_is_a_table_and_the_package_names_its_version(made: Made) -> None:
    assert made.returned["check_gate"] is True
    assert "register.gate.min\\_recall" in Path(made.artifacts["check_gate"]["report"].path).read_text()
    package = made.artifacts["register_adapter"]["package"]
    assert package.metadata["version"] == 1
    assert package.metadata["alias"] == "champion"
    provenance = json.loads((Path(package.path) / "provenance.json").read_text())
    assert provenance["package_sha256"] == package.metadata["package_sha256"]
    assert provenance["params"]["train"]["max_steps"] == 4, "register sees every setting"


class Places(HTMLParser):
    """Everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in {"src", "href", "data", "srcset", "poster"}]
        if tag in {"script", "link", "iframe", "object", "embed"}:
            self.found.append(f"<{tag}>")


@pytest.mark.parametrize("component", ["smoke_test", "evaluate_adapter"])
def test_html_reports_are_single_files(component: str, made: Made) -> None:
    text = Path(made.artifacts[component]["report"].path).read_text(encoding="utf-8")
    assert text.lstrip().startswith("<!doctype html>")
    page = Places()
    page.feed(text)
    assert [place for place in page.found if not place.startswith(("data:", "#"))] == []
    assert "url(" not in text.replace("url(data:", "")


def test_every_task_left_a_record_and_the_summary_has_them(made: Made) -> None:
    records = read_records(made.root / "runs" / "one")
    assert list(records) == [step for step in TASKS if step != "base"]
    assert {record.status for record in records.values()} == {"done"}
    summary = json.loads((made.root / "runs" / "one" / "summary.json").read_text())
    assert summary["failed_task"] is None
    assert {row["step"]: row["status"] for row in summary["steps"]}["base"] == "cached"
    assert summary["metrics"]["evaluate.memory.loss"] > 0
    text = Path(made.artifacts["summarise_run"]["report"].path).read_text()
    assert "state: SUCCEEDED" in text
    assert "evaluate.memory.recall" in text.replace("\\", "")


def test_build_base_builds_the_tiny_models(made: Made) -> None:
    made.step("build_base", "base")
    models = made.artifacts.pop("build_base")["models"]
    assert models.metadata["base_model"] == "tiny"
    report = json.loads((Path(models.path) / "base.json").read_text())
    assert models.metadata["language_model_sha256"] == report["language_model"]["sha256"]


@pytest.fixture
def alone(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Made:
    """Another run of the same chain's artifacts, with records of its own and outputs elsewhere."""
    monkeypatch.setenv(RUN_ID, tmp_path.name)
    other = Made(tmp_path)
    other.settings, other.artifacts = made.settings, dict(made.artifacts)
    return other


def changed(settings: str, **sections: dict[str, Any]) -> str:
    values = json.loads(settings)
    for name, fields in sections.items():
        values[name] |= fields
    return json.dumps(values)


def _runs() -> Path:
    return Path(os.environ[RUNS])


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_bad_setting_is_reported_as_by_the_command_line(alone: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        alone.run(
            "validate_config", params="trian: {}\nmodel: {features: both}\n", overrides=["train.max_steps=0"], data=""
        )
    assert left.value.code == 2
    lines = errors(capsys)
    assert any(line.startswith("params.yaml: trian: ") for line in lines)
    assert any(line.startswith("params.yaml: model.features: ") for line in lines)
    assert any(line.startswith("--set train.max_steps: ") for line in lines)
    assert lines[-1] == f"{len(lines) - 1} problems."
    record = read_records(_runs() / alone.root.name)["validate"]
    assert record.status == "failed"
    assert record.exit_code == 2
    assert len(record.problems) == len(lines) - 1


def test_data_that_changed_since_it_was_validated_is_refused(
    alone: Made, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        alone.step("render_dataset", "render", data=str(made.root / "given" / "data"), data_sha256="0" * 64)
    assert left.value.code == 1
    assert "is not what was validated" in errors(capsys)[0]


def test_a_failed_check_keeps_its_reports_in_the_runs_directory(
    alone: Made, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    alone.settings = alone.settings | {"check": changed(made.settings["check"], check={"max_compression_ratio": 0.01})}
    with pytest.raises(SystemExit) as left:
        alone.step("validate_dataset", "check", dataset=made.artifacts["render_dataset"]["dataset"])
    assert left.value.code == 1
    assert "max_compression_ratio" in " ".join(errors(capsys))
    kept = _runs() / alone.root.name / "failed" / "check" / "checks"
    assert json.loads((kept / "result.json").read_text())["success"] is False
    assert (kept / "index.html").is_file()


def test_an_unmet_gate_shows_first_and_then_fails_registration(
    alone: Made, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = {"gate": GATE | {"min_recall": 1.0}, "uri": f"sqlite:///{alone.root / 'registry' / 'mlflow.db'}"}
    alone.settings = alone.settings | {
        step: changed(made.settings[step], register=strict) for step in ("gate", "register")
    }
    evaluation = made.artifacts["evaluate_adapter"]["evaluation"]
    alone.step("check_gate", "gate", evaluation=evaluation)
    assert alone.returned["check_gate"] is False
    assert "not met" in Path(alone.artifacts["check_gate"]["report"].path).read_text()
    capsys.readouterr()
    learnt = {name: made.artifacts["train_adapter"][name] for name in ("adapter", "training")}
    with pytest.raises(SystemExit) as left:
        alone.step(
            "register_adapter",
            "register",
            **learnt,
            dataset=made.artifacts["render_dataset"]["dataset"],
            evaluation=evaluation,
            verdict=made.artifacts["smoke_test"]["verdict"],
            versioned=made.artifacts["version_dataset"]["versioned"],
        )
    assert left.value.code == 1
    assert "register.gate.min_recall: memory.recall" in " ".join(errors(capsys))
    kept = _runs() / alone.root.name / "failed" / "register" / "reports" / "registration.json"
    registration = json.loads(kept.read_text())
    assert registration["version"] == 1
    assert registration["alias"] is None
    assert registration["gate"]["passed"] is False


def test_version_without_a_remote_is_skipped_and_says_so(alone: Made, made: Made) -> None:
    alone.settings = alone.settings | {"version": changed(made.settings["version"], version={"remote": None})}
    alone.step("version_dataset", "version", dataset=made.artifacts["render_dataset"]["dataset"])
    assert alone.artifacts["version_dataset"]["versioned"].metadata == {"skipped": True}
    record = read_records(_runs() / alone.root.name)["version"]
    assert record.status == "skipped"
    alone.run("summarise_run", pipeline="all", steps=["check", "version", "encode"], status=final("FAILED", "no quota"))
    text = Path(alone.artifacts["summarise_run"]["report"].path).read_text().replace("\\", "")
    assert "version.remote is not configured" in text
    assert "Kubeflow Pipelines says: no quota" in text


@pytest.mark.parametrize(
    ("given", "state", "statuses"),
    [
        ("COMPLETE", "SUCCEEDED", ["cached", "skipped", "cached"]),
        ("Succeeded", "SUCCEEDED", ["cached", "skipped", "cached"]),
        ("FAILED", "FAILED", ["cached", "skipped", "no record"]),
    ],
)
def test_a_task_without_a_record_was_cached_or_not_reached(
    given: str, state: str, statuses: list[str], alone: Made, made: Made
) -> None:
    """Backends name success differently, and a task whose pod never started leaves no record."""
    alone.settings = alone.settings | {"version": changed(made.settings["version"], version={"remote": None})}
    alone.step("version_dataset", "version", dataset=made.artifacts["render_dataset"]["dataset"])
    alone.run("summarise_run", pipeline="all", steps=["check", "version", "encode"], status=final(given))
    summary = json.loads((_runs() / alone.root.name / "summary.json").read_text())
    assert summary["state"] == state
    assert [row["status"] for row in summary["steps"]] == statuses


def test_an_unforeseen_error_is_recorded_and_keeps_its_traceback(
    alone: Made, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(config: object) -> dict[str, Any]:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("ocrmem.encoder.encode.encode_dataset", breaks)
    inputs = {
        "dataset": made.artifacts["render_dataset"]["dataset"],
        "models": dsl.Model(uri=str(made.root / "models")),
    }
    with pytest.raises(ZeroDivisionError):
        alone.step("encode_pages", "encode", **inputs)
    record = read_records(_runs() / alone.root.name)["encode"]
    assert record.status == "failed"
    assert "ZeroDivisionError: surprise" in record.problems[0]["message"]


def test_a_records_directory_that_cannot_be_written_fails_before_any_work(
    alone: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv(RUNS, str(blocked))
    with pytest.raises(SystemExit) as left:
        alone.step("preflight", "preflight")
    assert left.value.code == 2
    assert "output_claim=null" in errors(capsys)[0]


def test_without_a_run_a_component_leaves_no_records(alone: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_ID)
    alone.step("preflight", "preflight")
    alone.run("summarise_run", pipeline="all", steps=["preflight"], status=final("SUCCEEDED"))
    assert "no run directory was mounted" in Path(alone.artifacts["summarise_run"]["report"].path).read_text()
    assert not (_runs() / alone.root.name).exists()


def test_conversations_come_from_s3_as_from_a_path(alone: Made, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.s3 import ENVIRONMENT, s3_service

    params = (made.root / "given" / "params.yaml").read_text(encoding="utf-8")
    with s3_service() as service:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", service.url)
        service.make_bucket("mine")
        for file in (made.root / "given" / "data").glob("*.jsonl"):
            service.client().upload_file(str(file), "mine", f"conversations/{file.name}")
        alone.run("validate_config", params=params, overrides=["smoke.samples=2"], data="s3://mine/conversations")
        assert alone.returned["validate_config"] == made.returned["validate_config"]
        digest = alone.returned["validate_config"].data_sha256
        alone.step("render_dataset", "render", data="s3://mine/conversations", data_sha256=digest, conversations=4)
    assert metadata(alone, "render_dataset", "dataset")["conversations"] == 12, "4 of each of 3 files"
    assert metadata(alone, "render_dataset", "dataset")["source_sha256"] != digest
