"""The check of a bundle: does it compute what the eager float32 model computes?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from pcaseg.configs import TRAINED, Strategy, WeightsKind
from pcaseg.environment import write_rows
from pcaseg.errors import PcasegError
from pcaseg.evaluation.agreement import (
    AgreementRow,
    LabelledAgreement,
    agreement_cases,
    check_case,
    check_labelled,
    photographs,
)
from pcaseg.evaluation.gates import default_gate, labelled_gate
from pcaseg.evaluation.labelled_scenes import SOURCE, open_labelled
from pcaseg.export.torch_backend import source_model
from pcaseg.files import holds_json, refuse_foreign
from pcaseg.images import read_image
from pcaseg.model.checkpoint import open_model
from pcaseg.model.network import PCASeg
from pcaseg.runtime.backends import Backend, open_backend
from pcaseg.runtime.batch import expand_images
from pcaseg.runtime.bundle import Bundle
from pcaseg.runtime.engines import EIGHT_BITS
from pcaseg.runtime.manifest import Manifest
from pcaseg.runtime.segmenter import choose_strategy
from pcaseg.runtime.shortlist import check_shortlist
from pcaseg.text_tables import terminal_table

CLASS_COUNTS = (59, 20, 5, 1)
"""Sizes of the vocabularies of a check, in turn."""


@dataclass(frozen=True)
class CheckReport:
    """Outcome of a check.

    Attributes:
        preset, aggregation, weights, bundle_sha256: of the bundle.
        precision: what the backend computes in, which chose the gate.
        graph: what the backend's graph ends in.
        backend: what really ran.
        gate: what every row had to reach.
        rows: one for each image and vocabulary.
        labelled: mIoU of both sides on labelled images; None where none were measured.
    """

    preset: str
    aggregation: str
    weights: WeightsKind
    bundle_sha256: str
    precision: str
    graph: str
    backend: str
    gate: Mapping[str, float]
    rows: tuple[AgreementRow, ...]
    labelled: LabelledAgreement | None

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        backend: Backend,
        rows: Sequence[AgreementRow],
        labelled: LabelledAgreement | None,
        *,
        precision: str,
        gate: Mapping[str, float],
    ) -> CheckReport:
        """The report on a bundle and what ran it."""
        manifest = bundle.manifest
        return cls(
            preset=manifest.preset,
            aggregation=manifest.aggregation,
            weights=manifest.weights.kind,
            bundle_sha256=bundle.sha256,
            precision=precision,
            graph=backend.manifest.graph,
            backend=backend.name,
            gate=gate,
            rows=tuple(rows),
            labelled=labelled,
        )

    @property
    def passed(self) -> bool:
        """True where every row and the labelled images are within the gate."""
        return all(row.passed for row in self.rows) and (self.labelled is None or self.labelled.passed)

    def verdict(self) -> str:
        """One sentence on all rows."""
        error = {"logits": "relative error", "labels": "difference of confidence"}[self.graph]
        agree = "agree" if all(row.passed for row in self.rows) else "DISAGREE"
        bounds = ", ".join(f"{name} {value:g}" for name, value in self.gate.items())
        worst = max(row.relative_error for row in self.rows)
        return (
            f"{self.backend} and eager float32 {agree}: {error} at most {worst:.1e}, same label for at least "
            f"{min(row.label_agreement for row in self.rows):.3%} of an image's pixels (gate: {bounds})"
        )

    def table(self) -> str:
        """The rows as text, for a terminal."""
        headers = ["image", "classes", "strategy", "error", "labels", "worst class (IoU)", "eager s", "bundle s", ""]
        cells = [
            [
                *(row.case[:16], row.classes, row.strategy, f"{row.relative_error:.1e}", f"{row.label_agreement:.3%}"),
                f"{row.worst_class.split(',')[0][:20]} ({row.worst_iou:.4f})",
                *(f"{row.eager_s:.1f}", f"{row.bundle_s:.1f}", "ok" if row.passed else "FAILED"),
            ]
            for row in self.rows
        ]
        return terminal_table(headers, cells, align="lrlrrlrrl")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as JSON, with what was measured and what on.

        Raises:
            OutputError: the path cannot be written.
        """
        write_rows(
            path,
            self.rows,
            preset=self.preset,
            aggregation=self.aggregation,
            weights=self.weights,
            precision=self.precision,
            graph=self.graph,
            bundle_sha256=self.bundle_sha256,
            backend=self.backend,
            labelled=None if self.labelled is None else asdict(self.labelled),
        )


