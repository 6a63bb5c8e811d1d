"""What others publish on the same data, beside which a table puts ours. Sources: papers and project
pages; `re-run` names who ran it. Protocols differ where a row says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    system: str
    value: str
    """ATE in metres unless it says otherwise."""
    source: str


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "kitti": (
        Published("AMB3R-SLAM", "13.11", "arXiv 2609.19518; monocular, uncalibrated, 518x154"),
        Published("Scal3R", "14.55", "its paper; offline, with loops, chunks 60/30"),
        Published("SURE-Map + loop", "15.17", "its paper"),
        Published("HorizonStream", "19.75; with loops 16.44", "its paper"),
        Published("DA3-Streaming 60/30", "16.83; without 01 10.64", "re-run by LingBot-Map"),
        Published("LingBot-Map", "24.05 (504x280, sides cropped)", "its benchmark"),
    ),
    "oxford-spires": (
        Published("LingBot-Map", "5.37 (10 sequences, stride 12)", "its benchmark"),
        Published("HorizonStream", "9.38; with loops 8.71", "its paper"),
    ),
    "eth3d": (
        Published("Scal3R", "CD 0.11, F1 0.91 at 0.25 m", "its paper"),
        Published("LingBot-Map", "acc .168, comp .089, F1 86.8", "its benchmark"),
    ),
    "tum": (
        Published("LingBot-Map", "0.045", "its benchmark; freiburg1, nine sequences"),
        Published("MASt3R-SLAM, uncalibrated", "0.060", "its paper; every 2nd frame"),
        Published("DA3-Streaming", "0.087", "its benchmark"),
        Published("VGGT-Long", "0.110", "re-run by DA3"),
    ),
    "7scenes": (
        Published("LingBot-Map", "0.079; F1 82.4 at 0.05 m", "its benchmark; test split, stride 5"),
    ),
    "vbr": (
        Published("SURE-Map", "28.58; with loops 22.12", "its paper"),
        Published("HorizonStream", "25.30; with loops 18.84", "its paper"),
        Published("LingBot-Map", "31.20", "its benchmark"),
    ),
}
