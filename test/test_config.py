"""Configuration: every option is described and checked, and both file forms are read alike."""

import pytest

from scal3r_ros.config import ChunkConfig, Config, load
from scal3r_ros.options import from_dict, to_dict, walk_options


def test_every_option_is_described_and_its_default_is_in_range():
    for item in walk_options(Config):
        assert item.text.endswith("."), item.name
        assert item.minimum is None or item.default >= item.minimum, item.name
        assert not item.choices or item.default in item.choices, item.name


def test_dictionary_round_trip():
    config = from_dict(Config, {"chunk": {"size": 20, "overlap": 5}, "map.voxel_size": 1})
    assert config.chunk == ChunkConfig(20, 5)
    assert from_dict(Config, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"distributed": {"policy": "async", "backend": "nccl"}},
            "set distributed.backend to auto or gloo",
        ),
        ({"chunk.sise": 2}, "did you mean chunk.size"),
        ({"chunck": {"size": 3}}, "chunck"),
        ({"chunk": 3}, "section"),
        ({"chunk": {"size": 3.5}}, "must be int"),
        ({"chunk": {"size": True}}, "must be int"),
        ({"chunk": {"size": 20, "overlap": 30}}, "must be smaller than chunk.size"),
        ({"map.alignment": "sideways"}, "first_camera"),
        ({"memory.decay": 1.5}, "^memory.decay must be at most 1.0"),
        ({"gate": {"max_gap": -1.0}}, r"^gate.max_gap \[s\] must be at least 0.0"),
        ({"memory.decay": float("nan")}, "at least"),
    ],
)
def test_wrong_values_are_refused_with_a_hint(values, words):
    with pytest.raises(ValueError, match=words):
        from_dict(Config, values)


def test_plain_and_ros_parameter_files_agree(tmp_path):
    plain, ros = tmp_path / "plain.yaml", tmp_path / "ros.yaml"
    plain.write_text("chunk: {size: 12, overlap: 4}\n")
    ros.write_text("/**:\n  ros__parameters:\n    chunk: {size: 12, overlap: 4}\n")
    assert load(plain) == load(ros) == Config(chunk=ChunkConfig(12, 4))


def test_a_file_that_is_not_a_mapping_is_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="expected a mapping"):
        load(path)
