"""Archives of arrays are what they declare, or they are refused before they are read."""

import io
import os
import zipfile

import numpy as np
import pytest

from scal3r_ros.files import BadArchive, check_archive, open_arrays, write_arrays

ARRAYS = {
    "numbers": np.arange(12, dtype=np.int32).reshape(3, 4),
    "columns": np.asfortranarray(np.random.default_rng(0).random((5, 2, 3))),
    "names": np.array(["loop", "sequence"]),
    "nothing": np.zeros((0, 3)),
    "single": np.array(7),
}


def read(path):
    with open_arrays(path) as file:
        return dict(file)


def members(path, **changed):
    """An archive of numpy members as bytes, some of them replaced."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in changed.items():
            archive.writestr(f"{name}.npy", data)


def npy(shape, descr="<f8", data=b"", version=b"\x01\x00"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


def test_arrays_come_back_as_numpy_reads_them(tmp_path):
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    found = read(path)
    with np.load(path) as theirs:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], theirs[name])
            assert found[name].dtype == array.dtype and found[name].flags.writeable
    assert found.keys() == ARRAYS.keys()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy((1 << 40,)), "cannot have 0 bytes"),
        (npy((1 << 40, 1 << 40)), "cannot have 0 bytes"),
        (npy((2,), data=b"12345678"), "cannot have 8 bytes"),
        (npy((-1,), data=b"12345678"), "damaged"),
        (npy((1,), descr="|O", data=b"12345678"), "no plain data"),
        (npy((1,), data=b"12345678", version=b"\x09\x00"), "damaged"),
        (npy("__import__('os')", data=b"12345678"), "damaged"),
        (b"\x93NUMPY\x01\x00", "damaged"),
        (b"", "damaged"),
    ],
)
def test_an_array_that_cannot_be_what_it_declares_is_refused(tmp_path, data, reason):
    path = tmp_path / "strange.npz"
    members(path, array=data)
    with pytest.raises(BadArchive, match=reason):
        read(path)


def test_an_archive_that_would_grow_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", npy((1 << 20,), data=bytes(8 << 20)))
    with pytest.raises(BadArchive, match="compressed"):
        check_archive(path)


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "twice.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("same.npy", buffer.getvalue())
        archive.writestr("same.npy", buffer.getvalue())
    with pytest.raises(BadArchive, match="one name"):
        check_archive(path)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadArchive, match="no regular file"):
        check_archive(tmp_path / "pipe.npz")


@pytest.mark.parametrize("where", range(0, 100, 7))
def test_damaged_bytes_are_found_or_do_not_matter(tmp_path, where):
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    data = bytearray(path.read_bytes())
    data[len(data) * where // 100] ^= 0x55
    path.write_bytes(data)
    try:
        found = read(path)
    except BadArchive:
        return
    for name in found.keys() & ARRAYS.keys():
        np.testing.assert_array_equal(found[name], ARRAYS[name])
