"""The verb ``validate``: settings, device and data, with every fault in one list."""

from ocrmem.validation.verb import validate, validate_file

__all__ = ["validate", "validate_file"]
