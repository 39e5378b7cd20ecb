"""The verb ``validate``: settings, device and data, with every fault in one list."""

from ocrmem.validation.validate import ValidateResult, validate, validate_file

__all__ = ["ValidateResult", "validate", "validate_file"]
