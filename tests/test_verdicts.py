"""A run that means little says so: what is said of figures, and that every verb says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.models import small_settings, write_conversations, write_random_base
from support.quick import QUICK

import ocrmem
from ocrmem.config import RunConfig
from ocrmem.errors import CheckFailed
from ocrmem.evaluation.result import EVALUATION
from ocrmem.evaluation.statistics import wilson
from ocrmem.steps import STEPS
from ocrmem.verdicts import dataset_warnings, evaluation_warnings, memory_verdict, percent
from ocrmem.versioning import open_dataset
from ocrmem.workflow.markdown import escaped
from ocrmem.workflow.tasks import gate

SOUND = {
    "content_tokens": 100,
    "unknown_tokens": 20,
    "pages": 9,
    "dropped_pages": 0,
    "dropped_tokens": 0,
    "history_tokens": 50,
    "memory_tokens": 50,
}


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, []),
        ({"unknown_tokens": 21}, ["21 % of the text's tokens are unknown"]),
        ({"dropped_pages": 1}, ["1 of 10 pages are dropped, the oldest of each history (render.max_pages): what"]),
        ({"dropped_pages": 2791}, ["2,791 of 2,800 pages are dropped, the oldest of each history (render.max_pag"]),
        ({"dropped_tokens": 7}, ["7 text tokens are dropped, the oldest of their samples. Raise model.max_seq_length"]),
        ({"memory_tokens": 51}, ["memory takes more tokens than the text that it stands for (0.98 text tokens per"]),
        ({"unknown_tokens": 99, "dropped_pages": 1, "memory_tokens": 90}, ["99 %", "1 of 10 pages", "memory"]),
    ],
)  # fmt: skip
def test_a_dataset_that_is_less_than_it_seems_is_told(counts: dict[str, int], said: list[str]) -> None:
    warnings = dataset_warnings(SOUND | counts)
    assert len(warnings) == len(said)
    assert all(warning.startswith(text) for warning, text in zip(warnings, said, strict=True))


def test_of_counts_that_are_not_there_nothing_is_said() -> None:
    assert dataset_warnings({"pages": 3}) == []


def figures(exact: int, samples: int, said: int | None = None) -> dict[str, Any]:
    said = exact if said is None else said
    shares = {"recall": exact, "said": said}
    return {
        "samples": samples,
        **{name: count / samples for name, count in shares.items()},
        **{f"{name}_interval": wilson(count, samples) for name, count in shares.items()},
    }


def evaluation(memory: Mapping[str, Any], shuffled: Mapping[str, Any], no_memory: Mapping[str, Any]) -> dict[str, Any]:
    return {"memory": memory, "shuffled": shuffled, "no_memory": no_memory}


@pytest.mark.parametrize(
    ("memory", "shuffled", "no_memory", "state", "sentence"),
    [
        (96, 7, 0, "helps", "Memory recalls 96 % of held-out facts, another conversation's pages 7 %: it helps"),
        (10, 2, 0, "helps", "Memory recalls 10 % of held-out facts, another conversation's pages 2 %: it helps"),
        (50, 49, 0, "unclear", "pages 49 %: 100 samples are too few to say whether it helps"),
        (0, 0, 0, "does not help", "pages 0 %: right and wrong pages score alike, so memory does not help"),
        (10, 30, 0, "does not help", "pages 30 %: the right pages score worse, so memory does not help"),
        (95, 1, 97, "does not help", "the model without memory 97 %: it knows no more with pages, so memory does not"),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_intervals(
    memory: int, shuffled: int, no_memory: int, state: str, sentence: str
) -> None:
    found = memory_verdict(evaluation(*(figures(correct, 100) for correct in (memory, shuffled, no_memory))))
    assert found["state"] == state
    assert sentence in found["sentence"]
    assert evaluation_warnings(found) == ([] if state == "helps" else [found["sentence"]])


@pytest.mark.parametrize(
    ("samples", "state"), [(4, "unclear"), (24, "unclear"), (60, "does not help"), (1000, "does not help")]
)
def test_nothing_recalled_is_a_verdict_only_over_enough_samples(samples: int, state: str) -> None:
    nothing = figures(0, samples)
    assert memory_verdict(evaluation(nothing, nothing, nothing))["state"] == state


def test_a_small_gain_over_many_samples_is_called_small() -> None:
    found = memory_verdict(evaluation(figures(60, 2000), figures(10, 2000), figures(0, 2000)))
    assert found["sentence"] == (
        "Memory recalls 3 % of held-out facts, another conversation's pages 0.5 %: it helps little"
    )


def test_a_model_that_answers_in_sentences_is_judged_by_what_it_says() -> None:
    found = memory_verdict(evaluation(figures(0, 60, said=40), figures(0, 60, said=3), figures(0, 60)))
    assert found["sentence"] == (
        "Memory lets the model say 67 % of held-out facts, another conversation's pages 5 %: it helps"
    )


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.996, "99.6 %"), (0.004, "0.4 %"), (0.5, "50 %"), (0.994, "99 %")],
)
def test_almost_all_is_not_all(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.fixture(scope="module")
def meaningless(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """English for a model that knows 65 words of none, on pages of which most are dropped; an adapter never trained."""
    root = tmp_path_factory.mktemp("meaningless")
    sections = {"smoke": {"samples": 1}, "train": {"max_steps": 1}, "evaluate": {"max_samples": 2, "max_new_tokens": 1}}
    values = small_settings(root, model={"features": "sum"}, **sections)
    values["render"] |= {"max_pages": 1}
    values["register"] |= QUICK["register"]
    values["version"] = {"remote": str(root / "remote")}
    (root / "remote").mkdir()
    config = RunConfig.from_dict(values)
    write_conversations(root / "data", train=1, held_out=2)
    write_random_base(root / "models")
    letter = "Dear all, the ferry left late that morning because the fog had not lifted from the harbour. " * 9
    turns = [("user", letter), ("assistant", "Noted."), ("user", "Which boat was late?"), ("assistant", "The ferry")]
    for split, count in (("train", 2), ("eval", 4)):
        with (root / "data" / f"{split}.jsonl").open("a", encoding="utf-8") as file:
            for n in range(count):
                messages = [{"role": role, "content": f"{text} {split} {n}"} for role, text in turns]
                file.write(json.dumps({"id": f"{split}-{n}", "messages": messages}) + "\n")
    return config


VERBS = ("validate", "render", "check", "version", "encode", "smoke", "train", "evaluate", "register")
REPORTS = {
    "validate": "reports/validation.json",
    "check": "checks/result.json",
    "version": "reports/version.json",
    "smoke": "smoke/report.json",
    "train": "reports/train.json",
    "evaluate": "reports/evaluation.json",
    "register": "reports/registration.json",
}


@pytest.fixture(scope="module")
def ran(meaningless: RunConfig) -> dict[str, dict[str, Any]]:
    return {verb: getattr(ocrmem, verb)(meaningless) for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_it_in_its_summary_and_its_json(
    meaningless: RunConfig, ran: dict[str, dict[str, Any]], verb: str
) -> None:
    result, root = ran[verb], Path(meaningless.paths.dataset).parent
    texts = ["unknown to the base model's tokenizer", "most of the text is not in memory"]
    texts += ["too few to say whether it helps"] if verb in ("evaluate", "register") else []
    assert [sum(text in warning for warning in result["warnings"]) for text in texts] == [1] * len(texts)
    summary = "\n".join(result["summary"])
    assert all(warning in summary for warning in result["warnings"])
    if verb in REPORTS:
        assert json.loads((root / REPORTS[verb]).read_text(encoding="utf-8"))["warnings"] == result["warnings"]


def test_validate_knows_beforehand_how_many_pages_render_drops(ran: dict[str, dict[str, Any]]) -> None:
    assert ran["render"]["dropped_pages"] > ran["render"]["pages"]
    assert ran["validate"]["warnings"] == ran["render"]["warnings"]


@pytest.mark.parametrize(
    "page", ["checks/index.html", "reports/evaluation.html", "smoke/report.html", "registry/package/README.md"]
)
def test_the_reports_say_it(meaningless: RunConfig, ran: dict[str, dict[str, Any]], page: str) -> None:
    text = (Path(meaningless.paths.dataset).parent / page).read_text(encoding="utf-8")
    text = text.replace("&#39;", "'").replace("\u00a0", " ")
    of = {"checks": "check", "smoke": "smoke"}.get(page.partition("/")[0], "evaluate")
    warnings = ran[of]["warnings"]
    assert all(warning in text for warning in warnings)


def test_a_bound_on_warnings_decides_the_exit_code(meaningless: RunConfig, ran: dict[str, dict[str, Any]]) -> None:
    count = len(ran["register"]["warnings"])
    for most, passes in ((count, True), (count - 1, False)):
        gate = meaningless.registry.gate.model_copy(update={"max_warnings": most})
        config = meaningless.model_copy(
            update={
                "registry": meaningless.registry.model_copy(update={"gate": gate}),
                "check": meaningless.check.model_copy(update={"max_warnings": most - 1}),
            }
        )
        for verb in ("check", "register"):
            if passes:
                getattr(ocrmem, verb)(config)
                continue
            with pytest.raises(CheckFailed) as caught:
                getattr(ocrmem, verb)(config)
            assert caught.value.exit_code == 1
            told = " ".join(map(str, caught.value.problems))
            assert all(warning in told for warning in ran[verb]["warnings"])


def test_a_dataset_that_is_opened_again_says_it(
    meaningless: RunConfig, ran: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    opened = open_dataset(meaningless, ran["version"]["md5"], tmp_path / "again")
    assert opened["warnings"] == ran["render"]["warnings"]
    assert all(warning in "\n".join(opened["summary"]) for warning in opened["warnings"])


def test_the_gate_of_a_pipeline_says_it(
    meaningless: RunConfig, ran: dict[str, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = SimpleNamespace(path=meaningless.paths.report(EVALUATION), metadata={})
    page = SimpleNamespace(path=tmp_path / "gate.md", metadata={})
    assert gate(json.dumps(meaningless.as_dict()), evaluation, page)
    printed, shown = capsys.readouterr().out, page.path.read_text(encoding="utf-8")
    for warning in ran["evaluate"]["warnings"]:
        assert warning in printed
        assert escaped(warning) in shown


def test_every_verb_that_reads_a_dataset_or_an_evaluation_is_among_these() -> None:
    readers = {name for name, step in STEPS.items() if {"dataset", EVALUATION} & set(step.reads)}
    assert readers - {"gate"} <= set(VERBS)
