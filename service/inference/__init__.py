"""Live inference: one process per host owns the loaded models; the API process asks it over a Unix socket.

Reading order::

    errors, records      what can go wrong, what passes between the parts
    frames               messages on the socket
    batching             requests of any models -> rounds; what waits, what is refused
    pool, rows           the models that are held, with what they share; pieces of a round -> probabilities
    child                the process that owns them
    connection, process  many requests on one connection; starting and stopping the child
    client               `Inference`, which the API uses

`client` and what it imports never load torch. In the child, `pool` and `rows` alone do.
"""
