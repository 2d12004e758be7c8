"""Models that other programs keep on this machine, and the emulations that they make."""
