"""The demonstration in a thread of its own, while the supervisor watches the children."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.cli.console import Console
from scripts.demo import DemoFailed, Shown, run_demo
from scripts.plan import Plan
from scripts.receiver import Callback, Receiver


class Demonstration:
    """The main job shown end to end; its receiver hears of later jobs too."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._walk = Console(plan.environ)
        """Closed at the end: what the thread has still to say then would disturb."""
        self._shown: Shown | None = None
        self._receiver_url = ""
        self.failure = ""

    @property
    def is_over(self) -> bool:
        """Whether it came to its end, or stopped before."""
        return self._shown is not None or bool(self.failure)

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Runs it inside the block; its receiver answers until the end of the block."""
        self._console.title("One job, end to end")
        with Receiver(heard=self._heard) as receiver:
            self._receiver_url = receiver.url
            # A daemon: an interrupted run does not wait for a demonstration that hangs.
            threading.Thread(target=self._run, args=(receiver,), daemon=True).start()
            try:
                yield
            finally:
                self._walk.close()

    def show_end(self, *, stays: bool) -> None:
        """What to try next on a gateway that stays up, or where to look for what went wrong."""
        if self._shown is None:
            self._console.failed("stopped here", self.failure)
            self._console.say(f"\nThe logs are in {self._plan.data / 'log'}.")
        elif stays:
            _show_next(self._plan, self._shown, self._receiver_url, self._console)
        else:
            self._console.say("\nEverything worked. Without --once the gateway stays up.")

    def _run(self, receiver: Receiver) -> None:
        plan = self._plan
        folder = plan.data / "demo"
        try:
            self._shown = run_demo(plan.local_url, plan.api_key, receiver, self._walk, folder)
        except DemoFailed as error:
            self.failure = str(error)
        finally:
            # A fault of ours, its trace on standard error, must end the wait for it as well.
            if not self.is_over:
                self.failure = "the demonstration broke off"

    def _heard(self, callback: Callback) -> None:
        """Callbacks of jobs that the user submits to the receiver afterwards."""
        if not self.is_over:
            return
        if callback.verified:
            again = " (again)" if callback.repeated else ""
            self._walk.done("callback", f"{callback.event}  {callback.job_id}{again}")
        else:
            self._walk.failed("callback", callback.fault)


def _show_next(plan: Plan, shown: Shown, receiver_url: str, console: Console) -> None:
    authorised = 'curl -H "Authorization: Bearer $KEY"'
    result, report = (
        url.removeprefix(shown.status_url) for url in (shown.result_url, shown.report_url)
    )
    job = {
        "type": "document.analyze",
        "input": {"text": "Any text of yours"},
        "callbackUrl": receiver_url,
    }
    console.title("Try next")
    console.say(f"  KEY={plan.api_key}")
    console.say(f"  JOB={shown.status_url}")
    console.say(f"  {authorised} $JOB")
    console.say(f"  {authorised} $JOB{result}")
    console.say(f"  {authorised} -o report.pdf $JOB{report}")
    console.say(f"  {authorised} -H 'Content-Type: application/json' \\")
    console.say(f"    {plan.local_url}/v1/jobs \\")
    body = json.dumps(job).replace(', "callbackUrl"', ',\n      "callbackUrl"')
    console.say(f"    -d '{body}'")
