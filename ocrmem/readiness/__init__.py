"""The verb `preflight`: what outside the settings and the data would stop a run, checked before a GPU is requested.

`checklist` lists and runs the checks, `models` looks for the language model and the encoder, `resources` for packages,
keys, device and disk. The registry, the DVC remote and the cluster are checked by the modules that know them.
"""

from ocrmem.readiness.checklist import PreflightResult, preflight

__all__ = ["PreflightResult", "preflight"]
