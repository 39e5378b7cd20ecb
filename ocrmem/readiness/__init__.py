"""The verb `preflight`: whatever outside of the settings and the data would stop a run, before a GPU is asked for.

`verb` lists the checks, `models` asks for the language model and the encoder, `resources` for keys, disk and
device. The registry, the DVC remote and the cluster are asked by the modules that know them.
"""

from ocrmem.readiness.verb import preflight

__all__ = ["preflight"]
