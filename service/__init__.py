"""What makes the library a product: the command line, the API, the worker. It imports `pipelines`, never the reverse.

How a job passes through it::

    cli -> client                          a user's commands; those for a running service use OpenAI's client
    serve -> api -> routes                 keys and limits in front; a create writes our row and the engine's in one
                                           transaction (jobs, engine)
    worker -> execution -> kinds           a worker claims the job: plan, execute, publish
    supervise -> child -> phases           each phase in a process of its own, which calls `pipelines`
    reporting                              its events -> rows, while its attempt is the newest
    liveness                               jobs of dead workers go back to the queue
    inference                              live calls: one process that owns the loaded models

Who may import what: the API process and the worker never import torch; only `engine` imports DBOS.
"""
