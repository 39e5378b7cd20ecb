"""The verb `check`: Great Expectations over samples and pages.

The only module that knows Great Expectations, and it imports it where it is used: the import takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ocrmem.config import RunConfig
from ocrmem.console import note
from ocrmem.conversations import ConversationReader
from ocrmem.dataset.check_page import shown, write_page
from ocrmem.dataset.distributions import Distributions
from ocrmem.dataset.expectations import Expectation, expectations
from ocrmem.dataset.manifest import source_identity
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.tables import Table, check_tables
from ocrmem.errors import CheckFailed, DataError, Problem
from ocrmem.facts import MANIFEST
from ocrmem.files import locking, replacing_directory, sha256_file, write_json
from ocrmem.verdicts import dataset_warnings, warning_lines

RESULT = "result.json"
PAGE = "index.html"
_KEYS = {"samples": "id", "pages": "hash"}
_TOLD = ("compression_ratio", "kept_tokens", "ink_share")
_EXAMPLES = 5


class CheckResult(TypedDict):
    """Result of `check_dataset`: what result.json holds, the paths of it and of the page, and the summary.

    ``warnings`` are what makes the dataset less than it seems, ``expectations`` has an outcome for each, ``figures``
    the min, mean and max of lengths, ratios and shares.
    """

    success: bool
    warnings: list[str]
    dataset: dict[str, Any]
    figures: dict[str, dict[str, float]]
    expectations: list[dict[str, Any]]
    page: str
    result: str
    summary: list[str]


@locking("check", lambda config: config.paths.checks)
def check_dataset(config: RunConfig) -> CheckResult:
    """Check the dataset and write ``paths.checks``: result.json and index.html, a page of the same.

    Args:
        config: sections check and paths are used; ``data.path`` to say in which lines samples that fail come from.

    Raises:
        MissingInputError: there is no dataset.
        DataError: the dataset cannot be read.
        CheckFailed: an expectation does not hold, or there are more warnings than ``check.max_warnings``; a problem
            each, named. result.json and the page are written all the same.
    """
    path = Path(config.paths.dataset)
    dataset = MemoryDataset.open(path)
    expected = expectations(config, dataset.manifest)
    directory = Path(config.paths.checks)
    seen = Distributions(expected)
    outcomes = _validate(expected, _noting(check_tables(dataset), seen))
    _add_lines(outcomes, config, dataset)
    failed = [outcome for outcome in outcomes if not outcome["success"]]
    result: CheckResult = {
        "success": not failed,
        "warnings": dataset_warnings(dataset.manifest["counts"]),
        "dataset": {"manifest_sha256": sha256_file(path / MANIFEST), "counts": dataset.manifest["counts"]},
        "figures": seen.figures(),
        "expectations": outcomes,
        "page": PAGE,
        "result": str(directory / RESULT),
        "summary": [],
    }
    with replacing_directory(directory) as target:
        write_json(target / RESULT, {key: value for key, value in result.items() if key not in ("result", "summary")})
        write_page(target / PAGE, result, seen, dataset)
    problems = [_problem(outcome, path) for outcome in failed]
    if problems := [*problems, *_too_many(result["warnings"], config)]:
        note(f"page: {directory / PAGE}")
        raise CheckFailed(problems)
    result["page"] = str(directory / PAGE)
    result["summary"] = [
        f"{len(outcomes)} expectations hold over {seen.rows['samples']:,} samples and {seen.rows['pages']:,} pages",
        *_figure_lines(result["figures"]),
        *warning_lines(result["warnings"]),
        f"page: {directory / PAGE}",
    ]
    return result


def _too_many(warnings: list[str], config: RunConfig) -> list[Problem]:
    most = config.check.max_warnings
    if most is None or len(warnings) <= most:
        return []
    remedy = f"Or raise check.max_warnings, which is {most}"
    return [Problem("check.max_warnings", warning, remedy) for warning in warnings]


def _validate(expected: Sequence[Expectation], parts: Iterator[tuple[str, Table]]) -> list[dict[str, Any]]:
    """Run all expectations over parts of tables; one outcome for each, in order."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("dataset")
    definitions = {table: _definition(context, source, table, expected) for table in _KEYS}
    outcomes: dict[str, dict[str, Any]] = {}
    for number, (table, columns) in enumerate(parts):
        validation = definitions[table].run(
            batch_parameters={"dataframe": pd.DataFrame(columns)},
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": [_KEYS[table], "place"],
                "partial_unexpected_count": _EXAMPLES,
            },
            run_id=gx.RunIdentifier(run_name=f"part {number}"),
        )
        for entry in validation.to_json_dict()["results"]:
            name = entry["expectation_config"]["meta"]["name"]
            outcome = _outcome(entry, next(e for e in expected if e.name == name))
            outcomes[name] = _together(outcomes[name], outcome) if name in outcomes else outcome
    return [outcomes[expectation.name] for expectation in expected]


