"""Pictures of a map: a ceiling does not hide the room, nothing hangs on the order of time."""

import cv2
import numpy as np

from scal3r_ros.io.cloud_pictures import below_ceiling, draw_perspective, draw_top_view

RED, GREEN, BLUE = (200, 30, 30), (30, 160, 30), (30, 30, 200)


def room():
    """Floor green, ceiling blue, 4 x 3 x 2.5; cameras 1.3 above the floor."""
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, 4, 200), np.linspace(0, 3, 150)))
    floor, ceiling = (np.stack([x, y, np.full_like(x, z)], axis=1) for z in (0.0, 2.5))
    colors = np.repeat([GREEN, BLUE], len(x), axis=0).astype(np.uint8)
    way = np.array([[1.0, 1.0, 1.3], [3.0, 2.0, 1.35]])
    return np.concatenate([floor, ceiling]).astype(np.float32), colors, way


def test_the_ceiling_is_left_out_of_both_pictures(tmp_path):
    points, colors, way = room()
    kept = below_ceiling(points, way)
    assert kept[: len(points) // 2].all() and not kept[len(points) // 2 :].any()
    for draw in (draw_top_view, draw_perspective):
        draw(tmp_path / "picture.png", points, colors, way)
        image = cv2.imread(str(tmp_path / "picture.png"))[..., ::-1].reshape(-1, 3)
        assert (image == GREEN).all(axis=1).mean() > 0.1
        assert not (image == BLUE).all(axis=1).any()


def test_an_empty_map_gives_an_empty_picture(tmp_path):
    nothing = np.zeros((0, 3))
    for draw in (draw_top_view, draw_perspective):
        draw(tmp_path / "picture.png", nothing, nothing.astype(np.uint8), nothing)
        assert (cv2.imread(str(tmp_path / "picture.png")) == 255).all()
