"""`edge-eft`, and `python -m edge_eft`."""

import signal

# Ctrl-C while modules are imported is to end the process without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .cli.supervise import main

if __name__ == "__main__":
    main()
