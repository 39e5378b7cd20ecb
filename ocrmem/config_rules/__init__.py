"""Reading a configuration and naming all of its faults at once.

`settings_file` reads YAML and overrides, `fields` turns pydantic's errors into problems, `model_rules`,
`run_rules`, `cluster_rules` and `store_rules` join fields, `known` holds what is known of models by name. `check`
puts them together.
"""

from ocrmem.config_rules.check import Checked, check_file, check_secrets, check_values, load_config
from ocrmem.config_rules.known import Encoder, known_encoder

__all__ = [
    "Checked",
    "Encoder",
    "check_file",
    "check_secrets",
    "check_values",
    "known_encoder",
    "load_config",
]
