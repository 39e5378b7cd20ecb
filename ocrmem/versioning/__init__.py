"""The verb `version`: the rendered dataset under DVC, from wherever it runs."""

from ocrmem.versioning.dataset_versions import VERSION, OpenResult, VersionResult, open_dataset, version_dataset

__all__ = ["VERSION", "OpenResult", "VersionResult", "open_dataset", "version_dataset"]
