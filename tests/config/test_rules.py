"""Rules: contradictions between fields are named with the remedy, and a rule knows the fields that it reads."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.run_settings import real

from ocrmem.config import RenderSection, RunConfig, rules
from ocrmem.config.rules import RULES, Rule
from ocrmem.config.rules.rule import FIELDS, rule
from ocrmem.config.section import Section
from ocrmem.errors import ConfigError
from ocrmem.rendering import Geometry


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"model__base_model_name": ""}, "model.base_model_name", "is empty. Name the base model"),
        ({"model__ocr_model_name": " "}, "model.ocr_model_name", "is empty. Name the encoder"),
        ({"data__path": ""}, "data.path", "is empty. Name a .jsonl file"),
        ({"data__path": "a\x00b"}, "data.path", "Remove the unprintable characters"),
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
        ({"render__atlas": "/no/such.ttf"}, "render.atlas", "which is not a file"),
        ({"render__max_pages": 16}, "render.max_pages", "Lower it to 15 or less, or raise"),
        ({"model__max_seq_length": 40960}, "model.max_seq_length", "more than the 40960 positions"),
        ({"model__device": "cpu", "model__precision": "float16"}, "model.precision", "Use float32 or"),
        ({"train__global_batch_size": 7}, "train.global_batch_size", "make 8"),
        ({"train__processes": 9999}, "train.processes", "one process each"),
        ({"train__warmup_steps": 1000}, "train.warmup_steps", "not below train.max_steps 1000"),
        ({"train__lora": {"rank": 0}}, "train.lora.rank", "is 0. Give a number above 0"),
        ({"train__lora": {"dropout": 0.1}}, "train.lora.dropout", "known here are rank, alpha, targets"),
        ({"train__lora": {}, "train__stages": [{"objective": "align", "share": 1}]}, "train.lora", "runs no base"),
        ({"check__min_compression_ratio": 50}, "check.min_compression_ratio", "not below"),
        ({"check__min_compression_ratio": -1}, "check.min_compression_ratio", "at least 0"),
        ({"check__min_ink_share": 0.6}, "check.min_ink_share", "not below check.max_ink_share 0.5"),
        ({"data__eval_fraction": 1}, "data.eval_fraction", "leaves nothing to train on"),
        ({"register__gate": {"min_recall": 0.2, "max_no_memory_recall": 0.1}},
         "register.gate.max_shuffled_recall", "above min_recall 0.2"),
        ({"register__gate": {"min_recall": 0.9, "min_said": 0.3}},
         "register.gate.max_no_memory_recall", "above min_said 0.3"),
        ({"register__gate": {"max_shuffled_said": 0.6}}, "register.gate.max_shuffled_said", "above min_recall 0.5"),
        ({"register__name": " "}, "register.name", "is empty"),
        ({"paths__dataset": "."}, "paths.dataset", "is the working directory"),
        ({"paths__dataset": "/"}, "paths.dataset", "is the working directory or one above it"),
        ({"data__path": "features/x"}, "paths.features", "holds data.path"),
        ({"paths__smoke": "models/smoke"}, "paths.smoke", "is the same as paths.models, or one lies in"),
        ({"model__ocr_model_name": "tiny"}, "model.base_model_name", "but the other of the two models is"),
        ({"model__base_model_name": "tiny"}, "model.ocr_model_name", "but the other of the two models is"),
        ({"model__encoder": "deepseek-ocr-encoder", "model__features": "concat"}, "model.features", "does not give"),
        ({"train__deepspeed": "zero3", "train__compile_layers": True}, "train.compile_layers", "Use zero1 or zero2"),
        ({"train__deepspeed": "zero1", "train__optimizer": "muon"}, "train.optimizer", "leave train.deepspeed out"),
    ],
    ids=range(41),
)  # fmt: skip
def test_rules_between_fields(changes: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(real(**changes), place="p")
    reported = [str(problem) for problem in caught.value.problems if problem.place == f"p: {field}"]
    assert any(said in text for text in reported), str(caught.value)


def test_memory_may_leave_little_room_for_text_but_some() -> None:
    RunConfig.from_dict(real(model__max_seq_length=8 * 256 + 2 + 16))
    with pytest.raises(ConfigError, match=r"render.max_pages: is 8: .*Lower it to 7 or less"):
        RunConfig.from_dict(real(model__max_seq_length=8 * 256 + 2 + 15))


def test_pages_that_do_not_fit_at_all_are_reported() -> None:
    with pytest.raises(ConfigError, match=r"render.max_pages: is 1: .*Raise model.max_seq_length to at least"):
        RunConfig.from_dict(real(model__max_seq_length=200, model__context_threshold=1, render__max_pages=1))


def test_sizes_that_do_not_divide_are_reported_for_an_unknown_encoder() -> None:
    changes = {
        "model__ocr_model_name": "someone/else",
        "render__token_size": 96,
        "model__max_seq_length": 9999,
    }
    with pytest.raises(ConfigError, match=r"render.token_size: is 96, which does not divide"):
        RunConfig.from_dict(real(**changes))
    with pytest.raises(ConfigError, match=r"render.line_height: is 48, which does not divide the page"):
        RunConfig.from_dict(real(**changes, render__line_height=48))


@pytest.mark.parametrize(
    ("field", "size"),
    [
        ("num_hidden_layers", 2**64),
        ("hidden_size", 0.5),
        ("hidden_size", 4096.0),
        ("num_attention_heads", 0),
        ("num_key_value_heads", -8),
        ("head_dim", True),
        ("intermediate_size", "12288"),
        ("max_position_embeddings", 10**12),
    ],
)
def test_a_size_that_no_model_has_is_refused_by_field(tmp_path: Path, field: str, size: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "head_dim": None, field: size}))
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(real(model__base_model_name=str(tmp_path)), place="p")
    [problem] = [
        problem for problem in caught.value.problems if field in problem.message and "config" in problem.message
    ]
    assert problem.place == "p: model.base_model_name"
    assert f'config.json has "{field}": {json.dumps(size)}, not a whole number from 1 to' in problem.message


def test_a_size_of_a_part_of_a_model_is_refused_by_its_place(tmp_path: Path) -> None:
    parts = {"encoder_config": {"num_hidden_layers": 2**64, "image_size": [1024]}, "width": {"sam": {"layers": 0.5}}}
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": parts, "hidden_size": 64}))
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(real(model__ocr_model_name=str(tmp_path)), place="p")
    found = [problem for problem in caught.value.problems if "config.json has" in problem.message]
    assert {problem.place for problem in found} == {"p: model.ocr_model_name"}
    assert 'has "vision_config.encoder_config.num_hidden_layers": 18446744073709551616' in found[0].message
    assert 'has "vision_config.width.sam.layers": 0.5' in found[1].message


def refusals(read: Callable[[], object]) -> set[tuple[str, str, str]]:
    """The problems over sizes that reading something raises; what memory takes of the sequence is another matter."""
    try:
        read()
    except ConfigError as error:
        reported = {(p.place.removeprefix("p: "), p.message, p.remedy) for p in error.problems}
        return {problem for problem in reported if problem[0] != "render.max_pages"}
    return set()


@pytest.mark.parametrize("page_size", [16, 144, 256, 320, 960, 1000, 1024])
@pytest.mark.parametrize("token_size", [8, 20, 32, 40, 60, 64, 96])
@pytest.mark.parametrize("line_height", [15, 16, 20, 32])
def test_settings_refuse_what_rendering_refuses(page_size: int, token_size: int, line_height: int) -> None:
    sizes = {"page_size": page_size, "token_size": token_size, "line_height": line_height}
    values = real(model__ocr_model_name="someone/else", model__max_seq_length=40000)
    values["render"] = {**sizes, "max_pages": 1, "tab_width": 1}
    by_settings = refusals(lambda: RunConfig.from_dict(values, place="p"))
    assert by_settings == refusals(lambda: Geometry.of(RenderSection(**sizes)))


def test_a_rule_that_names_no_field_is_refused_by_name() -> None:
    before = list(RULES)
    with pytest.raises(LookupError, match=r"not a field of params.yaml: train.max_stops"):
        rule("train.max_steps", "train.max_stops")
    assert before == RULES


class Reads:
    """A section that notes which fields are read, by their names in params.yaml."""

    def __init__(self, section: Section, seen: set[str], prefix: str = "") -> None:
        self._section, self._seen, self._prefix = section, seen, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        field = type(self._section).model_fields.get(name)
        if field is None:
            return value
        path = self._prefix + (field.alias or name)
        if isinstance(value, Section):
            return Reads(value, self._seen, f"{path}.")
        self._seen.add(path)
        return value


@pytest.mark.parametrize("checked", RULES, ids=lambda rule: f"{rule.check.__name__}-{rule.fields[0]}")
def test_a_rule_names_every_field_that_it_reads(checked: Rule) -> None:
    """A rule over a field that it does not name would run on the default that stands in for a faulty value."""
    values = real(train__deepspeed="zero3", train__offload="all", version__remote="s3://bucket/x")
    seen: set[str] = set()
    list(checked.check(Reads(RunConfig.from_dict(values), seen)))  # type: ignore[arg-type]
    unnamed = {path for path in seen if not any(path == name or path.startswith(f"{name}.") for name in checked.fields)}
    assert not unnamed


@pytest.mark.parametrize("path", sorted(Path(rules.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_a_rules_text_names_fields_that_exist(path: Path) -> None:
    named = re.compile(rf"\b(?:{'|'.join(name for name in FIELDS if '.' not in name)})(?:\.[a-z_]+[0-9]*)+")
    texts = (node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant))
    found = {name for text in texts if isinstance(text, str) for name in named.findall(text)}
    assert not {name for name in found if name not in FIELDS}
