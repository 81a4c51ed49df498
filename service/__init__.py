"""What makes the library a product: the command line, and the processes it starts. It imports `pipelines`."""
