"""Settings: what loads, and that every fault is named at once with field and remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrmem.config import RunConfig, check_file
from ocrmem.config.known_encoders import known_encoder
from ocrmem.errors import ConfigError
from ocrmem.families import known_positions
from ocrmem.secrets import find_in_text, redact

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Load = Callable[..., str]

REAL: dict[str, Any] = {
    "model": {
        "base_model_name": "Qwen/Qwen3-8B",
        "ocr_model_name": "deepseek-ai/DeepSeek-OCR",
        "vision_embedding_size": 1024,
        "context_threshold": 1024,
        "max_seq_length": 4096,
    },
    "render": {"page_size": 1024, "token_size": 64, "line_height": 16, "max_pages": 8},
}


def real(**changes: Any) -> dict[str, Any]:
    """REAL with changes, as ``model__precision="float16"``."""
    values = json.loads(json.dumps(REAL))
    for name, value in changes.items():
        section, field = name.split("__")
        values.setdefault(section, {})[field] = value
    return values


@pytest.fixture
def faults(tmp_path: Path) -> Load:
    """Loads YAML text and gives all of its faults as one text; "" when it loads."""

    def load(text: str | bytes, *overrides: str) -> str:
        path = tmp_path / "params.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        try:
            RunConfig.load(path, overrides)
        except ConfigError as error:
            told = error
        else:
            return ""
        assert told.exit_code == 2
        assert all(problem.place and problem.remedy for problem in told.problems)
        return str(told).replace(f"{tmp_path}/", "")

    return load


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "params.yaml:1: is not readable YAML"),
        ("model:\n\tx: 1", "params.yaml:2: is not readable YAML"),
        ("a: 1\nb: ]\n", "params.yaml:2: is not readable YAML"),
        (b"model:\n  base_model_name: caf\xe9\n", "params.yaml:2: is not UTF-8"),
        ("- 1\n- 2", "params.yaml: holds a list, not sections"),
        ("just text", "params.yaml: holds a str, not sections"),
        ("a: &x [1]\nb: *x", "params.yaml:2: is not readable YAML (aliases"),
        ("a: &x [*x]", "aliases"),
        ("!!python/object/apply:os.system ['true']", "is not readable YAML"),
        (
            "train:\n  max_steps: 1\n  max_steps: 2\n",
            "params.yaml:3: 'max_steps' is given again (first in line 2)",
        ),
        ("model: {}\ntrain: {}\nmodel: {}\n", "params.yaml:3: 'model' is given again"),
        ("x: " + "[" * 5000, "is not readable YAML"),
        ("? [1, 2]\n: 3", "is not readable YAML"),
        ("#" * (1 << 21), "larger than 1 MiB"),
    ],
    ids=range(14),
)
def test_a_file_that_cannot_be_read_is_told(faults: Load, text: str | bytes, said: str) -> None:
    assert said in faults(text)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\x00.yaml"])
def test_a_path_that_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"is not there|cannot be read"):
        RunConfig.load(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__max_steps": 1}, "model.max_steps: is an unknown field. Did you mean train.max_steps?"),
        ({"train__learningrate": 1}, "Did you mean train.learning_rate?"),
        ({"train__lr": 1}, "train.lr: is an unknown field. Remove it; known here are max_steps"),
        ({"modle__x": 1}, "modle: is an unknown section. Did you mean model?"),
        ({"registry__x": 1}, "registry: is an unknown section. Did you mean register?"),
        ({"train__max_steps": "many"}, "train.max_steps: is 'many'. Give a whole number"),
        ({"train__max_steps": 1.5}, "train.max_steps: is 1.5. Give a whole number"),
        ({"train__max_steps": 0}, "train.max_steps: is 0. Give a number above 0"),
        ({"train__max_steps": True}, "train.max_steps: is true. Give a number"),
        ({"train__max_steps": None}, "train.max_steps: is empty. Give a whole number"),
        ({"train__max_steps": [1]}, "train.max_steps: is a list. Give a whole number"),
        ({"train__warmup_steps": -1}, "train.warmup_steps: is -1. Give a number at least 0"),
        ({"train__learning_rate": "fast"}, "train.learning_rate: is 'fast'. Give a number"),
        ({"train__learning_rate": float("inf")}, "train.learning_rate: is inf. Give a finite number"),
        ({"train__curriculum": 1.5}, "train.curriculum: is 1.5. Give a number at most 1"),
        ({"model__drop_blank_tokens": "perhaps"}, "is 'perhaps'. Give true or false"),
        ({"model__base_model_name": 8}, "model.base_model_name: is 8. Give text"),
        ({"model__features": "mean"}, "model.features: is 'mean'. Use one of 'sum', 'concat'"),
        ({"model__precision": "x" * 99}, "xxx.... Use one of"),
        ({"tracking__wandb": False}, "tracking.wandb: is False. Use one of 'offline'"),
        ({"register__gate": 3}, "register.gate: is 3. Give a section"),
    ],
    ids=range(21),
)
def test_a_faulty_field_is_told_with_what_would_be_right(changes: dict[str, Any], said: str) -> None:
    values = real(**changes)
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(values, place="p")
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_section_that_is_no_section_is_told() -> None:
    with pytest.raises(ConfigError, match=r"p: train: is 7. Give a section with fields below it"):
        RunConfig.from_dict({**REAL, "train": 7}, place="p")


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"model__base_model_name": ""}, "model.base_model_name", "is empty. Name the base model"),
        ({"model__ocr_model_name": " "}, "model.ocr_model_name", "is empty. Name the encoder"),
        ({"data__path": ""}, "data.path", "is empty. Name a .jsonl file"),
        ({"data__path": "a\x00b"}, "data.path", "has unprintable characters"),
        ({"paths__dataset": ""}, "paths.dataset", "is empty"),
        ({"model__context_threshold": 4096}, "model.context_threshold", "no history could ever become"),
        ({"model__vision_embedding_size": 512}, "model.vision_embedding_size", "Set it to 1024"),
        ({"model__features": "concat"}, "model.vision_embedding_size", "Set it to 2048"),
        ({"render__page_size": 256}, "render.page_size", "Use 512, 640, 1024, 1280"),
        ({"render__token_size": 32, "render__max_pages": 1}, "render.token_size", "Set it to 64"),
        ({"render__line_height": 8}, "render.line_height", "less than a glyph's 16 px. Use 16 or more"),
        ({"render__line_height": 20}, "render.line_height", "does not divide render.token_size 64"),
        ({"render__line_height": 20}, "render.line_height", "Use 16, 32, 64"),
        ({"render__tab_width": 200}, "render.tab_width", "wider than a page"),
        ({"render__atlas": "/no/such.ttf"}, "render.atlas", "which is no file"),
        ({"render__max_pages": 16}, "render.max_pages", "Lower it to 15 or less, or raise"),
        ({"model__max_seq_length": 40960}, "model.max_seq_length", "more than the 40960 positions"),
        ({"model__device": "cpu", "model__precision": "float16"}, "model.precision", "Use float32 or"),
        ({"train__global_batch_size": 7}, "train.global_batch_size", "make 8"),
        ({"train__processes": 9999}, "train.processes", "one process each"),
        ({"train__warmup_steps": 1000}, "train.warmup_steps", "not below train.max_steps 1000"),
        ({"check__min_compression_ratio": 50}, "check.min_compression_ratio", "not below"),
        ({"check__min_compression_ratio": -1}, "check.min_compression_ratio", "at least 0"),
        ({"check__min_ink_share": 0.6}, "check.min_ink_share", "not below check.max_ink_share 0.5"),
        ({"data__eval_fraction": 1}, "data.eval_fraction", "leaves nothing to train on"),
        ({"register__gate": {"min_recall": 0.2, "max_no_memory_recall": 0.1}},
         "register.gate.max_shuffled_recall", "above min_recall 0.2"),
        ({"register__name": " "}, "register.name", "is empty"),
        ({"paths__dataset": "."}, "paths.dataset", "is the working directory"),
        ({"paths__dataset": "/"}, "paths.dataset", "is the working directory or one above it"),
        ({"data__path": "features/x"}, "paths.features", "holds data.path"),
        ({"paths__smoke": "models/smoke"}, "paths.smoke", "is the same as paths.models, or one lies in"),
        ({"model__ocr_model_name": "tiny"}, "model.base_model_name", "but the other of the two models is"),
        ({"model__base_model_name": "tiny"}, "model.ocr_model_name", "but the other of the two models is"),
    ],
    ids=range(33),
)  # fmt: skip
def test_rules_between_fields(changes: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(real(**changes), place="p")
    told = [str(problem) for problem in caught.value.problems if problem.place == f"p: {field}"]
    assert any(said in text for text in told), str(caught.value)


def test_memory_may_leave_little_room_for_text_but_some() -> None:
    RunConfig.from_dict(real(model__max_seq_length=8 * 256 + 2 + 16))
    with pytest.raises(ConfigError, match=r"render.max_pages: is 8: .*Lower it to 7 or less"):
        RunConfig.from_dict(real(model__max_seq_length=8 * 256 + 2 + 15))


def test_pages_that_do_not_fit_at_all_are_told() -> None:
    with pytest.raises(ConfigError, match=r"render.max_pages: is 1: .*Raise model.max_seq_length to at least"):
        RunConfig.from_dict(real(model__max_seq_length=200, model__context_threshold=1, render__max_pages=1))


def test_sizes_that_do_not_divide_are_told_for_an_unknown_encoder() -> None:
    changes = {
        "model__ocr_model_name": "someone/else",
        "render__token_size": 96,
        "model__max_seq_length": 9999,
    }
    with pytest.raises(ConfigError, match=r"render.token_size: is 96, which does not divide"):
        RunConfig.from_dict(real(**changes))
    with pytest.raises(ConfigError, match=r"render.line_height: is 48, which does not divide the page"):
        RunConfig.from_dict(real(**changes, render__line_height=48))


def test_every_fault_is_listed_at_once_and_rules_over_faulty_fields_are_left_out(faults: Load) -> None:
    told = faults(
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
        assert expected in told
    assert "not below model.max_seq_length" not in told
    assert "not below train.max_steps" not in told


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
    for told in (
        faults(values),
        faults(YAML, f"tracking.entity={json.dumps(key)}"),
        faults(json.dumps({**REAL, "model": {**REAL["model"], "precision": key}})),
        faults(json.dumps({**REAL, "tracking": {"wandb": {"a": [key]}}})),
        faults(json.dumps(real(tracking__wandb_api_key=key))),
        faults(json.dumps({**REAL, key: 1})),
        faults(json.dumps(real(model__ocr_model_name="tiny", model__base_model_name=key))),
    ):
        assert "looks like" in told
        assert key not in told


def test_a_key_in_a_comment_or_broken_file_is_not_printed(faults: Load) -> None:
    key = KEYS["hugging face"]
    told = faults(f"{YAML}\n# {key}\n")
    assert "params.yaml:2: holds what looks like a Hugging Face token" in told
    assert key not in told
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
def test_ordinary_values_are_no_keys(changes: dict[str, Any]) -> None:
    RunConfig.from_dict(real(**changes))


def test_redacted_text_keeps_what_is_no_key() -> None:
    assert redact(f"use {KEYS['aws']} or {KEYS['hex']} now") == "use (hidden) or (hidden) now"
    assert [kind for *_, kind in find_in_text("nothing here")] == []


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny", {"sum": 64, "concat": 128}),
        ("deepseek-ai/DeepSeek-OCR", {"sum": 1024, "concat": 2048}),
        ("/mirror/models/DeepSeek-OCR", {"sum": 1024, "concat": 2048}),
        ("deepseek-ai/DeepSeek-OCR-2", None),
        ("someone/else", None),
        ("a\x00b", None),
    ],
)
def test_known_encoders(name: str, sizes: dict[str, int] | None) -> None:
    encoder = known_encoder(name)
    assert (encoder.sizes if encoder else None) == sizes


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("tiny", 512),
        ("Qwen/Qwen3-8B", 40960),
        ("Qwen/Qwen3-0.6B", 40960),
        ("Qwen/Qwen3-8B-Base", 32768),
        ("Qwen/Qwen3-4B-Instruct-2507", 262144),
        ("Qwen/Qwen3-Embedding-8B", None),
        ("someone/else", None),
    ],
)
def test_known_positions(name: str, positions: int | None) -> None:
    assert known_positions(name) == positions


def test_local_directories_tell_their_own_sizes(tmp_path: Path) -> None:
    config = {"max_position_embeddings": 777, "vision_config": {"width": {"clip-l-14-224": {"width": 1024}}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert known_positions(str(tmp_path)) == 777
    encoder = known_encoder(str(tmp_path))
    assert encoder is not None
    assert encoder.sizes["sum"] == 1024
    with pytest.raises(ConfigError, match="more than the 777 positions"):
        RunConfig.from_dict(real(model__base_model_name=str(tmp_path)))
    (tmp_path / "config.json").write_text("[")
    assert known_positions(str(tmp_path)) is None
    assert known_encoder(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("config", "sizes", "token_size"),
    [
        ({"encoder_config": {"hidden_size": 48}, "sam_config": {"patch_size": 8}},
         {"sum": 48, "concat": 96}, 32),
        ({"vision_config": {"encoder_config": {"hidden_size": 1024}, "sam_config": {"patch_size": 16}}},
         {"sum": 1024, "concat": 2048}, 64),
        ({"vision_config": {"width": {"clip-l-14-224": {"width": 96}}}}, {"sum": 96, "concat": 192}, None),
        ({"vision_config": {"width": 3}}, None, None),
        ({"vision_config": []}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_a_local_encoders_config_goes_before_its_name(
    tmp_path: Path, config: dict[str, Any], sizes: dict[str, int] | None, token_size: int | None
) -> None:
    directory = tmp_path / "DeepSeek-OCR"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    encoder = known_encoder(str(directory))
    assert (encoder.sizes if encoder else None) == sizes
    assert (encoder.token_size if encoder else None) == token_size


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
def test_any_values_load_or_are_told(values: dict[str, Any]) -> None:
    try:
        config = RunConfig.from_dict(values)
    except ConfigError as error:
        str(error)
    else:
        assert isinstance(config, RunConfig)


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_told(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "params.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError):  # even an empty file: the tiny models need a small page
        RunConfig.load(path)


def test_the_documentation_names_every_field() -> None:
    from ocrmem.config.schema import field_paths

    text = (CONFIGS.parent / "docs" / "configuration.md").read_text(encoding="utf-8")
    paths = [".".join(path) for path in field_paths()]
    leaves = [path for path in paths if not any(other.startswith(f"{path}.") for other in paths)]
    assert [path for path in leaves if f"| `{path}` |" not in text] == []


def test_the_ancestors_settings_are_good_once_the_two_are_repaired() -> None:
    repaired = ["model.context_threshold=1024", "model.vision_embedding_size=1024"]
    assert RunConfig.load(CONFIGS / "ocr-mem-2025-12.yaml", repaired).model.max_seq_length == 2048
