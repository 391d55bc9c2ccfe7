"""Jobs from files to files: they animate a portrait with a clip, or extract the clip's motion."""

from personalive.jobs.animate import run
from personalive.jobs.animate_job import AnimateJob, ProgressCallback, Report

__all__ = ["AnimateJob", "ProgressCallback", "Report", "run"]
