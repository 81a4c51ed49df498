"""A service with something on every page, and the addresses of all pages."""

from __future__ import annotations

from tests.service.live import LiveService, ended, submit, wait
from tests.toys import toy_rows

BAD_ROWS = b'{"text": "one"}\nnot json\n{"text": ""}\n{"text": "two"}\n'


def addresses(live: LiveService) -> dict[str, str]:
    """Name -> path of every page, once jobs of each kind have ended."""
    client = live.client()
    job = ended(client, submit(client, rows=80, suffix="brand-safety").id, 240)
    model = client.models.retrieve(job.fine_tuned_model)
    with live.http() as http:
        http.put(f"/v1/models/{model.id}/aliases/champion").raise_for_status()
        rows = client.files.create(file=("rows.jsonl", BAD_ROWS), purpose="batch")
        own = {"model": model.id}
        batch = client.batches.create(
            input_file_id=rows.id, endpoint="/v1/classify", completion_window="24h", extra_body=own
        )
        asked = {"model": "toy", "training_file": job.training_file}
        check = http.post("/v1/data/check", json=asked).json()
        asked = own | {"input": [row["text"] for row in toy_rows(2)]}
        why = http.post("/v1/explanations", json=asked).json()
        failing = client.files.create(file=("broken.csv", b"text\nno label\n"), purpose="fine-tune")
        failed = client.fine_tuning.jobs.create(model="toy", training_file=failing.id)
        for look in (check, why):
            wait(lambda id=look["id"]: http.get(f"/v1/looks/{id}").json()["finished_at"], 240)
        wait(lambda: client.batches.retrieve(batch.id).completed_at, 240)
        columns = http.post("/v1/data/columns", json={"file_id": rows.id}).json()
        wait(lambda: http.get(f"/v1/looks/{columns['id']}").json()["finished_at"], 240)
    ended(client, failed.id, 120)
    return {
        "login": "/login",
        "home": "/",
        "new": "/new",
        "new-settings": f"/new/{check['id']}",
        "job": f"/jobs/{job.id}",
        "job-failed": f"/jobs/{failed.id}",
        "batch": f"/jobs/{batch.id}",
        "explanation": f"/jobs/{why['id']}",
        "models": "/models",
        "model": f"/models/{job.id}",
        "compare": f"/compare?model={model.id}",
        "try": f"/try?model={model.id}",
        "batches": "/batches",
        "batch-new": "/batches/new",
        "batch-settings": f"/batches/new/{columns['id']}",
        "reviews": "/review",
        "review": f"/review/{batch.id}",
        "not-found": "/jobs/nothing",
    }
