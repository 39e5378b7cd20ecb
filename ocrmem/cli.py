"""The command line: one sub-command a verb, each a thin call of the library function of the same name.

Exit codes: 0 done, 1 a check said no, 2 usage or configuration error, 130 interrupted. Human output goes to
stderr and the closing summary to stdout; with ``--json`` stdout holds one JSON object and nothing else.
Nothing heavy is imported before the verb is known, so ``ocrmem --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocrmem import __version__
from ocrmem.errors import OcrMemError

if TYPE_CHECKING:
    from ocrmem.config import RunConfig

Arguments = argparse.Namespace
INTERRUPTED = 130


@dataclass(frozen=True)
class Verb:
    """A sub-command.

    Attributes:
        help: one line, shown by ``ocrmem --help``.
        run: calls the library function; gets the parsed arguments and returns its JSON-able result.
        options: adds the verb's own arguments; the common ones are added for every verb.
    """

    help: str
    run: Callable[[Arguments], dict[str, Any]]
    options: Callable[[argparse.ArgumentParser], None] | None = None


def _function(target: str) -> Callable[..., dict[str, Any]]:
    """Import ``package.module:function`` now, when its verb was asked for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _config(arguments: Arguments) -> RunConfig:
    from ocrmem.config import RunConfig

    return RunConfig.load(arguments.config, arguments.set)


def _with_config(target: str) -> Callable[[Arguments], dict[str, Any]]:
    """A verb whose library function takes the configuration and nothing else."""
    return lambda arguments: _function(target)(_config(arguments))


def _validate(arguments: Arguments) -> dict[str, Any]:
    return _function("ocrmem.validate:validate_file")(arguments.config, arguments.set)


def _render(arguments: Arguments) -> dict[str, Any]:
    if arguments.skip_bad:
        arguments.set = [*arguments.set, "data.skip_bad=true"]
    config = _config(arguments)
    if arguments.preview:
        return _function("ocrmem.dataset.preview:preview_dataset")(config, arguments.preview)
    return _function("ocrmem.dataset.build:build_dataset")(config)


def _train(arguments: Arguments) -> dict[str, Any]:
    return _function("ocrmem.training.train:train")(
        _config(arguments), resume=arguments.resume, output=arguments.output
    )


def _smoke(arguments: Arguments) -> dict[str, Any]:
    if arguments.model is None:
        return _with_config("ocrmem.gradflow.smoke:smoke")(arguments)
    from pathlib import Path

    return _function("ocrmem.gradflow.smoke:smoke_model")(arguments.model, arguments.trainable, Path(arguments.output))


def _generate(arguments: Arguments) -> dict[str, Any]:
    return _function("ocrmem.generation:generate")(
        _config(arguments), adapter=arguments.adapter, conversation=arguments.conversation
    )


def _synth(arguments: Arguments) -> dict[str, Any]:
    from pathlib import Path

    return _function("ocrmem.synthetic.synth:synth")(
        Path(arguments.output),
        style=arguments.style,
        count=arguments.count,
        eval_count=arguments.eval_count,
        seed=arguments.seed,
    )


def _import_adapter(arguments: Arguments) -> dict[str, Any]:
    from pathlib import Path

    return _function("ocrmem.model.importing:import_adapter")(Path(arguments.source), Path(arguments.output))


def _render_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preview", type=_positive, metavar="N", help="write the first N pages as PNG instead")
    parser.add_argument("--skip-bad", action="store_true", help="go on without bad lines (see rejects.jsonl)")


def _smoke_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODULE:FUNCTION", help="check your own: FUNCTION() returns (model, batch)")
    parser.add_argument(
        "--trainable", default="proj", metavar="PATH", help="with --model: the part that ought to train"
    )
    parser.add_argument("--output", default="smoke", metavar="DIR", help="with --model: where the reports go")


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint")
    parser.add_argument("--output", metavar="DIR", help="where the adapter goes (default: paths.adapter)")


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
    parser.add_argument("--count", type=_positive, default=100, help="training conversations (default 100)")
    parser.add_argument("--eval-count", type=_positive, default=20, help="held-out conversations (default 20)")
    parser.add_argument("--seed", type=int, default=0)


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DIR", help="folder with projection_layer.pt and config.json")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the adapter goes")


VERBS: dict[str, Verb] = {
    "validate": Verb("check settings and data; list every fault at once", _validate),
    "base": Verb("build the tiny language model and encoder, or check that the named ones load",
                 _with_config("ocrmem.model.base:build_base")),
    "render": Verb("draw conversations on pages and write the dataset", _render, _render_options),
    "check": Verb("check the dataset's quality with Great Expectations",
                  _with_config("ocrmem.dataset.quality:check_dataset")),
    "encode": Verb("encode every page once into the feature store",
                   _with_config("ocrmem.encoder.encode:encode_dataset")),
    "smoke": Verb("show on a few samples that gradients reach proj and nothing else", _smoke, _smoke_options),
    "train": Verb("train proj", _train, _train_options),
    "evaluate": Verb("compare memory with its baselines on held-out conversations",
                     _with_config("ocrmem.evaluation.evaluate:evaluate")),
    "register": Verb("package the adapter, register it, move the alias if the gate holds",
                     _with_config("ocrmem.registry:register")),
    "generate": Verb("answer a conversation's last question from memory", _generate, _generate_options),
    "synth": Verb("write seeded recall conversations", _synth, _synth_options),
    "import-adapter": Verb("turn an OCR-MEM projection_layer.pt into an adapter", _import_adapter, _import_options),
}  # fmt: skip
WITHOUT_CONFIG = {"synth", "import-adapter"}


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The whole parser; every verb answers ``--help``."""
    parser = argparse.ArgumentParser(
        prog="ocrmem",
        description="Train, test, version and register an optical memory adapter.",
        epilog="Exit codes: 0 done, 1 a check said no, 2 usage or configuration error, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"ocrmem {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        command = commands.add_parser(name, help=verb.help, description=verb.help[0].upper() + verb.help[1:] + ".")
        if name not in WITHOUT_CONFIG:
            command.add_argument("--config", default="params.yaml", metavar="FILE", help="default: params.yaml")
            command.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY.PATH=VALUE",
                help="override a setting (repeatable)",
            )
        command.add_argument("--quiet", action="store_true", help="no progress bars and notes")
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
        if verb.options:
            verb.options(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    _quiet_libraries()
    from ocrmem.console import console, set_quiet

    set_quiet(arguments.quiet)
    try:
        # Libraries greet on stdout; that is the result's alone.
        with contextlib.redirect_stdout(sys.stderr):
            result = VERBS[arguments.verb].run(arguments)
        _print_result(result, as_json=arguments.json)
        return 0
    except OcrMemError as error:
        _print_error(error, as_json=arguments.json)
        return error.exit_code
    except KeyboardInterrupt:
        console.quiet = False
        console.print(f"Interrupted. Run `ocrmem {arguments.verb}` again: it ends in the same result.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        values = {key: value for key, value in result.items() if key != "summary"}
        print(json.dumps({"ok": True, **values}, ensure_ascii=False))
    else:
        print("\n".join(result["summary"]))
    sys.stdout.flush()


def _print_error(error: OcrMemError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ok": False, "problems": [p.as_dict() for p in error.problems]}, ensure_ascii=False))
    else:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        if len(error.problems) > 1:
            print(f"{len(error.problems)} problems.", file=sys.stderr)


def _quiet_libraries() -> None:
    """Libraries answer to the environment; what a person has set there stands."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(main())
