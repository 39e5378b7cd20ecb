"""The table of verbs, each a thin call of the library function of the same name."""

from __future__ import annotations

import argparse
from typing import Any

from ocrmem.cli import pipeline, training
from ocrmem.cli.verb import Arguments, Verb, function, positive, run_config, with_config


def _validate(arguments: Arguments) -> dict[str, Any]:
    return function("ocrmem.validation:validate_file")(arguments.config, arguments.set)


def _render(arguments: Arguments) -> dict[str, Any]:
    if arguments.skip_bad:
        arguments.set = [*arguments.set, "data.skip_bad=true"]
    config = run_config(arguments)
    if arguments.preview:
        return function("ocrmem.dataset.preview:preview_dataset")(config, arguments.preview)
    return function("ocrmem.dataset.build:build_dataset")(config)


def _smoke(arguments: Arguments) -> dict[str, Any]:
    if arguments.model is None:
        return with_config("ocrmem.smoke_test:smoke")(arguments)
    from pathlib import Path

    return function("ocrmem.smoke_test:smoke_model")(arguments.model, arguments.trainable, Path(arguments.output))


def _version(arguments: Arguments) -> dict[str, Any]:
    config = run_config(arguments)
    if arguments.open is None:
        if arguments.output is not None:
            from ocrmem.errors import ConfigError

            raise ConfigError.of("--output", "is for --open", "Add --open HASH, or leave it out")
        return function("ocrmem.versioning:version_dataset")(config)
    return function("ocrmem.versioning:open_dataset")(config, arguments.open, arguments.output)


def _preflight(arguments: Arguments) -> dict[str, Any]:
    config = run_config(arguments)
    return function("ocrmem.readiness:preflight")(config, launcher=arguments.launcher)


def _generate(arguments: Arguments) -> dict[str, Any]:
    config = run_config(arguments)
    return function("ocrmem.generation.generate:generate")(
        config, adapter=arguments.adapter, conversation=arguments.conversation
    )


def _synth(arguments: Arguments) -> dict[str, Any]:
    from pathlib import Path

    return function("ocrmem.synthetic.synth:synth")(
        Path(arguments.output),
        style=arguments.style,
        count=arguments.count,
        eval_count=arguments.eval_count,
        seed=arguments.seed,
    )


def _import_adapter(arguments: Arguments) -> dict[str, Any]:
    from pathlib import Path

    return function("ocrmem.model.importing:import_adapter")(Path(arguments.source), Path(arguments.output))


def _render_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preview", type=positive, metavar="N", help="write the first N pages as PNG instead")
    parser.add_argument("--skip-bad", action="store_true", help="go on without bad lines (see rejects.jsonl)")


def _smoke_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help="check your own: FUNCTION() returns (model, batch)")
    parser.add_argument(
        "--trainable", default="proj", metavar="PATH", help="with --model: the part that ought to train"
    )
    parser.add_argument("--output", default="smoke", metavar="DIR", help="with --model: where the reports go")


def _register(arguments: Arguments) -> dict[str, Any]:
    config = run_config(arguments)
    return function("ocrmem.registry:register")(config, run_id=arguments.run_id)


def _register_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run-id", metavar="ID", help="of the pipeline run, written on a new version")


def _version_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--open", metavar="HASH", help="fetch the dataset of this hash instead of pushing")
    parser.add_argument("--output", metavar="DIR", help="with --open: where to (default: paths.dataset)")


def _preflight_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--launcher",
        choices=("local", "kubernetes", "none"),
        default="local",
        help="where training will run (default: local); none: neither this machine nor the cluster is looked at",
    )


def _generate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", metavar="DIR|models:/NAME@ALIAS", help="the adapter (default: paths.adapter)")
    parser.add_argument(
        "--conversation",
        required=True,
        metavar="FILE",
        help="JSON or JSONL whose last user turn is answered; - is stdin",
    )


def _synth_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the JSONL files")
    parser.add_argument("--style", choices=("tiny", "en", "zh", "mixed"), default="mixed")
    parser.add_argument("--count", type=positive, default=100, help="training conversations (default 100)")
    parser.add_argument("--eval-count", type=positive, default=20, help="held-out conversations (default 20)")
    parser.add_argument("--seed", type=int, default=0)


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DIR", help="folder with projection_layer.pt and config.json")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the adapter goes")


VERBS: dict[str, Verb] = {
    "validate": Verb("check settings and data; list every fault at once", _validate),
    "base": Verb("build the tiny language model and encoder, or check that the named ones load",
                 with_config("ocrmem.model.base:build_base")),
    "render": Verb("draw conversations on pages and write the dataset", _render, _render_options),
    "version": Verb("push the dataset to the DVC remote, or open it again by its hash", _version, _version_options),
    "check": Verb("check the dataset's quality with Great Expectations",
                  with_config("ocrmem.dataset.quality:check_dataset")),
    "encode": Verb("encode every page once into the feature store",
                   with_config("ocrmem.encoder.encode:encode_dataset")),
    "smoke": Verb("show on a few samples that gradients reach proj and nothing else", _smoke, _smoke_options),
    "preflight": Verb("check keys, registry, remotes, models, disk and cluster before a GPU is asked for",
                      _preflight, _preflight_options),
    "train": Verb("train proj", training.run, training.options),
    "evaluate": Verb("compare memory with its baselines on held-out conversations",
                     with_config("ocrmem.evaluation.evaluate:evaluate")),
    "register": Verb("package the adapter, register it, move the alias if the gate holds",
                     _register, _register_options),
    "pipeline": Verb("run, compile, submit or list the Kubeflow pipelines", pipeline.run, pipeline.options),
    "generate": Verb("answer a conversation's last question from memory", _generate, _generate_options),
    "synth": Verb("write seeded recall conversations", _synth, _synth_options),
    "import-adapter": Verb("turn an OCR-MEM projection_layer.pt into an adapter", _import_adapter, _import_options),
}  # fmt: skip
WITHOUT_CONFIG = {"pipeline", "synth", "import-adapter"}
