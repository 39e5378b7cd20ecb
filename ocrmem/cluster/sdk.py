"""Import what ocrmem uses of the Kubeflow SDK and of the Kubernetes client below it; no other module does.

Importing this module raises a ConfigError that says what to install where they are absent.
"""

from __future__ import annotations

from ocrmem.extras import not_installed

try:
    from kubeflow.trainer.constants import constants as trainer
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
    from kubernetes import client
    from kubernetes import config as kubeconfig
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config.config_exception import ConfigException
except ImportError:
    raise not_installed("kubernetes", "kubeflow") from None

__all__ = ["ApiException", "ConfigException", "TrainerV1alpha1TrainJob", "client", "kubeconfig", "trainer"]
