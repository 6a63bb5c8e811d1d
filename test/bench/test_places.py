"""The comparison of poolings: what counts as one place, and how answers are scored."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scal3r_ros.bench.place_recordings import Places, shared_views  # noqa: E402
from scal3r_ros.bench.places import POOLINGS, Retrieval, answers, quality  # noqa: E402


def test_views_share_what_both_see():
    """Three cameras before a wall 2 m away: the second is moved by a quarter of the view, the
    third looks the other way."""
    focal, depth = 56.0, np.full((3, 84, 112), 2.0, np.float32)
    T = np.tile(np.eye(4), (3, 1, 1))
    T[1, 0, 3] = 112 / focal * 2.0 / 4
    T[2, :3, :3] = np.diag([-1.0, 1.0, -1.0])
    shared = shared_views(depth, np.ones_like(depth, bool), T, focal)
    assert shared[0, 1] == pytest.approx(0.75, abs=0.01) == shared[1, 0]
    assert shared[0, 2] == shared[2, 0] == 0.0


def test_an_answer_is_the_most_similar_frame_that_is_old_enough():
    directions = np.eye(6, dtype=np.float32)
    vectors = directions[[0, 1, 2, 3, 0, 5]]
    shared = np.zeros((6, 6), np.float32)
    shared[4, 0] = 0.5
    places = Places(np.zeros((6, 1, 1, 3), np.uint8), shared, gap=2)
    found = list(answers(vectors, places))
    assert [answer.known for answer in found] == [False, False, True, False]  # frames 2 to 5
    assert [answer.right for answer in found] == [False, False, True, False]
    assert found[2].similarity == pytest.approx(1.0, abs=1e-3)


def test_quality_of_a_ranking_worked_out_by_hand():
    ranking = [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.5, False)]
    found = [Retrieval(similarity, right, known=True) for similarity, right in ranking]
    q = quality(found[::-1])
    assert q.average_precision == pytest.approx((1 + 1 + 3 / 4) / 5)
    assert q.recall == pytest.approx(2 / 5) and q.chance == pytest.approx(3 / 5)
    assert quality([Retrieval(0.9, False, True)]).recall == 0.0


@pytest.mark.parametrize("name", POOLINGS)
def test_a_place_seen_again_is_recognised_by_every_pooling(name):
    """Scenes whose patches differ in what they show; the second visit adds noise."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 16, 16, generator=generator)
    offset = 2.0 * torch.randn(12, 1, 16, generator=generator)
    scenes = torch.randn(12, 60, 16, generator=generator) @ mixing + offset
    again = scenes + 0.1 * torch.randn(12, 60, 16, generator=generator)
    vectors = torch.nn.functional.normalize(POOLINGS[name](torch.cat([scenes, again])), dim=-1)
    shared = np.zeros((24, 24), np.float32)
    shared[np.arange(12, 24), np.arange(12)] = 1.0
    places = Places(np.zeros((24, 1, 1, 3), np.uint8), shared, gap=12)
    found = list(answers(vectors.numpy(), places))
    assert len(found) == 12 and sum(answer.right for answer in found) >= 10
