"""The settings of a run: what they are (`schema`), what joins them (`rules`), how they are read (`run_config`)."""

from ocrmem.config.kubernetes_section import PLACEHOLDER_IMAGE, KubernetesSection, VolumeSection
from ocrmem.config.run_config import RunConfig, check_file, check_secrets
from ocrmem.config.schema import (
    BaseSection,
    DataSection,
    GateSection,
    LabelSection,
    LoraSection,
    PathsSection,
    RenderSection,
)
from ocrmem.config.section import Section
from ocrmem.families import TINY

__all__ = [
    "PLACEHOLDER_IMAGE",
    "TINY",
    "BaseSection",
    "DataSection",
    "GateSection",
    "KubernetesSection",
    "LabelSection",
    "LoraSection",
    "PathsSection",
    "RenderSection",
    "RunConfig",
    "Section",
    "VolumeSection",
    "check_file",
    "check_secrets",
]