def _definition(context: Any, source: Any, table: str, expected: Sequence[Expectation]) -> Any:
    """Make Great Expectations' object that validates (parts of) one table."""
    import great_expectations as gx

    suite = gx.ExpectationSuite(name=table, expectations=[_expectation(e) for e in expected if e.table == table])
    definition = gx.ValidationDefinition(
        name=table,
        data=source.add_dataframe_asset(table).add_batch_definition_whole_dataframe(table),
        suite=context.suites.add(suite),
    )
    return context.validation_definitions.add(definition)


def _together(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Combine the outcomes of an expectation over two parts of its table."""
    return first | {
        "success": first["success"] and second["success"],
        "checked": first["checked"] + second["checked"],
        "failed": first["failed"] + second["failed"],
        "examples": (first["examples"] + second["examples"])[:_EXAMPLES],
        "error": first["error"] or second["error"],
    }


def _expectation(expected: Expectation) -> Any:
    """Make Great Expectations' object for an expectation."""
    import great_expectations.expectations as gxe

    about: dict[str, Any] = {"meta": {"name": expected.name}, "description": f"{expected.name}: {expected.meaning}"}
    if expected.kind == "in_set":
        return gxe.ExpectColumnValuesToBeInSet(column=expected.column, value_set=list(expected.values), **about)
    if expected.kind == "pair_equal":
        return gxe.ExpectColumnPairValuesToBeEqual(
            column_A=expected.column, column_B=str(expected.other), ignore_row_if="neither", **about
        )
    return gxe.ExpectColumnValuesToBeBetween(
        column=expected.column, min_value=expected.low, max_value=expected.high, **about
    )


def _outcome(entry: dict[str, Any], expected: Expectation) -> dict[str, Any]:
    """Return the entry of an expectation in result.json."""
    result = entry["result"]
    exception = entry.get("exception_info") or {}
    key = _KEYS[expected.table]
    examples = result.get("partial_unexpected_index_list") or []
    columns = [expected.column, *([expected.other] if expected.other else [])]
    return {
        "name": expected.name,
        "success": bool(entry["success"]),
        "table": expected.table,
        "columns": columns,
        "meaning": expected.meaning,
        "remedy": expected.remedy,
        "bounds": _bounds(expected),
        "checked": result.get("element_count", 0),
        "failed": result.get("unexpected_count", 0),
        "examples": [
            {"at": row.get(key), "place": row.get("place"), **{c: row.get(c) for c in columns if c != key}}
            for row in examples
        ],
        "error": exception.get("exception_message"),
    }


def _bounds(expected: Expectation) -> dict[str, Any]:
    if expected.kind == "between":
        return {"min": expected.low, "max": expected.high}
    return {"values": list(expected.values)} if expected.kind == "in_set" else {}


def _problem(outcome: dict[str, Any], path: Path) -> Problem:
    columns = " and ".join(outcome["columns"])
    where = f"{path}: {outcome['table']}.{columns}"
    if outcome["error"]:
        return Problem(where, f"{outcome['name']} could not be checked: {outcome['error']}", outcome["remedy"])
    named = []
    for example in outcome["examples"]:
        values = [f"{name} {shown(value)}" for name, value in example.items() if name not in ("at", "place", "line")]
        values += [example["line"]] if "line" in example else []
        named.append(f"{example['at']} ({', '.join(values)})" if values else str(example["at"]))
    return Problem(
        where,
        f"{outcome['name']} does not hold for {outcome['failed']} of {outcome['checked']} "
        f"({outcome['meaning']}): {', '.join(named)}",
        outcome["remedy"],
    )


def _noting(parts: Iterator[tuple[str, Table]], seen: Distributions) -> Iterator[tuple[str, Table]]:
    for table, columns in parts:
        seen.add(table, columns)
        yield table, columns


def _add_lines(outcomes: Sequence[dict[str, Any]], config: RunConfig, dataset: MemoryDataset) -> None:
    """Add to the samples that fail the lines they were made from, if the data are there and still the same."""
    examples = [example for outcome in outcomes if outcome["table"] == "samples" for example in outcome["examples"]]
    if not examples:
        return
    try:
        if source_identity(config)["sha256"] != dataset.manifest["source"]["sha256"]:
            return
    except (DataError, OSError):
        return
    wanted = {str(example["at"]).rpartition("#")[0] for example in examples}
    reader = ConversationReader(Path(config.data.path), config.data.eval_fraction, config.model.family)
    lines = {conversation.id: conversation.place for conversation, _, _ in reader.read() if conversation.id in wanted}
    for example in examples:
        if line := lines.get(str(example["at"]).rpartition("#")[0]):
            example["line"] = line


def _figure_lines(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {values['min']:g} to {values['max']:g}, mean {values['mean']:g}"
        for name, values in figures.items()
        if name in _TOLD
    ]
