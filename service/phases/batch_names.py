"""Files of a batch, below its plan and its work."""

ROWS, MODELS, TABLE = "rows.jsonl", "models.json", "table.json"
RESULTS, PREVIEW, QUEUE, ITEMS = "results", "preview.json", "queue-{}.json", "items.jsonl"  # of a table, for people
DONE, OUTPUT, ERRORS, COUNTS = "done.jsonl", "output.jsonl", "errors.jsonl", "counts.json"
