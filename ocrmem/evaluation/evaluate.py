"""The verb ``evaluate``: memory against its baselines on held-out conversations.

Writes evaluation.json (the same on every run but for ``latency``) and evaluation.html. There is no pass or
fail here: `ocrmem register` compares the figures with the gate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import nn

from ocrmem.config import RunConfig
from ocrmem.console import Bar, note, progress_bar
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.schema import Sample
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.encoder.deepencoder import DeepEncoder
from ocrmem.encoder.feature_store import FeatureStore
from ocrmem.encoder.loading import encoder_geometry, load_encoder
from ocrmem.encoder.page_encoding import Encoder, encode_kept_tokens
from ocrmem.errors import DataError
from ocrmem.evaluation.baselines import CaseMaker, of_other_conversations, scrambled, with_random_answer
from ocrmem.evaluation.html_report import write_report
from ocrmem.evaluation.latency import measure_latency
from ocrmem.evaluation.result import EVALUATION, PHRASINGS, VARIANTS
from ocrmem.evaluation.scoring import Case, Scored, Scorer
from ocrmem.evaluation.statistics import Figures, compression, evenly_spaced, figures
from ocrmem.evaluation.transcription import Transcription, measure_transcription
from ocrmem.facts import MANIFEST
from ocrmem.files import locking, sha256_file, write_json
from ocrmem.json_files import with_sha256
from ocrmem.model.embedding_scale import begin_output_norm
from ocrmem.model.lora import without_lora
from ocrmem.model.modeling import MEMModel
from ocrmem.objectives import Material, Transcribe
from ocrmem.package import adapter_sha256
from ocrmem.rendering.history import HistoryRenderer
from ocrmem.synthetic.notes import REPHRASED
from ocrmem.tokens import load_tokenizer
from ocrmem.verdicts import Verdict, dataset_warnings, evaluation_warnings, memory_verdict, warning_lines

REPORT = "evaluation.html"
_PIXEL_SAMPLES = 64  # most samples of a variant whose pages must be drawn or encoded again
_LATENCY_SAMPLES = 5
_TRANSCRIBED = 16  # most samples whose whole text is asked for: each is hundreds of generated tokens
_CHUNK = 8  # batches whose cases are in memory at once
_OTHER_SEED = 1000  # a random encoder must not be the one that a test or a demo made from the same seed
CaseOf = Callable[[Sample], Case]


class EvaluateResult(TypedDict):
    """What evaluation.json holds, the report's path and the summary.

    ``counterfactual`` is there where the data has such a split, ``scrambled`` where answers are found in histories,
    ``random_answer`` where the vocabulary also has all letters, ``base_text`` where the adapter has LoRA,
    ``transcription`` where a stage of the training transcribes, and ``phrasings`` where some conversations are
    rephrased: ``memory`` on those that ask as training does (``trained``), and on those that do not (``rephrased``).
    """

    format: int
    adapter_sha256: str
    dataset_manifest_sha256: str
    base_model: str
    encoder: str
    samples: dict[str, int]
    memory: Figures
    no_memory: Figures
    shuffled: Figures
    truncated: Figures
    mean_pooled: Figures
    full_text: Figures
    base_text: NotRequired[Figures]
    counterfactual: NotRequired[Figures]
    phrasings: NotRequired[dict[str, Figures]]
    untrained: Figures
    random_encoder: Figures
    scrambled: NotRequired[Figures]
    random_answer: NotRequired[Figures]
    transcription: NotRequired[Transcription]
    compression_ratio: float
    compression: dict[str, Any]
    latency: dict[str, Any]
    verdict: Verdict
    warnings: list[str]
    report: str
    summary: list[str]


class _Evaluation:
    """What the variants share: model, data, and what has been scored so far."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        adapter = Path(config.paths.adapter)
        self.adapter_sha256 = adapter_sha256(adapter)
        self.dataset = MemoryDataset.open(Path(config.paths.dataset))
        hashes, width = self.dataset.page_hashes(), config.model.vision_embedding_size
        self.store = FeatureStore.open(config.paths.features, pages=hashes, feature_size=width)
        self.held_out = self.dataset.samples("eval")
        with_memory = samples_with_memory(self.dataset, Path(config.paths.dataset))
        self.with_memory = len(with_memory)
        self.samples = evenly_spaced(with_memory, config.evaluate.max_samples)
        changed = [sample for sample in self.dataset.samples("counterfactual") if sample.has_memory]
        self.counterfactual = evenly_spaced(changed, config.evaluate.max_samples)

        self.model = MEMModel.from_pretrained(adapter, run_config=config).eval()
        self.encoder = load_encoder(config)
        tokenizer = load_tokenizer(config)
        builder = SequenceBuilder.of(config, tokenizer)
        positions = self.model.base_llm_model.config.get_text_config().max_position_embeddings
        size, longest = config.evaluate.batch_size, config.evaluate.max_new_tokens
        self.maker = CaseMaker(builder, positions - longest)
        self.scorer = Scorer(self.model, tokenizer, builder.end_token_id, batch_size=size, max_new_tokens=longest)
        self.scored: dict[str, list[Scored]] = {}

    def features(self, sample: Sample) -> torch.Tensor:
        """Return the stored features of a sample's kept vision tokens, float32 [m, d]."""
        return stored_features(self.dataset, self.store, sample)

    def drawn_features(self, sample: Sample, encoder: Encoder) -> torch.Tensor:
        """Return the features of a sample's history, drawn and encoded now: float32 [m, d]."""
        pages = HistoryRenderer(self.config.render).draw(sample.history).pages
        dropping = self.config.model.drop_blank_tokens
        return torch.cat(encode_kept_tokens(encoder, pages, drop_blank_tokens=dropping))

    def run(self, name: str, samples: Sequence[Sample], case: CaseOf, bar: Bar) -> None:
        """Score a variant; cases are made a few batches at a time, since their features are large."""
        bar.describe(f"evaluate: {name}")
        size = self.config.evaluate.batch_size * _CHUNK
        self.scored[name] = []
        for start in range(0, len(samples), size):
            cases = [case(sample) for sample in samples[start : start + size]]
            self.scored[name] += self.scorer.score(cases, done=bar.advance)


