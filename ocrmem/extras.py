"""The extra of ocrmem that installs each optional library."""

from __future__ import annotations

from ocrmem.errors import ConfigError, Problem

EXTRA_OF = {
    "aiohttp": "model-registry",
    "alembic": "registry",
    "boto3": "dvc-s3",
    "botocore": "dvc-s3",
    "deepseek_ocr_encoder": "encoder",
    "deepspeed": "deepspeed",
    "dvc": "dvc",
    "dvc_data": "dvc",
    "dvc_s3": "dvc-s3",
    "fontTools": "fonts",
    "fsspec": "dvc",
    "gguf": "model",
    "great_expectations": "quality",
    "huggingface_hub": "model",
    "kfp": "pipelines",
    "kfp_server_api": "pipelines",
    "kubeflow": "kubernetes",
    "kubeflow_trainer_api": "kubernetes",
    "kubernetes": "kubernetes",
    "mlflow": "registry",
    "model_registry": "model-registry",
    "mr_openapi": "model-registry",
    "pandas": "quality",
    "peft": "lora",
    "PIL": "fonts",
    "pyarrow": "dataset",
    "requests": "registry",
    "safetensors": "model",
    "sqlalchemy": "registry",
    "tokenizers": "dataset",
    "torch": "model",
    "transformers": "model",
    "urllib3": "kubernetes",
    "wandb": "tracking",
}


def missing_package(place: str, module: str) -> Problem:
    """Return the problem of a library in `EXTRA_OF` that cannot be imported.

    Args:
        place: the setting or the command that needs it.
    """
    remedy = f"Run: pip install 'ocrmem[{EXTRA_OF[module]}]'"
    return Problem(place, f"needs the package {module}, which is not installed", remedy)


def not_installed(place: str, module: str) -> ConfigError:
    """Return the error to raise for a `missing_package`."""
    return ConfigError(missing_package(place, module))
