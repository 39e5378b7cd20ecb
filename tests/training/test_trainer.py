"""AdapterOnlyTrainer as a user's own script has it: what it refuses, logs, counts and proves."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import small_base, small_config, small_model
from support.training import collate, logged, standalone_arguments, standalone_samples, standalone_trainer
from transformers import TrainerCallback

from ocrmem.errors import TrainingError
from ocrmem.model.modeling import MEMModel
from ocrmem.training.trainer import AdapterOnlyTrainer


def gradients(trainer: AdapterOnlyTrainer) -> dict[str, torch.Tensor]:
    """Run one step and keep proj's gradients as the optimizer saw them."""
    kept: dict[str, torch.Tensor] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for name, parameter in trainer.model.proj.named_parameters():
                kept[name] = parameter.grad.clone()

    trainer.add_callback(Keep())
    trainer.train()
    return kept


def test_loss_falls_and_only_proj_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = standalone_trainer(tmp_path, max_steps=30)
    trainer.train()
    losses = [row[1] for row in logged(trainer)]
    assert len(losses) == 30
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    before, after = trainer.hashes()
    assert before.frozen == after.frozen
    assert set(before.proj) == {"proj.fc1.weight", "proj.fc1.bias", "proj.fc2.weight", "proj.fc2.bias"}
    assert all(before.proj[name] != after.proj[name] for name in before.proj)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("curriculum", [0.0, 0.5])
def test_accumulated_small_batches_are_one_big_batch(tmp_path: Path, curriculum: float) -> None:
    # Rows hold 1 to 3 supervised tokens, so a mean over micro-batch means is another number.
    common = {"max_steps": 1, "max_grad_norm": 1e9, "curriculum": curriculum}
    big = standalone_trainer(tmp_path / "big", per_device_train_batch_size=12, **common)
    small = standalone_trainer(
        tmp_path / "small", per_device_train_batch_size=3, gradient_accumulation_steps=4, **common
    )
    of_big, of_small = gradients(big), gradients(small)
    assert logged(small)[0][1] == pytest.approx(logged(big)[0][1], rel=1e-5)
    for name, gradient in of_big.items():
        torch.testing.assert_close(of_small[name], gradient, rtol=1e-4, atol=1e-6)


def test_logged_norm_is_that_of_proj_before_clipping(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path, max_steps=1, max_grad_norm=1e9)
    kept = gradients(trainer)
    expected = torch.sqrt(sum((gradient.double() ** 2).sum() for gradient in kept.values()))
    assert logged(trainer)[0][2] == pytest.approx(float(expected), rel=1e-5)
    clipped = standalone_trainer(tmp_path / "clipped", max_steps=1, max_grad_norm=1e-3)
    clipped.train()
    assert logged(clipped)[0][2] == pytest.approx(float(expected), rel=1e-5)


def test_batch_without_memory_trains_on(tmp_path: Path) -> None:
    samples = [sample for sample in standalone_samples(48) if sample["memory_tokens"] == 0]
    samples += [sample for sample in standalone_samples(48) if sample["memory_tokens"] > 0][:4]
    trainer = standalone_trainer(tmp_path, samples=samples, per_device_train_batch_size=1, max_steps=12)
    trainer.train()
    norms = [row[2] for row in logged(trainer)]
    assert 0.0 in norms
    assert max(norms) > 0


