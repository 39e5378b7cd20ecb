"""The verb `version`: the rendered dataset under DVC, from wherever it runs.

`verb` says what happens, `dvc_remote` how: it is the only module that knows DVC.
"""

from ocrmem.versioning.verb import VERSION, open_dataset, version_dataset

__all__ = ["VERSION", "open_dataset", "version_dataset"]
