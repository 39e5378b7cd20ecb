"""The plan as a person reads it: tables of at most 88 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ocrmem.config import RunConfig

WIDTH = 88
_PARTS = {
    "frozen": "frozen language model",
    "gathered": "ZeRO-3 gather buffers",
    "proj": "proj",
    "gradients": "gradients, buckets",
    "optimizer": "optimizer",
    "activations": "activations",
    "peak": "peak of backward",
    "context": "CUDA context etc.",
    "fragments": "allocator's loss",
    "total": "one process",
    "host": "moved to the host",
}
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan_text(config: RunConfig, plan: dict[str, Any]) -> list[str]:
    """Return the lines of the whole plan: whether it fits, how long it takes and what it costs, then how."""
    needs = [*_verdict(plan), *_parameters(config, plan), *_memory(plan), *_features(plan), *_tokens(config, plan)]
    return [*needs, *_stages(plan), *_time(config, plan), *_assumptions(plan)]


def scaled(value: float | None, unit: str = "") -> str:
    """Format a number with three or four digits and an SI prefix: 16.4 GB, 989 TFLOP/s."""
    if value is None:
        return "-"
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{_digits(value / size)} {prefix}{unit}".rstrip()
    return f"{_digits(value)} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Format seconds as seconds, minutes, hours or days, whichever reads best."""
    for least, size, unit in ((172800, 86400, "days"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= least:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds)} s"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _verdict(plan: dict[str, Any]) -> Iterable[str]:
    memory, gpu, time, cost = plan["memory"], plan["gpu"], plan["time"], plan["cost"]
    needed, available = scaled(memory["total_bytes"], "B"), scaled(memory["available_bytes"], "B")
    verdict = "Fits" if memory["fits"] else "DOES NOT FIT"
    yield f"{verdict}: {needed} of {available} on each of {gpu['count']} x {gpu['label']}"
    yield f"Takes {duration(time['seconds'])}, {_digits(time['gpu_seconds'] / 3600)} GPU hours"
    if cost:
        yield f"Costs {cost['total']:,.2f} at {cost['price_per_gpu_hour']:g} a GPU hour"
    yield ""


def _parameters(config: RunConfig, plan: dict[str, Any]) -> Iterable[str]:
    found = plan["parameters"]
    encoder = "?" if found["encoder"] is None else f"{found['encoder']:,}"
    trained = "proj, trained" if config.train.lora is None else "proj and LoRA, trained"
    rows = [
        (trained, f"{found['trained']:,}", "float32", scaled(found["trained_bytes"], "B")),
        (config.model.base_model_name, f"{found['base']:,}", config.model.precision, scaled(found["base_bytes"], "B")),
        (config.model.ocr_model_name, encoder, "", "not loaded: its features are stored"),
    ]
    return _table("Parameters", ["", "number", "held in", "bytes"], rows)


def _memory(plan: dict[str, Any]) -> Iterable[str]:
    memory, gpu = plan["memory"], plan["gpu"]
    ways = memory["ways"]
    rows = [
        (label, *(scaled(way[key], "B") if way[key] else "" for way in ways.values()))
        for key, label in _PARTS.items()
        if any(way[key] for way in ways.values())
    ]
    title = f"Memory of one process, cut over {gpu['count']} in each way [the configured one]"
    yield from _table(title, ["", *(f"[{name}]" if name == memory["chosen"] else name for name in ways)], rows)
    if not memory["fits"]:
        for remedy in memory["remedies"]:
            # YAML's "true" for Python's True; the other values are numbers and names in lower case.
            changed = " ".join(f"--set {name}={value}".lower() for name, value in remedy["settings"].items())
            yield f"  {scaled(remedy['total_bytes'], 'B')} with: {changed}"
        if not memory["remedies"]:
            yield "  No change of batch, checkpointing or ZeRO helps: lower model.max_seq_length, or take larger GPUs"
    if memory["fits_on"]:
        yield f"  fits on: {', '.join(memory['fits_on'])}"
    yield ""


def _features(plan: dict[str, Any]) -> Iterable[str]:
    found = plan["features"]
    rows = [("a page", f"{found['tokens_per_page']} tokens", scaled(found["page_bytes"], "B"))]
    if found["pages"] is None:
        rows.append(("1000 pages", "", scaled(found["bytes_per_1000_pages"], "B")))
    else:
        rows.append((f"the dataset's {found['pages']:,} pages", "", scaled(found["bytes"], "B")))
    return _table("Features on disk", ["", "", "bytes"], rows)