def test_curriculum_decides_what_a_step_sees(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def spying(samples: list[dict[str, Any]]) -> dict[str, Any]:
        seen.append([sample["memory_tokens"] for sample in samples])
        return collate(samples)

    trainer = standalone_trainer(
        tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=12, curriculum=1.0
    )
    trainer.data_collator = spying
    trainer.train()
    assert len(seen) == 24
    assert trainer.state.global_step == 12
    longest = [max(seen[2 * step] + seen[2 * step + 1]) for step in range(12)]
    assert all(length <= (step + 1) / 2 for step, length in enumerate(longest))
    assert longest[-1] >= 4


def test_the_older_tokenizer_argument_is_passed_on_without_a_warning(tmp_path: Path) -> None:
    tokenizer = object()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        trainer = AdapterOnlyTrainer(
            model=small_model(with_encoder=False), args=standalone_arguments(tmp_path), tokenizer=tokenizer
        )
    assert trainer.processing_class is tokenizer
    with pytest.raises(TrainingError, match="both tokenizer and processing_class"):
        AdapterOnlyTrainer(
            model=small_model(with_encoder=False),
            args=standalone_arguments(tmp_path),
            tokenizer=tokenizer,
            processing_class=tokenizer,
        )


def test_tokenizer_and_trainer_leave_the_adapters_config_alone(tmp_path: Path) -> None:
    from ocrmem.synthetic.tokenizer import build_tiny_tokenizer

    model = small_model(with_encoder=False)
    before = model.config.to_json_string(use_diff=False)
    trainer = AdapterOnlyTrainer(
        model=model,
        args=standalone_arguments(tmp_path, max_steps=1),
        processing_class=build_tiny_tokenizer(),
        train_dataset=standalone_samples(),
        data_collator=collate,
    )
    trainer.train()
    assert model.config.to_json_string(use_diff=False) == before


def test_other_trainable_parameters_are_refused(tmp_path: Path) -> None:
    model = small_model(with_encoder=False)
    next(model.base_llm_model.parameters()).requires_grad_(True)
    with pytest.raises(TrainingError, match=r"base_llm_model.*only proj"):
        standalone_trainer(tmp_path, model=model)


def test_loss_that_is_not_finite_stops_with_its_step(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path, save_steps=1)

    def broken(samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(samples)
        if trainer.state.global_step >= 1 and batch["memory_features"] is not None:
            batch["memory_features"][0, 0] = float("nan")
        return batch

    trainer.data_collator = broken
    with pytest.raises(TrainingError, match=r"step [234]: the loss is nan for the samples s\d+, s\d+, s\d+, s\d+\."):
        trainer.train()
    assert (tmp_path / "checkpoint-1" / "complete.json").exists()


def test_gradient_that_is_not_finite_stops_before_it_reaches_proj(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path)
    trainer.model.proj.fc1.weight.register_hook(
        lambda gradient: gradient * float("inf") if trainer.state.global_step == 2 else gradient
    )
    with pytest.raises(TrainingError, match=r"step 3: the gradient norm of proj is (inf|nan) for the samples s\d+, s"):
        trainer.train()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.proj.parameters())


def test_frozen_weight_that_changes_is_found(tmp_path: Path) -> None:
    class Meddle(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            with torch.no_grad():
                next(kwargs["model"].base_llm_model.parameters()).view(-1)[0] += 1e-4

    trainer = standalone_trainer(tmp_path)
    trainer.add_callback(Meddle())
    with pytest.raises(TrainingError, match="1 frozen tensors changed during training: base_llm_model"):
        trainer.train()


def test_proj_that_does_not_move_is_found(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path, learning_rate=0.0)
    with pytest.raises(TrainingError, match="is the same after training as before"):
        trainer.train()


def test_batch_longer_than_max_seq_length_is_refused(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path, max_seq_length=6)
    with pytest.raises(TrainingError, match=r"step 1: a batch is \d+ tokens long, but max_seq_length is 6"):
        trainer.train()


def test_checkpoints_and_saved_model_hold_no_frozen_weight(tmp_path: Path) -> None:
    trainer = standalone_trainer(tmp_path / "checkpoints", max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    size = sum(parameter.numel() * 4 for parameter in trainer.model.proj.parameters())
    frozen = sum(parameter.numel() * 4 for parameter in trainer.model.base_llm_model.parameters())
    files = {path.name: path.stat().st_size for path in (tmp_path / "checkpoints" / "checkpoint-2").iterdir()}
    assert "training_args.bin" not in files
    assert files["proj.safetensors"] < size + 1000
    assert files["optimizer.safetensors"] < 2 * size + 8000
    assert max(files.values()) < frozen
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter.safetensors", "config.json"}


def test_fingerprints_need_a_finished_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="has not finished a training"):
        standalone_trainer(tmp_path).hashes()


def test_checkpoint_is_at_most_20_adapters_however_large_the_base(tmp_path: Path) -> None:
    # The adapter of the smallest real projector, 64 x 1024 x 64: the random states' few kilobytes weigh little.
    sizes = []
    for name, layers in (("small", 1), ("large", 12)):
        config = small_config(projector_hidden_size=1024)
        model = MEMModel(config, small_base(num_hidden_layers=layers), None)
        trainer = standalone_trainer(tmp_path / name, model=model, max_steps=2)
        trainer.train()
        trainer.save_model(str(tmp_path / name / "adapter"))
        files = list((tmp_path / name / "checkpoint-2").iterdir())
        adapter = (tmp_path / name / "adapter" / "adapter.safetensors").stat().st_size
        checkpoint = sum(path.stat().st_size for path in files)
        assert 3 * adapter < checkpoint < 20 * adapter
        sizes.append(checkpoint)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
