"""A network and clips so small that a training step takes milliseconds."""

from dataclasses import replace

from scal3r_ros.train.schedule import NANO
from scal3r_ros.train.worlds.clips import ClipSettings

TOY = replace(
    NANO,
    embed_dim=16,
    vit_num_heads=2,
    num_heads=2,
    depth=2,
    intermediate_layers=(0, 0, 1, 1),
    ttt_layers=(1,),
    camera_num_heads=2,
    num_register_tokens=1,
)
CLIPS = ClipSettings(size=(14, 21), frames=3, sub_rays=1)
