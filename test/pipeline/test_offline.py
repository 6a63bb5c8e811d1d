"""A recording to files: the same bytes every time, resumed or not, and nothing lost on errors."""

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from oracle import REALISTIC, OracleReconstructor, Spoil, drive
from plyfile import PlyData

from scal3r_ros import files as atomic
from scal3r_ros.config import Config
from scal3r_ros.files import SaveFailed
from scal3r_ros.io.map_store import read_map
from scal3r_ros.io.source import BadInput, SourceImage
from scal3r_ros.io.stretch import Stretch
from scal3r_ros.io.tum import read_trajectory
from scal3r_ros.options import from_dict
from scal3r_ros.pipeline import joining, offline

CONFIG = from_dict(Config, {"chunk.size": 12, "chunk.overlap": 6})
FRAMES = 48
CLOCK = ("measured",)
"""Parts of the report that tell times and so differ between runs."""


@pytest.fixture(scope="module")
def city():
    whole = drive(width=64, height=24)
    return replace(whole, T_world_camera=whole.T_world_camera[:FRAMES])


class Drive:
    """A source of the city's frames that can stop in the middle, as the test wants."""

    description = "a drive"
    files = ()

    def __init__(self, city, stop=None, error=None):
        self.city, self.stop, self.error = city, stop, error
        self.stretch = Stretch()

    def __len__(self):
        return len(self.city)

    def __iter__(self):
        for i in range(len(self.city)):
            if i == self.stop:
                raise self.error
            yield SourceImage(i, self.city.stamp_ns(i), lambda i=i: self.city.frame(i))


def run(city, out, spoil=REALISTIC, source=None, config=CONFIG, **options):
    reconstructor = OracleReconstructor(city, spoil)
    return offline.run(config, source or Drive(city), reconstructor, out, **options)


def contents(folder):
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.name == "report.json":
            report = json.loads(data)
            data = {k: v for k, v in report.items() if k not in CLOCK}
        files[str(path.relative_to(folder))] = data
    return files


