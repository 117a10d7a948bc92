"""The images of a view, ranked and handed to a writer: those of the index first, then those that are computed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from ..candidates import PackedCandidates
from ..dataset import Builder, Source, ViewImages
from ..matching import Matcher, Ranking
from ..progress import Progress
from .writing import Writer

PREVIEWED = 100
"""Images that a preview writes."""
IMAGES_A_LOOK = 64
"""Images that a preview looks at before it asks again whether better ones can follow."""


def segment_images(
    source: Source, images: ViewImages, builder: Builder | None, matcher: Matcher, writer: Writer
) -> Generator[Progress, None, int]:
    """Returns how many images came from the index."""
    total, done = len(images.held) + len(images.missing), 0
    yield Progress(0, total, "images")
    for sample_id, candidates, ranking in _ranked(source, images.held, matcher):
        writer.add(sample_id, candidates, ranking)
        done += 1
        if done % IMAGES_A_LOOK == 0:
            writer.flush_if_due()
            yield Progress(done, total, "images")
    writer.flush()
    if done and done % IMAGES_A_LOOK:
        yield Progress(done, total, "images")
    if builder is not None:
        with closing(builder.compute(images.missing)) as batches:
            for batch in batches:
                for computed in batch:
                    if computed.candidates is not None:
                        ranking = matcher.rank(computed.candidates)
                        writer.add(computed.image.sample_id, computed.candidates, ranking)
                writer.flush_if_due()
                done += len(batch)
                yield Progress(done, total, "images")
        for sample_id, candidates, ranking in _ranked(source, builder.done_elsewhere, matcher):
            writer.add(sample_id, candidates, ranking)
    return len(images.held) + (0 if builder is None else len(builder.done_elsewhere))


def _ranked(source: Source, sample_ids: Sequence[str], matcher: Matcher) -> Iterator[tuple[str, PackedCandidates, Ranking]]:
    """The indexed images among these, ranked."""
    if source.index is None:
        return
    for chunk in source.index.index.scan(sample_ids):
        classified = matcher.classify(chunk.features.float())
        for number, image in enumerate(chunk.images):
            rows = slice(int(chunk.starts[number]), int(chunk.starts[number + 1]))
            candidates = chunk.candidates(number)
            yield image.sample_id, candidates, matcher.rank(candidates, classified.take(rows))


def preview_images(
    source: Source, sample_ids: Sequence[str], matcher: Matcher, writer: Writer
) -> Generator[Progress, None, list[tuple[str, float]]]:
    """Write the images with the best scores, and return them, best first.

    The best similarity in an image bounds its best score: images are looked at in the order of this bound, until no bound is
    above the worst score that would be written.
    """
    assert source.index is not None
    bounds: dict[str, float] = {}
    yield Progress(0, len(sample_ids), "images")
    for chunk in source.index.index.scan(sample_ids, features_only=True):
        scores = matcher.bounds(matcher.classify(chunk.features.float()))
        for number, image in enumerate(chunk.images):
            own = scores[int(chunk.starts[number]) : int(chunk.starts[number + 1])]
            bounds[image.sample_id] = float(own.max()) if len(own) else 0.0
        yield Progress(len(bounds), len(sample_ids), "images")
    order = sorted(bounds, key=lambda name: -bounds[name])
    found: list[tuple[float, str, PackedCandidates, Ranking]] = []
    for start in range(0, len(order), IMAGES_A_LOOK):
        look = order[start : start + IMAGES_A_LOOK]
        if not bounds[look[0]] or (len(found) == PREVIEWED and bounds[look[0]] <= found[-1][0]):
            break
        for sample_id, candidates, ranking in _ranked(source, look, matcher):
            if len(ranking):
                found.append((float(ranking.scores[0]), sample_id, candidates, ranking))
        found = sorted(found, key=lambda item: -item[0])[:PREVIEWED]
        yield Progress(min(start + IMAGES_A_LOOK, len(order)), len(order), "best images")
    for _, sample_id, candidates, ranking in found:
        writer.add(sample_id, candidates, ranking)
    writer.flush()
    return [(sample_id, score) for score, sample_id, _, _ in found]
