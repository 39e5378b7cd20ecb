"""MEMConfig reads anything and says what is wrong; a MEMModel is built from nothing wrong."""

from __future__ import annotations

import json

import pytest
from support.models import VISION, small_base, small_config, small_encoder

from ocrmem.config import RunConfig
from ocrmem.model.configuration import InvalidModelConfig, MEMConfig
from ocrmem.model.modeling import MEMModel

ODD = [
    {"vision_embedding_size": "wide"},
    {"context_threshold": None, "max_seq_length": -1},
    {"base_model_name": 7, "ocr_model_name": None},
    {"features": ["sum"], "labels": "none", "projector_norm": "yes"},
    {"dtype": "no such dtype", "output_hidden_states": "maybe", "id2label": 3, "problem_type": "x"},
    {"added_by_a_later_version": {"deep": [1, 2]}, "num_labels": "many"},
]


@pytest.mark.parametrize("values", ODD)
def test_reading_odd_values_never_raises(tmp_path, values):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ocrmem"} | values), encoding="utf-8")
    config = MEMConfig.from_pretrained(tmp_path)
    assert isinstance(config.problems(), list)
    assert isinstance(config.adapter_json(), str)


def test_unknown_fields_survive_reading_and_writing():
    config = MEMConfig(base_model_name="a", made_on="a Monday")
    assert json.loads(config.adapter_json())["made_on"] == "a Monday"


def test_config_json_holds_no_defaults_of_transformers():
    written = json.loads(small_config().adapter_json())
    assert "id2label" not in written
    assert "return_dict" not in written
    assert written["model_type"] == "ocrmem"
    assert written["vision_embedding_size"] == VISION


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base_model_name": ""}, "base_model_name"),
        ({"base_model_name": "  "}, "base_model_name"),
        ({"ocr_model_name": ""}, "ocr_model_name"),
        ({"ocr_model_name": None}, "ocr_model_name"),
        ({"context_threshold": 256}, "context_threshold"),
        ({"context_threshold": 2048}, "context_threshold"),
        ({"context_threshold": "8"}, "context_threshold"),
        ({"max_seq_length": 0, "context_threshold": "no"}, "max_seq_length"),
        ({"vision_embedding_size": 31}, "vision_embedding_size"),
        ({"vision_embedding_size": True}, "vision_embedding_size"),
        ({"token_size": 16}, "token_size"),
        ({"features": "mean"}, "features"),
        ({"projector_hidden_size": 0}, "projector_hidden_size"),
        ({"hidden_size": 48}, "hidden_size"),
        ({"system": 1}, "system"),
        ({"placeholder_token_id": 64}, "placeholder_token_id"),
        ({"placeholder_token_id": -1}, "placeholder_token_id"),
    ],
)
def test_building_refuses_and_names_the_field(changes, field):
    with pytest.raises(ValueError, match=field) as caught:
        MEMModel(small_config(**changes), small_base(), small_encoder())
    assert isinstance(caught.value, InvalidModelConfig)
    assert caught.value.problems[-1].place == field


def test_building_names_every_fault_at_once():
    config = small_config(base_model_name="", context_threshold=4096, features="mean")
    with pytest.raises(InvalidModelConfig) as caught:
        MEMModel(config, small_base())
    assert {p.place for p in caught.value.problems} == {"base_model_name", "features", "context_threshold"}


@pytest.mark.parametrize(("features", "width"), [("sum", 1024), ("concat", 2048)])
def test_the_public_encoder_s_width_is_known_without_loading_it(features, width):
    config = MEMConfig("Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-OCR", 512, 1024, features=features)
    (problem,) = config.problems()
    assert problem.place == "vision_embedding_size"
    assert str(width) in problem.message
    config.vision_embedding_size = width
    assert config.problems() == []


def test_an_encoder_of_the_other_feature_mode_is_refused():
    config = small_config(ocr_model_name="mine", features="concat", vision_embedding_size=VISION)
    with pytest.raises(InvalidModelConfig, match="features: is 'concat', but the encoder gives sum"):
        MEMModel(config, small_base(), small_encoder("sum"))


def test_a_model_that_scales_its_logits_is_refused():
    base = small_base()
    base.config.final_logit_softcapping = 30.0
    with pytest.raises(InvalidModelConfig, match="final_logit_softcapping"):
        MEMModel(small_config(), base)


def test_page_settings_come_back_as_the_run_had_them():
    run = RunConfig.from_dict(
        {
            "model": {"vision_embedding_size": VISION, "context_threshold": 8, "max_seq_length": 256},
            "render": {
                "max_pages": 2,
                "page_size": 256,
                "token_size": 32,
                "line_height": 32,
                "labels": {"user": "U "},
            },
        }
    )
    config = MEMConfig(**json.loads(MEMConfig.from_run_config(run, hidden_size=32).adapter_json()))
    assert config.render_section() == run.render
    assert config.hidden_size == 32


def test_page_settings_that_are_no_settings_are_an_error():
    with pytest.raises(InvalidModelConfig, match="page settings"):
        small_config(page_size="large").render_section()
