from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from personalive.errors import InputError, MediaError, OutputExistsError
from personalive.media import (
    COMPOSITE_SYNTHETIC,
    Image,
    VideoReader,
    check_output,
    exact_rate,
    open_writer,
    output_kind,
    read_image,
    read_provenance,
)
from tests.signals import IS_ROOT

from .clips import COLOURS, PROVENANCE, frame_count, leftovers, level, patch_colours, patches, tell

VIDEO = ["out.mp4", "out.m4v", "out.mov", "out.webm"]
ALL = [*VIDEO, "out.gif", "frames", "frames-%03d.png"]


def write(path: Path, images: list[Image], fps: float = 25, *, overwrite: bool = False) -> Path:
    height, width = images[0].shape[:2]
    with open_writer(
        path, width=width, height=height, fps=fps, provenance=PROVENANCE, overwrite=overwrite
    ) as writer:
        for image in images:
            writer.write(image)
    return path


@pytest.mark.parametrize("name", [*VIDEO, "out.gif"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [level(40 + 5 * i) for i in range(20)])
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height, reader.info.fps) == (64, 48, 25)
        assert [tell(frame.image) for frame in reader] == pytest.approx(
            [40 + 5 * i for i in range(20)], abs=2
        )
        assert reader.warnings == []


def test_the_number_of_cores_does_not_matter(tmp_path: Path) -> None:
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores, and a system that lets processes choose")
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 256, 3), np.uint8)
    cores = os.sched_getaffinity(0)
    made = []
    try:
        for given in (cores, {min(cores)}):
            os.sched_setaffinity(0, given)
            made.append(write(tmp_path / f"{len(given)}.mp4", list(noise)).read_bytes())
    finally:
        os.sched_setaffinity(0, cores)
    assert made[0] == made[1]


@pytest.mark.parametrize("name", VIDEO)
def test_colours_are_bt709_and_say_so(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [patches(128, 96)] * 5)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1
        assert context.pix_fmt == "yuv420p"
    image = list(VideoReader(path))[-1].image
    assert np.abs(patch_colours(image) - COLOURS).max() <= (3 if "webm" not in name else 6)


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("size", [(63, 47), (64, 47), (1, 1), (17, 3)])
def test_odd_sizes(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    path = write(tmp_path / name, [level(100, *size)] * 3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert (stream.width, stream.height) == (size if name.endswith("webm") else even)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.webm"])
@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(25, 2)])
def test_fractional_rates(tmp_path: Path, name: str, fps: Fraction) -> None:
    path = write(tmp_path / name, [level(i) for i in range(30)], float(fps))
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
    assert rate is not None
    assert float(rate) == pytest.approx(float(fps), rel=1e-3 if name.endswith("webm") else 1e-9)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (29.97, "30000/1001"),
        (23.976, "24000/1001"),
        (59.94, "60000/1001"),
        (25, "25"),
        (12.5, "25/2"),
        (30, "30"),
    ],
)
def test_exact_rate(fps: float, rate: str) -> None:
    assert exact_rate(fps) == Fraction(rate)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.m4v"])
def test_index_is_in_front(tmp_path: Path, name: str) -> None:
    data = write(tmp_path / name, [patches()] * 10).read_bytes()
    boxes = []
    position = 0
    while position < len(data):
        boxes.append(data[position + 4 : position + 8])
        position += int.from_bytes(data[position : position + 4], "big")
    assert position == len(data)
    assert boxes.index(b"moov") < boxes.index(b"mdat")
    assert boxes[-1] == b"uuid"
    assert COMPOSITE_SYNTHETIC.rsplit("/", 1)[0].encode() in data[-4000:]


def test_gif_keeps_its_length_and_colours(tmp_path: Path) -> None:
    x = np.arange(64, dtype=np.uint8)
    ramp = np.broadcast_to((x * 4)[None, :, None], (48, 64, 3)).copy()
    path = write(tmp_path / "a.gif", [ramp, patches()] * 15, fps=30)
    with PIL.Image.open(path) as picture:
        assert frame_count(picture) == 30
        assert picture.info["loop"] == 0
    frames = list(VideoReader(path))
    assert frames[-1].time + frames[-1].duration == pytest.approx(1.0, abs=0.03)
    assert np.abs(frames[0].image.astype(int) - ramp).max() <= 1
    assert np.abs(patch_colours(frames[1].image) - COLOURS).max() <= 3


