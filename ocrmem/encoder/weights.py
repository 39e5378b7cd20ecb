"""Reading and writing the encoder's weights: a directory or a hub name, safetensors, only what is needed.

DeepSeek-OCR's file holds 6.7 GB, of which the encoder is 0.8 GB: tensors are read one by one, the language
model's never. Of a sharded hub model only the shards that hold encoder tensors are fetched.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import UnlimitedOcrVisionConfig
from transformers.utils import cached_file

from ocrmem.encoder.architecture import read_architecture
from ocrmem.encoder.tensor_names import QKV_PARTS, Source, is_original, native_sources, original_name
from ocrmem.errors import ModelError, Problem, first_line
from ocrmem.files import write_json
from ocrmem.retry import retrying

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_SHOWN = 8


@dataclass(frozen=True)
class EncoderFiles:
    """An encoder on disk, opened as far as the headers.

    Attributes:
        place: the location as it was named.
        config: the geometry.
        sources: native tensor name -> (file, key and part in it).
        shapes: native tensor name -> shape.
    """

    place: str
    config: UnlimitedOcrVisionConfig
    sources: Mapping[str, tuple[Path, Source]]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Read every encoder tensor under its native name, as ``dtype``."""
        by_file: dict[Path, list[tuple[str, Source]]] = defaultdict(list)
        for name, (path, source) in self.sources.items():
            by_file[path].append((name, source))
        tensors: dict[str, torch.Tensor] = {}
        for path, wanted in by_file.items():
            with _open(path) as handle:
                for name, source in wanted:
                    if source.part is None:
                        tensor = handle.get_tensor(source.key)
                    else:
                        rows = self.shapes[name][0]
                        start = source.part * rows
                        tensor = handle.get_slice(source.key)[start : start + rows]
                    # A copy: memory of the file's mapping would be shared, and change with the file.
                    tensors[name] = tensor.to(dtype, copy=True)
        return tensors


def open_encoder(location: str, revision: str | None = None) -> EncoderFiles:
    """Find the files of an encoder and read their headers.

    Args:
        location: a directory, or a hub name such as ``deepseek-ai/DeepSeek-OCR``.
        revision: commit, branch or tag of a hub name; None for its main branch. Directories have none.

    Raises:
        ModelError: nothing there, not safetensors, no encoder in it, or a geometry that is not understood.
    """
    config_path = _require(location, CONFIG, revision)
    sources: dict[str, tuple[Path, Source]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        for path in _weight_files(location, revision):
            handle = stack.enter_context(_open(path))
            for name, source in native_sources(list(handle.keys())).items():
                shape = tuple(handle.get_slice(source.key).get_shape())
                if source.part is not None:
                    if shape[0] % len(QKV_PARTS):
                        raise ModelError.of(
                            f"{path.name}: {source.key}",
                            f"{shape[0]} rows do not split into query, key and value",
                            "Download the model again",
                        )
                    shape = (shape[0] // len(QKV_PARTS), *shape[1:])
                sources[name], shapes[name] = (path, source), shape
    if not sources:
        raise ModelError.of(
            location,
            "its safetensors hold no DeepEncoder (no keys like model.sam_model.* and model.vision_model.*)",
            "Name a directory or hub model that holds DeepSeek-OCR",
        )
    return EncoderFiles(location, read_architecture(config_path, shapes), sources, shapes)


def check_tensors(files: EncoderFiles, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare what the files hold with what the geometry needs.

    Raises:
        ModelError: names every kind of misfit, with the first keys of each.
    """
    missing = [name for name in expected if name not in files.shapes]
    if any(is_original(source.key) for _, source in files.sources.values()):
        missing = list(dict.fromkeys(original_name(name)[0] for name in missing))
    unexpected = [files.sources[name][1].key for name in files.shapes if name not in expected]
    wrong = [
        f"{files.sources[name][1].key} is {list(files.shapes[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in files.shapes and files.shapes[name] != shape
    ]
    remedy = "Check that config.json and the weights belong together, or download the model again"
    problems = [
        Problem(files.place, f"{what}: {_listed(names)}", remedy)
        for what, names in (
            ("encoder tensors are missing", missing),
            ("encoder tensors that the architecture does not know", unexpected),
            ("encoder tensors of the wrong shape", wrong),
        )
        if names
    ]
    if problems:
        raise ModelError(problems)


def save_native(directory: Path, config: UnlimitedOcrVisionConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write config.json and model.safetensors under native names; each file appears whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".{WEIGHTS}.tmp"
    # Sorted, so that the same weights give the same bytes.
    save_file({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, temporary)
    temporary.replace(directory / WEIGHTS)
    write_json(directory / CONFIG, config.to_dict())


def _weight_files(location: str, revision: str | None) -> list[Path]:
    index_path = _find(location, INDEX, revision)
    if index_path is None:
        return [_require(location, WEIGHTS, revision)]
    try:
        weight_map = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(key), str(name)) for key, name in weight_map.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError.of(
            str(index_path), f"is not an index of safetensors ({error})", "Download the model again"
        ) from None
    needed = {source.key for source in native_sources([key for key, _ in pairs]).values()}
    shards = sorted({name for key, name in pairs if key in needed})
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError.of(
                str(index_path), f"names {shard!r} as a shard", "Use an index whose shards lie beside it"
            )
    return [_require(location, shard, revision) for shard in shards]


def _require(location: str, name: str, revision: str | None) -> Path:
    path = _find(location, name, revision, required=True)
    if path is None:
        raise ModelError.of(
            location,
            f"there is no {name}",
            "Name a directory or hub model that holds DeepSeek-OCR as safetensors "
            "(for the tiny preset run `ocrmem base` first)",
        )
    return path


def _find(location: str, name: str, revision: str | None, *, required: bool = False) -> Path | None:
    """Return a file of a directory or hub model; None where the model is there and has no such file."""
    directory = Path(location).expanduser()
    if directory.is_dir():
        path = directory / name
        return path if path.is_file() else None
    if _looks_like_path(location):
        raise ModelError.of(
            location,
            "there is no such directory",
            "Give model.ocr_model_name a directory that exists, or a hub name; "
            "for the tiny preset run `ocrmem base` first",
        )
    try:
        found = retrying(
            f"hub, {location}",
            lambda: cached_file(location, name, revision=revision, _raise_exceptions_for_missing_entries=required),
        )
    except (OSError, ValueError) as error:
        raise ModelError.of(
            f"model.ocr_model_name: {location}",
            f"{name} cannot be fetched from the hub ({first_line(error)})",
            "Check the name, model.ocr_revision and the network, or download the model once and name its directory",
        ) from None
    return Path(found) if found else None


def _looks_like_path(location: str) -> bool:
    # A hub name is "owner/name" or "name"; anything else can only have meant a directory.
    return location.startswith((".", "/", "~")) or location.count("/") > 1 or "\\" in location or not location


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError.of(str(path), f"is not a readable safetensors file ({error})", "Download it again") from None


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
