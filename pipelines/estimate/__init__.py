"""What a run would take, before it is run: `estimate.py` and `fit.py` are its two pages."""
