"""The verb `preflight`: what outside the settings and the data would stop a run, checked before a GPU is requested."""

from ocrmem.readiness.checklist import PreflightResult, preflight

__all__ = ["PreflightResult", "preflight"]
