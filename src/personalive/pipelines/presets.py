"""Named sets of run parameters, defined once for the command line, the server and its page.

A preset is chosen by the parameter `preset`. It sets how motion is transferred and nothing else, and what it does
not name has its default then, so that the result does not depend on what was set before. Parameters that are given
beside it win over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from personalive.errors import InputError

if TYPE_CHECKING:
    from personalive.pipelines.base import RunParameters

PRESET = "preset"
"""The name by which a preset is given among parameters."""
_STRENGTHS = ("expression", "pose", "translation", "scale", "smoothing")
"""The run parameters that presets set, as far as a pipeline has them."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of run parameters: `values` by name, `description` a sentence for people."""

    name: str
    description: str
    values: Mapping[str, float]


PRESETS = (
    Preset(
        "expression-only",
        "The face moves and the head stays as in the portrait.",
        {"expression": 1.0, "pose": 0.0, "translation": 0.0, "scale": 0.0},
    ),
    Preset(
        "head-only",
        "The head moves and the face keeps the portrait's expression.",
        {"expression": 0.0, "pose": 1.0},
    ),
    Preset(
        "calm",
        "All movements are smaller and smoother than the driver's.",
        {"expression": 0.7, "pose": 0.5, "translation": 0.25, "scale": 0.0, "smoothing": 0.75},
    ),
    Preset(
        "exaggerated",
        "All movements are larger than the driver's.",
        {"expression": 1.6, "pose": 1.25, "translation": 0.8},
    ),
)


def preset_names() -> str:
    """Return the names of all presets, as a list for people."""
    return ", ".join(preset.name for preset in PRESETS)


def find_preset(name: object) -> Preset:
    """Return the preset of that name; hyphens, underscores and spaces are the same. Raises `InputError`."""
    text = str(name).strip().casefold().replace("_", "-").replace(" ", "-")
    for preset in PRESETS:
        if preset.name == text:
            return preset
    raise InputError(f"There is no preset {str(name)[:40]!r}. There are: {preset_names()}.")


def resolve_preset(preset: Preset, model: type[RunParameters]) -> dict[str, object]:
    """Return the run parameters that a preset sets in a pipeline with these; none where it has none of them."""
    fields = model.model_fields
    if not any(name in fields for name in preset.values):
        return {}
    return {
        name: preset.values.get(name, fields[name].get_default()) for name in _STRENGTHS if name in fields
    }


def list_presets(model: type[RunParameters]) -> list[tuple[Preset, dict[str, object]]]:
    """Return the presets that a pipeline with these run parameters has, each with what it sets."""
    resolved = [(preset, resolve_preset(preset, model)) for preset in PRESETS]
    return [(preset, values) for preset, values in resolved if values]


def expand_preset(values: Mapping[str, object], model: type[RunParameters]) -> dict[str, object]:
    """Return run parameters by name with `preset` replaced by what it sets; the others win over it.

    Raises `InputError` for an unknown preset, or one that a pipeline with these run parameters does not have.
    """
    given = dict(values)
    if PRESET not in given or PRESET in model.model_fields:
        return given
    preset = find_preset(given.pop(PRESET))
    resolved = resolve_preset(preset, model)
    if not resolved:
        raise InputError(f"This pipeline has none of the parameters that the preset {preset.name} sets.")
    return {**resolved, **given}
