"""The benchmark: how fast emulation is here, against the models it consists of.

`command.py` is the program, `measure.py` the rounds, `model.py` the cost of speculation on paper,
`prompts.py` what is asked, `report.py` tables and JSON. What is for the laboratory alone, such as
an inflated base, is in tools/lab.
"""
