from __future__ import annotations

import pytest

from personalive.pipelines.diffusion.checkpoints.key_prefixes import KeyPrefix

OWN = ("conv_in.weight", "conv_in.bias", "down_blocks.0.conv.weight")


def named(*names: str, own: tuple[str, ...] = OWN) -> tuple[dict[str, str | None], str | None]:
    """What each name is without what was put before it, and what is said of that."""
    naming = KeyPrefix(names, "denoising_unet", set(own).__contains__)
    return {name: naming(name) for name in names}, naming.note


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "module.",
            "model.",
            "net.",
            "denoising_unet.",
            "module.module.",
            "model.module.",
            "somebody.s.own.",
        ),
        "module.denoising_unet.",
    ],
)
def test_one_common_prefix_is_taken_off(prefix: str) -> None:
    found, note = named(*(prefix + name for name in OWN))
    assert found == {prefix + name: name for name in OWN}
    assert note == f"{prefix!r} in its entries' names is taken off"


@pytest.mark.parametrize("part", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
@pytest.mark.parametrize("place", ["{}{}", "module.{}{}", "{}module.{}"])
def test_what_compiling_puts_in_is_taken_off_with_it(part: str, place: str) -> None:
    found, note = named(*(place.format(part, name) for name in OWN))
    assert list(found.values()) == list(OWN)
    assert note is not None


def test_and_in_the_middle() -> None:
    assert named("conv_in.weight", "down_blocks.0._orig_mod.conv.weight") == (
        {"conv_in.weight": "conv_in.weight", "down_blocks.0._orig_mod.conv.weight": OWN[2]},
        "'_orig_mod.' in its entries' names is taken off",
    )


def test_names_that_fit_stay_as_they_are() -> None:
    assert named(*OWN) == ({name: name for name in OWN}, None)
    own = tuple(f"model.{name}" for name in OWN)
    assert named(*own, own=own) == ({name: name for name in own}, None)


def test_a_prefix_that_belongs_to_the_network_stays() -> None:
    own = ("model.a.weight", "model.b.weight", "final.weight")
    found, note = named(*(f"module.{name}" for name in own), own=own)
    assert list(found.values()) == list(own)
    assert note == "'module.' in its entries' names is taken off"


def test_what_lies_beside_a_usual_prefix_is_left() -> None:
    """An averaged model counts what it has averaged; some files hold an average beside the weights."""
    found, note = named("n_averaged", *(f"module.{name}" for name in OWN))
    assert found["n_averaged"] is None
    assert note == "'module.' in its entries' names is taken off"
    found, note = named(*OWN, *(f"ema.{name}" for name in OWN))
    assert [found[name] for name in OWN] == list(OWN)
    assert note is None


def test_an_unusual_prefix_that_not_all_have_stays() -> None:
    found, note = named("other.weight", *(f"odd.{name}" for name in OWN))
    assert list(found.values()) == list(found)
    assert note is None


@pytest.mark.parametrize("names", [(), ("time_proj.weight",), ("x.y.z", "x.y.w")])
def test_names_of_nothing_stay(names: tuple[str, ...]) -> None:
    assert named(*names) == ({name: name for name in names}, None)
