"""DeepSpeed on this machine: whether it is installed, and what keeps it from looking for a GPU.

Its configuration is `ocrmem.config.deepspeed`'s.
"""

from __future__ import annotations

import importlib.util
import os

from ocrmem.config import RunConfig
from ocrmem.errors import ConfigError

_SHM_KERNEL = "deepspeed_shm_comm"


def require_deepspeed(config: RunConfig) -> None:
    """Check that the package is installed when the run asks for it.

    Raises:
        ConfigError: it is not; names the extra to install.
    """
    if config.train.deepspeed is not None and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError.of(
            "train.deepspeed",
            f"is {config.train.deepspeed}, but the package deepspeed is not installed",
            "Install it with `pip install 'ocrmem[deepspeed]'`, or leave train.deepspeed out",
        )


def prepare_for_cpu() -> None:
    """Keep DeepSpeed from looking for a GPU, and from silently compiling a kernel for more than a minute.

    The kernel only speeds up all-reduces among processes of one machine. It is skipped where it would have to be
    compiled; one that was built when DeepSpeed was installed is used.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops import __compatible_ops__

    if not installed_ops.get(_SHM_KERNEL):
        __compatible_ops__[_SHM_KERNEL] = False
