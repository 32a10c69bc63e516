"""What the author of a handler needs, in one place.

    @job_type("report.build", timeout=600, max_attempts=3, example={"year": 2026})
    def build(job: JobContext, input: ReportInput) -> ReportResult:
        '''Build the yearly report.'''
        job.progress(25, "Collecting figures")
        return ReportResult(total=...)

The names come from `gateway.jobcontext` and `gateway.jobtypes`, which say what each promises.
"""

from gateway.jobcontext import (
    Artifact,
    FileInfo,
    FileRef,
    JobCancelled,
    JobContext,
    JobError,
    JobModel,
)
from gateway.jobtypes import job_type

__all__ = [
    "Artifact",
    "FileInfo",
    "FileRef",
    "JobCancelled",
    "JobContext",
    "JobError",
    "JobModel",
    "job_type",
]
