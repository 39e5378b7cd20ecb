"""The verb ``validate``: settings, device and data, with every fault in one list.

    ocrmem validate --config params.yaml

Nothing is built or loaded but the tokenizer, so it takes seconds and needs no GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocrmem.config import RunConfig, check_file
from ocrmem.config.settings_file import Overrides
from ocrmem.console import progress_bar
from ocrmem.conversations import SPLITS, ConversationReader
from ocrmem.conversations.sources import other_files, shown_path, told_names
from ocrmem.errors import CheckFailed, ConfigError, OcrMemError, Problem
from ocrmem.files import write_json
from ocrmem.places import require_places
from ocrmem.validation.machine import device_problems, unpinned
from ocrmem.validation.sample_counts import SampleCounter, SampleCounts
from ocrmem.verdicts import warning_lines

VALIDATION = "validation.json"


class ValidateResult(SampleCounts):
    """Result of `validate`; all but the summary is in validation.json.

    Attributes:
        ok: True; where it is not, validation.json holds the problems.
        conversations: by split.
        rejected: bad lines that will be left out.
        unused_fields: names beside the messages that nothing reads, with the number of conversations that have them.
        notes: what is not a fault but worth knowing.
    """

    ok: bool
    conversations: dict[str, int]
    rejected: int
    unused_fields: dict[str, int]
    notes: list[str]
    summary: list[str]


def validate_file(path: Path | str, overrides: Overrides = ()) -> ValidateResult:
    """Validate a settings file; where it does not load, list its faults and the data's together.

    Args:
        path: params.yaml.
        overrides: as for `RunConfig.load`.

    Raises:
        ConfigError: a setting is wrong; with every problem.
        CheckFailed: the data is wrong; with every problem.
    """
    checked = check_file(Path(path), overrides)
    config, problems = checked.config, checked.problems
    if not problems:
        return validate(config)
    data = Path(config.data.path)
    if checked.sound("data.path") and data.exists():
        reader = ConversationReader(data, 0.0)
        for _ in reader.read():
            pass
        problems += reader.problems.listed()
    if checked.sound("paths.reports"):
        _write_problems(config, problems)
    raise ConfigError(problems)


def validate(config: RunConfig) -> ValidateResult:
    """Check device, data and whether memory would be used; writes validation.json.

    Args:
        config: as loaded, so its fields and rules hold.

    Raises:
        ConfigError: the device cannot do what is asked, or the tokenizer does not load.
        CheckFailed: the data is wrong, or no sample would get memory.
    """
    require_places([config.paths.report(VALIDATION)])
    notes: list[str] = []
    config_problems = device_problems(config, notes)
    data = Path(config.data.path)
    reader = ConversationReader(data, config.data.eval_fraction, config.model.family)
    counter: SampleCounter | None = None
    try:
        counter = SampleCounter(config)
    except OcrMemError as error:
        config_problems += error.problems
    good = 0
    with progress_bar("checking conversations", reader.size) as bar:
        for conversation, _, _ in reader.read(advance=bar.advance):  # none is kept: data may be larger than memory
            good += 1
            if counter:
                counter.add(conversation)
    problems, rejected = [*config_problems, *reader.problems.listed()], 0
    if config.data.skip_bad and good and not reader.unusable:
        problems, rejected = list(config_problems), reader.refused
        if rejected:
            notes.append(f"{rejected} bad lines will be left out (data.skip_bad)")
    counts = counter.closed(notes) if counter else None
    problems += counter.problems.listed() if counter else []
    if counter is None or counts is None or problems:
        _write_problems(config, problems)
        raise (ConfigError if config_problems else CheckFailed)(problems)
    if told := reader.unused.told():
        notes.append(f"fields that are not used, and how many conversations have them: {told}")
    if beside := other_files(data):
        notes.append(f"files of {shown_path(data)} that are not read: {told_names(beside)}; `ocrmem convert` may")
    splits = counter.conversations
    notes += unpinned(config)
    samples, memory = counts["samples"], counts["samples_with_memory"]
    result: ValidateResult = {
        "ok": True,
        "conversations": splits,
        "rejected": rejected,
        "unused_fields": reader.unused.most_common(),
        **counts,
        "notes": notes,
        "summary": [
            *(
                f"{split}: {splits[split]} conversations, {samples[split]} samples, {memory[split]} with memory"
                for split in SPLITS
                if splits[split]
            ),
            f"the longest history has {counts['longest_history_tokens']} tokens; over {counts['context_threshold']} it "
            "becomes memory",
            *(f"note: {text}" for text in notes),
            *warning_lines(counts["warnings"]),
            "validate: settings and data are " + ("sound, but see the warnings" if counts["warnings"] else "good"),
        ],
    }
    _write(config, {key: value for key, value in result.items() if key != "summary"})
    return result


def _write_problems(config: RunConfig, problems: list[Problem]) -> None:
    _write(config, {"ok": False, "problems": [problem.as_dict() for problem in problems]})


def _write(config: RunConfig, result: Mapping[str, Any]) -> None:
    path = config.paths.report(VALIDATION)
    try:
        write_json(path, result)
    except OSError as error:
        message = f"cannot be written ({error.strerror})"
        raise ConfigError.of(str(path), message, "Set paths.reports to a folder that can be written") from None
