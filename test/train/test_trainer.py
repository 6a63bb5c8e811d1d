"""Runs: they stop and go on, fail at a plateau, export what loads, and share memories."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from toy_run import CLIPS, TOY  # noqa: E402

from scal3r_ros.files import SaveFailed  # noqa: E402
from scal3r_ros.networks.scal3r.architecture import Architecture  # noqa: E402
from scal3r_ros.networks.scal3r.checkpoint import load_network  # noqa: E402
from scal3r_ros.train import trainer as training  # noqa: E402
from scal3r_ros.train.export import CHECKSUMS, export_run  # noqa: E402
from scal3r_ros.train.objective import step_loss  # noqa: E402
from scal3r_ros.train.replay import ClipReplay  # noqa: E402
from scal3r_ros.train.run_state import read_run  # noqa: E402
from scal3r_ros.train.schedule import NANO, Schedule, Stage, rehearsal_schedule  # noqa: E402
from scal3r_ros.train.trainer import Plateau, Trainer  # noqa: E402


def schedule(minutes: float = 100.0, memory: bool = False, **changes) -> Schedule:
    stage = Stage("X", minutes, 4, CLIPS, chunks=2 if memory else 1, overlap=1, memory=memory)
    return Schedule((stage,), replay=16, warmup_steps=2, textures=36, validation_clips=1, **changes)


def steps(trainer: Trainer, count: int) -> list[float]:
    """A few updates outside the clock; total losses."""
    stage = trainer.schedule.stages[0]
    replay = training.ClipReplay(trainer.sampler, stage, 16, 5)
    return [float(trainer.step(stage, replay).total.detach()) for _ in range(count)]


def test_a_few_steps_lower_the_loss(tmp_path):
    trainer = Trainer(TOY, schedule(), tmp_path)
    losses = steps(trainer, 40)
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_every_weight_of_every_part_learns(tmp_path):
    """With memory on, every parameter of the network changes: nothing is cut off from the loss."""
    trainer = Trainer(TOY, schedule(memory=True), tmp_path)
    before = {k: v.clone() for k, v in trainer.learner.network.named_parameters()}
    steps(trainer, 12)
    unused = {"mask_token", "rates"}
    still = [
        name
        for name, value in trainer.learner.network.named_parameters()
        if torch.equal(value, before[name]) and not any(word in name for word in unused)
    ]
    # The class and encoder register tokens are dropped by the encoder; they act through attention
    # only, which a depth of one block still gives them.
    assert not still


def test_a_run_goes_on_where_it_stopped(tmp_path):
    first = Trainer(TOY, schedule(), tmp_path)
    steps(first, 3)
    first.progress.minutes = 1.5
    first.save()
    second = Trainer(TOY, schedule(), tmp_path)
    assert second.progress == first.progress
    for mine, saved in zip(
        second.learner.network.state_dict().values(), first.learner.network.state_dict().values()
    ):
        assert torch.equal(mine, saved)
    assert steps(first, 3) == steps(second, 3)


def test_a_damaged_save_leaves_the_previous_one(tmp_path, monkeypatch):
    trainer = Trainer(TOY, schedule(), tmp_path)
    trainer.save()
    good = (tmp_path / "run.pt").read_bytes()

    def full_disk(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(SaveFailed, match="no space left on device"):
        trainer.save()
    assert (tmp_path / "run.pt").read_bytes() == good


def test_the_gate_stops_a_plateau(tmp_path):
    """With a gate that nothing passes, the run ends with the figures in its message."""
    trainer = Trainer(TOY, schedule(minutes=0.01, gate_minutes=0.0, gate_ratio=0.01), tmp_path)
    with pytest.raises(Plateau, match="match error"):
        trainer.run()
    assert (tmp_path / "run.pt").exists()


def test_memory_only_training_leaves_the_rest_alone(tmp_path):
    trainer = Trainer(TOY, schedule(memory=True), tmp_path, parts="memory")
    before = {k: v.clone() for k, v in trainer.learner.network.state_dict().items()}
    steps(trainer, 4)
    changed = {
        k for k, v in trainer.learner.network.state_dict().items() if not torch.equal(v, before[k])
    }
    assert changed and all(".ttt." in name for name in changed)


def test_a_stage_for_the_memory_leaves_the_rest_alone(tmp_path):
    """The stage after the others changes memory units only; a later stage changes all again."""
    toy = replace(schedule(memory=True).stages[0], minutes=0.001, changes="memory")
    plan = replace(schedule(), stages=(toy, replace(toy, minutes=0.001, changes="all")))
    trainer = Trainer(TOY, plan, tmp_path)
    before = {k: v.clone() for k, v in trainer.learner.network.state_dict().items()}
    trainer._run_stage(plan.stages[0], float("inf"))
    present = trainer.learner.network.state_dict()
    changed = {k for k, v in present.items() if not torch.equal(v, before[k])}
    assert changed and all(".ttt." in name for name in changed)
    trainer.progress.minutes = plan.stages[0].minutes
    trainer._run_stage(plan.stages[1], float("inf"))
    after = trainer.learner.network.state_dict()
    assert any(not torch.equal(v, before[k]) for k, v in after.items() if ".ttt." not in k)


def test_resting_memory_is_no_memory(tmp_path):
    """Every second step of such a stage is that of a network without memory."""
    stage = replace(schedule(memory=True).stages[0], memory_every=2)
    trainer = Trainer(TOY, replace(schedule(), stages=(stage,)), tmp_path)
    replay = ClipReplay(trainer.sampler, stage, 16, 3)
    units = dict(trainer.learner.network.named_parameters())
    name = next(n for n in units if ".ttt.w0" in n)
    before = units[name].detach().clone()
    for changed in (True, False):
        trainer.step(stage, replay)
        assert (units[name].grad is not None) is changed
    assert not torch.equal(units[name], before)
    chunks = replay.draw()
    plain = replace(stage, memory=False)
    layers = (0,)
    network, probes = trainer.learner.network, trainer.learner.probes
    resting, without, active = (
        float(step_loss(network, chunks, s, layers, probes, resting=rests).total.detach())
        for s, rests in ((stage, True), (plain, False), (stage, False))
    )
    assert resting == without != active


def test_export_loads_and_starts_another_run(tmp_path):
    trainer = Trainer(TOY, schedule(), tmp_path / "run")
    steps(trainer, 2)
    trainer.save()
    fingerprint = export_run(tmp_path / "run", tmp_path / "weights")
    loaded = load_network(tmp_path / "weights")
    assert loaded.fingerprint == fingerprint and loaded.network.architecture == TOY
    for name, value in read_run(tmp_path / "run")["average"].items():
        assert torch.equal(loaded.network.state_dict()[name], value.half().float())
    listed = (tmp_path / "weights" / CHECKSUMS).read_text().split()
    assert listed[0] == fingerprint
    again = Trainer(NANO, schedule(), tmp_path / "fine", start=str(tmp_path / "weights"))
    assert again.learner.network.architecture == TOY


def test_rehearsal_passes_all_stages(tmp_path):
    """The command that a run on an accelerator uses, in a process of its own."""
    command = [
        sys.executable, "-m", "scal3r_ros.train.command", "--schedule", "rehearsal",
        "--out", str(tmp_path), "--export", str(tmp_path / "weights"), "--threads", "1",
    ]  # fmt: skip
    root = Path(training.__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    stages = [row["stage"] for row in read_run(tmp_path)["progress"]["history"]]
    assert stages == ["A", "B", "C"]
    assert load_network(tmp_path / "weights").network.architecture == NANO
    assert read_run(tmp_path)["progress"]["minutes"] >= rehearsal_schedule().minutes


def test_the_learning_rate_warms_up_and_ends_low():
    constant = Stage("X", 4.0, 4, CLIPS)
    plan = Schedule((constant, Stage("Y", 6.0, 4, CLIPS, rate=(0.5, 0.02))), warmup_steps=2)
    assert plan.rate(0.0, 0) == pytest.approx(0.5)
    assert plan.rate(0.0, 1) == plan.rate(3.9, 100) == 1.0
    rates = [plan.rate(m / 10, 100) for m in range(40, 101)]
    assert rates[0] == 0.5 and rates[30] == pytest.approx(0.26)
    assert all(a >= b for a, b in zip(rates, rates[1:]))
    assert rates[-1] == pytest.approx(0.02) == plan.rate(11.0, 100)


def test_a_run_can_start_from_weights_and_go_on_with_larger_images(tmp_path):
    first = Trainer(TOY, schedule(), tmp_path / "small")
    first.save()
    export_run(tmp_path / "small", tmp_path / "weights")
    wider = replace(TOY, image_size=2 * TOY.image_size)
    second = Trainer(wider, schedule(), tmp_path / "large", start=str(tmp_path / "weights"))
    assert second.learner.network.architecture == wider
    for name, value in second.learner.network.state_dict().items():
        assert torch.equal(value, first.learner.network.state_dict()[name].half().float()), name


def test_architecture_of_the_run_is_in_the_file(tmp_path):
    Trainer(TOY, schedule(), tmp_path).save()
    assert Architecture.from_json(read_run(tmp_path)["architecture"]) == TOY


def test_a_fresh_run_needs_torch_and_numpy_only():
    """Machines with accelerators often have nothing else."""
    others = ("scipy", "PIL", "safetensors", "tensorboard", "matplotlib", "rosbags", "cv2")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
        "from scal3r_ros.train import command, trainer\n"
    )
    root = Path(training.__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
