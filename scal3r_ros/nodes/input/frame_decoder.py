"""Queued camera messages to frames: decoded, undistorted, with the intrinsics of our pixel rule."""

from __future__ import annotations

from dataclasses import dataclass

from scal3r_ros.io.calibration import CalibrationMismatch, calibrated_frame
from scal3r_ros.io.image_decoding import decode_message
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.nodes.base.node_config import NodeInputConfig
from scal3r_ros.nodes.input.frame_queue import Ticket
from scal3r_ros.records import Frame


@dataclass(frozen=True)
class DecodedFrame:
    """A frame, and why the calibration that came with it was not used; empty if it was."""

    frame: Frame
    calibration_problem: str = ""


def decode(
    ticket: Ticket, frame_id: int, options: NodeInputConfig, stretch: Stretch | None = None
) -> DecodedFrame:
    """The frame of a queued message; `BadInput` if the message is malformed.

    `stretch`: of the stream, for images of more than 8 bits.

    With a calibration of images of another shape it goes on as it came, which is told: a robot
    does not stop for it, where an offline run does.
    """
    rgb = decode_message(ticket.message, "image", options.max_pixels, stretch)
    try:
        frame = calibrated_frame(
            frame_id, ticket.stamp_ns, rgb, ticket.calibration, options.rectify
        )
    except CalibrationMismatch as error:
        return DecodedFrame(Frame(frame_id, ticket.stamp_ns, rgb), str(error))
    return DecodedFrame(frame)
