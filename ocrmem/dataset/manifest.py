"""dataset/manifest.json: what the dataset was made from, under which settings, and every shard in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrmem.config import RunConfig
from ocrmem.conversations.sources import data_files
from ocrmem.dataset.shards import verify_shards
from ocrmem.errors import DataError, MissingInputError
from ocrmem.facts import MANIFEST
from ocrmem.files import sha256_file, sha256_json
from ocrmem.json_files import DatasetManifest, Shard, read_json
from ocrmem.verdicts import dataset_warnings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MODEL_FIELDS = {"base_model_name", "base_revision", "context_threshold", "max_seq_length", "drop_blank_tokens"}
_DATA_FIELDS = {"recent_turns", "eval_fraction", "skip_bad", "shard_conversations"}


def dataset_config(config: RunConfig) -> dict[str, Any]:
    """Return the settings that decide a dataset's bytes. The number of workers and the data's place are not among
    them."""
    return {
        "render": config.render.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json", include=_DATA_FIELDS),
        "model": config.model.model_dump(mode="json", include=_MODEL_FIELDS),
    }


def source_identity(config: RunConfig) -> dict[str, Any]:
    """Return names and hashes of the conversation files, and one hash over them.

    Raises:
        DataError: there are none.
    """
    files, problem = data_files(Path(config.data.path))
    if problem is not None:
        raise DataError(problem)
    hashes = [{"name": file.name, "sha256": sha256_file(file)} for file in files]
    return {"sha256": sha256_json(hashes), "files": hashes}


def tokenizer_identity(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return which tokenizer counted: its name, revision, size, and a hash over its vocabulary and template."""
    vocabulary = hashlib.sha256(sha256_json(tokenizer.get_vocab()).encode("ascii"))
    vocabulary.update(str(tokenizer.chat_template).encode("utf-8"))
    return {
        "name": config.model.base_model_name,
        "revision": config.model.base_revision,
        "vocabulary": len(tokenizer),
        "sha256": vocabulary.hexdigest(),
    }


def manifest_of(directory: Path) -> DatasetManifest:
    """Read the manifest of a dataset, and nothing of what it names.

    Raises:
        MissingInputError: there is none, another version of ocrmem wrote it, or it was changed; names the verb to run.
    """
    return read_json(directory / MANIFEST, DatasetManifest, made_by="render", remedy="Run `ocrmem render`")


def warnings_of(directory: Path) -> list[str]:
    """Say what makes a dataset less than it seems, see `dataset_warnings`.

    Raises:
        MissingInputError: as `manifest_of`.
    """
    return dataset_warnings(manifest_of(directory)["counts"])


def read_manifest(directory: Path) -> DatasetManifest:
    """Read the manifest of a dataset; every shard that it names is there and has its bytes.

    Raises:
        MissingInputError: as `manifest_of`, or shards are missing; names the verb to run.
        DataError: shards have changed; names each.
    """
    manifest = manifest_of(directory)
    shards = manifest["shards"]
    for shard in shards:
        if not (directory / shard["path"]).is_file():
            raise MissingInputError.of(
                str(directory / shard["path"]),
                "is named by the manifest but is not there",
                "Run `ocrmem render` again",
            )
    verify_shards(directory, shards)
    return manifest


def shards_of(manifest: DatasetManifest, kind: str) -> list[Shard]:
    """Return the manifest's entries for one kind of shard: "pages", or "samples/train" and so on, in their order."""
    prefix = "pages/pages" if kind == "pages" else kind
    return [shard for shard in manifest["shards"] if shard["path"].rpartition("-")[0] == prefix]
