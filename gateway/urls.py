"""The addresses the gateway hands out, all absolute and under the public URL."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Urls:
    """Builds every URL that appears in an answer or a callback.

    Attributes:
        base: the public URL, without a slash at its end.
    """

    base: str

    def job(self, job_id: str, ticket: str | None = None) -> str:
        """Return the job's status URL, readable with `ticket` alone if there is one."""
        return _with_ticket(f"{self.base}/v1/jobs/{job_id}", ticket)

    def result(self, job_id: str, ticket: str | None = None) -> str:
        """Return the URL of the job's result, readable with `ticket` alone if there is one."""
        return _with_ticket(f"{self.job(job_id)}/result", ticket)

    def artifact(self, job_id: str, name: str, ticket: str | None = None) -> str:
        """Return the URL of the bytes of one artifact."""
        return _with_ticket(f"{self.job(job_id)}/artifacts/{quote(name, safe='')}", ticket)

    def events(self, job_id: str, ticket: str | None = None) -> str:
        """Return the URL of the job's event stream; for `ticket` see `job`."""
        return _with_ticket(f"{self.job(job_id)}/events", ticket)

    def websocket(self, job_id: str, ticket: str | None = None) -> str:
        """Return the URL to watch the job over a WebSocket; for `ticket` see `job`."""
        return _with_ticket("ws" + self.job(job_id).removeprefix("http"), ticket)

    def cancel(self, job_id: str) -> str:
        """Return the URL that cancels the job."""
        return f"{self.job(job_id)}/cancel"

    def deliveries(self, job_id: str) -> str:
        """Return the URL of the callbacks that the job owed."""
        return f"{self.job(job_id)}/deliveries"

    def delivery(self, delivery_id: str) -> str:
        """Return the URL of a callback's record."""
        return f"{self.base}/v1/deliveries/{delivery_id}"

    def file(self, file_id: str) -> str:
        """Return the URL of the bytes of a file that belongs to no job."""
        return f"{self.base}/v1/files/{file_id}"

    def endpoint(self, endpoint_id: str) -> str:
        """Return the URL of a callback endpoint's record."""
        return f"{self.base}/v1/endpoints/{endpoint_id}"

    def problem(self, code: str) -> str:
        """Return the URL of the page that explains a problem's code."""
        return f"{self.base}/problems/{code}"

    def instance(self, path: str) -> str:
        """Return the URL of `path`, as a request named it."""
        return f"{self.base}{quote(path, safe='/:@!$&()*+,;=-._~')}"


def _with_ticket(url: str, ticket: str | None) -> str:
    return url if ticket is None else f"{url}?ticket={ticket}"
