"""What the demo segmenter is trained for. Maps lie in the order of `segmenter_model.cells`, N cells an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EMBEDDING = 16
MEAN_SHARE = 0.5
"""Of the mean over the masks of a click beside that of the best one."""
IOU_WEIGHT = 8


def dense_loss(maps: Tensor, labels: Tensor) -> Tensor:
    """Foreground and instance embedding at stride 4, which gets the image encoder off the ground.

    Args:
        maps: (B, EMBEDDING + 1, G, G).
        labels: (B, G, G) int64.
    """
    loss = F.binary_cross_entropy_with_logits(maps[:, EMBEDDING], (labels > 0).float())
    embedding = F.normalize(maps[:, :EMBEDDING], dim=1).flatten(2)
    for vectors, owner in zip(embedding, labels.flatten(1), strict=True):
        picks = torch.randint(0, len(owner), (256,))
        v, y = vectors[:, picks].T, owner[picks]
        logits = 5 * (v @ v.T) - 2.5
        same = (y[:, None] == y[None]).float()
        weight = ((y[:, None] > 0) | (y[None] > 0)).float()
        pairs = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
        loss = loss + (pairs * weight).sum() / weight.sum().clamp(min=1) / len(labels)
    return loss


def mask_loss(logits: Tensor, iou: Tensor, target: Tensor, owner: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of one image's prompts, and the measured IoU (P, K) of their masks.

    The predicted IoU of a click on an object learns the overlap with that object; beside all objects, that with whichever
    object the mask fits best.

    Args:
        logits: (P, K, N).
        iou: (P, K) predicted.
        target: (P, N) covered share of each cell.
        owner: (P,) int64, 0 for clicks beside all objects.
        objects: (J, N) bool masks of the image's objects.
    """
    on_object = owner > 0
    with torch.no_grad():
        found = logits > 0
        measured = _overlap(found, (target > 0.5)[:, None])
        beside = found[~on_object]
        if len(beside) and len(objects):
            measured[~on_object] = _best_overlap(beside, objects)
    ranking = F.mse_loss(iou, measured)
    own, wanted = logits[on_object], target[on_object][:, None].expand_as(logits[on_object])
    chance = own.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(own, wanted, reduction="none")
    area = wanted.mean(2).clamp(min=0.004)
    near = (entropy * (1 + 4 * (wanted > 0.02))).mean(2) / (area.sqrt() * 4)
    dice = 1 - (2 * (chance * wanted).sum(2) + 1) / (chance.sum(2) + wanted.sum(2) + 1)
    each = near + dice
    return each.min(1).values.mean() + MEAN_SHARE * each.mean() + IOU_WEIGHT * ranking, measured


def token_loss(told: Tensor, points: Tensor, embedding: Tensor, target: Tensor) -> Tensor:
    """What mask tokens tell about their prompts, against the truth.

    Args:
        told: (P, K, EMBEDDING + 2) of K tokens a prompt.
        points: (P, 2) xy as shares of the side, the click or the box's middle.
        embedding: (EMBEDDING, N) of the image, from the dense auxiliary head.
        target: (P, N) covered share of each cell by the prompt's object.
    """
    mean = F.normalize(target @ embedding.detach().T, dim=-1)
    likeness = F.cosine_similarity(told[..., :EMBEDDING], mean[:, None], dim=-1)
    place = (told[..., EMBEDDING:] - points[:, None]).abs().sum(-1)
    return (1 - likeness).mean() + 2 * place.mean()


def gaze_loss(looks: tuple[Tensor, ...], target: Tensor, *, num_own_tokens: int = 6) -> Tensor:
    """How much of the tokens' looks goes past the object: the mean of -log of the share that falls on it.

    In the first attention only the prompt's own tokens can know the place; the others hear of it from them. The two corners of
    a box lie beside their object and are left out.

    Args:
        looks: see `segmenter_model.Answers`.
        target: (P, N) covered share of each cell.
        num_own_tokens: tokens of the decoder itself, before those of the prompt.
    """
    cover = (2 * target.unflatten(1, (-1, 16)).mean(2)).clamp(max=1)
    is_click = looks[0].shape[1] == num_own_tokens + 1
    loss: Tensor = cover.new_zeros(())
    for number, look in enumerate(looks):
        if number == 0 and not is_click:
            continue
        tokens = look[:, num_own_tokens if number == 0 else 0 : None if is_click else num_own_tokens]
        loss = loss - torch.log(torch.einsum("pts,ps->pt", tokens, cover) + 1e-4).mean()
    return loss


def _best_overlap(found: Tensor, objects: Tensor) -> Tensor:
    """(P, K) largest IoU of each of (P, K, N) masks with one of (J, N) others."""
    flat, others = found.flatten(0, 1).float(), objects.float()
    shared = flat @ others.T
    either = flat.sum(1, keepdim=True) + others.sum(1) - shared
    best: Tensor = (shared / (either + 1e-6)).amax(1).view(found.shape[:2])
    return best


def _overlap(found: Tensor, truth: Tensor) -> Tensor:
    overlap: Tensor = (found & truth).sum(2) / ((found | truth).sum(2) + 1e-6)
    return overlap
