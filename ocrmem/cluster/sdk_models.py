"""Compare a TrainJob with the models of Kubeflow Trainer's API that come with the SDK."""

from __future__ import annotations

from pydantic import ValidationError

from ocrmem.cluster.manifest import API_VERSION, Object, flat
from ocrmem.cluster.sdk import TrainerV1alpha1TrainJob
from ocrmem.errors import ClusterError


def check_manifest(job: Object) -> None:
    """Compare a TrainJob with the models of Kubeflow Trainer's API, which drop what they do not know.

    Raises:
        ClusterError: a field is unknown there, or of another type.
    """
    remedy = "Install the kubeflow version that pyproject.toml names; if it is, this is a bug of ocrmem: report it"
    try:
        known = TrainerV1alpha1TrainJob.from_dict(job)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise ClusterError.of(f"TrainJob {place}", str(fault["msg"]), remedy) from None
    kept = dict(flat(known.to_dict() if known else {}))
    lost = [name for name, value in flat(job) if kept.get(name) != value]
    if lost:
        message = f"is not known to Kubeflow Trainer's API {API_VERSION}"
        raise ClusterError.of(f"TrainJob {lost[0]}", message, remedy)
