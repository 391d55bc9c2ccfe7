"""The errors that users see. Each says what went wrong and, where possible, what to do about it.

The command line prints the message as one line and exits with `exit_code`; servers map the class to a
status. Any other exception is a defect of this package and keeps its traceback.
"""

from __future__ import annotations


class PersonaLiveError(Exception):
    """Base of every error that users read: one sentence, no traceback."""

    exit_code = 1


class InputError(PersonaLiveError):
    """An input that cannot be used: an argument, a file, a combination of options."""

    exit_code = 2


class MediaError(InputError):
    """An image, video or audio file that cannot be read or written as asked."""


class MediaTooLargeError(MediaError):
    """A file over the size or pixel limits. Raised before anything is decoded."""


class UnsupportedMediaError(MediaError):
    """A file of a type that is not accepted here."""


class OutputExistsError(InputError):
    """The output exists already and overwriting was not asked for."""


class NoFaceError(InputError):
    """No usable face where one is needed."""


class FaceChoiceError(NoFaceError):
    """A picture whose face must be chosen: several faces, a choice that fits none of them, or no face at all.

    `boxes`: left, top, right and bottom of each face in pixels of the upright picture, in the order of their
    numbers; `size`: width and height of that picture, which is the given one turned clockwise by `rotation`
    degrees. `summary` is the message without its advice.
    """

    def __init__(
        self,
        summary: str,
        advice: str = "",
        *,
        boxes: tuple[tuple[float, float, float, float], ...] = (),
        size: tuple[int, int] = (0, 0),
        rotation: int = 0,
    ) -> None:
        super().__init__(f"{summary} {advice}".strip())
        self.summary = summary
        self.boxes = boxes
        self.size = size
        self.rotation = rotation


class CannotResumeError(InputError):
    """A job in segments with a pipeline whose sessions cannot be continued."""


class OutputLockedError(InputError):
    """Another run is working on the same output."""


class RemoteStorageError(PersonaLiveError):
    """A store that cannot be reached or does not answer. Trying again later may help."""

    exit_code = 2


class ClusterError(PersonaLiveError):
    """A Ray cluster that cannot be reached, or cannot do the work: the message says what to change."""

    exit_code = 2


class UnknownPipelineError(InputError):
    """A pipeline name that no package registered."""


class PipelineUnavailableError(PersonaLiveError):
    """A registered pipeline that cannot run here: the message says what is missing and how to fix it."""

    exit_code = 2


class DeviceOutOfMemoryError(PersonaLiveError):
    """The device has no memory left, for another session say. Trying again later may help."""


class PipelineLostError(PersonaLiveError):
    """The pipeline's process has ended, or is about to end because every call of its pipeline fails."""


class SessionClosedError(PersonaLiveError):
    """A session or pipeline used after `close()`."""


class DownloadError(PersonaLiveError):
    """Weights that could not be downloaded or put in place. The message says what to change, or to try again."""

    exit_code = 2


class OfflineError(DownloadError):
    """The hub cannot be reached, or must not be used: the message lists which files to copy by hand, and where."""


class AccessDeniedError(DownloadError):
    """The hub denies access: the files are gated or private, or the token is not valid."""


class CorruptDownloadError(DownloadError):
    """A downloaded file differed from the published one twice. It is not kept."""


class DiskFullError(DownloadError):
    """Too little disk space for the weights. What was downloaded so far is kept."""


class WeightsError(InputError):
    """A file of weights, or a set of them, that cannot be loaded. Names the file and the entry."""


class MissingWeightsError(WeightsError):
    """A set of weights that lacks a file, or does not exist."""
