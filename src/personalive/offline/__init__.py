"""From files to a file: a portrait and a clip in, the animated portrait out."""

from personalive.offline.animate import run
from personalive.offline.job import AnimateJob, Progress, Report

__all__ = ["AnimateJob", "Progress", "Report", "run"]
