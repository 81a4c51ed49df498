"""Many trainings over one trunk pass: which learning rate, depth, rank, epochs; `sweep.py` is its page."""
