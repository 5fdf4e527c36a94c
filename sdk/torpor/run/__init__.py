"""The wrapper around one attempt of a job: ``python -m torpor.run``.

It runs on the platform's interpreter and needs only the standard library and httpx there; the job's own code runs on the
environment's interpreter (``child.py``), so what a user installs breaks the job at worst, never the wrapper.
"""
