"""The command line's side of a running service: `rootstock files|jobs|batches|models`."""
