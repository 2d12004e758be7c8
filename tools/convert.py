"""The converter, from a checkout: the same program as `edge-eft convert`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from edge_eft.cli import main

    sys.argv.insert(1, "convert")
    main()
