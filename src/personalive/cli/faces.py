"""The options that choose a face, and the picture that shows which faces there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from personalive.media import Rotation

FaceOption = Annotated[
    str,
    typer.Option(
        "--face",
        metavar="FACE",
        help="Which of several faces in the portrait: left, right, largest, its number from the left, or x,y.",
    ),
]
FaceBoxOption = Annotated[
    str | None,
    typer.Option(
        "--face-box",
        metavar="X,Y,W,H",
        help="Where the portrait's face is, in pixels: for a painting, a cartoon or an animal.",
    ),
]
DriverFaceOption = Annotated[
    str | None,
    typer.Option(
        "--driver-face",
        metavar="FACE",
        help="Which of several faces in the clip is followed: left, right, largest, a number, or x,y.",
    ),
]
ShowFacesOption = Annotated[
    Path | None,
    typer.Option(
        "--show-faces",
        metavar="FILE",
        help="Write the portrait with its faces outlined and numbered to this picture, and stop.",
    ),
]


def show_faces(reference: Path, path: Path, rotation: Rotation, *, overwrite: bool) -> None:
    """Write a picture of the portrait with numbered faces to `path`, and print the list of them."""
    from personalive.cli import console
    from personalive.errors import FaceChoiceError, InputError
    from personalive.face.choice import describe_faces
    from personalive.face.outline import draw_faces, write_picture
    from personalive.jobs.output import check_output_path, is_single_image
    from personalive.jobs.reference_image import list_reference_faces

    if not is_single_image(path):
        raise InputError(f"{path} cannot hold a picture: name it .png, .jpg or .webp.")
    check_output_path(path, overwrite)
    image, boxes = list_reference_faces(reference, rotation)
    if not boxes:
        raise FaceChoiceError(
            f"No face was found in {reference.name}.", "Say where it is: --face-box X,Y,W,H in pixels."
        )
    write_picture(path, draw_faces(image, boxes), overwrite=overwrite)
    console.print_result(f"{path}: {describe_faces(boxes)}")
