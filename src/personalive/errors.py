"""The errors a user meets. Each says what went wrong and, where there is one, what to do about it.

The command line prints the message as one line and exits with `exit_code`; servers map the class to a
status. Anything that is not a `PersonaLiveError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class PersonaLiveError(Exception):
    """Base of every error that is meant to be read by a user: one sentence, no traceback."""

    exit_code = 1


class InputError(PersonaLiveError):
    """What the user gave cannot be used: an argument, a file, a combination of options."""

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


class CannotResumeError(InputError):
    """A job that was to be made in segments, by a pipeline whose sessions cannot be continued."""


class OutputLockedError(InputError):
    """Another run is at work on the same output."""


class RemoteStorageError(PersonaLiveError):
    """A store that cannot be reached or does not answer now. Trying again later may help."""

    exit_code = 2


class ClusterError(PersonaLiveError):
    """A Ray cluster that cannot be reached, or cannot do the work: the message says what to change."""

    exit_code = 2


class UnknownPipelineError(InputError):
    """A pipeline name that nobody registered."""


class PipelineUnavailableError(PersonaLiveError):
    """A registered pipeline that cannot run here: the message says what is missing and how to mend it."""

    exit_code = 2


class DeviceOutOfMemoryError(PersonaLiveError):
    """The device has no memory for one thing more, such as a session. Trying again later may help."""


class PipelineLostError(PersonaLiveError):
    """The pipeline's process is gone, or is about to go because its pipeline does nothing any more but fail."""


class SessionClosedError(PersonaLiveError):
    """A session or pipeline used after `close()`."""


class DownloadError(PersonaLiveError):
    """Weights that could not be fetched or put in place. The message says what to change, or to try again."""

    exit_code = 2


class OfflineError(DownloadError):
    """The hub cannot be reached, or is not to be: the message lists what to copy by hand, and where to."""


class AccessDeniedError(DownloadError):
    """The hub refuses: the files are gated or private, or the token is no good."""


class CorruptDownloadError(DownloadError):
    """A file came out other than published, twice. Nothing of it is kept."""


class DiskFullError(DownloadError):
    """Too little space for the weights. What was fetched so far is kept."""


class WeightsError(InputError):
    """A file of weights, or a set of them, that cannot be loaded. Names the file and the entry."""


class MissingWeightsError(WeightsError):
    """A set of weights that lacks a file, or is not there at all."""
