"""What clients do to jobs besides submitting them, through all processes."""

from __future__ import annotations

from tests.running import Gateway


def test_a_job_at_work_is_cancelled(gateway: Gateway) -> None:
    job = gateway.submit(type="demo.echo", input={"payload": 1, "seconds": 60, "steps": 600})
    job_id = job["jobId"]
    gateway.wait(lambda: gateway.job(job_id), lambda seen: seen["progress"] > 0, 20)
    answer = gateway.client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancelRequested"] is True
    assert gateway.ended(job_id)["status"] == "cancelled"
    assert gateway.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200


def test_a_file_uploaded_before_is_analysed(gateway: Gateway) -> None:
    made = gateway.client.post(
        "/v1/files", content=b"A few words of plain text.", headers={"Content-Type": "text/plain"}
    )
    assert made.status_code == 201, made.text
    named = {"document": {"fileId": made.json()["fileId"]}}
    job = gateway.submit(type="document.analyze", input=named)
    ended = gateway.ended(job["jobId"])
    assert (ended["status"], ended["results"]["words"]) == ("completed", 6)
