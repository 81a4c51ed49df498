"""The pages of the service, for people who do not live in a terminal: server-rendered, offline, no inline script.

::

    render        templates, headers, errors as pages
    shown         jobs as pages say them
    choices       models that a form can offer
    forms         their token, their fields, their file
    looks         what a check, an estimate or an explanation has found
    login         sign in and out; stylesheet and scripts
    home          what runs, what was done, the one button
    new           a file -> what it holds, what it would cost -> a fine-tuning job
    curves        metrics of a run as a drawing
    job           one job: progress, curves, events, moves, report
    models        aliases, lineage, sizes, comparison
    try_it        content -> scores, words, nearest training items
    batches       a file -> labels in bulk
    review        items nearest to a decision -> labels by people -> training data
    downloads     the bytes of a file

Handlers call what the API's routes call; nothing is decided twice.
"""

from __future__ import annotations

from fastapi import APIRouter

from service.pages import batches, downloads, home, job, login, models, new, review, try_it

_PAGES = (login, home, new, job, models, try_it, batches, review, downloads)
ROUTERS: tuple[APIRouter, ...] = tuple(each.router for each in _PAGES)

__all__ = ["ROUTERS"]
