"""From files to a file: a portrait and a clip in, the animated portrait out."""

from personalive.jobs.animate import run
from personalive.jobs.animate_job import AnimateJob, ProgressCallback, Report

__all__ = ["AnimateJob", "ProgressCallback", "Report", "run"]
