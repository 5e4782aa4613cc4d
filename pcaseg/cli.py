"""The command `pcaseg`: each subcommand is a thin shell over one public function.

Nothing heavy is imported before a subcommand needs it: `pcaseg segment --bundle` starts without torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pcaseg
from pcaseg.arguments import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, Parser
from pcaseg.commands import (
    benching,
    building,
    checking,
    datasets,
    diagnosing,
    evaluating,
    models,
    reporting,
    segmenting,
    serving,
    training,
)
from pcaseg.errors import PcasegError, install_hint, print_error, system_fault
from pcaseg.streams import drop_rest, guarded_output

EXTRA_OF = {"onnxruntime": "onnxruntime", "skimage": "benchmarks", "filelock": "tensorrt"} | dict.fromkeys(
    ("starlette", "uvicorn", "prometheus_client"), "serve"
)
"""The pip extra that brings a module; every other optional one comes with `torch`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 a check failed, 2 input that cannot be used."""
    words = sys.argv[1:] if arguments is None else arguments
    with guarded_output() as output:
        try:
            code = _run(words)
        except SystemExit as end:  # argparse's, after help, the version or words that are none
            if not end.code and output.lost():
                raise SystemExit(EXIT_BAD_INPUT) from end
            raise
        return EXIT_BAD_INPUT if output.lost() and code == EXIT_OK else code


def _run(words: Sequence[str]) -> int:
    options = build_parser().parse_args(words)
    options.command_line = shlex.join(["pcaseg", *words])
    try:
        with warnings.catch_warnings(), _stopped_by_sigterm():
            warnings.simplefilter("ignore")  # each command says itself what its weights are
            code: int = options.run(options)
            sys.stdout.flush()
            return code
    except PcasegError as error:
        print_error(error)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pcaseg"):
            raise
        print_error(_missing(error.name or ""))
    except BrokenPipeError:  # whoever read our output has gone; what was written to files is whole
        drop_rest(sys.stdout)
    except MemoryError:
        print_error("out of memory; try fewer classes, a smaller image, or --strategy single")
    except OSError as error:
        print_error(system_fault(error))
    except KeyboardInterrupt:
        print("interrupted; what was finished is whole and kept", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_BAD_INPUT


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end a command as Ctrl-C does, with nothing half-written; in a thread signals are the program's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _missing(module: str) -> str:
    """Advice on a module that is not there: its package is not installed, or too old for another that is."""
    package = module.partition(".")[0]
    if package != module and importlib.util.find_spec(package) is not None:
        return f"the installed {package} lacks {module}, so it is too old or too new; pip install --upgrade {package}"
    return f"{module} is not installed; {install_hint(EXTRA_OF.get(module, 'torch'))}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(prog="pcaseg", description="Deployment pipeline for PCA-Seg.")
    parser.add_argument("--version", action="version", version=f"pcaseg {pcaseg.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("presets", help="list the model configurations").set_defaults(run=models.run_presets)
    models.add_import(commands.add_parser("import", help="turn a published checkpoint into a model file"))
    models.add_export(commands.add_parser("export", help="write a bundle that runs without torch"))
    building.add_build(commands.add_parser("build", help="build a bundle's TensorRT engines for this machine"))
    checking.add_check(commands.add_parser("check", help="compare a bundle with the eager float32 model"))
    benching.add_bench(commands.add_parser("bench", help="measure every backend against the eager float32 model"))
    reporting.add_report(commands.add_parser("report", help="write a page of measured rows, or compare two runs"))
    segmenting.add_segment(commands.add_parser("segment", help="segment images or folders of images"))
    segmenting.add_vocab(commands.add_parser("vocab", help="write a vocabulary file, for use without the text encoder"))
    serving.add_serve(commands.add_parser("serve", help="serve a bundle: a page, and the Open Inference Protocol"))
    serving.add_serve_repository(
        commands.add_parser("serve-repository", help="write a model repository for Triton Inference Server")
    )
    training.add_train(commands.add_parser("train", help="train a preset; resumable, also under torchrun"))
    diagnosing.add_doctor(commands.add_parser("doctor", help="say which backends run on this machine, and why not"))
    evaluating.add_evaluate(commands.add_parser("evaluate", help="measure a network's mIoU on a labelled data set"))
    datasets.add_datasets(commands.add_parser("datasets", help="list, convert and check the published data sets"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
