"""dataset/manifest.json: what the dataset was made from, under which settings, and every shard in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrmem.config import RunConfig
from ocrmem.conversations.sources import data_files
from ocrmem.dataset.schema import SCHEMA_VERSION
from ocrmem.errors import DataError, MissingInputError
from ocrmem.facts import MANIFEST
from ocrmem.files import read_json, sha256_file, sha256_json

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


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a dataset; every shard that it names is there and of the right size.

    Raises:
        MissingInputError: there is no dataset, or shards of it are missing; names the verb to run.
        DataError: another version of ocrmem wrote it, or a shard has changed.
    """
    manifest = read_json(directory / MANIFEST, made_by="render")
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError.of(
            str(directory / MANIFEST),
            f"has schema version {version}, this ocrmem reads {SCHEMA_VERSION}",
            "Run `ocrmem render` again",
        )
    for shard in manifest["shards"]:
        path = directory / shard["path"]
        if not path.is_file():
            raise MissingInputError.of(
                str(path), "is named by the manifest but is not there", "Run `ocrmem render` again"
            )
        if path.stat().st_size != shard["bytes"]:
            raise DataError.of(
                str(path),
                f"has {path.stat().st_size} bytes, the manifest says {shard['bytes']}",
                "Run `ocrmem render` again",
            )
    return manifest


def shards_of(manifest: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the manifest's entries for one kind of shard: "pages", or "samples/train" and so on, in their order."""
    prefix = "pages/pages" if kind == "pages" else kind
    return [shard for shard in manifest["shards"] if shard["path"].rpartition("-")[0] == prefix]
