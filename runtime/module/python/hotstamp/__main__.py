"""`python -m hotstamp`: runs a program as `python` does, with hotstamp enabled."""

from hotstamp._main import main

main()