def _tokens(config: RunConfig, plan: dict[str, Any]) -> Iterable[str]:
    found, train = plan["tokens"], config.train
    rows, batches = train.per_device_batch_size, train.gradient_accumulation_steps
    bound, padding = "", f"{found['padding_share']:.1%} of it padding"
    if found["is_bound"]:
        bound, padding = "at most ", ""
    held = f"{found['memory_per_row']:,.0f} of memory, {found['answer_per_row']:,.0f} of answer"
    made = f"{rows} x {batches} accumulated x {train.processes} processes"
    lines = [
        ("global batch", f"{found['global_batch']:,} samples", made),
        ("a row", f"{bound}{found['row']:,.0f}", held),
        ("a step", f"{bound}{found['step']:,.0f}", padding),
        ("the run", f"{bound}{scaled(found['total'])}", f"{found['steps']:,} steps"),
        ("answers", f"{bound}{scaled(found['answers'])}", "the only positions with a loss"),
    ]
    return _table("Tokens in the language model's sequence", ["", "tokens", ""], lines)


def _stages(plan: dict[str, Any]) -> Iterable[str]:
    if len(plan["stages"]) < 2:
        return ()
    rows = [
        (
            f"{part['stage']} {part['objective']}",
            f"{part['steps']:,}",
            f"{part['rows']:,}",
            f"{part['row']:,.0f}" if part["row"] else "no language model",
            f"{part['answer_per_row']:,.0f}",
            duration(part["seconds_per_step"]),
            duration(part["seconds"]),
        )
        for part in plan["stages"]
    ]
    columns = ["", "steps", "rows", "tokens a row", "supervised", "a step", "all of them"]
    return _table("Stages; the tables above and below show the one that takes longest", columns, rows)


def _time(config: RunConfig, plan: dict[str, Any]) -> Iterable[str]:
    found, work, gpu = plan["time"], plan["flops"], plan["gpu"]
    moved = found["transfer_seconds_per_batch"]
    parts = {
        "layers": work["layers_forward"] + work["layers_backward"],
        "attention": work["attention_forward"] + work["attention_backward"],
        "head": work["head"],
        "proj": work["projector"],
        **({"LoRA": work["lora"]} if work["lora"] else {}),
        "again": work["again"],
    }
    shares = ", ".join(f"{name} {value / work['executed']:.0%}" for name, value in parts.items())
    rate = f"{scaled(work['executed'], 'FLOP')} at {found['mfu']:.2f} of {scaled(gpu['peak_flops'], 'FLOP/s')}"
    rows = [
        ("operations a token", scaled(work["executed_per_token"], "FLOP"), shares),
        ("a batch of one GPU", duration(found["compute_seconds_per_batch"]), rate),
        ("gathering weights", duration(moved) if moved else "none", f"bound by {found['bound_by']}"),
        ("a step", duration(found["seconds_per_step"]), f"{config.train.gradient_accumulation_steps} batches"),
        ("tokens a second", scaled(found["tokens_per_second"]), f"{scaled(found['tokens_per_second_per_gpu'])} a GPU"),
        ("the run", duration(found["seconds"]), f"{_digits(found['gpu_seconds'] / 3600)} GPU hours"),
    ]
    yield from _table("Time", ["", "", ""], rows)
    wanted = found.get("wanted")
    if wanted:
        judged = "reached" if wanted["reached"] else f"NOT reached; about {wanted['gpus']} such GPUs would"
        yield (
            f"  in {duration(wanted['seconds'])}: {scaled(wanted['tokens_per_second'])} tokens/s are needed, "
            f"MFU {wanted['mfu']:.3g}: {judged}"
        )
        yield ""


def _assumptions(plan: dict[str, Any]) -> Iterable[str]:
    rows = []
    for line in plan["assumptions"]:
        value, unit = line["value"], line["unit"]
        if isinstance(value, str):
            shown = value
        elif unit in ("bytes", "bytes/s", "FLOP/s"):
            shown = scaled(value, unit.replace("bytes", "B"))
        else:
            shown = f"{value:,} {unit}".rstrip()
        rows.append((line["name"], shown, line["origin"]))
    yield from _table("Assumed", ["", "value", "origin"], rows)
    for note in plan["notes"]:
        yield f"  note: {note}"


def _table(title: str, columns: list[str], rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns))
    numbers = len(columns) > 4
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if numbers and index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    text = StringIO()
    Console(file=text, width=WIDTH - 2, color_system=None, force_terminal=False).print(table)
    yield title
    yield from (f"  {line.rstrip()}" for line in text.getvalue().splitlines())
    yield ""
