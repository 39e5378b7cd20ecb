"""The verb `version`: the rendered dataset under DVC, from wherever it runs.

`dataset_versions` pushes a dataset and opens one; `dvc_remote` is the only module that knows DVC.
"""

from ocrmem.versioning.dataset_versions import VERSION, OpenResult, VersionResult, open_dataset, version_dataset

__all__ = ["VERSION", "OpenResult", "VersionResult", "open_dataset", "version_dataset"]
