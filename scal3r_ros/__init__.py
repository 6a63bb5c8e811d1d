"""Live, globally consistent 3D mapping from a camera stream with the Scal3R network.

The messages that the build generates live in a package of the same name; `extend_path` lets a
source checkout and the generated modules share one import name.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
