"""What a later loop needs of every chunk, on disk: images and reduced depth and confidence.

One file per chunk. Dense depth and confidence are kept on every `STEP`-th pixel in half precision;
loops are aligned on that grid. Sparse ones, known at feature points only, keep every pixel, and
their images are stored without loss so that the same features are found again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from scal3r_ros.files import BadArchive, open_arrays, write_arrays
from scal3r_ros.records import ChunkPrediction, Frame

STEP = 4
QUALITY = 92
"""JPEG quality of the stored images of dense chunks."""
SPARSE = 0.05
"""A smaller share of valid pixels makes depth maps sparse."""


class NoRecord(LookupError):
    """What a loop needs of a chunk is not there; the message says why."""


class LoopRecords:
    """Records in `folder`, oldest chunks dropped beyond `max_megabytes`."""

    def __init__(self, folder: str | Path, max_megabytes: float = float("inf")) -> None:
        self.folder = Path(folder)
        self.max_megabytes = max_megabytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self._frame_ids: dict[int, tuple[int, ...]] = {}
        self._sizes: dict[int, int] = {}
        self.nbytes = 0
        """Bytes on disk."""
        self.damaged: list[str] = []
        """What was found wrong with files that were there before, which are left out."""
        for path in sorted(self.folder.glob("chunk_*.npz")):
            try:
                self._know(path)
            except (BadArchive, KeyError, OSError, ValueError) as error:
                self.damaged.append(f"{path.name}: {error}")
                path.unlink()

    def __contains__(self, chunk_index: int) -> bool:
        return chunk_index in self._frame_ids

    @property
    def chunks(self) -> tuple[int, ...]:
        """Indices of the recorded chunks."""
        return tuple(self._frame_ids)

    def frame_ids(self, chunk_index: int) -> tuple[int, ...]:
        """Frames that a recorded chunk reconstructed."""
        if chunk_index not in self._frame_ids:
            raise NoRecord(
                f"no record of chunk {chunk_index}: it was dropped to keep loop.max_megabytes; "
                f"raise it"
            )
        return self._frame_ids[chunk_index]

    def put(self, prediction: ChunkPrediction, frames: Mapping[int, Frame]) -> None:
        """Record a chunk; `frames` by id, with the images that the reconstructor was given."""
        reduced = reduce_prediction(prediction)
        encode = _encode_lossless if is_sparse(prediction) else _encode
        images = [encode(frames[frame_id].rgb) for frame_id in prediction.frame_ids]
        unit = np.nanmedian(reduced.depth) if np.isfinite(reduced.depth).any() else 1.0
        known = [frames[frame_id].intrinsics for frame_id in prediction.frame_ids]
        arrays = {
            "chunk_index": np.array(prediction.chunk_index),
            "frame_ids": np.array(prediction.frame_ids, np.int64),
            "stamps_ns": np.array([frames[f].stamp_ns for f in prediction.frame_ids], np.int64),
            "T_chunk_camera": reduced.T_chunk_camera,
            "intrinsics": reduced.intrinsics,
            "size": np.array(prediction.depth.shape[1:], np.int64),
            "unit": np.array(unit, np.float64),
            **_pack_maps(reduced.depth / unit, np.minimum(reduced.confidence, 6e4)),
            "image_ends": np.cumsum([len(image) for image in images]),
            "images": np.frombuffer(b"".join(images), np.uint8),
            "frame_intrinsics": np.array([np.zeros((3, 3)) if k is None else k for k in known]),
        }
        path = self._path(prediction.chunk_index)
        write_arrays(path, arrays)
        self._know(path)
        self._drop_oldest()

    def prediction(self, chunk_index: int, frame_ids: Sequence[int]) -> ChunkPrediction:
        """The recorded geometry of some of a chunk's frames, on the reduced grid."""
        positions = self._positions(chunk_index, frame_ids)
        with self._open(chunk_index) as record:
            depth, confidence = (maps[positions] for maps in _unpack_maps(record))
            depth = depth * np.float32(record["unit"])
            return ChunkPrediction(
                chunk_index=chunk_index,
                frame_ids=tuple(frame_ids),
                T_chunk_camera=record["T_chunk_camera"][positions],
                intrinsics=record["intrinsics"][positions],
                depth=depth,
                confidence=confidence,
                rgb=np.zeros((*depth.shape, 3), np.uint8),
            )

    def frames(self, chunk_index: int, frame_ids: Sequence[int]) -> tuple[Frame, ...]:
        """The recorded images of some of a chunk's frames."""
        positions = self._positions(chunk_index, frame_ids)
        with self._open(chunk_index) as record:
            ends, images = record["image_ends"], record["images"]
            stamps, intrinsics = record["stamps_ns"], record["frame_intrinsics"]
            starts = np.concatenate([[0], ends])
            return tuple(
                Frame(
                    id=frame_id,
                    stamp_ns=int(stamps[i]),
                    rgb=_decode(images[starts[i] : ends[i]].tobytes()),
                    intrinsics=intrinsics[i] if intrinsics[i].any() else None,
                )
                for i, frame_id in zip(positions, frame_ids)
            )

    def adopt(self, other: LoopRecords, chunk_offset: int, frame_offset: int) -> None:
        """Take over all records of another map, whose numbers are shifted."""
        for index in sorted(other._frame_ids):
            with other._open(index) as record:
                arrays = dict(record)
            arrays["chunk_index"] = np.array(index + chunk_offset)
            arrays["frame_ids"] = arrays["frame_ids"] + frame_offset
            path = self._path(index + chunk_offset)
            write_arrays(path, arrays)
            self._know(path)
        self._drop_oldest()

    def image_intrinsics(self, chunk_index: int, frame_ids: Sequence[int]) -> np.ndarray:
        """Pinhole matrices (N, 3, 3) of the recorded images: those that came with them, else what
        the reconstructor found."""
        images = self.frames(chunk_index, frame_ids)
        positions = self._positions(chunk_index, frame_ids)
        with self._open(chunk_index) as record:
            grid, shape = record["intrinsics"][positions], record["shape"][1:]
            # Maps of older versions do not tell the size; it is a few pixels off then.
            size = record["size"] if "size" in record else shape * STEP
        full = grid if tuple(size) == tuple(shape) else _full_grid(grid)
        found = [_of_image(K, size, image.rgb.shape[:2]) for K, image in zip(full, images)]
        known = [image.intrinsics for image in images]
        return np.array([f if k is None else k for f, k in zip(found, known)]).reshape(-1, 3, 3)

    def _positions(self, chunk_index: int, frame_ids: Sequence[int]) -> list[int]:
        place = {frame_id: i for i, frame_id in enumerate(self.frame_ids(chunk_index))}
        return [place[frame_id] for frame_id in frame_ids]

    @contextmanager
    def _open(self, chunk_index: int) -> Iterator[Mapping[str, np.ndarray]]:
        self.frame_ids(chunk_index)
        try:
            with open_arrays(self._path(chunk_index)) as record:
                yield record
        except (BadArchive, OSError, KeyError, ValueError) as error:
            raise NoRecord(f"the record of chunk {chunk_index} is damaged: {error}") from error

    def _path(self, chunk_index: int) -> Path:
        return self.folder / f"chunk_{chunk_index:08d}.npz"

    def _know(self, path: Path) -> None:
        """Take a file that is there into the books."""
        with open_arrays(path) as record:
            index = int(record["chunk_index"])
            frame_ids = tuple(record["frame_ids"].tolist())
        if path != self._path(index):
            raise ValueError(f"it is of chunk {index}")
        size = path.stat().st_size
        self.nbytes += size - self._sizes.get(index, 0)
        self._frame_ids[index], self._sizes[index] = frame_ids, size

    def _drop_oldest(self) -> None:
        while self.nbytes > self.max_megabytes * 1e6 and len(self._frame_ids) > 1:
            self._delete(min(self._frame_ids))

    def _delete(self, chunk_index: int) -> None:
        self._path(chunk_index).unlink(missing_ok=True)
        self.nbytes -= self._sizes.pop(chunk_index)
        del self._frame_ids[chunk_index]


