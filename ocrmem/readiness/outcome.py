"""The outcome of one check of `preflight`."""

from ocrmem.errors import Problem

CheckOutcome = tuple[str, list[Problem]]  # what a person reads if there is no problem, and the problems
