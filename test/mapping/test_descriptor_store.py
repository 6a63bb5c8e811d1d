"""All descriptors of a session: search against a plain reading, growth over blocks, thinning."""

import numpy as np
import pytest

from scal3r_ros.mapping import descriptor_store
from scal3r_ros.mapping.descriptor_store import DescriptorStore


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(descriptor_store, "BLOCK", 16)


def alike(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (count, 24) that share most of what they are."""
    random = np.random.default_rng(seed)
    vectors = 3.0 + random.standard_normal((count, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(vectors: np.ndarray, step: int = 7, capacity: int = 1000) -> DescriptorStore:
    store = DescriptorStore(capacity)
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step]
        store.add(np.arange(start, start + len(part)) * 2, part)
    return store


def test_the_nearest_is_that_of_a_plain_search():
    vectors, asked = alike(100), alike(5, seed=1)
    newest = np.array([10, 199, 120, 60, -1])
    best, match = filled(vectors).nearest(asked, newest)
    stored = vectors.astype(np.float16).astype(np.float64)
    mean = stored.mean(axis=0)
    past, sought = stored - mean, asked - mean
    past /= np.linalg.norm(past, axis=1, keepdims=True)
    sought /= np.linalg.norm(sought, axis=1, keepdims=True)
    for i, limit in enumerate(newest):
        cosine = (past @ sought[i])[np.arange(100) * 2 <= limit]
        assert best[i] == pytest.approx(cosine.max() if len(cosine) else -np.inf, abs=1e-4)
        assert match[i] == (2 * int(cosine.argmax()) if len(cosine) else -1)


def test_known_frames_are_not_stored_twice():
    store = filled(alike(40))
    store.add(np.array([70, 78, 80]), alike(3, seed=2))
    assert store.ids.tolist() == [*range(0, 80, 2), 80]


def test_a_full_store_forgets_every_second_of_the_older_half():
    store = filled(alike(40), capacity=32, step=33)
    assert store.ids.tolist() == [*range(0, 32, 4), *range(32, 80, 2)]


def test_a_restored_store_answers_the_same_to_the_last_bit():
    store = filled(alike(50))
    state = store.state()
    assert state["descriptors"].dtype == np.float16
    twin = DescriptorStore()
    twin.restore(state["ids"], state["descriptors"])
    asked, newest = alike(4, seed=3), np.full(4, 98)
    for found, again in zip(store.nearest(asked, newest), twin.nearest(asked, newest)):
        np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(store.mean(), twin.mean())