def test_all_products_are_written_and_the_same_in_every_run(city, tmp_path):
    outcome = run(city, tmp_path / "a")
    run(city, tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second
    pictures = {"trajectory.png", "map_top.png", "map_view.png"}
    expected = {"trajectory.txt", "map.ply", "report.json", *pictures}
    assert expected <= set(first) and any(name.startswith("depth_") for name in first)
    assert not any(".part" in name or name.startswith(".") for name in first)
    assert outcome.frames == FRAMES and outcome.input_error == ""
    stamps, _ = read_trajectory(tmp_path / "a" / "trajectory.txt")
    assert stamps.tolist() == [city.stamp_ns(i) for i in range(FRAMES)]
    assert len(PlyData.read(str(tmp_path / "a" / "map.ply"))["vertex"]) > 500
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["counters"]["frames"] == FRAMES and report["scale"]["unit"].startswith(
        "map units"
    )
    assert report["options"]["chunk.size"] == 12 and report["versions"]["scal3r_ros"]
    assert set(report["measured"]["seconds"]) >= {"reconstruct", "align_and_fuse", "loops"}


@pytest.mark.parametrize("stop", [1, 30])
def test_an_interrupted_run_resumes_to_the_same_files(city, tmp_path, stop):
    run(city, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path / "cut", source=Drive(city, stop, KeyboardInterrupt()))
    assert not (tmp_path / "cut" / "trajectory.txt").exists()
    outcome = run(city, tmp_path / "cut", resume=True)
    assert outcome.frames == FRAMES
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_killed_run_resumes_from_its_last_save(city, tmp_path):
    class Killed(Exception):
        """Nothing can be saved any more."""

    run(city, tmp_path / "whole")
    with pytest.raises(Killed):
        run(city, tmp_path / "cut", source=Drive(city, 33, Killed()), save_every=0.0)
    assert (tmp_path / "cut" / offline.WORK / "map_state.npz").exists()
    run(city, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


class PressesCtrlC(OracleReconstructor):
    """The user interrupts while a chunk is being reconstructed."""

    def __init__(self, city, spoil, at):
        super().__init__(city, spoil)
        self.at = at

    def reconstruct(self, chunk, contribute=True):
        if chunk.index == self.at:
            raise KeyboardInterrupt
        return super().reconstruct(chunk, contribute)


@pytest.mark.parametrize("at", [0, 3, 6])
def test_an_interrupt_inside_a_chunk_loses_nothing(city, tmp_path, at):
    run(city, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        offline.run(CONFIG, Drive(city), PressesCtrlC(city, REALISTIC, at), tmp_path / "cut")
    assert (tmp_path / "cut" / offline.WORK / "map_state.npz").exists()
    run(city, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_an_interrupt_in_the_middle_of_a_change_falls_back_to_the_last_save(
    city, tmp_path, monkeypatch
):
    run(city, tmp_path / "whole")
    real, calls = joining.join, []

    def interrupted(live_map, summary, prediction):
        calls.append(summary.index)
        joined = real(live_map, summary, prediction)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return joined

    monkeypatch.setattr(joining, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path / "cut", save_every=0.0)
    monkeypatch.setattr(joining, "join", real)
    run(city, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_resuming_with_other_options_is_refused(city, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path, source=Drive(city, 30, KeyboardInterrupt()))
    other = from_dict(Config, {"chunk.size": 16, "chunk.overlap": 8})
    with pytest.raises(BadInput, match="interrupted run with other options"):
        run(city, tmp_path, config=other, resume=True)
    assert (tmp_path / offline.WORK / "map_state.npz").exists()


def test_resuming_with_another_recording_is_refused(city, tmp_path):
    """Another path, and other content under the same path."""
    recordings = [tmp_path / name for name in ("one.bag", "two.bag")]
    for path in recordings:
        path.write_bytes(b"the same")

    def drive_of(path, *stop):
        source = Drive(city, *stop)
        source.files = (path,)
        return source

    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path, source=drive_of(recordings[0], 30, KeyboardInterrupt()))
    with pytest.raises(BadInput, match="another input"):
        run(city, tmp_path, source=drive_of(recordings[1]), resume=True)
    recordings[0].write_bytes(b"another!")
    with pytest.raises(BadInput, match="another input"):
        run(city, tmp_path, source=drive_of(recordings[0]), resume=True)
    recordings[0].write_bytes(b"the same")
    assert run(city, tmp_path, source=drive_of(recordings[0]), resume=True).frames == FRAMES


@pytest.mark.parametrize("name", ["run.json", "map_state.npz"])
def test_a_damaged_interrupted_run_is_refused_with_what_to_do(city, tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path, source=Drive(city, 30, KeyboardInterrupt()))
    path = tmp_path / offline.WORK / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="damaged"):
        run(city, tmp_path, resume=True)


@pytest.mark.parametrize("seed", range(6))
def test_resuming_goes_on_without_records_that_are_damaged(city, tmp_path, seed):
    """Cut off, emptied, with changed bytes, or something else altogether, all at once."""
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path, source=Drive(city, 40, KeyboardInterrupt()))
    random = np.random.default_rng(seed)
    records = sorted((tmp_path / offline.WORK / "files").rglob("chunk_*.npz"))
    assert len(records) >= 4
    for record in records:
        data = bytearray(record.read_bytes())
        record.unlink()
        damage = random.integers(0, 5)
        if damage == 0:
            os.mkfifo(record)
        elif damage == 1:
            record.write_bytes(data[: random.integers(0, len(data))])
        elif damage == 2:
            record.write_bytes(random.bytes(300))
        else:
            for place in random.integers(0, len(data) if damage == 3 else 400, 20):
                data[place] ^= 1 << random.integers(0, 8)
            record.write_bytes(data)
    assert run(city, tmp_path, resume=True).frames == FRAMES
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["counters"].get("loop_record_damaged", 0) > 0


def test_without_resume_an_interrupted_run_starts_again(city, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path / "cut", source=Drive(city, 30, KeyboardInterrupt()))
    run(city, tmp_path / "cut")
    run(city, tmp_path / "whole")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_what_was_read_before_an_input_error_is_mapped_and_kept(city, tmp_path):
    outcome = run(city, tmp_path, source=Drive(city, 30, BadInput("frame 30 is cut off")))
    assert outcome.input_error == "frame 30 is cut off" and outcome.frames == 30
    stamps, _ = read_trajectory(tmp_path / "trajectory.txt")
    assert stamps.tolist() == [city.stamp_ns(i) for i in range(30)]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["input_error"] == "frame 30 is cut off"


def test_an_error_before_the_first_frame_leaves_an_older_result_alone(city, tmp_path):
    run(city, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(BadInput, match="unreadable"):
        run(city, tmp_path, source=Drive(city, 0, BadInput("unreadable")))
    assert {k: v for k, v in contents(tmp_path).items() if offline.WORK not in k} == before


def test_a_full_disk_keeps_older_results_and_is_resumable(city, tmp_path, monkeypatch):
    run(city, tmp_path)
    before = contents(tmp_path)
    real = atomic.os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(SaveFailed, match="disk is full"):
        run(city, tmp_path)
    monkeypatch.setattr(atomic.os, "fsync", real)
    kept = {k: v for k, v in contents(tmp_path).items() if offline.WORK not in k}
    assert kept == before


def test_failures_are_reported_chunk_by_chunk_and_parts_kept_apart(city, tmp_path):
    outcome = run(city, tmp_path, Spoil(dropped=(2,)))
    names = [e.name for e in outcome.events]
    assert names == ["chunk_failed", "new_part"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert [e[:2] for e in report["events"]] == [["chunk_failed", 2], ["new_part", 3]]
    main, _ = read_trajectory(tmp_path / "trajectory.txt")
    rest, _ = read_trajectory(tmp_path / "trajectory_part2.txt")
    assert len(main) >= len(rest) and not set(main.tolist()) & set(rest.tolist())
    assert (tmp_path / "map_part2.ply").exists() and len(report["parts"]) == 2
    run(city, tmp_path, Spoil())
    assert not (tmp_path / "trajectory_part2.txt").exists()


def test_a_recording_that_cannot_be_mapped_writes_an_empty_result(city, tmp_path):
    outcome = run(city, tmp_path, Spoil(dropped=tuple(range(20))))
    assert outcome.frames == 0
    lines = (tmp_path / "trajectory.txt").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("#")
    assert len(PlyData.read(str(tmp_path / "map.ply"))["vertex"]) == 0


def test_an_output_folder_that_cannot_be_made_is_one_sentence(city, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SaveFailed, match=f"cannot write {out}: a file is in the way"):
            run(city, out)


def test_a_run_that_maps_nothing_leaves_an_older_result_alone(city, tmp_path):
    run(city, tmp_path)
    before = contents(tmp_path)
    outcome = run(city, tmp_path, Spoil(dropped=tuple(range(20))))
    assert outcome.frames == 0 and outcome.files == (tmp_path / "report_failed.json",)
    after = contents(tmp_path)
    assert b"chunk_failed" in after.pop("report_failed.json") and after == before
    run(city, tmp_path)
    assert contents(tmp_path) == before


class DeepDrive(Drive):
    """Images of 12 bits whose light changes, as a thermal camera sends them."""

    def __iter__(self):
        self.stretch.rewind()
        for image in super().__iter__():
            yield replace(image, decode=lambda image=image: self.shallow(image))

    def shallow(self, image):
        frame = image.decode()
        deep = frame.rgb.astype(np.uint16) * (4 + image.id % 7) + 300
        return replace(frame, rgb=self.stretch(deep))


@pytest.mark.parametrize("stop", [1, 30])
def test_images_of_more_bits_look_the_same_in_a_resumed_run(city, tmp_path, stop):
    run(city, tmp_path / "whole", source=DeepDrive(city))
    with pytest.raises(KeyboardInterrupt):
        run(city, tmp_path / "cut", source=DeepDrive(city, stop, KeyboardInterrupt()))
    run(city, tmp_path / "cut", source=DeepDrive(city), resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_gate_drops_are_counted_and_frames_numbered_after_it(city, tmp_path):
    config = from_dict(Config, {"chunk.size": 8, "chunk.overlap": 4, "gate.stride": 2})

    class Numbered(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            self.ids = getattr(self, "ids", set()) | set(chunk.frame_ids)
            return super().reconstruct(chunk, contribute)

    reconstructor = Numbered(city, Spoil())
    offline.run(config, Drive(city), reconstructor, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["gate"] == {"kept": FRAMES // 2, "stride": FRAMES // 2}
    assert reconstructor.ids == set(range(FRAMES // 2))


def test_repeated_and_backward_stamps_are_left_out_and_said(city, tmp_path):
    class Stuttering(Drive):
        def __iter__(self):
            for image in super().__iter__():
                yield image
                if image.id % 10 == 9:
                    yield replace(image, stamp_ns=image.stamp_ns - 10**9 * (image.id % 20 == 19))

    outcome = run(city, tmp_path / "bad", source=Stuttering(city))
    assert outcome.frames == FRAMES
    assert [(e.name, e.message.split()[0]) for e in outcome.events] == [
        ("duplicate_stamp", "2"),
        ("backward_stamp", "2"),
    ]
    run(city, tmp_path / "good")
    for name in ("trajectory.txt", "map.ply"):
        good, bad = (tmp_path / kind / name for kind in ("good", "bad"))
        assert good.read_bytes() == bad.read_bytes()


def test_a_frame_with_all_pixels_invalid_does_no_harm(city, tmp_path):
    class Blinded(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            prediction = super().reconstruct(chunk, contribute)
            if 20 not in chunk.frame_ids:
                return prediction
            row = chunk.frame_ids.index(20)
            depth, confidence = prediction.depth.copy(), prediction.confidence.copy()
            depth[row], confidence[row] = np.nan, 0
            return replace(prediction, depth=depth, confidence=confidence)

    outcome = offline.run(CONFIG, Drive(city), Blinded(city, REALISTIC), tmp_path)
    assert outcome.frames == FRAMES


def test_a_signal_in_the_middle_of_a_change_waits_for_its_end(city, tmp_path, monkeypatch):
    """A real SIGINT while a chunk is being joined; nothing has been saved before."""
    run(city, tmp_path / "whole")
    real = joining.join

    def pressed(live_map, summary, prediction):
        if summary.index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(live_map, summary, prediction)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(joining, "join", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(city, tmp_path / "cut")
    assert signal.getsignal(signal.SIGINT) is handler
    saved, _ = read_map(tmp_path / "cut" / offline.WORK / "map_state.npz")
    assert len(saved["graph.node_index"]) == 4, "the chunk is whole"
    run(city, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_signal_during_reconstruction_acts_at_once(city, tmp_path):
    class Pressed(OracleReconstructor):
        def reconstruct(self, chunk, contribute=True):
            if chunk.index == 2:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
                self.went_on = True
            return super().reconstruct(chunk, contribute)

    reconstructor = Pressed(city, REALISTIC)
    with pytest.raises(KeyboardInterrupt):
        offline.run(CONFIG, Drive(city), reconstructor, tmp_path)
    assert not hasattr(reconstructor, "went_on")
