"""Shared parts of the performance lab: what the scripts in `perf/` are made of.

Nothing here knows hotstamp's internals. hotstamp is reached as a user reaches it: through
environment variables and through the functions of the `hotstamp` module.
"""