def check_bundle(
    bundle: Bundle | str | os.PathLike[str],
    *,
    model: PCASeg | str | os.PathLike[str] | None = None,
    images: Sequence[str | os.PathLike[str]] | None = None,
    classes: Sequence[int] = CLASS_COUNTS,
    strategy: Strategy | None = None,
    gate: Mapping[str, float] | None = None,
    labelled: str | None = None,
    backend: str = "onnxruntime",
    device: str | None = None,
    threads: int | None = None,
    backend_options: Mapping[str, object] | None = None,
    shortlist: int | None = None,
    progress: bool = False,
) -> CheckReport:
    """Compares a bundle with the eager float32 model, from pixels and names to labels.

    Args:
        bundle: of `pcaseg.export`, or its path.
        model: the reference, or as `pcaseg.open_model` takes it; None for what the bundle was exported from.
        images: image files and folders; None for scikit-image's built-in photographs.
        classes: sizes of the vocabularies, 1 to 847; images and sizes are paired in turn.
        strategy: `single` or `sliding`; None for the bundle's own.
        gate: thresholds by name, see `pcaseg.evaluation.gates`, that replace those of the bundle's precision.
        labelled: for mIoU: a folder with `classes.txt`, `images/` and `labels/`, or `scenes` for 200 rendered ones;
            None for the scenes where the bundle is a trained one of the preset `tiny`, and else for none.
        backend: what runs the bundle, one of `pcaseg.runtime.backend_names()`.
        device: of the backend; None for its default.
        threads: CPU threads of the backend; None for its default.
        backend_options: what that backend alone understands, such as `engine_precision`.
        shortlist: of both sides, as the bundle was exported; None for its own.
        progress: show progress bars on standard error.

    Returns:
        The report, whether the bundle passed or not.

    Raises:
        BundleError: the bundle is damaged, or what it was exported from is not there.
        MissingDependencyError: the backend or scikit-image is not installed.
        PcasegError: an image, the labelled set or a gate cannot be used.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    manifest, options = bundle.manifest, dict(backend_options or {})
    chosen = choose_strategy(manifest, strategy)
    check_shortlist(manifest, shortlist)
    bundle.verify()
    pictures = {path.name: read_image(path) for path in expand_images(images)} if images else photographs()
    opened = open_backend(backend, bundle, device=device, threads=threads, options=options)
    if not isinstance(model, PCASeg):
        model = source_model(bundle) if model is None else open_model(model)
    precision = _computed_in(manifest, options)
    bounds = _gate(bundle, precision, gate or {})
    most = bounds.pop("miou_difference", None)
    todo = agreement_cases(pictures, classes, chosen, image_size=manifest.image_size)
    with open_labelled(_labelled_source(labelled, manifest, gate or {})) as found:
        cases = tqdm(todo, desc="check", unit="case", disable=not progress)
        rows = [check_case(model, opened, case, bounds) for case in cases]
        scored = check_labelled(model, opened, found, chosen, most, progress=progress) if found else None
    return CheckReport.of(bundle, opened, rows, scored, precision=precision, gate=bounds)


def refuse_foreign_report(path: Path) -> None:
    """Refuses to replace a file that is no report of a check.

    Raises:
        OutputError: names it.
    """
    refuse_foreign(path, _is_report, "a report of pcaseg check")


def _is_report(path: Path) -> bool:
    """True for a file that `CheckReport.write` wrote."""
    return holds_json(path, {"schema_version", "bundle_sha256", "rows"})


def _computed_in(manifest: Manifest, options: Mapping[str, object]) -> str:
    """The coarsest that a backend with these options multiplies in: what an engine or a hint lowers the bundle's to."""
    engine, hint = options.get("engine_precision"), options.get("precision_hint")
    if engine in EIGHT_BITS:
        return str(engine)
    return manifest.precision if hint in (None, "float32") else str(hint)


def _gate(bundle: Bundle, precision: str, asked: Mapping[str, float]) -> dict[str, float]:
    """Thresholds to reach: by precision and weights, and what was asked for."""
    weights = bundle.manifest.weights.kind
    gate = {**default_gate(precision, weights), **labelled_gate(precision, weights), **asked}
    if not gate.keys() - {"miou_difference"}:
        raise PcasegError(
            f"{bundle.path}: its weights were never trained, so labels in {precision} prove nothing; give --gate"
        )
    return gate


def _labelled_source(asked: str | None, manifest: Manifest, gate: Mapping[str, float]) -> str | None:
    """Source of labelled images for mIoU: what was asked for, or the scenes for a bundle that was trained on such."""
    if asked is None and manifest.preset == "tiny" and manifest.weights.kind in TRAINED:
        asked = None if manifest.image_size else SOURCE
    if asked is None and "miou_difference" in gate:
        raise PcasegError("gate miou_difference: there is no labelled set to measure it on; give --labelled")
    return asked
