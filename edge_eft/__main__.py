"""`python -m edge_eft`, the same as `edge-eft`."""

from .cli.supervise import main

main()
