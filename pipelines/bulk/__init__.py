"""The parts of batch classification; `pipelines/classify.py` puts them together.

Nothing is imported here: `parquet_rows` also runs as a child process, which must start fast and hold little.
"""
