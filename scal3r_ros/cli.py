"""The command `scal3r`: a table of sub-commands, each loaded only when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from scal3r_ros import __version__
from scal3r_ros.threads import wait_passively

COMMANDS = {
    "reconstruct": ("scal3r_ros.cli_reconstruct", "map a folder of images, a video or a bag"),
    "merge": ("scal3r_ros.cli_merge", "join saved maps of one world into one"),
    "export": ("scal3r_ros.cli_export", "write a saved map for other programs"),
    "evaluate": ("scal3r_ros.cli_evaluate", "compare a trajectory or a map with ground truth"),
    "benchmark": ("scal3r_ros.benchmarks.command", "score on a public data set"),
    "download": ("scal3r_ros.io.download", "fetch the official checkpoint"),
    "train": ("scal3r_ros.train.command", "train a small network on made-up worlds"),
    "play": ("scal3r_ros.nodes.launching.play", "publish a bag where there is no `ros2 bag`"),
    "bench": ("scal3r_ros.bench.command", "measure speed and memory"),
}
VARIANTS = {("evaluate", "--suite"): "scal3r_ros.train.evaluate_suite"}
"""Commands that another module handles when an option is given."""
EXAMPLES = """\
examples:
  scal3r reconstruct video.mp4 --out result
  scal3r reconstruct bag_folder --out result --topic /camera/image_raw
  scal3r evaluate --trajectory result/trajectory.txt --groundtruth truth.txt

exit codes: 0 done, 1 the input or a file is bad, 2 wrong usage, 3 nothing could be mapped,
130 interrupted. `scal3r COMMAND --help` tells the rest.
"""
OK, BAD_INPUT, USAGE, NOTHING_MAPPED, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    wait_passively()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("scal3r_ros").setLevel(logging.INFO)
    wanted = next((word for word in arguments if word in COMMANDS), "")
    try:
        parser = _parser(wanted, _module_name(wanted, arguments))
    except ImportError as error:
        if "--debug" in arguments:
            raise
        print(f"scal3r {wanted} needs a library that is not there: {error}", file=sys.stderr)
        return BAD_INPUT
    chosen = parser.parse_args(arguments)
    if not chosen.command:
        parser.print_help()
        return USAGE
    try:
        result = chosen.run(chosen)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # the one boundary: nobody is handed a traceback who did not ask
        if chosen.debug:
            raise
        print(f"scal3r {chosen.command}: {_sentence(error)}", file=sys.stderr)
        return BAD_INPUT
    return result if isinstance(result, int) else OK


def _sentence(error: Exception) -> str:
    """One line for the user. Our own errors say what to do; a library's text stays as it is."""
    told = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "there is not enough memory; scale the images down, or lower chunk.size"
    if isinstance(error, ValueError | OSError | RuntimeError) and told:
        return told
    return (
        f"{type(error).__name__}: {told or 'no reason given'}. This is a fault of the program or "
        f"of a library; run it with --debug and report what it says"
    )


def _module_name(wanted: str, arguments: Sequence[str]) -> str:
    for (command, option), module_name in VARIANTS.items():
        if command == wanted and any(word.split("=")[0] == option for word in arguments):
            return module_name
    return COMMANDS[wanted][0] if wanted else ""


def _parser(wanted: str, module_name: str) -> argparse.ArgumentParser:
    """The parser; only the module of the `wanted` command is imported."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="scal3r",
        description="From camera images to one consistent 3D map.",
        epilog=EXAMPLES,
        formatter_class=plain,
    )
    parser.add_argument("--version", action="version", version=f"scal3r_ros {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        if name != wanted:
            commands.add_parser(name, help=text, add_help=False)
            continue
        module = importlib.import_module(module_name)
        command = commands.add_parser(
            name, help=text, description=module.__doc__, formatter_class=plain
        )
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
