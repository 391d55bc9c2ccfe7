"""Reading and writing of images, video and sound, and the mark of synthetic media."""

from personalive.media.atomic_writer import VideoWriter
from personalive.media.audio import AudioTrack
from personalive.media.concat import concat_videos
from personalive.media.fragmented_writer import FragmentedWriter, finalize_fragments
from personalive.media.frame_shape import MAX_IMAGE_PIXELS, check_shape
from personalive.media.image import (
    MAX_IMAGE_BYTES,
    PICTURES,
    decode_image,
    fit_image,
    is_image_file,
    read_image,
)
from personalive.media.output import OutputKind, check_output, output_kind
from personalive.media.provenance import (
    COMPOSITE_SYNTHETIC,
    TRAINED_ALGORITHMIC_MEDIA,
    Provenance,
    read_provenance,
    save_image,
)
from personalive.media.resample import resample
from personalive.media.rotation import Rotation
from personalive.media.types import Frames, Image, VideoFrame, VideoInfo
from personalive.media.video_reader import VideoReader, open_driving
from personalive.media.video_writer import exact_rate, open_writer

__all__ = [
    "COMPOSITE_SYNTHETIC",
    "MAX_IMAGE_BYTES",
    "MAX_IMAGE_PIXELS",
    "PICTURES",
    "TRAINED_ALGORITHMIC_MEDIA",
    "AudioTrack",
    "FragmentedWriter",
    "Frames",
    "Image",
    "OutputKind",
    "Provenance",
    "Rotation",
    "VideoFrame",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "check_output",
    "check_shape",
    "concat_videos",
    "decode_image",
    "exact_rate",
    "finalize_fragments",
    "fit_image",
    "is_image_file",
    "open_driving",
    "open_writer",
    "output_kind",
    "read_image",
    "read_provenance",
    "resample",
    "save_image",
]
