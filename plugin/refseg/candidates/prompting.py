"""SAM 2's answers to one prompt of several clicks, or of a box and clicks: what a person shows, and not the grid.

Decoded by the `sam2` package's own modules, because one prompt takes a hundredth of a second on a processor. Of one click
alone three masks come back (a part, the whole, what it belongs to); anything more says which of them is meant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import Models
from .cleaning import clean_for
from .embedding import ImageEmbeddings

ON, BESIDE, TOP_LEFT, BOTTOM_RIGHT = 1, 0, 2, 3
"""SAM 2's marks of points: a click on the object, one beside it, and two corners of a box."""


@torch.inference_mode()
def decode_prompt(
    on: Tensor, beside: Tensor, box: Tensor | None, embeddings: ImageEmbeddings, row: int, models: Models
) -> tuple[Tensor, Tensor]:
    """Masks of the object that a prompt shows, clean where the preset wants them so.

    Args:
        on: (P, 2) xy pixels of the S by S input: clicks on the object.
        beside: (Q, 2) likewise: clicks on what does not belong to it.
        box: (4,) xyxy likewise, around the object; None for none.
        embeddings: of the batch.
        row: of the image in the batch.
        models: a loaded preset.

    Returns:
        (K, M, M) logits and (K,) predicted IoU, best first: three for a single click, one for anything more.
    """
    corners = on.new_empty(0, 2) if box is None else box.reshape(2, 2).to(on)
    points = torch.cat([corners, on, beside])[None].to(models.device)
    marks = [TOP_LEFT, BOTTOM_RIGHT][: len(corners)] + [ON] * len(on) + [BESIDE] * len(beside)
    labels = torch.tensor([marks], dtype=torch.int, device=models.device)
    segmenter = models.segmenter
    sparse, dense = segmenter.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, predicted, _, _ = segmenter.mask_decoder(
        image_embeddings=embeddings.coarse[row : row + 1],
        image_pe=segmenter.prompt_encoder.get_dense_pe().to(models.dtype),
        sparse_prompt_embeddings=sparse.to(models.dtype),
        dense_prompt_embeddings=dense.to(models.dtype),
        multimask_output=len(marks) == 1,
        repeat_image=False,
        high_res_features=[level[row : row + 1] for level in embeddings.fine],
    )
    order = predicted[0].argsort(descending=True)
    return clean_for(models.preset, logits[0, order]), predicted[0, order]
