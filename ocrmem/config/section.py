"""Section: the base of every class of settings, and the number types that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator
from pydantic_core import PydanticCustomError

MAX_INTEGER = 2**53  # beyond it, not every whole number is a float, and products leave an array's range
Share = Annotated[float, Field(ge=0, le=1)]


def form(accepts: Callable[[str], object], remedy: str) -> AfterValidator:
    """Return a check that text is printable and accepted; where it is not accepted, the remedy is the message."""

    def check(text: str) -> str:
        if not accepts(text):
            raise PydanticCustomError("form", "{remedy}", {"remedy": remedy})
        if not text.isprintable():
            raise PydanticCustomError("unprintable", "Remove the unprintable characters")
        return text

    return AfterValidator(check)


Text = Annotated[str, form(str.strip, "Give it a value, or leave it out")]


class Section(BaseModel):
    """A section of a settings file: unknown fields are errors, numbers are finite, values are fixed once read.

    The text under a field is its description: docs/configuration.md is generated from it.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )

    @field_validator("*", mode="wrap")
    @classmethod
    def _refuse_what_is_no_usable_number(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """YAML reads yes, no, on and off as booleans, and pydantic takes those as 1 and 0."""
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            bound = {"le": MAX_INTEGER} if value > 0 else {"ge": -MAX_INTEGER}
            raise PydanticCustomError("giant_number", "Give a smaller number", bound)
        read = validate(value)
        if isinstance(value, bool) and not isinstance(read, bool):
            raise PydanticCustomError("boolean_as_number", "Give a number")
        return read