def samples_with_memory(dataset: MemoryDataset, place: Path) -> list[Sample]:
    """Return the held-out samples that have memory.

    Raises:
        DataError: none has.
    """
    held_out = dataset.samples("eval")
    with_memory = [sample for sample in held_out if sample.has_memory]
    if not with_memory:
        message = f"none of the {len(held_out)} held-out samples has memory"
        remedy = "Hold out longer conversations (eval*.jsonl), or lower model.context_threshold"
        raise DataError.of(str(place), message, remedy)
    return with_memory


def stored_features(dataset: MemoryDataset, store: FeatureStore, sample: Sample) -> torch.Tensor:
    """Return the stored features of a sample's kept vision tokens, float32 [m, d]."""
    return store.gather(sample.pages, [dataset.kept(page) for page in sample.pages]).float()


@locking("evaluate", lambda config: config.paths.report(EVALUATION))
def evaluate(config: RunConfig) -> EvaluateResult:
    """Measure the adapter in ``paths.adapter`` on the held-out samples with memory.

    Raises:
        MissingInputError: adapter, dataset or features do not exist.
        ModelError: the adapter does not fit the base model, the encoder or the settings.
        DataError: no held-out sample has memory, or too few conversations to shuffle memory between.
    """
    run = _Evaluation(config)
    partner = of_other_conversations(run.samples)
    few = evenly_spaced(run.samples, _PIXEL_SAMPLES)
    probes = _probes(run, few)
    variants = 7 if run.model.config.lora is None else 8
    total = variants * len(run.samples) + len(run.counterfactual) + len(few) + sum(map(len, probes.values()))
    with progress_bar("evaluate", total) as bar:
        _score_variants(run, partner, few, probes, bar)
    written = _transcription(run, partner) if Transcribe.name in config.train.objectives() else None
    note("Timing the steps from text to answer.")
    timed = evenly_spaced(run.samples, _LATENCY_SAMPLES)
    result = _result(run, written, measure_latency(timed, run.scorer, run.maker, run.encoder, config))
    write_json(config.paths.report(EVALUATION), with_sha256(result))
    report = config.paths.report(REPORT)
    write_report(report, result, run.scored, run.samples, run.dataset, config)
    return cast(EvaluateResult, {**result, "report": str(report), "summary": _summary(result, report)})


def _probes(run: _Evaluation, samples: list[Sample]) -> dict[str, list[Sample]]:
    """Return changed samples by the name of their variant, whose pages are drawn anew; only variants that have some."""
    seed = run.config.train.seed
    lettered = (probe for sample in samples if (probe := with_random_answer(sample, seed)))
    found = {
        "scrambled": [probe for sample in samples if (probe := scrambled(sample, seed))],
        "random_answer": [probe for probe in lettered if run.scorer.can_say(probe.answer)],
    }
    return {name: probes for name, probes in found.items() if probes}


def _score_variants(
    run: _Evaluation, partner: list[int], few: list[Sample], probes: dict[str, list[Sample]], bar: Bar
) -> None:
    maker, samples = run.maker, run.samples
    other = {sample.id: samples[partner[index]] for index, sample in enumerate(samples)}
    embeddings = run.model.get_input_embeddings()

    def own(sample: Sample) -> Case:
        return maker.with_memory(sample, run.features(sample))

    run.run("memory", samples, own, bar)
    run.run("no_memory", samples, maker.without_memory, bar)
    run.run("shuffled", samples, lambda s: maker.with_other_memory(s, run.features(other[s.id])), bar)
    run.run("truncated", samples, maker.truncated, bar)
    run.run("mean_pooled", samples, lambda s: maker.mean_pooled(s, embeddings), bar)
    run.run("full_text", samples, maker.full_text, bar)
    if run.model.config.lora is not None:
        with without_lora(run.model):
            run.run("base_text", samples, maker.full_text, bar)
    if run.counterfactual:
        run.run("counterfactual", run.counterfactual, own, bar)
    with _fresh_proj(run.model, run.config.train.seed), without_lora(run.model):
        run.run("untrained", samples, own, bar)
    with _seeded(run.config.train.seed + _OTHER_SEED):
        random_encoder = DeepEncoder(encoder_geometry(run.config), run.config.model.features)
    random_encoder.to(run.encoder.device, run.encoder.dtype)
    run.run("random_encoder", few, lambda s: maker.with_memory(s, run.drawn_features(s, random_encoder)), bar)
    for name, changed in probes.items():
        run.run(name, changed, lambda s: maker.with_memory(s, run.drawn_features(s, run.encoder)), bar)
    bar.describe("evaluate")