def test_gif_of_many_colours(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    image = np.stack([x * 4, y * 5, 255 - x * 2 - y * 2], axis=2).astype(np.uint8)
    path = write(tmp_path / "a.gif", [image])
    shown = next(iter(VideoReader(path))).image
    assert np.abs(shown.astype(int) - image).mean() < 10
    # Dithering keeps the mean of every neighbourhood.
    blocks = [a.astype(float).reshape(6, 8, 8, 8, 3).mean(axis=(1, 3)) for a in (shown, image)]
    assert np.abs(blocks[0] - blocks[1]).max() < 8


def test_gif_over_50_frames_per_second(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.gif", width=64, height=48, fps=60, provenance=PROVENANCE) as writer:
        for i in range(60):
            writer.write(level(i))
    assert "50 frames per second" in writer.warnings[0]
    frames = list(VideoReader(tmp_path / "a.gif"))
    assert len(frames) == 50
    assert frames[-1].time == pytest.approx(0.98)


def test_numbered_pictures(tmp_path: Path) -> None:
    images = [level(i) for i in range(3)]
    write(tmp_path / "frames", images)
    assert sorted(p.name for p in (tmp_path / "frames").iterdir()) == ["00001.png", "00002.png", "00003.png"]
    write(tmp_path / "frames" / "me-%d.png", images)
    assert np.array_equal(read_image(tmp_path / "frames" / "me-2.png"), images[1])
    write(tmp_path / "new" / "%03d.png", images)
    assert len(list((tmp_path / "new").iterdir())) == 3
    assert np.array_equal(np.stack([f.image for f in VideoReader(tmp_path / "new")]), np.stack(images))


def test_overwriting_pictures_leaves_no_mixture(tmp_path: Path) -> None:
    folder = write(tmp_path / "frames", [level(1)] * 5)
    (folder / "keep.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        write(folder, [level(2)])
    write(folder, [level(2)] * 2, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["00001.png", "00002.png", "keep.txt"]
    assert tell(read_image(folder / "00001.png")) == 2


def test_overwriting_pictures_keeps_those_of_others(tmp_path: Path) -> None:
    folder = write(tmp_path / "frames", [level(1)] * 3)
    theirs = folder / "00099.png"
    PIL.Image.new("RGB", (8, 8)).save(theirs)
    before = theirs.read_bytes()
    write(folder, [level(2)], overwrite=True)
    assert sorted(file.name for file in folder.iterdir()) == ["00001.png", "00099.png"]
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "-", ".mp4"])
def test_what_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="does not name an output file"):
        output_kind(name)


@pytest.mark.parametrize("name", ALL)
def test_every_kind_carries_the_mark(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [patches()] * 3)
    path = tmp_path if "%" in name else path
    values = read_provenance(path)
    assert values is not None
    assert PROVENANCE.metadata().items() <= values.items()
    assert values["comment"] == (
        "Synthetic media: AI-animated portrait, made with personalive 0.1.0 (pipeline preview)."
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_run_leaves_nothing(tmp_path: Path, name: str, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with open_writer(tmp_path / name, width=64, height=48, fps=25, provenance=PROVENANCE) as writer:
            for i in range(20):
                writer.write(level(i))
            assert len(leftovers(tmp_path)) == 1
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*VIDEO, "out.gif"])
def test_interrupted_overwrite_keeps_the_earlier_result(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"earlier")
    writer = open_writer(path, width=64, height=48, fps=25, provenance=PROVENANCE, overwrite=True)
    writer.write(level(1))
    writer.abort()
    writer.abort()
    assert path.read_bytes() == b"earlier"
    assert leftovers(tmp_path) == []
    write(path, [level(1)] * 3, overwrite=True)
    assert path.stat().st_size > 100


@pytest.mark.parametrize("width", [64, 256, 272])
def test_the_same_frames_are_the_same_bytes(tmp_path: Path, width: int) -> None:
    """The file does not depend on what lay in memory.

    x264 has read past rows of macroblocks that fill no vector (272 is 17).
    """
    random = np.random.default_rng(0)
    first, last = (
        np.asarray(PIL.Image.fromarray(cells).resize((width, 272), PIL.Image.Resampling.BICUBIC), np.float64)
        for cells in random.integers(0, 255, (2, 12, 12, 3), np.uint8)
    )
    images = [(first + (last - first) * share).astype(np.uint8) for share in np.linspace(0, 0.9, 10)]
    written = set()
    for _ in range(12):
        litter = [random.integers(0, 255, size, np.uint8) for size in random.integers(1, 120_000, 60)]
        del litter[::2]
        written.add(write(tmp_path / "out.mp4", images, overwrite=True).read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("name", ALL)
def test_no_frames_is_an_error(tmp_path: Path, name: str) -> None:
    writer = open_writer(tmp_path / name, width=64, height=48, fps=25, provenance=PROVENANCE)
    with pytest.raises(MediaError, match="no frames"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_wrong_frames_are_the_callers_mistake(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a.mp4", width=64, height=48, fps=25, provenance=PROVENANCE) as writer:
        for bad in (level(1, 48, 64), level(1).astype(np.float32), level(1)[..., 0]):
            with pytest.raises(ValueError, match="expected"):
                writer.write(bad)  # type: ignore[arg-type]
        writer.write(level(1)[:, ::-1])
    with pytest.raises(ValueError, match="closed"):
        writer.write(level(1))


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_existing_output_is_not_touched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=name):
        check_output(path)
    with pytest.raises(OutputExistsError, match=name):
        write(path, [level(1)])
    assert check_output(path, overwrite=True) == name.removeprefix("out.")
    assert path.read_bytes() == b"mine"


def test_output_that_turns_up_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    writer = open_writer(path, width=64, height=48, fps=25, provenance=PROVENANCE)
    writer.write(level(1))
    path.write_bytes(b"somebody else's")
    with pytest.raises(OutputExistsError):
        writer.close()
    assert path.read_bytes() == b"somebody else's"
    assert leftovers(tmp_path) == []


def test_link_to_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "disk" / "b.mp4")
    write(tmp_path / "a.mp4", [level(1)])
    assert (tmp_path / "a.mp4").is_symlink()
    assert (tmp_path / "disk" / "b.mp4").stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "mp4"),
        ("a.M4V", "mp4"),
        ("a.mov", "mov"),
        ("a.webm", "webm"),
        ("a.gif", "gif"),
        ("a", "png"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert output_kind(name) == kind


def test_folders_and_patterns_are_pictures(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    for path in (tmp_path / "v1.2", f"{tmp_path}/v1.3/", "out/%05d.png", "out/a_%d_b.png"):
        assert output_kind(path) == "png"


@pytest.mark.parametrize("name", ["a.mkv", "a.txt", "a.avi", "a.%d.%d.png", "a.jpg"])
def test_unknown_kinds_list_the_known(name: str) -> None:
    with pytest.raises(InputError, match=r"%05d\.png"):
        output_kind(name)


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "frames/%d.png", "frames"])
def test_missing_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        check_output(tmp_path / "missing" / "deeper" / name)


@pytest.mark.skipif(IS_ROOT, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for name in ALL:
            with pytest.raises(MediaError, match="permission"):
                write(tmp_path / name, [level(1)])
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    "options",
    [{"fps": 0}, {"fps": float("nan")}, {"width": 0}, {"quality": 99}, {"width": 100_000, "height": 1000}],
)
def test_senseless_options(tmp_path: Path, options: dict[str, float]) -> None:
    arguments = {"width": 64, "height": 48, "fps": 25} | options
    with pytest.raises(InputError):
        open_writer(tmp_path / "a.mp4", provenance=PROVENANCE, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_long_and_odd_names(tmp_path: Path) -> None:
    for name in ("é" * 120 + ".mp4", "%d 100%.mp4", "-a.gif", "a:b.webm"):
        assert write(tmp_path / name, [level(1)] * 2).exists()
    undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    assert write(Path(undecodable), [level(1)] * 2).exists()


@pytest.mark.parametrize("name", ALL)
def test_full_disk(tmp_path: Path, name: str) -> None:
    # A limit on the size of files stands in for a full disk: writing fails the same way.
    script = f"""
        import resource, sys
        import numpy as np
        from personalive.errors import MediaError
        from personalive.media import Provenance, open_writer
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        noise = np.random.default_rng(0)
        try:
            with open_writer({os.fspath(tmp_path / name)!r}, width=128, height=128, fps=25,
                             provenance=Provenance("s", "p")) as writer:
                for _ in range(60):
                    writer.write(noise.integers(0, 255, (128, 128, 3), np.uint8))
        except MediaError as error:
            print(error)
            sys.exit(3)
    """
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3, result.stderr
    assert result.stderr == ""
    assert "could not be written: File too large" in result.stdout
    assert list(tmp_path.iterdir()) == []
