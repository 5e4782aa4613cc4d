"""`pcaseg segment` and `vocab`: images to labels, names to vocabulary files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pcaseg.arguments import EXIT_BAD_INPUT, EXIT_OK, seconds, share, some_path, up_to
from pcaseg.class_syntax import ClassTree
from pcaseg.commands.options import (
    add_backend,
    add_network,
    add_ray,
    add_shortlist,
    add_vocabulary,
    open_bundle,
    ray_pool,
    refuse_backend_options,
    say_weights,
    typed_classes,
)
from pcaseg.configs import Strategy
from pcaseg.errors import OutputError, PcasegError, print_error
from pcaseg.paths import exists, refusal
from pcaseg.pictures import LEAST_BITS, MOST_BITS

if TYPE_CHECKING:
    from pcaseg.runtime.segmenter import Segmenter

DEFAULT_MODEL = "tiny"
"""The preset whose trained weights come with the package."""


def add_segment(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image file, folder, address or .txt list of these; or one recording, video or camera",
    )
    add_network(command, default=DEFAULT_MODEL)
    add_vocabulary(command)
    command.add_argument(
        "--out", type=some_path, default=Path("segmented"), help="folder to write (default: segmented)"
    )
    command.add_argument(
        "--strategy", choices=get_args(Strategy), help="sliding: 5 passes, finer (default: the bundle's own, or single)"
    )
    command.add_argument(
        "--bits",
        type=up_to(MOST_BITS, least=LEAST_BITS),
        help="bits that images of more than 8 use, such as 12 of a camera's 12 in 16 (default: what the file says)",
    )
    command.add_argument(
        "--topic", action="append", default=[], help="of a recording: images to label (may be repeated)"
    )
    command.add_argument("--copy", action="append", default=[], metavar="TOPIC", help="of a recording: keep it; or all")
    command.add_argument(
        "--every", type=up_to(10_000), default=1, metavar="N", help="of a video: one of so many frames"
    )
    command.add_argument("--start", type=seconds, default=0, metavar="SECONDS", help="of a video: where to begin")
    command.add_argument(
        "--smooth", type=share, default=0, metavar="WEIGHT", help="of a video: of the frames before (default: 0, off)"
    )
    command.add_argument("--end", type=seconds, metavar="SECONDS", help="of a video: where to end")
    add_shortlist(command)
    add_backend(command)
    add_ray(command)
    command.set_defaults(run=run_segment)


def add_vocab(command: argparse.ArgumentParser) -> None:
    add_network(command)
    add_vocabulary(command)
    command.add_argument("--out", required=True, type=some_path, help="vocabulary to write, .safetensors")
    add_backend(command)
    command.set_defaults(run=run_vocab, strategy=None, bits=None, shortlist=None)


def run_segment(options: argparse.Namespace) -> int:
    from pcaseg.runtime.batch import expand_inputs, segment_files
    from pcaseg.runtime.sources import is_recording, is_video

    recorded = any(map(is_recording, options.images))
    filmed = not recorded and any(map(is_video, options.images))
    if (options.topic or options.copy) and not recorded:
        raise PcasegError("--topic and --copy are for a recording; leave them out")
    if (options.every, options.start, options.end, options.smooth) != (1, 0, None, 0) and not filmed:
        raise PcasegError("--every, --start, --end and --smooth are for a video; leave them out")
    pool = ray_pool(options, a_recording=recorded, a_video=filmed)
    if recorded or filmed:
        return _run_recording(options) if recorded else _run_video(options)

    images, left_out = expand_inputs(options.images)
    if pool is not None:
        options.threads = pool.threads
    segmenter = _open_segmenter(options)
    _make_folder(options.out)
    if pool is None:
        batch = segment_files(segmenter, images, options.out, progress=len(images) > 1)
    else:
        from pcaseg.runtime.batch_ray import segment_on_ray

        batch = segment_on_ray(segmenter, images, options.out, pool, progress=True)
    batch.left_out = left_out
    if batch.last is not None and len(images) == 1:
        result, paths = batch.last
        for name, pixels in sorted(zip(result.classes, result.class_pixels(), strict=True), key=lambda x: -x[1])[:10]:
            print(f"{pixels / result.labels.size:7.1%}  {name}")
        print(f"overlay: {paths['overlay']}\nlabels:  {paths['labels']}\nsummary: {paths['summary']}")
        print(f"{result.backend}, {result.timings_ms['total']:.0f} ms")
    if len(images) > 1 or batch.last is None or left_out:
        print(f"{options.out}: {batch.said()}")
    if batch.done:
        say_weights(segmenter.backend.manifest.weights.kind)
    for _, message in batch.failed:
        print_error(message)
    return EXIT_BAD_INPUT if batch.failed else EXIT_OK


def _run_recording(options: argparse.Namespace) -> int:
    if len(options.images) > 1:
        raise PcasegError(f"{options.images[1]}: a recording is labelled alone; give one at a time")
    from pcaseg.runtime.recorded_labels import segment_recording
    from pcaseg.runtime.recordings import Recording

    with Recording(options.images[0]) as recording:
        recording.image_topics(options.topic)  # before anything is loaded
    segmenter = _open_segmenter(options)
    found = segment_recording(
        segmenter, options.images[0], options.out, topics=options.topic, copy=options.copy, progress=True
    )
    print(f"{options.out}: {found.said()}; {', '.join(found.topics)}")
    say_weights(segmenter.backend.manifest.weights.kind)
    faults = [*found.failed, *([f"{found.cut}; the frames before it are labelled"] if found.cut else [])]
    for message in faults:
        print_error(message)
    return EXIT_BAD_INPUT if faults else EXIT_OK


def _run_video(options: argparse.Namespace) -> int:
    if len(options.images) > 1:
        raise PcasegError(f"{options.images[1]}: a video is labelled alone; give one at a time")
    if not options.out.suffix:
        raise PcasegError(f"--out {options.out}: name the video to write, such as labelled.mp4")
    from pcaseg.runtime.video import segment_video

    source = options.images[0]
    found = segment_video(
        _open_segmenter(options),
        source,
        options.out,
        every=options.every,
        start=options.start,
        end=options.end,
        smooth=options.smooth,
        progress=True,
    )
    print(f"{found.said()}: {', '.join(map(str, found.files))}")
    faults = [*found.failed, *([f"{found.ended}; the frames before it are labelled"] if found.ended else [])]
    for message in faults:
        print_error(message)
    return EXIT_BAD_INPUT if faults else EXIT_OK


def run_vocab(options: argparse.Namespace) -> int:
    from pcaseg.runtime.vocabulary import Vocabulary

    if options.out.suffix != ".safetensors":
        raise PcasegError(f"{options.out}: a vocabulary file ends in .safetensors; rename it")
    if exists(options.out, error=OutputError):
        Vocabulary.load(options.out)  # refuses a file of another kind
    segmenter = _open_segmenter(options)
    assert segmenter.vocabulary is not None  # _open_segmenter sets it
    segmenter.vocabulary.save(options.out)
    print(f"{options.out}: {len(segmenter.vocabulary.names)} classes")
    say_weights(segmenter.backend.manifest.weights.kind)
    return EXIT_OK


def _open_segmenter(options: argparse.Namespace) -> Segmenter:
    """The segmenter and vocabulary that the options name; class names are checked before anything is loaded."""
    from pcaseg.runtime.segmenter import Segmenter
    from pcaseg.runtime.text import check_prompts
    from pcaseg.runtime.vocabulary import resolve_vocabulary

    source, vocabulary = options.vocabulary, options.vocabulary
    if options.classes is not None:
        source = "--classes"
        vocabulary = typed_classes(options.classes)
    vocabulary = resolve_vocabulary(vocabulary)
    names = [one for group in vocabulary.synonyms for one in group] if isinstance(vocabulary, ClassTree) else None
    if options.bundle is None:
        refuse_backend_options(options)
        from pcaseg.export.torch_backend import TorchBackend
        from pcaseg.model.checkpoint import open_model
        from pcaseg.model.text_tower import name_tokens

        if names is not None:
            name_tokens(names, source=source)  # refuses prompts that are too long
        backend = TorchBackend(
            open_model(options.model or options.default_model, shortlist=options.shortlist),
            device=options.device,
            threads=options.threads,
        )
        segmenter = Segmenter(backend, strategy=options.strategy, bits=options.bits)
    else:
        if names is not None:
            check_prompts(options.bundle, names, source=source)
        segmenter = open_bundle(options, bits=options.bits, shortlist=options.shortlist)
    segmenter.set_vocabulary(vocabulary, synonyms=options.synonyms, templates=options.template)
    return segmenter


def _make_folder(out: Path) -> None:
    """Makes the output folder before the work, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: NUL characters
        raise refusal(out, error, OutputError) from error