def reduce_prediction(
    prediction: ChunkPrediction, frame_ids: Sequence[int] | None = None, step: int = STEP
) -> ChunkPrediction:
    """Every `step`-th pixel of some frames, with intrinsics for the smaller image; every pixel if
    the depth is sparse."""
    step = 1 if is_sparse(prediction) else step
    wanted = prediction.frame_ids if frame_ids is None else tuple(frame_ids)
    place = {frame_id: i for i, frame_id in enumerate(prediction.frame_ids)}
    positions = [place[frame_id] for frame_id in wanted]
    start = step // 2
    grid = np.s_[:, start::step, start::step]
    intrinsics = np.array(prediction.intrinsics[positions], dtype=np.float64)
    intrinsics[:, :2, 2] -= start + 0.5
    intrinsics[:, :2] /= step
    intrinsics[:, :2, 2] += 0.5
    return ChunkPrediction(
        chunk_index=prediction.chunk_index,
        frame_ids=wanted,
        T_chunk_camera=prediction.T_chunk_camera[positions],
        intrinsics=intrinsics,
        depth=prediction.depth[positions][grid],
        confidence=prediction.confidence[positions][grid],
        rgb=prediction.rgb[positions][grid],
    )


def _full_grid(intrinsics: np.ndarray) -> np.ndarray:
    """Undo what `reduce_prediction` does to intrinsics (N, 3, 3)."""
    full = np.array(intrinsics, dtype=np.float64)
    full[:, :2, 2] -= 0.5
    full[:, :2] *= STEP
    full[:, :2, 2] += STEP // 2 + 0.5
    return full


def _of_image(K: np.ndarray, size: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """Intrinsics of the image, of which depth of `size` is the middle part, resized."""
    ratio = max(size[0] / image[0], size[1] / image[1])
    found = np.array(K, dtype=np.float64)
    found[0, 2] += (ratio * image[1] - size[1]) / 2.0
    found[1, 2] += (ratio * image[0] - size[0]) / 2.0
    found[:2] /= ratio
    return found


def _pack_maps(depth: np.ndarray, confidence: np.ndarray) -> dict[str, np.ndarray]:
    """Half-precision arrays; of sparse maps only the known pixels."""
    known = np.isfinite(depth)
    where: slice | np.ndarray = np.s_[:]
    arrays = {"shape": np.array(depth.shape, np.int64)}
    if known.mean() < SPARSE:
        where = arrays["known"] = np.flatnonzero(known)
    arrays["depth"] = depth.ravel()[where].astype(np.float16)
    arrays["confidence"] = confidence.ravel()[where].astype(np.float16)
    return arrays


def _unpack_maps(record: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(record["shape"])
    maps = []
    for name, unknown in (("depth", np.nan), ("confidence", 0.0)):
        values = record[name].astype(np.float32)
        if "known" in record:
            full = np.full(int(np.prod(shape)), unknown, np.float32)
            full[record["known"]] = values
            values = full
        maps.append(values.reshape(shape))
    return maps[0], maps[1]


def is_sparse(prediction: ChunkPrediction) -> bool:
    """Whether depth is known at few pixels only."""
    known = np.isfinite(prediction.depth)
    return bool(known.mean() < SPARSE) if known.size else False


def _encode_lossless(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _encode(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
