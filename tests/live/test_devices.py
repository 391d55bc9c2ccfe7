from __future__ import annotations

import errno
import itertools

import av
import pytest

from personalive.live.devices import (
    CameraDevice,
    CameraSystem,
    SourceError,
    camera_system,
    explain_camera_error,
    find_camera,
    list_cameras,
    open_camera,
)

LINUX, WINDOWS, MAC = (camera_system(name) for name in ("linux", "win32", "darwin"))
CAMERAS = [
    CameraDevice("/dev/video0", "Integrated Camera"),
    CameraDevice("/dev/video2", "USB Capture"),
    CameraDevice("/dev/video4", "USB Camera"),
]
FILTER = CameraSystem("lavfi")
"""FFmpeg's device of generated pictures: what opening a camera goes through, on a machine without one."""


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("2", 1),
        ("/dev/video4", 2),
        ("USB Capture", 1),
        ("integrated", 0),
        ("usb cam", 2),
    ],
)
def test_a_camera_is_found_by_number_path_or_name(wanted: str, number: int) -> None:
    assert find_camera(wanted, CAMERAS, LINUX) == CAMERAS[number]


def test_numbers_count_where_devices_have_none() -> None:
    assert find_camera("1", CAMERAS, WINDOWS) == CAMERAS[1]
    with pytest.raises(
        SourceError, match=r"no camera 3\. Cameras here: 0: Integrated Camera, 1: USB Capture"
    ):
        find_camera("3", CAMERAS, MAC)


def test_camera_0_is_the_first_that_there_is() -> None:
    later = [CameraDevice("/dev/video77", "Webcam")]
    assert find_camera("0", later, LINUX) == later[0]


def test_names_that_fit_none_or_several_are_refused() -> None:
    with pytest.raises(SourceError, match="more than one camera: 'USB Capture', 'USB Camera'"):
        find_camera("usb", CAMERAS, LINUX)
    with pytest.raises(SourceError, match="Cameras here: 0: Integrated Camera"):
        find_camera("Logitech", CAMERAS, LINUX)
    with pytest.raises(SourceError, match="no camera that is seen"):
        find_camera("Logitech", [], LINUX)


@pytest.mark.parametrize("system", [LINUX, WINDOWS, MAC])
@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "may not be opened"),
        (errno.EBUSY, "close the other program"),
        (errno.ENODEV, "connect it"),
        (errno.EIO, "cannot be opened"),
    ],
)
def test_every_error_says_what_to_do(system: CameraSystem, number: int, advice: str) -> None:
    error = explain_camera_error(CAMERAS[0], OSError(number, "reason"), system)
    assert str(error).startswith("Integrated Camera ")
    assert advice in str(error)
    if number == errno.EACCES:
        assert system.denied in str(error)


def test_a_system_without_known_cameras_says_so() -> None:
    with pytest.raises(SourceError, match="use a stream's address or a clip"):
        camera_system("aix")


def test_listing_never_fails() -> None:
    for system in (LINUX, WINDOWS, MAC, CameraSystem("no such format")):
        assert all(camera.address for camera in list_cameras(system))


@pytest.mark.skipif("lavfi" not in av.formats_available, reason="this FFmpeg generates no pictures")
def test_a_device_is_opened_with_the_options_that_it_takes() -> None:
    with open_camera(CameraDevice("testsrc=size=64x48:rate=30", "generated"), FILTER) as container:
        seen = [frame.time for frame in itertools.islice(container.decode(video=0), 3)]
    assert seen == pytest.approx([0, 1 / 30, 2 / 30])


def test_a_missing_device_is_an_error_that_names_it() -> None:
    with pytest.raises(SourceError, match=r"gone cannot be opened|gone is not there"):
        open_camera(CameraDevice("no such source", "gone"), FILTER)
