"""The fidelity report: JSON for programs, a table for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..files.hashes import file_sha256
from ..system import mebibytes, versions
from .options import Options

if TYPE_CHECKING:
    from .sweep import Candidate, Sweep

_COLUMNS = (
    ("size_bytes", "MiB", lambda v: mebibytes(v, 1)),
    ("kl_mean", "KL mean", lambda v: f"{v:.3g}"),
    ("kl_p99", "KL p99", lambda v: f"{v:.3g}"),
    ("top1_agreement", "top-1", lambda v: f"{100 * v:.1f} %"),
    ("delta_mae", "Δ error", lambda v: f"{v:.3g}"),
    ("delta_correlation", "Δ corr.", lambda v: f"{v:.5f}"),
    ("error_correlation", "errors corr.", lambda v: f"{v:.3f}"),
)


@dataclass(frozen=True)
class Report:
    """What was measured. `types`: type → figures of its better variant; see `as_json`."""

    about: dict[str, Any]
    types: dict[str, dict[str, Any]]
    chosen: str

    @property
    def winner(self) -> dict[str, Any]:
        return self.types[self.chosen]

    def as_json(self) -> dict[str, Any]:
        """Return {"about", "chosen", "types": {type: figures}}.

        With --calibrate, figures also hold those of both variants, under "calibration".
        """
        return {"about": self.about, "chosen": self.chosen, "types": self.types}

    def table(self) -> str:
        """Return the figures of all measured types, smallest first, as aligned text."""
        rows = [["type", *(title for _, title, _ in _COLUMNS), ""]]
        for name, figures in sorted(self.types.items(), key=lambda item: item[1]["size_bytes"]):
            both = figures.get("calibration")
            variants = both.values() if both else [figures]
            for variant in variants:
                label = name + (" calibrated" if variant["calibrated"] else "")
                taken = name == self.chosen and variant["calibrated"] == figures["calibrated"]
                cells = [show(variant[key]) for key, _, show in _COLUMNS]
                rows.append([label, *cells, "← chosen" if taken else ""])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            (
                row[0].ljust(widths[0])
                + "  "
                + "  ".join(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True))
                + "  "
                + row[-1]
            ).rstrip()
            for row in rows
        )


def build_report(options: Options, winner: Candidate, sweep: Sweep, warnings: list[str]) -> Report:
    """Gather what a sweep measured."""
    types: dict[str, dict[str, Any]] = {}
    for name, variants in sweep.figures.items():
        best = min(variants, key=lambda figures: figures["kl_mean"])
        types[name] = dict(best)
        if len(variants) > 1:
            types[name]["calibration"] = {
                "calibrated" if v["calibrated"] else "uncalibrated": v for v in variants
            }
            types[name]["calibration_helped"] = bool(best["calibrated"])
    about = {
        "text": options.text.name if options.text else "the text that edge-eft ships",
        "text_sha256": file_sha256(sweep.text_path),
        "positions": sweep.n_positions,
        "alpha": options.alpha if sweep.base is not None else 1.0,
        "base": options.base.name if options.base else "the unquantised reference",
        "deltas": list(options.tuned),
        "calibrate": options.calibrate.name if options.calibrate else None,
        "method": "F32 KV, no flash attention, one thread, against the pair in F32",
        "versions": versions("edge-eft", "llama-cpp-python"),
        "warnings": warnings,
    }
    return Report(about, types, winner.type)
