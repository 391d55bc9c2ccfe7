from __future__ import annotations

import pytest

from personalive.errors import PipelineUnavailableError
from personalive.pipelines.base import Availability
from personalive.pipelines.diffusion.memory.plan import REMEDY, describe_shortage
from personalive.pipelines.preview.parameters import PreviewLoadParameters
from personalive.pipelines.preview.pipeline import PreviewPipeline
from personalive.server.process.remote_errors import OutOfMemoryError, RemoteError, make_portable
from personalive.server.state.load_plan import LoadPlan
from personalive.server.state.load_progress import LoadCancelledError, LoadProgress, explain_load_error

ASKED = LoadPlan("preview", PreviewPipeline, PreviewLoadParameters(), Availability(True, "it is there"))
NONE_FITS = f"{describe_shortage(3 * 10**9, 2 * 10**9)} {REMEDY}"


def test_progress_is_held_between_nothing_and_all() -> None:
    progress = LoadProgress()
    for told, kept in ((-1.0, 0.0), (0.25, 0.25), (2.0, 1.0)):
        progress.report("reading", told)
        assert (progress.stage, progress.progress) == ("reading", kept)


def test_a_load_that_was_given_up_ends_at_its_next_report() -> None:
    progress = LoadProgress()
    progress.is_cancelled = True
    with pytest.raises(LoadCancelledError):
        progress.report("reading", 0.5)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PipelineUnavailableError(NONE_FITS), NONE_FITS),
        (RemoteError("ValueError: no"), "Loading the preview pipeline failed: ValueError: no"),
        (ValueError("no"), "Loading the preview pipeline failed: ValueError: no"),
        (LoadCancelledError(), "Loading the preview pipeline was given up."),
        (MemoryError(), "There is not enough memory for the preview pipeline: close other programs"),
        (OutOfMemoryError("CUDA out of memory"), "There is not enough memory for the preview pipeline"),
    ],
)
def test_a_failure_is_told_in_words(error: Exception, words: str) -> None:
    assert explain_load_error(ASKED, error).startswith(words)


@pytest.mark.parametrize("error", [PipelineUnavailableError(NONE_FITS), ValueError("no"), MemoryError()])
def test_it_is_told_the_same_where_the_pipeline_has_a_process_of_its_own(error: Exception) -> None:
    assert explain_load_error(ASKED, make_portable(error)) == explain_load_error(ASKED, error)
