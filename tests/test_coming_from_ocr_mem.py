"""The page for those who come from OCR-MEM: its commands on a folder as OCR-MEM's own code leaves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.models import HIDDEN, VISION, small_settings, write_conversations, write_random_base
from support.ocr_mem import DS_CONFIG, DS_CONFIG_AUTO, old_proj, write_weights
from support.page_commands import commands, run_page

from ocrmem.cli import main

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS / "coming-from-ocr-mem.md", DOCS / "coming-from-ocr-mem.zh.md"]
# What people search for: OCR-MEM's files, the warnings that its reports call acceptable, its errors.
SEARCHED = [
    "projection_layer.pt",
    "ds_config.json",
    "run_training.sh",
    "verify_gradient_flow",
    "Incompatible transformers version detected!",
    "You are using a model of type deepseek_vl_v2 to instantiate a model of type DeepseekOCR",
    "Some weights of DeepseekOCRForCausalLM were not initialized",
    "position_ids",
    "`tokenizer` is deprecated",
    "element 0 of tensors does not require grad",
    "Inference tensors cannot be saved for backward",
    "config.base_llm_model_name 不能为空",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_old_names_and_messages_are_found(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [words for words in SEARCHED if words not in text] == []
    assert commands(page) == commands(PAGES[0])
    assert text.count("\n| ") == PAGES[0].read_text(encoding="utf-8").count("\n| ")


def test_the_commands_of_the_page_bring_a_checkout_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_conversations(Path("data"), train=6, held_out=3)
    Path("data/counterfactual.jsonl").unlink()  # OCR-MEM has none
    write_weights(Path("adapter_checkpoints/checkpoint-200"), old_proj(VISION, HIDDEN))
    write_weights(Path("adapter_checkpoints/checkpoint-400"), old_proj(VISION, HIDDEN))
    for name, values in (("ds_config.json", DS_CONFIG), ("adapter_checkpoints/ds_config_auto.json", DS_CONFIG_AUTO)):
        Path(name).write_text(json.dumps(values), encoding="utf-8")
    write_random_base(Path("models"))
    train = {"num_train_epochs": 0.1, "warmup_ratio": 0.1, "eval_steps": 200, "eval_samples": 2, "logging_steps": 10}
    settings = small_settings(tmp_path, model={"projector_hidden_size": max(VISION, HIDDEN)}, train=train)
    Path("params.yaml").write_text(json.dumps(settings), encoding="utf-8")

    ran = run_page(PAGES[0], monkeypatch, capsys)
    assert all(command.startswith("ocrmem ") for command, _ in ran)
    report = json.loads(Path("reports/train.json").read_text(encoding="utf-8"))
    assert report["from_adapter"]
    assert report["held_out"]["last"]["loss"] > 0
    assert "checkpoint-400" in ran[0][1]
    # DeepSpeed's file is read with the settings, and each key that does not agree is named.
    assert main(["validate", "--set", "train.deepspeed=ds_config.json"]) == 2
    refused = capsys.readouterr().err
    assert "enables bf16, which casts proj" in refused
    assert "offload_optimizer.device cpu, but train.offload is none" in refused
    # Their habit of resuming in the old folder is led to the import.
    resume = ["train", "--resume", "--set", f"paths.checkpoints={tmp_path / 'adapter_checkpoints'}"]
    assert main(resume) == 1
    assert "ocrmem import-adapter" in capsys.readouterr().err
