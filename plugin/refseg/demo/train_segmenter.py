"""Train the demo segmenter from nothing: a small SAM 2, made of the `sam2` package's own classes.

Clicks fall on every pixel of an object and, one in seven, on the tray; boxes are drawn a little off the object. The best of
the three masks takes the loss with a share of the mean; the predicted IoU learns the measured one, and zero on the tray. A
dense auxiliary loss at stride 4 (foreground, and an embedding that tells instances apart) gets the encoder off the ground. A
second one gets the decoder there: its tokens are asked where their prompt is and what embedding its object has, and are told
to look at that object; without it the masks ignored the clicks for more than a thousand steps. Steps whose gradient is not
finite are skipped. About a second a step on two cores.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import sam2
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from .pool import Pool
from .train_state import TrainingState, cosine_rate

logger = logging.getLogger(__name__)

SIDE = 256
GRID = SIDE // 4
WIDTH = 128
IMAGES_A_STEP = 3
CLICKS = 22
BOXES = 4
TRAY_CLICKS = 4
EMBEDDING = 16
MEAN_SHARE = 0.5
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def segmenter_config() -> DictConfig:
    """The configuration of the demo segmenter: SAM 2.1-tiny's, smaller in every width."""
    whole = OmegaConf.load(Path(sam2.__path__[0]) / "configs/sam2.1/sam2.1_hiera_t.yaml")
    assert isinstance(whole, DictConfig)
    model = whole.model
    model.image_size = SIDE
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    trunk.embed_dim, trunk.stages, trunk.global_att_blocks = 32, [1, 2, 3, 1], [5]
    neck.d_model = neck.position_encoding.num_pos_feats = WIDTH
    neck.backbone_channel_list, neck.fpn_top_down_levels = [256, 128, 64, 32], [0, 1, 2, 3]
    attention = model.memory_attention
    attention.d_model, attention.num_layers = WIDTH, 1
    attention.layer.d_model, attention.layer.dim_feedforward = WIDTH, 64
    for block in (attention.layer.self_attention, attention.layer.cross_attention):
        block.embedding_dim, block.feat_sizes = WIDTH, [SIDE // 16, SIDE // 16]
    attention.layer.cross_attention.kv_in_dim = 16
    memory = model.memory_encoder
    memory.out_dim = memory.position_encoding.num_pos_feats = 16
    memory.in_dim = memory.mask_downsampler.embed_dim = memory.fuser.layer.dim = WIDTH
    memory.fuser.num_layers = 1
    return OmegaConf.create({"model": model})


def build_segmenter() -> nn.Module:
    """The demo segmenter with random weights."""
    model = instantiate(segmenter_config().model, _recursive_=True)
    assert isinstance(model, nn.Module)
    return model


@torch.no_grad()
def tie_positions(model: Any, gain: float = 1.5) -> None:
    """Let clicks look at their own place from the start: the keys of the cross attentions begin as copies of the queries.

    A click and the image carry the same positional code. With equal projections their product is largest where the click is,
    which the decoder otherwise needs a thousand steps to find out.
    """
    transformer = model.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:
        attention.q_proj.weight *= gain
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def _crop(rng: np.random.Generator, image: NDArray[np.uint8], ids: NDArray[np.uint8]) -> tuple[Any, Any]:
    """A random part of a scene, stretched to SIDE, turned, mirrored, its colours exchanged."""
    height, width = ids.shape
    share = rng.uniform(0.65, 1.0, 2) if rng.random() < 0.6 else np.ones(2)
    h, w = int(height * share[0]), int(width * share[1])
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    box = (x, y, x + w, y + h)
    picture = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))
    labels = np.asarray(Image.fromarray(ids).resize((SIDE, SIDE), Image.Resampling.NEAREST, box))
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    picture, labels = np.rot90(picture, turns), np.rot90(labels, turns)
    if flip:
        picture, labels = picture[:, ::-1], labels[:, ::-1]
    return picture[:, :, rng.permutation(3)].copy(), labels.copy()


