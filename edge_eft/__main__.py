"""`python -m edge_eft`, the same as `edge-eft`."""

from .cli.main import main

main()
