"""The images of a view, ranked and handed to a writer: those of the index first, then those that are computed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing

from ..candidates import Candidates, PackedCandidates
from ..dataset import Builder, DatasetIndex, Source, ViewImages, every_image, whole_of
from ..images import run_ahead
from ..index import IndexChunk
from ..matching import Batch, Looked, Matcher, Ranking
from ..progress import Progress
from .looking import Looker, part
from .writing import Writer

PREVIEWED = 100
"""Images that a preview writes."""
IMAGES_A_LOOK = 64
"""Images that a preview looks at before it asks again whether better ones can follow."""


def segment_images(
    source: Source, images: ViewImages, builder: Builder | None, matcher: Matcher, writer: Writer, looker: Looker
) -> Generator[Progress, None, int]:
    """Returns how many images came from the index.

    These are answered at once, by what is known of them. Then those are looked at again of which a candidate is worth it and
    nobody has, the most promising image first, and answered anew.
    """
    total, done = len(images.held) + len(images.missing), 0
    waiting: dict[str, float] = {}
    yield Progress(0, total, "images")
    for sample_id, candidates, ranking, worth in _ranked(source, images.held, matcher, looker):
        if worth:
            waiting[sample_id] = worth
        writer.add(sample_id, candidates, ranking, is_final=not worth)
        done += 1
        if done % IMAGES_A_LOOK == 0:
            writer.flush_if_due()
            yield Progress(done, total, "images")
    writer.flush()
    if done and done % IMAGES_A_LOOK:
        yield Progress(done, total, "images")
    yield from _look_again(source, waiting, matcher, writer, looker)
    if builder is not None:
        with closing(builder.compute(images.missing)) as batches:
            for batch in batches:
                for computed in batch:
                    if computed.candidates is not None:
                        image = computed.image
                        looked = _looked(looker, matcher, image.sample_id, image.path, computed.candidates)
                        ranking = matcher.rank(computed.candidates, looked=looked)
                        writer.add(image.sample_id, computed.candidates, ranking)
                writer.flush_if_due()
                looker.write_if_due()
                done += len(batch)
                yield Progress(done, total, builder.label)
        elsewhere: dict[str, float] = {}
        for sample_id, candidates, ranking, worth in _ranked(source, builder.done_elsewhere, matcher, looker):
            if worth:
                elsewhere[sample_id] = worth
            writer.add(sample_id, candidates, ranking, is_final=not worth)
        writer.flush()
        yield from _look_again(source, elsewhere, matcher, writer, looker)
    return len(images.held) + (0 if builder is None else len(builder.done_elsewhere))


def _looked(
    looker: Looker,
    matcher: Matcher,
    sample_id: str,
    path: str,
    candidates: Candidates | PackedCandidates,
    known: Looked | None = None,
) -> Looked | None:
    """Second looks at the candidates that are worth one, where the matcher looks at anything that nobody has looked at."""
    wanted = matcher.pick(candidates)
    if not matcher.looks_anew:
        return part(wanted, known).known
    return looker.look(sample_id, path, candidates, wanted, known)


def _look_again(
    source: Source, waiting: Mapping[str, float], matcher: Matcher, writer: Writer, looker: Looker
) -> Generator[Progress, None, None]:
    """Images of the index that are looked at again, the most promising first."""
    if not waiting or source.index is None:
        return
    order = sorted(waiting, key=lambda name: -waiting[name])
    paths = dict(zip(*every_image(whole_of(writer.view)).select(order).values(["id", "filepath"]), strict=True))
    yield Progress(0, len(order), "second looks")
    for start in range(0, len(order), IMAGES_A_LOOK):
        some = order[start : start + IMAGES_A_LOOK]
        held = [
            (image.sample_id, chunk.candidates(number), known)
            for chunk in source.index.index.scan(some)
            for number, (image, known) in enumerate(zip(chunk.images, looker.known(chunk.images), strict=True))
        ]
        # An index hands images out in its own order.
        held.sort(key=lambda image: -waiting[image[0]])
        for number, (sample_id, candidates, known) in enumerate(held, start + 1):
            looked = _looked(looker, matcher, sample_id, paths[sample_id], candidates, known)
            writer.add(sample_id, candidates, matcher.rank(candidates, looked=looked))
            writer.flush_if_due()
            looker.write_if_due()
            yield Progress(number, len(order), "second looks")
    writer.flush()


def _ranked(
    source: Source, sample_ids: Sequence[str], matcher: Matcher, looker: Looker
) -> Iterator[tuple[str, PackedCandidates, Ranking, float]]:
    """The indexed images among these, ranked by what is known, and what a second look at the best of the others is worth."""
    if source.index is None:
        return
    with closing(run_ahead(_with_looks(source.index, sample_ids, looker), "refseg-looks")) as chunks:
        for chunk, known in chunks:
            classified = matcher.classify(chunk.features)
            images = [chunk.candidates(number) for number in range(len(chunk.images))]
            batch = Batch.of(images)
            parts = list(map(part, matcher.pick_batch(batch, classified), known))
            rankings = matcher.rank_batch(batch, classified, [parted.known for parted in parts])
            for number, (image, parted) in enumerate(zip(chunk.images, parts, strict=True)):
                looks_anew = matcher.looks_anew and len(parted.missing)
                worth = float(classified.scores[int(chunk.starts[number]) + parted.missing].max()) if looks_anew else 0.0
                yield image.sample_id, images[number], rankings[number], worth


def _with_looks(
    index: DatasetIndex, sample_ids: Sequence[str], looker: Looker
) -> Generator[tuple[IndexChunk, list[Looked | None]], None, None]:
    """The indexed images among these, and what was seen of them: read while those before are ranked."""
    with closing(index.index.scan(sample_ids)) as chunks:
        for chunk in chunks:
            yield chunk, looker.known(chunk.images)


def preview_images(
    source: Source, sample_ids: Sequence[str], matcher: Matcher, writer: Writer, looker: Looker
) -> Generator[Progress, None, list[tuple[str, float]]]:
    """Write the images with the best scores, and return them, best first.

    The best similarity in an image, by first looks and by those second looks that are known, bounds its best score: images are
    ranked in the order of this bound, until no bound is above the worst score that would be written. Nobody looks anew.
    """
    assert source.index is not None
    bounds: dict[str, float] = {}
    yield Progress(0, len(sample_ids), "images")
    for chunk in source.index.index.scan(sample_ids, features_only=True):
        scores = matcher.bounds(matcher.classify(chunk.features))
        for number, (image, known) in enumerate(zip(chunk.images, looker.known(chunk.images), strict=True)):
            own = scores[int(chunk.starts[number]) : int(chunk.starts[number + 1])]
            best = float(own.max()) if len(own) else 0.0
            bounds[image.sample_id] = max(best, matcher.best_of(known))
        yield Progress(len(bounds), len(sample_ids), "images")
    order = sorted(bounds, key=lambda name: -bounds[name])
    found: list[tuple[float, str]] = []
    for start in range(0, len(order), IMAGES_A_LOOK):
        look = order[start : start + IMAGES_A_LOOK]
        if not bounds[look[0]] or (len(found) == PREVIEWED and bounds[look[0]] <= found[-1][0]):
            break
        for sample_id, _, ranking, _ in _ranked(source, look, matcher, looker):
            if len(ranking):
                found.append((float(ranking.scores[0]), sample_id))
        found = sorted(found, key=lambda item: -item[0])[:PREVIEWED]
        yield Progress(min(start + IMAGES_A_LOOK, len(order)), len(order), "best images")
    # Read again: the candidates of an image keep those of its whole chunk in memory.
    for sample_id, candidates, ranking, _ in _ranked(source, [name for _, name in found], matcher, looker):
        writer.add(sample_id, candidates, ranking)
    writer.flush()
    return [(sample_id, score) for score, sample_id in found]