def _clicks(rng: np.random.Generator, labels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """(P, 2) xy pixels and (P,) clicked id; None where a scene shows too little of either kind."""
    counts = np.bincount(labels.ravel(), minlength=2)
    present = [i for i in range(1, len(counts)) if counts[i] >= 40]
    if not present or counts[0] < 100:
        return None
    ys, xs, clicked = [], [], []
    for number in [*rng.choice(present, CLICKS), *([0] * TRAY_CLICKS)]:
        y, x = np.nonzero(labels == number)
        pick = int(rng.integers(len(y)))
        ys.append(y[pick])
        xs.append(x[pick])
        clicked.append(number)
    return np.stack([xs, ys], 1), np.array(clicked)


def _boxes(rng: np.random.Generator, labels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(BOXES, 2, 2) xy corners, each moved by up to a tenth of the side, and (BOXES,) the id inside."""
    counts = np.bincount(labels.ravel())
    present = [i for i in range(1, len(counts)) if counts[i] >= 40]
    chosen = rng.choice(present, BOXES)
    boxes = []
    for number in chosen:
        y, x = np.nonzero(labels == number)
        corners = np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]], float)
        corners += rng.uniform(-0.1, 0.1, (2, 2)) * (corners[1] - corners[0]) * (rng.random() < 0.7)
        boxes.append(np.clip(corners, 0, SIDE))
    return np.stack(boxes), chosen


def _auxiliary_loss(maps: Tensor, labels: Tensor) -> Tensor:
    """Foreground and instance embedding at stride 4; maps (B, EMBEDDING + 1, GRID, GRID), labels (B, GRID, GRID)."""
    loss = F.binary_cross_entropy_with_logits(maps[:, EMBEDDING], (labels > 0).float())
    embedding = F.normalize(maps[:, :EMBEDDING], dim=1).flatten(2)  # (B, EMBEDDING, GRID²)
    flat = labels.flatten(1)
    for vectors, owner in zip(embedding, flat, strict=True):
        picks = torch.randint(0, GRID * GRID, (256,))
        v, y = vectors[:, picks].T, owner[picks]
        logits = 5 * (v @ v.T) - 2.5
        same = (y[:, None] == y[None]).float()
        weight = ((y[:, None] > 0) | (y[None] > 0)).float()
        pairs = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
        loss = loss + (pairs * weight).sum() / weight.sum().clamp(min=1) / len(flat)
    return loss


def _mask_loss(logits: Tensor, iou: Tensor, target: Tensor, on_object: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of one image's clicks, and the measured IoU (P, 3) of its masks.

    Args:
        logits: (P, 3, GRID, GRID).
        iou: (P, 3) predicted IoU.
        target: (P, 1, GRID, GRID) covered share of each cell.
        on_object: (P,) bool; False for clicks on the tray.
    """
    target = target.expand_as(logits)
    chance = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    area = target.mean((2, 3)).clamp(min=0.004)
    near = (entropy * (1 + 4 * (target > 0.02))).mean((2, 3)) / (area.sqrt() * 4)
    overlap = (chance * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.sum((2, 3)) + target.sum((2, 3)) + 1)
    each = near + dice
    with torch.no_grad():
        found, truth = logits > 0, target > 0.5
        measured = (found & truth).sum((2, 3)) / ((found | truth).sum((2, 3)) + 1e-6)
        measured = measured * on_object[:, None]
    ranking = F.mse_loss(iou, measured)
    each = each[on_object]
    return each.min(1).values.mean() + MEAN_SHARE * each.mean() + 2 * ranking, measured


def _token_loss(told: Tensor, points: Tensor, embedding: Tensor, target: Tensor) -> Tensor:
    """What mask tokens tell about their prompts, against the truth.

    Args:
        told: (P, T, EMBEDDING + 2) of T tokens a prompt.
        points: (P, 2) xy pixels, the click or the box's middle.
        embedding: (EMBEDDING, GRID, GRID) of the image, from the dense auxiliary head.
        target: (P, 1, GRID, GRID) covered share of each cell by the prompt's object.
    """
    mean = F.normalize(torch.einsum("pyx,cyx->pc", target[:, 0], embedding.detach()), dim=-1)
    likeness = F.cosine_similarity(told[..., :EMBEDDING], mean[:, None], dim=-1)
    place = (told[..., EMBEDDING:] - points[:, None] / SIDE).abs().sum(-1)
    return (1 - likeness).mean() + 2 * place.mean()


def decode(model: Any, features: dict[str, Any], image: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of prompts on one image of the batch.

    Args:
        model: the segmenter.
        features: of the batch, from `encode`.
        image: row of the image.
        points: xy pixels at SIDE: clicks (P, 2), or boxes as their two corners (P, 2, 2).

    Returns:
        Logits (P, 3, GRID, GRID), predicted IoU (P, 3) and mask tokens (P, 3, WIDTH); for boxes one mask instead of three.
    """
    boxes = points.ndim == 3
    marks = torch.tensor([[2, 3]] if boxes else [[1]], dtype=torch.int).expand(len(points), -1)
    prompts = points if boxes else points[:, None]
    sparse, dense = model.sam_prompt_encoder(points=(prompts, marks), boxes=None, masks=None)
    logits, iou, tokens, _ = model.sam_mask_decoder(
        image_embeddings=features["embedding"][image : image + 1],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=not boxes,
        repeat_image=True,
        high_res_features=[level[image : image + 1] for level in features["fine"]],
    )
    return logits, iou, tokens


def encode(model: Any, images: Tensor) -> dict[str, Any]:
    """Image embeddings of (B, 3, SIDE, SIDE) float images in [0, 1]."""
    levels = model.image_encoder((images - MEAN) / STD)["backbone_fpn"]
    return {
        "embedding": levels[2] + model.no_mem_embed.reshape(1, -1, 1, 1),
        "fine": [model.sam_mask_decoder.conv_s0(levels[0]), model.sam_mask_decoder.conv_s1(levels[1])],
        "finest": levels[0],
    }


class Gaze:
    """Where the decoder's tokens look on the image, read off the projections of its cross attentions while it runs."""

    def __init__(self, model: Any) -> None:
        transformer = model.sam_mask_decoder.transformer
        self._attentions = [layer.cross_attn_token_to_image for layer in transformer.layers]
        self._attentions.append(transformer.final_attn_token_to_image)
        self._seen: dict[Any, Tensor] = {}
        for attention in self._attentions:
            for projection in (attention.q_proj, attention.k_proj):
                projection.register_forward_hook(self._remember)

    def _remember(self, projection: nn.Module, _: Any, output: Tensor) -> None:
        self._seen[projection] = output

    def loss(self, target: Tensor, on_object: Tensor, num_prompt_tokens: int) -> Tensor:
        """How much of their looks goes past the object: the mean of -log of the share that falls on it.

        Args:
            target: (P, 1, GRID, GRID) covered share of each cell.
            on_object: (P,) bool; the others are left out.
            num_prompt_tokens: of each prompt, behind the six tokens of the decoder itself.
        """
        cover = (2 * F.avg_pool2d(target, GRID // (SIDE // 16))).clamp(max=1).flatten(1)[on_object]  # (P, S/16 squared)
        loss = cover.new_zeros(())
        for number, attention in enumerate(self._attentions):
            if number == 0 and num_prompt_tokens == 0:
                continue
            q, k = (self._seen[projection][on_object] for projection in (attention.q_proj, attention.k_proj))
            # In the first layer only the prompt's own tokens can know the place; the others hear of it from them.
            q = q[:, 6 if number == 0 else 0 : 6 + num_prompt_tokens]
            q, k = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (q, k))
            looks = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1).mean(1)  # (P, tokens, S/16 squared)
            loss = loss - torch.log(torch.einsum("pts,ps->pt", looks, cover) + 1e-4).mean()
        return loss


def _target(labels: Tensor, owner: Tensor) -> Tensor:
    """(P, 1, GRID, GRID) share of each cell that belongs to the owner of each prompt; labels (SIDE, SIDE)."""
    return F.avg_pool2d((labels[None] == owner[:, None, None]).float()[:, None], 4)


def _step_loss(
    rng: np.random.Generator, model: Any, auxiliary: nn.ModuleDict, gaze: Gaze, pool: Pool
) -> tuple[Tensor, list[Any]]:
    batch: list[tuple[Any, ...]] = []
    while len(batch) < IMAGES_A_STEP:
        pair, which = int(rng.integers(len(pool.images))), int(rng.integers(2))
        picture, labels = _crop(rng, pool.images[pair, which], pool.ids[pair, which])
        clicks = _clicks(rng, labels)
        if clicks is not None:
            batch.append((picture, labels, clicks, _boxes(rng, labels)))
    images = torch.from_numpy(np.stack([b[0] for b in batch])).permute(0, 3, 1, 2).float() / 255
    features = encode(model, images)
    labels = torch.from_numpy(np.stack([b[1] for b in batch]))
    coarse = labels[:, 2::4, 2::4].long()
    maps = auxiliary["dense"](features["finest"])
    embedding = F.normalize(maps[:, :EMBEDDING], dim=1)
    loss = _auxiliary_loss(maps, coarse)
    measured = []
    for number, (_, _, (points, clicked), (corners, boxed)) in enumerate(batch):
        owner, inside = torch.from_numpy(clicked), torch.from_numpy(boxed)
        places, corners_xy = torch.from_numpy(points).float(), torch.from_numpy(corners).float()
        target, box_target = _target(labels[number], owner), _target(labels[number], inside)
        logits, iou, tokens = decode(model, features, number, places)
        image_loss, image_iou = _mask_loss(logits, iou, target, owner > 0)
        gaze_loss = gaze.loss(target, owner > 0, num_prompt_tokens=1)
        box_logits, box_iou, box_tokens = decode(model, features, number, corners_xy)
        box_loss, _ = _mask_loss(box_logits, box_iou, box_target, inside > 0)
        gaze_loss = gaze_loss + 0.4 * gaze.loss(box_target, inside > 0, num_prompt_tokens=0)
        told, box_told = auxiliary["tokens"](tokens), auxiliary["tokens"](box_tokens)
        token_loss = _token_loss(told[owner > 0], places[owner > 0], embedding[number], target[owner > 0])
        token_loss = token_loss + 0.4 * _token_loss(box_told, corners_xy.mean(1), embedding[number], box_target)
        loss = loss + (image_loss + 0.4 * box_loss + token_loss + 0.5 * gaze_loss) / len(batch)
        hit = image_iou[owner > 0]
        chosen = hit.gather(1, iou[owner > 0].argmax(1, keepdim=True))
        measured.append((chosen.mean().item(), hit.max(1).values.mean().item()))
    return loss, measured


@torch.inference_mode()
def measure_segmenter(model: Any, pool: Pool, per_side: int = 16) -> dict[str, float]:
    """Recall and quality on a pool's first scenes, from a grid of clicks and predicted IoU above 0.4."""
    grid = torch.linspace(0, SIDE - 1, per_side)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1).reshape(-1, 2)
    best, chosen, predicted, on_tray, kept = [], [], [], 0, 0
    for image, ids in zip(pool.images[:40, 0], pool.ids[:40, 0], strict=True):
        picture = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        labels = torch.from_numpy(np.array(Image.fromarray(ids).resize((SIDE, SIDE), Image.Resampling.NEAREST)))
        features = encode(model, torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255)
        logits, iou, _ = decode(model, features, 0, points)
        score, which = iou.max(1)
        keep = score > 0.4
        masks = F.interpolate(logits[torch.arange(len(which)), which][keep][:, None], size=(SIDE, SIDE), mode="bilinear")
        masks = masks[:, 0] > 0
        owner = labels[points[keep, 1].long(), points[keep, 0].long()]
        on_tray, kept = on_tray + int((owner == 0).sum()), kept + len(owner)
        numbers = [int(n) for n in labels.unique() if n > 0 and int((labels == n).sum()) > 100]
        for number in numbers:
            truth = labels == number
            overlap = (masks & truth).sum((1, 2)) / ((masks | truth).sum((1, 2)) + 1e-6)
            best.append(float(overlap.max()) if len(overlap) else 0.0)
            chosen += overlap[owner == number].tolist()
            predicted += score[keep][owner == number].tolist()
    overlaps = np.array(best)
    rank = np.corrcoef(np.argsort(np.argsort(chosen)), np.argsort(np.argsort(predicted)))[0, 1] if len(chosen) > 2 else 0
    return {
        "best_iou": float(overlaps.mean()),
        "recall_50": float((overlaps > 0.5).mean()),
        "recall_75": float((overlaps > 0.75).mean()),
        "rank_correlation": float(rank),
        "kept_on_tray": on_tray / max(1, kept),
    }


def train_segmenter(state_path: Path, pool: Pool, held_out: Pool, num_steps: int, *, rate: float = 8e-4) -> nn.Module:
    """Train to num_steps, going on from the state at state_path where there is one; logs to the module's logger."""
    torch.manual_seed(0)
    model = build_segmenter()
    auxiliary = nn.ModuleDict({"dense": nn.Conv2d(WIDTH, EMBEDDING + 1, 1), "tokens": nn.Linear(WIDTH, EMBEDDING + 2)})
    weights = [*model.parameters(), *auxiliary.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
    state = TrainingState(state_path, {"model": model, "auxiliary": auxiliary}, optimizer)
    step = state.load()
    if not step:
        tie_positions(model)
    gaze = Gaze(model)
    recent: list[Any] = []
    while step < num_steps:
        rng = np.random.default_rng((1, step))
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(rate, step, num_steps, warm_up=100)
        loss, measured = _step_loss(rng, model, auxiliary, gaze, pool)
        optimizer.zero_grad()
        if torch.isfinite(loss):
            loss.backward()
            if torch.isfinite(nn.utils.clip_grad_norm_(weights, 1.0)):
                optimizer.step()
        recent += measured
        step += 1
        if step % 100 == 0:
            mean = np.mean(recent, 0)
            logger.info("step %d loss %.3f iou %.3f best of three %.3f %s", step, loss.item(), *mean, state.clock())
            recent.clear()
        if step % 500 == 0 or step == num_steps:
            state.save(step)
            model.eval()
            logger.info("step %d novel part types %s", step, _rounded(measure_segmenter(model, held_out)))
            model.train()
    return model


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def save_segmenter(model: nn.Module, folder: Path) -> None:
    """Write `sam2.yaml` and `sam2.safetensors`, half precision, the layout the `demo` preset reads."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(segmenter_config(), folder / "sam2.yaml")
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "sam2.safetensors")
