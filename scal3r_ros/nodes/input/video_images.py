"""Packets of video on a camera topic as the images that they hold.

A packet is decoded where it arrives: one that the gate or a full queue leaves out would spoil all
up to the next key frame.
"""

from __future__ import annotations

import array

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from scal3r_ros.io.source import BadInput
from scal3r_ros.io.video_packets import Decoded, PacketDecoder
from scal3r_ros.nodes.base.conversions import stamp_to_ns


class VideoImages:
    """One camera's stream of packets."""

    def __init__(self, max_pixels: int) -> None:
        self.lost = 0
        """Packets that gave no image."""
        self._max_pixels = max_pixels
        self._decoder: PacketDecoder[Header] | None = None

    def of(self, message: CompressedImage, codec: str) -> list[Image]:
        """Images that have come out with this packet, its own or those of packets before.

        Raises `BadInput` where PyAV is not installed.
        """
        if self._decoder is None or self._decoder.codec != codec:
            self._decoder = PacketDecoder(codec, "the camera topic", self._max_pixels)
        stamp_ns = stamp_to_ns(message.header.stamp)
        decoded = self._decoder.feed(bytes(message.data), stamp_ns, message.header)
        images = [self._image(outcome) for outcome in decoded]
        return [image for image in images if image is not None]

    def _image(self, decoded: Decoded[Header]) -> Image | None:
        try:
            rgb = decoded.rgb()
        except BadInput:
            self.lost += 1
            return None
        height, width = rgb.shape[:2]
        data = array.array("B", rgb.tobytes())
        return Image(
            header=decoded.item, height=height, width=width, encoding="rgb8", step=3 * width,
            data=data,
        )  # fmt: skip
