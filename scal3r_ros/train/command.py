"""`scal3r train`: train a network on procedural worlds, go on with a run, or fine-tune weights.

One command does everything: it goes on with the run it finds in the folder, stops when its minutes
are over, and writes the checkpoint. Under `torchrun` it uses all processes.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scal3r_ros.threads import wait_passively

EPILOG = """examples:
  scal3r train --schedule rehearsal --out /tmp/rehearsal
  scal3r train --schedule scal3r-tiny --out runs/tiny --minutes 9 --device cuda
  torchrun --nproc-per-node 4 -m scal3r_ros.train.command --schedule scal3r-tiny --out runs/tiny
  scal3r train --schedule fine-tune --from scal3r.pt --parts memory --out runs/fine --device cuda
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `scal3r train`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--schedule", default="nano", help="nano, scal3r-tiny, rehearsal or fine-tune"
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop this call after so many minutes"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--from", dest="start", default="", help="checkpoint to start from")
    parser.add_argument(
        "--cache",
        type=Path,
        default=None,
        help="folder of worlds rendered by scal3r_ros.train.clip_cache, instead of rendering",
    )
    parser.add_argument(
        "--parts", choices=("all", "memory"), default="all", help="which weights may change"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--export", type=Path, default=None, help="also write a float16 checkpoint here"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the blocks of the network; pays on a GPU"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")


def run(arguments: argparse.Namespace) -> int:
    """Train; returns the exit code."""
    import torch

    from scal3r_ros.train.parallel import join_crew, leave_crew
    from scal3r_ros.train.schedule import SCHEDULES
    from scal3r_ros.train.trainer import Plateau, Trainer

    if arguments.schedule not in SCHEDULES:
        raise ValueError(
            f"unknown schedule {arguments.schedule!r}; known are {', '.join(SCHEDULES)}"
        )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    crew = join_crew(device)
    if device.type == "cuda" and crew.size > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    architecture, schedule = SCHEDULES[arguments.schedule]
    try:
        trainer = Trainer(
            architecture,
            schedule(),
            arguments.out,
            device,
            arguments.seed,
            crew=crew,
            start=arguments.start,
            parts=arguments.parts,
            fused=arguments.compile,
            cache=arguments.cache,
        )
        trainer.run(arguments.minutes)
    except Plateau as error:
        logging.getLogger(__name__).error("%s", error)
        return 3
    finally:
        leave_crew(crew)
    if arguments.export and crew.leads:
        from scal3r_ros.train.export import export_run

        fingerprint = export_run(arguments.out, arguments.export)
        logging.getLogger(__name__).info("wrote %s, sha256 %s", arguments.export, fingerprint)
    return 0


def main() -> int:
    """Entry point for `torchrun -m`."""
    wait_passively()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="scal3r train", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
