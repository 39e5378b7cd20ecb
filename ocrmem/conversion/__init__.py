"""The verb ``convert``: conversations of other forms and containers as this project's JSONL.

`containers` takes a file apart into records, `forms` knows whose form a record has, a module a form reads it into a
`Draft`, and `convert` writes what `validate` accepts.
"""

from ocrmem.conversion.convert import ConvertResult, convert

__all__ = ["ConvertResult", "convert"]
