"""Plans of the membership for every way in which workers come and go, on a clock of the test."""

import pytest

from scal3r_ros.workers.membership import (
    BROKEN,
    COMPUTING,
    IDLE,
    JOINING,
    LEAVING,
    Membership,
    Patience,
    Report,
)

PATIENCE = Patience(
    heartbeat_timeout=3.0,
    settle_time=1.0,
    round_timeout=100.0,
    connect_timeout=10.0,
    collective_timeout=5.0,
)


class Scene:
    """Workers that report every 0.2 s; a test changes their reports."""

    def __init__(self, expected=2):
        self.membership = Membership(PATIENCE, expected, first_generation=100)
        self.now = 0.0
        self.reports: dict[str, Report] = {}

    def report(self, *names, **values):
        for name in names:
            old = self.reports.get(name, Report(name, "weights", JOINING))
            self.reports[name] = Report(**{**vars(old), **values})

    def enter(self, *names):
        self.report(*names, state=IDLE, generation=self.membership.plan.generation, committed=0)

    def run(self, seconds):
        for _ in range(round(seconds / 0.2)):
            self.now += 0.2
            for report in self.reports.values():
                self.membership.hear(report, self.now)
            plan = self.membership.step(self.now)
        return plan

    def settled(self, *names, **values):
        self.report(*names, **values)
        self.run(1.4)
        self.enter(*names)
        plan = self.run(0.2)
        assert plan.ready and plan.workers == names
        return plan


@pytest.fixture
def scene():
    return Scene()


def test_all_expected_workers_form_at_once(scene):
    scene.report("a", "b")
    plan = scene.run(0.2)
    assert plan.workers == ("a", "b") and not plan.ready and plan.generation == 101
    scene.enter("a", "b")
    assert scene.run(0.2).ready


def test_fewer_than_expected_form_after_the_settling_time(scene):
    scene.report("a")
    assert scene.run(0.8).workers == ()
    assert scene.run(0.6).workers == ("a",)


def test_no_plan_without_workers(scene):
    assert scene.run(20).workers == ()


def test_a_newcomer_keeps_the_ranks_of_the_others(scene):
    scene.settled("b", "c")
    scene.report("a")
    plan = scene.run(1.4)
    assert plan.workers == ("b", "c", "a") and plan.generation == 102 and "a came" in plan.reason


def test_a_silent_worker_is_dropped(scene):
    scene.settled("a", "b")
    del scene.reports["a"]
    assert scene.run(2.8).workers == ("a", "b")
    plan = scene.run(0.6)
    assert plan.workers == ("b",) and "a was silent for 3 s" in plan.reason


@pytest.mark.parametrize("state", [IDLE, BROKEN, JOINING])
def test_a_worker_that_was_only_silent_is_taken_back_as_it_was(scene, state):
    """A process that was stopped, or a network that was: the first sign of life says all."""
    scene.settled("a", "b")
    scene.report("b", state=state)
    scene.run(0.2)
    gone = scene.reports.pop("b")
    plan = scene.run(3.4)
    assert plan.workers == ("a",)
    scene.enter("a")
    assert scene.run(0.2).ready
    scene.reports["b"] = gone
    assert scene.run(1.4).workers == ("a", "b")


def test_a_worker_that_fell_silent_in_a_round_comes_back_when_it_is_out_of_it(scene):
    scene.settled("a", "b")
    scene.report("b", state=COMPUTING)
    scene.run(0.2)
    gone = scene.reports.pop("b")
    assert scene.run(3.4).workers == ("a",)
    scene.enter("a")
    scene.reports["b"] = gone
    assert scene.run(5).workers == ("a",)
    scene.report("b", state=BROKEN)
    assert scene.run(1.4).workers == ("a", "b")


def test_a_worker_that_leaves_is_gone_for_good(scene):
    scene.settled("a", "b")
    scene.report("b", state=LEAVING)
    assert scene.run(0.2).workers == ("a",)
    generation = scene.membership.plan.generation
    assert scene.run(5).generation == generation


def test_a_broken_group_waits_until_it_knows_who_is_gone(scene):
    """One died: the survivors report first, its silence is noticed later; one plan, not two."""
    scene.settled("a", "b", "c")
    del scene.reports["c"]
    scene.report("a", "b", state=BROKEN)
    assert scene.run(2.6).generation == 101
    plan = scene.run(0.8)
    assert plan.workers == ("a", "b") and plan.generation == 102


def test_a_broken_group_of_living_workers_forms_again(scene):
    scene.settled("a", "b")
    scene.report("a", "b", state=BROKEN)
    plan = scene.run(0.2)
    assert plan.workers == ("a", "b") and plan.generation == 102 and "broke" in plan.reason


def test_a_worker_that_hangs_while_others_broke_is_dropped_until_it_moves(scene):
    scene.settled("a", "b")
    scene.report("a", "b", state=COMPUTING)
    scene.run(3.0)
    scene.report("a", state=BROKEN)
    assert scene.run(6.0).workers == ("a", "b")
    plan = scene.run(1.4)
    assert plan.workers == ("a",) and "b did not finish its round within 10 s" in plan.reason
    scene.enter("a")
    scene.run(20)
    assert scene.membership.plan.workers == ("a",)
    scene.report("b", state=BROKEN)
    assert scene.run(1.4).workers == ("a", "b")


def test_a_single_worker_that_hangs_is_dropped_after_the_round_timeout(scene):
    scene.settled("a", "b")
    scene.report("a", state=COMPUTING)
    assert scene.run(99).workers == ("a", "b")
    assert scene.run(2).workers == ("b",)


def test_a_group_that_does_not_form_is_planned_again(scene):
    scene.report("a", "b")
    scene.run(0.2)
    scene.enter("a")
    assert scene.run(10.8).generation == 101
    assert scene.run(0.6).generation == 102


def test_a_worker_that_restarted_quickly_gets_a_new_generation(scene):
    scene.settled("a", "b")
    scene.reports["b"] = Report("b", "weights", JOINING)
    plan = scene.run(0.4)
    assert plan.generation == 102 and "b started again" in plan.reason


def test_other_weights_are_rejected_and_named(scene):
    scene.settled("a", "b")
    scene.report("z", fingerprint="others")
    assert scene.run(2.0).workers == ("a", "b")
    assert scene.membership.rejected == ("z",)


def test_a_restarted_planner_continues_behind_the_generations_it_hears(scene):
    scene.report("a", "b", state=IDLE, generation=7000, committed=12)
    plan = scene.run(0.4)
    assert plan.generation == 7001 and plan.workers == ("a", "b")


def test_a_renewal_forms_the_same_members_again(scene):
    scene.settled("a", "b")
    scene.membership.renew("memory reset")
    plan = scene.run(0.2)
    assert plan.workers == ("a", "b") and plan.generation == 102 and plan.reason == "memory reset"
    assert scene.run(0.2).generation == 102
