"""Known worlds for tests: a city to drive through and the reconstructor that knows it."""

from scal3r_ros.bench.city import CAMERA_HEIGHT, City, drive
from scal3r_ros.bench.oracle import RANDOM, REALISTIC, OracleReconstructor, Spoil

__all__ = ["CAMERA_HEIGHT", "RANDOM", "REALISTIC", "City", "OracleReconstructor", "Spoil", "drive"]
