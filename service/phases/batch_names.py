"""Files of a batch, below its plan and its work."""

ROWS, MODELS = "rows.jsonl", "models.json"
DONE, OUTPUT, ERRORS, COUNTS = "done.jsonl", "output.jsonl", "errors.jsonl", "counts.json"
