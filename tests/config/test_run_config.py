"""RunConfig: presets load, overrides win, every fault is listed at once, and no key is ever printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.run_settings import REAL, real

from ocrmem.config import RunConfig, check_file
from ocrmem.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PARAMS = CONFIGS.parent / "params.yaml"
Load = Callable[..., str]
YAML = json.dumps(REAL)  # JSON is YAML


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("qwen3-*.yaml")), ids=lambda path: path.stem)
def test_real_presets_load_and_are_pinned(path: Path) -> None:
    config = RunConfig.load(path)
    for revision in (config.model.base_revision, config.model.ocr_revision):
        assert revision is not None
        assert len(revision) == 40


def test_the_ancestors_settings_are_refused_for_exactly_two_reasons() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.load(CONFIGS / "ocr-mem-2025-12.yaml")
    threshold, size = caught.value.problems
    assert threshold.place.endswith("model.context_threshold")
    assert "not below model.max_seq_length 2048" in threshold.message
    assert "no history could ever become memory" in threshold.message
    assert size.place.endswith("model.vision_embedding_size")
    assert size.message.startswith("is 512")
    assert size.remedy == "Set it to 1024"


def test_the_ancestors_settings_are_good_once_the_two_are_repaired() -> None:
    repaired = ["model.context_threshold=1024", "model.vision_embedding_size=1024"]
    assert RunConfig.load(CONFIGS / "ocr-mem-2025-12.yaml", repaired).model.max_seq_length == 2048


def test_every_fault_is_listed_at_once_and_rules_over_faulty_fields_are_left_out(faults: Load) -> None:
    reported = faults(
        "model:\n  context_threshold: many\n  max_seq_length: 10\n  max_seq_length: 20\n  basename: x\n"
        "train: {max_steps: 0, global_batch_size: 3, warmup_steps: 5}\n",
        "render.page_size=banana",
        "nonsense",
        "train.seed=[",
    )
    for expected in (
        "params.yaml:4: 'max_seq_length' is given again",
        "params.yaml: model.context_threshold: is 'many'",
        "params.yaml: model.basename: is an unknown field",
        "params.yaml: train.max_steps: is 0",
        "--set render.page_size: is 'banana'",
        "--set nonsense: is not key.path=value",
        "--set train.seed: has a value that is not YAML",
        "params.yaml: train.global_batch_size: is 3",
        "params.yaml: model.vision_embedding_size: is 1024, but tiny",
    ):
        assert expected in reported
    assert "not below model.max_seq_length" not in reported
    assert "not below train.max_steps" not in reported


def test_overrides_win_over_the_file_and_make_sections(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(YAML, encoding="utf-8-sig")
    config = RunConfig.load(
        path, ["train.learning_rate=1e-3", "train.max_steps=7", "tracking.run_name=a=b", "data.skip_bad=true"]
    )
    assert config.train.learning_rate == 1e-3
    assert config.train.max_steps == 7
    assert config.tracking.run_name == "a=b"
    assert config.data.skip_bad is True
    assert config.model.base_model_name == "Qwen/Qwen3-8B"


def test_overrides_may_be_a_mapping_of_key_paths_to_values(tmp_path: Path) -> None:
    config = RunConfig.load(
        PARAMS,
        {"train.max_steps": 99, "data.path": tmp_path, "kubernetes.labels": {"team": "a"}, "register.name": "mine"},
    )
    assert config.train.max_steps == 99
    assert config.data.path == str(tmp_path)
    assert config.kubernetes.labels == {"team": "a"}
    assert config.registry.name == "mine"
    assert config == RunConfig.load(
        PARAMS, ["train.max_steps=99", f"data.path={tmp_path}", "kubernetes.labels={team: a}", "register.name=mine"]
    )


def test_faults_of_a_mapping_are_named_like_those_of_texts() -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.load(PARAMS, {"train.max_steps": 0, "train..seed": 1, "model.device": "gpu"})
    assert [problem.place for problem in caught.value.problems] == [
        "--set train..seed",
        "--set model.device",
        "--set train.max_steps",
    ]


def test_yaml_1_1_numbers_and_empty_sections_are_read(faults: Load) -> None:
    assert faults(YAML[:-1] + ', "train": null, "smoke": {}}') == ""
    assert "train.max_steps" not in faults("train:\n  learning_rate: 1e-3\n")


def test_a_configuration_survives_being_written_and_read(tmp_path: Path) -> None:
    config = RunConfig.from_dict(REAL)
    assert RunConfig.from_dict(config.as_dict()) == config


KEYS = {
    "hugging face": "hf_" + "aB3" * 10,
    "openai": "sk-proj-" + "x1" * 12,
    "aws": "AKIA" + "ABCDEFGH12345678",
    "github": "ghp_" + "a1" * 18,
    "slack": "xoxb-" + "12345678-abc",
    "google": "AIza" + "x" * 35,
    "gitlab": "glpat-" + "x" * 20,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3In0.abc",
    "pem": "-----BEGIN RSA PRIVATE KEY-----",
    "url": "postgresql://me:hunter2@db.example.org/x",
    "bearer": "Bearer abcdefghijklmnopqrst",
    "hex": "0123456789abcdef0123456789abcdef01234567",
}


@pytest.mark.parametrize("kind", KEYS)
def test_what_looks_like_a_key_is_refused_and_never_printed(faults: Load, kind: str) -> None:
    key = KEYS[kind]
    values = json.dumps(real(tracking__entity=key))
    for reported in (
        faults(values),
        faults(YAML, f"tracking.entity={json.dumps(key)}"),
        faults(json.dumps({**REAL, "model": {**REAL["model"], "precision": key}})),
        faults(json.dumps({**REAL, "tracking": {"wandb": {"a": [key]}}})),
        faults(json.dumps(real(tracking__wandb_api_key=key))),
        faults(json.dumps({**REAL, key: 1})),
        faults(json.dumps(real(model__ocr_model_name="tiny", model__base_model_name=key))),
    ):
        assert "looks like" in reported
        assert key not in reported


def test_a_key_in_a_comment_or_broken_file_is_not_printed(faults: Load) -> None:
    key = KEYS["hugging face"]
    reported = faults(f"{YAML}\n# {key}\n")
    assert "params.yaml:2: holds what looks like a Hugging Face token" in reported
    assert key not in reported
    assert key not in faults(f"a: [{key}: {{")
    assert key not in faults(YAML, f"{key}", f"{key}=[")


@pytest.mark.parametrize("name", ["api_key", "hf_token", "password", "client_secret", "aws_secret_access_key"])
def test_a_field_named_like_a_key_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(real(**{f"tracking__{name}": "plain words"}))
    assert "looks like a key or a password" in str(caught.value)
    assert "plain words" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__base_revision": KEYS["hex"]},
        {"register__uri": "https://mlflow.example.org:5000/path"},
        {"data__path": "task-hf_short/" + KEYS["hex"]},
        {"tracking__run_name": "ask-sk-me"},
        {"evaluate__max_new_tokens": 8},
    ],
    ids=range(5),
)
def test_ordinary_values_are_not_keys(changes: dict[str, Any]) -> None:
    RunConfig.from_dict(real(**changes))


def test_checked_tells_which_fields_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("data: {path: 7}\npaths: 3\n")
    checked = check_file(path)
    assert not checked.sound("data.path")
    assert not checked.sound("paths.reports")
    assert checked.sound("data.workers")
    assert not check_file(tmp_path / "missing.yaml").sound("data.path")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
NAMES = st.sampled_from([*RunConfig().as_dict(), *(k for s in RunConfig().as_dict().values() for k in s), "zz"])


@given(st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN | st.lists(PLAIN, max_size=2), max_size=5)))
@settings(max_examples=120, deadline=None)
def test_any_values_load_or_are_reported(values: dict[str, Any]) -> None:
    try:
        config = RunConfig.from_dict(values)
    except ConfigError as error:
        str(error)
    else:
        assert isinstance(config, RunConfig)


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_reported(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "params.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError):  # even an empty file: the tiny models need a small page
        RunConfig.load(path)
