"""Which extra brings a module that is not installed."""

from __future__ import annotations

from ocrmem.errors import ConfigError, OcrMemError

_EXTRA_OF = {
    "aiohttp": "model-registry",
    "boto3": "dvc-s3",
    "botocore": "dvc-s3",
    "deepspeed": "deepspeed",
    "dvc": "dvc",
    "dvc_data": "dvc",
    "dvc_s3": "dvc-s3",
    "fontTools": "fonts",
    "fsspec": "dvc",
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
    "PIL": "fonts",
    "pyarrow": "dataset",
    "requests": "registry",
    "safetensors": "model",
    "tokenizers": "dataset",
    "torch": "model",
    "transformers": "model",
    "urllib3": "kubernetes",
    "wandb": "tracking",
}


def not_installed(verb: str, error: ModuleNotFoundError) -> OcrMemError | None:
    """The error for a person when a verb's library is not there; None for a module that no extra brings."""
    module = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(module)
    if extra is None:
        return None
    return ConfigError.of(
        f"ocrmem {verb}", f"needs the package {module}, which is not installed", f"pip install 'ocrmem[{extra}]'"
    )
