"""The verb `check`: Great Expectations over samples and pages.

The only module that knows Great Expectations, and it imports it where it is used: the import takes seconds.
"""

from __future__ import annotations

import html
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ocrmem.config import RunConfig
from ocrmem.dataset.expectations import Expectation, expectations
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.tables import Table, check_tables
from ocrmem.errors import CheckFailed, Problem
from ocrmem.facts import MANIFEST
from ocrmem.files import locking, replacing_directory, sha256_file, write_json

RESULT = "result.json"
DATA_DOCS = "data_docs/index.html"
_KEYS = {"samples": "id", "pages": "hash"}
_FIGURES = {"samples": ("compression_ratio",), "pages": ("kept_tokens", "ink_share")}
_EXAMPLES = 5


class CheckResult(TypedDict):
    """Result of `check_dataset`: what result.json holds, the paths of it and of the data docs, and the summary.

    ``expectations`` has an outcome for each, ``figures`` the min, mean and max of what has bounds.
    """

    success: bool
    dataset: dict[str, Any]
    figures: dict[str, dict[str, float]]
    expectations: list[dict[str, Any]]
    data_docs: str
    result: str
    summary: list[str]


@locking("check", lambda config: config.paths.checks)
def check_dataset(config: RunConfig) -> CheckResult:
    """Check the dataset and write ``paths.checks``: result.json and Great Expectations' HTML data docs.

    Args:
        config: sections check and paths are used.

    Raises:
        MissingInputError: there is no dataset.
        DataError: the dataset cannot be read.
        CheckFailed: an expectation does not hold; a problem each, named. result.json and the data docs are
            written all the same.
    """
    path = Path(config.paths.dataset)
    dataset = MemoryDataset.open(path)
    expected = expectations(config, dataset.manifest)
    directory = Path(config.paths.checks)
    figures = _Figures()
    with replacing_directory(directory) as target:
        outcomes = _validate(expected, _seen(check_tables(dataset), figures), target)
        failed = [outcome for outcome in outcomes if not outcome["success"]]
        checked = {"manifest_sha256": sha256_file(path / MANIFEST), "counts": dataset.manifest["counts"]}
        result: CheckResult = {
            "success": not failed,
            "dataset": checked,
            "figures": figures.as_dict(),
            "expectations": outcomes,
            "data_docs": DATA_DOCS,
            "result": str(directory / RESULT),
            "summary": [],
        }
        write_json(target / RESULT, {key: value for key, value in result.items() if key not in ("result", "summary")})
    if failed:
        raise CheckFailed([_problem(outcome, path) for outcome in failed])
    result["data_docs"] = str(directory / DATA_DOCS)
    result["summary"] = [
        f"{len(outcomes)} expectations hold over {figures.rows['samples']:,} samples and "
        f"{figures.rows['pages']:,} pages",
        *_figure_lines(result["figures"]),
        f"data docs: {directory / DATA_DOCS}",
    ]
    return result


def _validate(
    expected: Sequence[Expectation], parts: Iterator[tuple[str, Table]], directory: Path
) -> list[dict[str, Any]]:
    """Run all expectations over parts of tables and write the data docs; one outcome for each, in order.

    A table of several parts gets a page of the data docs for each.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import pandas as pd

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _set_data_docs(context, directory / Path(DATA_DOCS).parent)
    source = context.data_sources.add_pandas("dataset")
    definitions = {table: _definition(context, source, table, expected) for table in _KEYS}
    outcomes: dict[str, dict[str, Any]] = {}
    for number, (table, columns) in enumerate(parts):
        validation = definitions[table].run(
            # Great Expectations puts values into HTML as they are, and reads $ as a placeholder.
            batch_parameters={"dataframe": pd.DataFrame(_escaped(columns))},
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": [_KEYS[table]],
                "partial_unexpected_count": _EXAMPLES,
            },
            run_id=gx.RunIdentifier(run_name=f"part {number}"),
        )
        for entry in validation.to_json_dict()["results"]:
            name = entry["expectation_config"]["meta"]["name"]
            outcome = _outcome(entry, next(e for e in expected if e.name == name))
            outcomes[name] = _together(outcomes[name], outcome) if name in outcomes else outcome
    with _errors_raised():
        context.build_data_docs()
    return [outcomes[expectation.name] for expectation in expected]


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Raise what Great Expectations only logs: a page of the data docs that could not be made or written."""
    logger, records = logging.getLogger("great_expectations"), list[str]()
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
    if records:
        raise RuntimeError(records[0])


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


def _set_data_docs(context: Any, directory: Path) -> None:
    for name in context.get_site_names():
        context.delete_data_docs_site(name)
    context.add_data_docs_site(
        site_name="checks",
        site_config={
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(directory.resolve())},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )


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
    examples = [
        {name: _plain(value) for name, value in row.items()}
        for row in result.get("partial_unexpected_index_list") or []
    ]
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
        "examples": [{"at": row.get(key), **{c: row.get(c) for c in columns if c != key}} for row in examples],
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
    shown = []
    for example in outcome["examples"]:
        at = example.pop("at")
        values = ", ".join(f"{name} {value}" for name, value in example.items())
        shown.append(f"{at} ({values})" if values else str(at))
    return Problem(
        where,
        f"{outcome['name']} does not hold for {outcome['failed']} of {outcome['checked']} "
        f"({outcome['meaning']}): {', '.join(shown)}",
        outcome["remedy"],
    )


@dataclass
class _Figures:
    """Rows of each table, and the smallest, mean and largest of what has bounds, over all parts."""

    rows: Counter[str] = field(default_factory=Counter)
    spans: dict[str, tuple[float, float, float, int]] = field(default_factory=dict)

    def add(self, table: str, columns: Table) -> None:
        self.rows[table] += len(columns[_KEYS[table]])
        for name in _FIGURES.get(table, ()):
            values = [value for value in columns[name] if value is not None]
            if values:
                least, total, most, count = self.spans.get(name, (values[0], 0.0, values[0], 0))
                least, most = min(least, *values), max(most, *values)
                self.spans[name] = (least, total + sum(values), most, count + len(values))

    def as_dict(self) -> dict[str, dict[str, float]]:
        return {
            name: {"min": round(least, 4), "mean": round(total / count, 4), "max": round(most, 4)}
            for name, (least, total, most, count) in self.spans.items()
        }


def _seen(parts: Iterator[tuple[str, Table]], figures: _Figures) -> Iterator[tuple[str, Table]]:
    for table, columns in parts:
        figures.add(table, columns)
        yield table, columns


def _figure_lines(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {values['min']:g} to {values['max']:g}, mean {values['mean']:g}"
        for name, values in figures.items()
    ]


def _escaped(columns: Table) -> Table:
    return {name: [_safe(value) for value in values] for name, values in columns.items()}


def _safe(value: Any) -> Any:
    return html.escape(value).replace("$", "&#36;") if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return html.unescape(value) if isinstance(value, str) else value
