"""What each check of `preflight` returns."""

from ocrmem.errors import Problem

CheckOutcome = tuple[str, list[Problem]]  # what a person reads if there is no problem, and the problems