def _transcription(run: _Evaluation, partner: list[int]) -> Transcription:
    note("Asking for the text of some pages.")
    material = Material(run.config, run.maker.builder, run.dataset, run.store, run.held_out)
    chosen = evenly_spaced(range(len(run.samples)), _TRANSCRIBED)
    samples, others = [run.samples[index] for index in chosen], [run.samples[partner[index]] for index in chosen]
    return measure_transcription(material, samples, others, run.features, run.maker, run.scorer)


@contextmanager
def _fresh_proj(model: MEMModel, seed: int) -> Iterator[None]:
    """Give the model a newly initialised proj for a while, the same for the same seed."""
    trained = model.proj
    with _seeded(seed):
        fresh = copy.deepcopy(trained).cpu()
        for module in fresh.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
    begin_output_norm(fresh, cast(nn.Embedding, model.get_input_embeddings()))
    model.proj = fresh.to(model.device)
    try:
        yield
    finally:
        model.proj = trained


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


def _result(run: _Evaluation, written: Transcription | None, latency: dict[str, Any]) -> dict[str, Any]:
    config = run.config
    squeezed = compression(run.samples)
    longest = config.evaluate.max_new_tokens
    found = {name: figures(run.scored[name]) for name in VARIANTS if name in run.scored}
    verdict = memory_verdict(found)
    return {
        "format": 1,
        "adapter_sha256": run.adapter_sha256,
        "dataset_manifest_sha256": sha256_file(Path(config.paths.dataset) / MANIFEST),
        "base_model": config.model.base_model_name,
        "encoder": config.model.ocr_model_name,
        "samples": {
            "held_out": len(run.held_out),
            "with_memory": run.with_memory,
            "evaluated": len(run.samples),
            "conversations": len({sample.conversation_id for sample in run.samples}),
            "counterfactual": len(run.counterfactual),
            "answers_over_max_new_tokens": sum(sample.answer_tokens > longest for sample in run.samples),
        },
        **found,
        **_by_phrasing(run.samples, run.scored["memory"]),
        **({"transcription": written} if written else {}),
        "compression_ratio": squeezed["ratio"],
        "compression": squeezed,
        "latency": latency,
        "verdict": verdict,
        "warnings": [*evaluation_warnings(verdict), *dataset_warnings(run.dataset.manifest["counts"])],
    }


def _by_phrasing(samples: Sequence[Sample], scored: Sequence[Scored]) -> dict[str, dict[str, Figures]]:
    groups: dict[str, list[Scored]] = {"trained": [], "rephrased": []}
    for sample, one in zip(samples, scored, strict=True):
        groups["rephrased" if sample.conversation_id.endswith(REPHRASED) else "trained"].append(one)
    found = {name: figures(group) for name, group in groups.items() if group}
    return {"phrasings": found} if "rephrased" in found else {}


def _summary(result: dict[str, Any], report: Path) -> list[str]:
    verdict, warnings = result["verdict"]["sentence"], result["warnings"]
    head = f"{result['samples']['evaluated']} held-out samples with memory"
    lines = [f"{verdict}.", *warning_lines(warning for warning in warnings if warning != verdict)]
    lines += ["", f"{head:<43} {'exact':>6} {'said':>6} {'loss':>8}"]
    for name, variant in VARIANTS.items():
        if name in result:
            row = result[name]
            of = f" (of {row['samples']})" if row["samples"] != result["samples"]["evaluated"] else ""
            lines.append(f"  {variant.name + of:<41} {row['recall']:6.3f} {row['said']:6.3f} {row['loss']:8.4f}")
    for name, group in result.get("phrasings", {}).items():
        shares = f"{group['recall']:.3f} exact, {group['said']:.3f} said"
        lines.append(f"The right pages, asked {PHRASINGS[name]}: {shares} (of {group['samples']}).")
    if written := result.get("transcription"):
        shares = f"{written['memory']:.3f} of the characters, {written['shuffled']:.3f} from another conversation's"
        lines.append(f"Asked for the text of {written['pages']} right pages: {shares}.")
    lines.append("")
    memory, text = (result["latency"][name]["total"] for name in ("memory", "full_text"))
    lines.append(f"{result['compression_ratio']:.2f} history text tokens per memory token.")
    lines.append(f"From text to answer: {memory * 1000:.0f} ms by memory, {text * 1000:.0f} ms by full text.")
    if over := result["samples"]["answers_over_max_new_tokens"]:
        lines.append(f"{over} answers are longer than evaluate.max_new_tokens and count as not recalled.")
    lines.append(f"Report: {report}")
    return lines
