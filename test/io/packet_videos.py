"""Frames as video, made by the optional library PyAV."""


def encode(stream, frames):
    """Packets of an encoder's stream, in order of decoding."""
    import av

    for frame in frames:
        picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
        picture = picture.reformat(format=stream.pix_fmt)
        picture.pts = frame.id
        yield from stream.encode(picture)
    yield from stream.encode(None)


def packets(codec, frames, between=0, keys=6) -> list[tuple[int, bytes]]:
    """(frame id, packet) in order of decoding; `between`: frames that need a later one."""
    import av

    context = av.CodecContext.create(codec, "w")
    context.height, context.width = frames[0].rgb.shape[:2]
    context.pix_fmt, context.framerate = "yuv420p", 10
    context.options = {
        "libx264": {"bf": str(between), "g": str(keys), "crf": "10", "b-adapt": "0"},
        "libx265": {"x265-params": f"keyint={keys}:bframes={between}:crf=10:log-level=none"},
    }.get(codec, {"g": str(keys), "deadline": "realtime", "lag-in-frames": "0", "crf": "10"})
    return [(packet.pts, bytes(packet)) for packet in encode(context, frames)]


def h264(frames, between=0, keys=6) -> list[tuple[int, bytes]]:
    return packets("libx264", frames, between, keys)
