"""`personalive motion`: extracts a driver's motion from a clip, and animates portraits with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli import console
from personalive.cli.faces import DriverFaceOption, FaceBoxOption, FaceOption, ShowFacesOption
from personalive.cli.pipeline_options import (
    CropOption,
    SeedOption,
    SetOption,
    SizeOption,
    merge_parameters,
)
from personalive.cli.presets import PresetOption
from personalive.cli.rotation import DrivingRotation, ReferenceRotation, RotateOption

if TYPE_CHECKING:
    from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion

app = typer.Typer(
    name="motion",
    help="Extract a driver's motion from a clip once, and animate any portrait with it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_EXTRACT_EPILOG = """Examples:

personalive motion extract talking.mp4

personalive motion extract talking.mp4 -o talking.safetensors --start 2 --end 7

The file holds head motion and expression of each frame, no pictures. Only the weights that made it can use it.
"""
_DRIVE_EPILOG = """Examples:

personalive motion drive portrait.jpg talking.safetensors

personalive motion drive portrait.jpg talking.safetensors -o out.webm --set expression=1.3

The result is the same as that of `personalive animate` with the clip itself, without its sound.
"""

_Weights = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The weights. Default: the downloaded ones.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", "-y", help="Replace the output if it exists.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]


@app.command(epilog=_EXTRACT_EPILOG)
def extract(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="The clip to extract the motion from.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write. Default: CLIP.safetensors in this folder."),
    ] = None,
    weights: _Weights = None,
    start: Annotated[float, typer.Option(help="Start this many seconds into the clip.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="End this many seconds into the clip.")] = None,
    rotate: DrivingRotation = RotateOption.AUTO,
    driver_face: DriverFaceOption = None,
    size: SizeOption = 512,
    settings: SetOption = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """Extract the motion of a clip's driver to a file, to be used for any number of portraits."""
    from personalive.cli.progress import show_progress
    from personalive.file_names import shorten
    from personalive.jobs.motion import MOTION_SUFFIX, ExtractMotionJob, extract_motion

    job = ExtractMotionJob(
        driving=clip,
        output=output or Path(shorten(clip.stem, 240) + MOTION_SUFFIX),
        size=size,
        start=start,
        end=end,
        rotate=rotate.rotation,
        driver_face=driver_face or "auto",
        overwrite=overwrite,
        parameters=merge_parameters(settings, weights=weights),
    )
    with show_progress(quiet=quiet) as progress:
        motion = extract_motion(job, progress)
    if not quiet:
        _print_motion(job.output, motion)


@app.command(epilog=_DRIVE_EPILOG)
def drive(
    reference: Annotated[
        Path,
        typer.Argument(metavar="REFERENCE", help="The portrait: a picture, or a video that shows it."),
    ],
    motion: Annotated[
        Path, typer.Argument(metavar="MOTION", help="A file that `personalive motion extract` wrote.")
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write. Default: both names and .mp4, in this folder."),
    ] = None,
    weights: _Weights = None,
    size: SizeOption = 512,
    crop: CropOption = True,
    rotate_reference: ReferenceRotation = RotateOption.AUTO,
    face: FaceOption = "auto",
    face_box: FaceBoxOption = None,
    show_faces: ShowFacesOption = None,
    preset: PresetOption = None,
    seed: SeedOption = 42,
    settings: SetOption = None,
    overwrite: _Overwrite = False,
    quiet: _Quiet = False,
) -> None:
    """Animate a portrait with a motion file.

    The frames are those of `personalive animate` with the clip, but the clip is not analyzed again.
    """
    from personalive.cli.faces import show_faces as write_outlined_faces
    from personalive.cli.progress import show_progress
    from personalive.jobs.motion import AnimateMotionJob, animate_motion
    from personalive.jobs.output import default_path

    if show_faces is not None:
        write_outlined_faces(reference, show_faces, rotate_reference.rotation, overwrite=overwrite)
        return
    job = AnimateMotionJob(
        reference=reference,
        motion=motion,
        output=output or default_path(reference, motion, ".mp4"),
        size=size,
        crop=crop,
        rotate_reference=rotate_reference.rotation,
        face=face,
        face_box=face_box,
        seed=seed,
        overwrite=overwrite,
        parameters=merge_parameters(settings, preset=preset, weights=weights),
    )
    with show_progress(quiet=quiet) as progress:
        report = animate_motion(job, progress)
    console.print_report(report, quiet=quiet)


def _print_motion(path: Path, motion: DrivingMotion) -> None:
    count, faces = len(motion), int(motion.valid.sum())
    many = "frame" if count == 1 else "frames"
    console.print_result(f"{path}: {count} {many} at {motion.fps:.5g} fps, {faces} with a face")
