"""The benchmark: how fast emulation is here, against the models it consists of.

`command.py` is the program, `measure.py` the rounds, `model.py` the cost of speculation on paper,
`overhead.py` one step against its three decodes, `inflate.py` a base of the same function and a
larger one's cost, `peers.py` what one would write without edge_eft, `report.py` tables and JSON.
"""
