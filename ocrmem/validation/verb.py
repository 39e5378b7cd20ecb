"""The verb ``validate``: settings, device and data, with every fault in one list.

    ocrmem validate --config params.yaml

Nothing is built or loaded but the tokenizer, so it takes seconds and costs no GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocrmem.config import Checked, RunConfig, check_file
from ocrmem.conversations import SPLITS, scan_conversations
from ocrmem.errors import CheckFailed, ConfigError, OcrMemError
from ocrmem.files import write_json
from ocrmem.validation.machine import device_problems, unpinned
from ocrmem.validation.samples import count_samples


def validate_file(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Validate a configuration file; where it does not load, list its faults and the data's together.

    Args:
        path: params.yaml.
        overrides: ``key.path=value``.

    Returns:
        what `validate` returns.

    Raises:
        ConfigError: a setting is wrong; with every problem.
        CheckFailed: the data is wrong; with every problem.
    """
    checked = check_file(Path(path), overrides)
    if not checked.problems:
        return validate(checked.config)
    problems = list(checked.problems)
    data = Path(checked.config.data.path)
    if checked.sound("data.path") and checked.config.data.path.strip() and data.exists():
        problems += scan_conversations(data, 0.0).problems
    if _reports_are_placed(checked):
        _write(checked.config, {"ok": False, "problems": [problem.as_dict() for problem in problems]})
    raise ConfigError(problems)


def validate(config: RunConfig) -> dict[str, Any]:
    """Check device, data and whether memory would be used; writes validation.json.

    Args:
        config: as loaded, so its fields and rules hold.

    Returns:
        counts of conversations, samples and samples with memory by split, the longest history in tokens,
        notes, and "summary".

    Raises:
        ConfigError: the device cannot do what is asked, or the tokenizer does not load.
        CheckFailed: the data is wrong, or no sample would get memory.
    """
    notes: list[str] = []
    config_problems = device_problems(config, notes)
    reading = scan_conversations(Path(config.data.path), config.data.eval_fraction, family=config.model.family)
    data_problems = list(reading.problems)
    rejected = 0
    if config.data.skip_bad and reading.conversations and not reading.unusable:
        rejected = len({problem.place for problem in data_problems})
        data_problems = []
        if rejected:
            notes.append(f"{rejected} bad lines will be left out (data.skip_bad)")
    result: dict[str, Any] = {
        "ok": True,
        "conversations": dict.fromkeys(SPLITS, 0) | Counter(c.split for c in reading.conversations),
        "rejected": rejected,
    }
    if not config_problems or reading.conversations:
        try:
            result |= count_samples(config, reading.conversations, data_problems, notes)
        except OcrMemError as error:
            config_problems += error.problems
    notes += unpinned(config)
    result["notes"] = notes
    problems = [*config_problems, *data_problems]
    if problems:
        _write(config, {"ok": False, "problems": [problem.as_dict() for problem in problems]})
        raise (ConfigError if config_problems else CheckFailed)(problems)
    _write(config, result)
    return result | {"summary": _summary(result)}


def _summary(result: dict[str, Any]) -> list[str]:
    conversations, samples, memory = (result[key] for key in ("conversations", "samples", "samples_with_memory"))
    lines = [
        f"{split}: {conversations[split]} conversations, {samples[split]} samples, {memory[split]} with memory"
        for split in SPLITS
        if conversations[split]
    ]
    lines.append(
        f"the longest history has {result['longest_history_tokens']} tokens; over "
        f"{result['context_threshold']} it becomes memory"
    )
    return [*lines, *(f"note: {text}" for text in result["notes"]), "validate: settings and data are good"]


def _reports_are_placed(checked: Checked) -> bool:
    return checked.sound("paths.reports") and bool(checked.config.paths.reports.strip())


def _write(config: RunConfig, result: dict[str, Any]) -> None:
    path = config.paths.report("validation.json")
    try:
        write_json(path, result)
    except OSError as error:
        message = f"cannot be written ({error.strerror})"
        raise ConfigError.of(str(path), message, "Set paths.reports to a folder that can be written") from None
