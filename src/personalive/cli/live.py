"""`personalive live`: a camera in, a virtual camera out."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.error_handling import EXIT_TERMINATED
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
from personalive.cli.serve import require_server_packages
from personalive.errors import InputError

if TYPE_CHECKING:
    from personalive.live.live_job import LiveJob

EPILOG = """Examples:

personalive live portrait.jpg

personalive live portrait.jpg --from 1 --to camera --to window

personalive live me.jpg friend.jpg --background blur --mirror

personalive live group.jpg --face 2 --preset calm

personalive live portrait.jpg --from talking.mp4 --to out.mp4

personalive live portrait.jpg --from rtsp://192.168.1.20/stream --to whip:https://example.com/whip/room

personalive live portrait.jpg --sound --speaker "CABLE Input"

personalive live portrait.jpg --from talking.mp4 --sound --to out.mp4

personalive live --list-devices

Keys while it runs: p pause, r reset, n next portrait, m mirror, s sound off and on, q quit. Ctrl-C ends it too.

A virtual camera is v4l2loopback's on Linux and OBS's on Windows and macOS; docs/tutorial/video-call.md sets one
up. WHIP and WHEP servers that want a token get that of the environment variable PERSONALIVE_BEARER_TOKEN.
"""

_Portraits = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="PORTRAIT", help="The portrait: a picture, or a video that shows it. Key n shows the next."
    ),
]
_Source = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="SOURCE",
        help="A camera's number or name, a clip (looped), rtsp://…, http(s)://…, or whep:URL.",
    ),
]
_Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="TARGET",
        help="camera, camera:DEVICE, window, a file (out.mp4), or whip:URL; may be repeated. Default: camera.",
    ),
]
_ListDevices = Annotated[
    bool, typer.Option("--list-devices", help="List cameras, microphones and speakers, and exit.")
]
_Sound = Annotated[
    bool,
    typer.Option(
        "--sound",
        help="Send the driver's sound too, as late as the picture: a camera's is the default microphone.",
    ),
]
_Microphone = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Send the sound of this microphone; part of its name is enough."),
]
_Speaker = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Play the sound on this device, such as a virtual cable that the call listens to.",
    ),
]
_Canvas = Annotated[str, typer.Option(metavar="WxH", help="Size of the picture that goes out.")]
_Square = Annotated[
    bool, typer.Option("--square", help="Send the animated frame alone, without a canvas around it.")
]
_Background = Annotated[
    str,
    typer.Option(
        metavar="BACKGROUND",
        help="Around the frame: extend (the portrait's own), blur, a colour such as #203040, or a picture.",
    ),
]
_Mirror = Annotated[bool, typer.Option("--mirror", help="Mirror the picture that goes out.")]
_Fps = Annotated[float, typer.Option(help="Rate of a file, and the one that a virtual camera is told.")]
_Watermark = Annotated[
    bool, typer.Option("--watermark", help='Write "AI generated" into a corner of every frame.')
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", "-y", help="Replace a file that exists.")]


def live(
    *,
    portraits: _Portraits = None,
    source: _Source = "0",
    targets: _Targets = None,
    sound: _Sound = False,
    microphone: _Microphone = None,
    speaker: _Speaker = None,
    list_devices: _ListDevices = False,
    pipeline: PipelineOption = "auto",
    weights: WeightsOption = None,
    size: SizeOption = 512,
    crop: CropOption = True,
    canvas: _Canvas = "1280x720",
    square: _Square = False,
    background: _Background = "extend",
    mirror: _Mirror = False,
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
    fps: _Fps = 30.0,
    watermark: _Watermark = False,
    seed: SeedOption = 42,
    settings: SetOption = None,
    overwrite: _Overwrite = False,
) -> None:
    """Animate a portrait with a camera, as a camera for video calls.

    Choose the virtual camera in the call. Nothing else needs to be started.
    """
    if list_devices:
        _list_devices()
        return
    if show_faces is not None:
        from personalive.cli.faces import show_faces as write_outlined_faces

        if portraits is None or len(portraits) != 1:
            raise InputError("--show-faces is of one picture: name one portrait.")
        write_outlined_faces(portraits[0], show_faces, rotate_reference.rotation, overwrite=overwrite)
        return
    require_server_packages("live", "`personalive live`")
    from personalive.live.live_job import LiveJob, parse_canvas

    job = LiveJob(
        portraits=tuple(portraits or ()),
        source=source,
        targets=tuple(targets or ("camera",)),
        sound=sound,
        microphone=microphone,
        speaker=speaker,
        pipeline=pipeline,
        size=size,
        crop=crop,
        canvas=None if square else parse_canvas(canvas),
        background=background,
        mirror=mirror,
        rotate=rotate.rotation,
        rotate_reference=rotate_reference.rotation,
        face=face,
        face_box=face_box,
        fps=fps,
        watermark=watermark,
        seed=seed,
        overwrite=overwrite,
        parameters=merge_parameters(
            settings,
            preset=preset,
            driver_face=driver_face,
            motion=motion,
            expression=expression,
            pose=pose,
            weights=weights,
        ),
    )
    job.check()
    if asyncio.run(_run(job)):
        sys.exit(EXIT_TERMINATED)


def _list_devices() -> None:
    from personalive.cli import console
    from personalive.live.audio_devices import (
        AudioDeviceError,
        describe_devices,
        list_microphones,
        list_speakers,
    )
    from personalive.live.devices import camera_system, describe_cameras, list_cameras

    cameras = list_cameras(camera_system())
    if not cameras:
        console.print_status(describe_cameras(cameras))
    for number, camera in enumerate(cameras):
        console.print_result(f"{number}: {camera.name}  ({camera.address})")
    try:
        for kind, devices in (("microphone", list_microphones()), ("speaker", list_speakers())):
            for device in devices:
                console.print_result(f"{kind}: {device.name}")
            if not devices:
                console.print_status(describe_devices(devices, kind))
    except AudioDeviceError as error:
        console.print_status(str(error))


async def _run(job: LiveJob) -> bool:
    """Run until a key or a signal ends it, and return whether it was a signal other than Ctrl-C."""
    from personalive.cli.live_terminal import StatusLine, read_keys
    from personalive.live.live_run import LiveRun
    from personalive.signals import stop_at_signal

    # A server's log lines would break the status line; what they say of errors is shown as sentences.
    logging.getLogger("personalive").addHandler(logging.NullHandler())
    with StatusLine() as display:
        run = LiveRun(job, display)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(run.stop)

        with stop_at_signal(stop) as received, read_keys(run.press_key):
            await run.run()
    return received.terminated
