"""The command `pcaseg doctor`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pcaseg.arguments import EXIT_FAILED, EXIT_OK, some_path

if TYPE_CHECKING:
    from pcaseg.doctor import Finding


def add_doctor(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", nargs="?", type=some_path, help="bundle to try with every backend")
    command.set_defaults(run=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    from pcaseg.doctor import diagnose, diagnose_bundle
    from pcaseg.environment import environment
    from pcaseg.runtime.bundle import Bundle

    bundle = None if options.bundle is None else Bundle(options.bundle)
    machine = environment()
    processor = f"{machine['cores']} cores of {machine['cpu']} ({machine['instruction_sets']})"
    print(f"{machine['system']}, Python {machine['python']}, {processor}")
    findings = diagnose()
    _print(findings)
    if bundle is None:
        return EXIT_OK if any(finding.runs for finding in findings) else EXIT_FAILED
    print(bundle.path)
    files, *others = diagnose_bundle(bundle)
    _print([files, *others])
    graphs = [finding for finding in others if finding.subject.startswith("graph ")]
    ran = [finding for finding in others if finding.subject.startswith("runs ")]
    whole = files.works and all(finding.works for finding in graphs)
    return EXIT_OK if whole and any(finding.works for finding in ran) else EXIT_FAILED


def _print(findings: Sequence[Finding]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{'yes' if finding.works else 'no':3}  {finding.subject:{width}}  {finding.detail}")
