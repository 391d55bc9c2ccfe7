"""`personalive animate`: runs a job with a progress bar and prints a summary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.error_handling import EXIT_INTERRUPTED
from personalive.cli.faces import DriverFaceOption, FaceBoxOption, FaceOption, ShowFacesOption
from personalive.cli.pipeline_options import (
    CropOption,
    ExpressionOption,
    MotionOption,
    PipelineOption,
    PoseOption,
    SeedOption,
    SetOption,
    SizeOption,
    WeightsOption,
    merge_parameters,
)
from personalive.cli.presets import PresetOption
from personalive.cli.rotation import DrivingRotation, ReferenceRotation, RotateOption

if TYPE_CHECKING:
    from personalive.jobs import AnimateJob

EPILOG = """Examples:

personalive animate portrait.jpg talking.mp4

personalive animate portrait.jpg talking.mp4 -o out.webm --start 2 --end 7 --expression 1.3

personalive animate group.jpg talking.mp4 --face 2 --paste-back

personalive animate portrait.jpg smiling.jpg -o smiling-portrait.png

personalive animate portrait.jpg talking.mp4 --set smoothing=0.2 --set width=768 --set height=512

The driving clip is a video, an animation, a folder of numbered pictures or a still. The suffix decides the
output's type: .mp4, .mov, .webm, .gif, a folder of pictures, or for one frame .png or .jpg.
"""


_Reference = Annotated[
    Path, typer.Argument(metavar="REFERENCE", help="The portrait: a picture, or a video that shows it.")
]
_Driving = Annotated[
    Path, typer.Argument(metavar="DRIVING", help="The clip whose motion the portrait takes on.")
]
_Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to write. Default: both names and .mp4, in this folder."),
]
_PasteBack = Annotated[
    bool, typer.Option("--paste-back", help="Put the animated crop back into the whole portrait.")
]
_SideBySide = Annotated[
    bool, typer.Option("--side-by-side", help="Show reference, driving and result next to each other.")
]
_Start = Annotated[float, typer.Option(help="Start this many seconds into the driving clip.")]
_EndAt = Annotated[float | None, typer.Option(help="End this many seconds into the driving clip.")]
_MaxFrames = Annotated[int | None, typer.Option(help="Write at most this many frames.")]
_Fps = Annotated[
    float | None, typer.Option(help="Frames per second of the output. Default: the driving clip's.")
]
_Audio = Annotated[bool, typer.Option("--audio/--no-audio", help="Copy the driving clip's sound.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", "-y", help="Replace the output if it exists.")]
_Resume = Annotated[
    bool,
    typer.Option("--resume", help="Work in segments, and continue an interrupted run with the same options."),
]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]


def animate(
    *,
    reference: _Reference,
    driving: _Driving,
    output: _Output = None,
    pipeline: PipelineOption = "auto",
    weights: WeightsOption = None,
    size: SizeOption = 512,
    crop: CropOption = True,
    paste_back: _PasteBack = False,
    side_by_side: _SideBySide = False,
    rotate: DrivingRotation = RotateOption.AUTO,
    rotate_reference: ReferenceRotation = RotateOption.AUTO,
    face: FaceOption = "auto",
    face_box: FaceBoxOption = None,
    driver_face: DriverFaceOption = None,
    show_faces: ShowFacesOption = None,
    preset: PresetOption = None,
    motion: MotionOption = None,
    expression: ExpressionOption = None,
    pose: PoseOption = None,
    start: _Start = 0.0,
    end: _EndAt = None,
    max_frames: _MaxFrames = None,
    fps: _Fps = None,
    audio: _Audio = True,
    seed: SeedOption = 42,
    settings: SetOption = None,
    overwrite: _Overwrite = False,
    resume: _Resume = False,
    quiet: _Quiet = False,
) -> None:
    """Animate a portrait with a driving clip.

    Frame for frame, the output shows the portrait with the motion of the driving clip, and has its sound.
    """
    from personalive.cli.faces import show_faces as write_outlined_faces
    from personalive.jobs import AnimateJob
    from personalive.jobs.output import default_output

    job = AnimateJob(
        reference=reference,
        driving=driving,
        output=output or default_output(reference, driving),
        pipeline=pipeline,
        size=size,
        crop=crop,
        paste_back=paste_back,
        side_by_side=side_by_side,
        rotate=rotate.rotation,
        rotate_reference=rotate_reference.rotation,
        face=face,
        face_box=face_box,
        fps=fps,
        start=start,
        end=end,
        max_frames=max_frames,
        audio=audio,
        seed=seed,
        overwrite=overwrite,
        resume=resume,
        parameters=merge_parameters(
            settings,
            preset=preset,
            motion=motion,
            expression=expression,
            pose=pose,
            driver_face=driver_face,
            weights=weights,
        ),
    )
    if show_faces is None:
        _run(job, quiet)
    else:
        write_outlined_faces(job.reference, show_faces, job.rotate_reference, overwrite=job.overwrite)


def _run(job: AnimateJob, quiet: bool) -> None:
    from personalive.cli import console
    from personalive.cli.progress import show_progress
    from personalive.jobs import run
    from personalive.pipelines import registry

    job.check()
    choice = registry.choose_pipeline(job.pipeline, job.parameters)
    if not quiet:
        console.print_status(f"running {choice.pipeline.info.name}: {choice.reason}")
    try:
        with show_progress(quiet=quiet) as progress:
            report = run(job, progress)
    except KeyboardInterrupt:
        if not job.resume:
            raise
        console.print_status(
            "interrupted: run the same command again to continue after the last complete segment"
        )
        sys.exit(EXIT_INTERRUPTED)
    console.print_report(report, quiet=quiet)
