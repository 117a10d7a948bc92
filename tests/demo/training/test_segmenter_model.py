from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from refseg.demo.training.segmenter_model import (
    Features,
    build_segmenter,
    cells,
    decode,
    encode,
    grid,
    save_segmenter,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_segmenter()


@pytest.fixture(scope="module")
def features(model) -> Features:
    torch.manual_seed(1)
    with torch.no_grad():
        return encode(model, torch.rand(2, 3, 320, 320))


def sam2_answers(model, features: Features, points: torch.Tensor):
    boxes = points.ndim == 3
    marks = torch.tensor([[2, 3]] if boxes else [[1]], dtype=torch.int).expand(len(points), -1)
    sparse, dense = model.sam_prompt_encoder(points=(points if boxes else points[:, None], marks), boxes=None, masks=None)
    return model.sam_mask_decoder(
        image_embeddings=features.coarse[1:2],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=not boxes,
        repeat_image=True,
        high_res_features=[level[1:2] for level in features.fine],
    )


def test_it_is_small(model):
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4e6


@pytest.mark.parametrize("points", [torch.rand(7, 2) * 320, torch.tensor([[[10.0, 20], [90, 140]], [[0, 0], [320, 320]]])])
def test_answers_are_those_of_sam2s_own_decoder(model, features, points):
    answers = decode(model, features, 1, points)
    logits, iou, tokens, _ = sam2_answers(model, features, points)
    own = grid(answers.logits.flatten(0, 1)).view_as(logits)
    torch.testing.assert_close(own, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(answers.iou, iou, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(answers.tokens, tokens, atol=1e-4, rtol=1e-4)
    for look in answers.looks:
        assert look.shape == (len(points), 6 + (3 if points.ndim == 3 else 2), 400)
        torch.testing.assert_close(look.sum(2), torch.ones(look.shape[:2]))


def test_gradients_are_those_of_sam2s_own_decoder(model, features):
    points = torch.rand(5, 2) * 320
    weight = model.sam_mask_decoder.transformer.layers[1].cross_attn_image_to_token.v_proj.weight
    answers = decode(model, features, 1, points)
    (own,) = torch.autograd.grad(answers.logits.square().mean() + answers.iou.sum(), weight)
    logits, iou, _, _ = sam2_answers(model, features, points)
    (expected,) = torch.autograd.grad(logits.square().mean() + iou.sum(), weight)
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-3)


def test_a_quarter_of_an_image_gets_the_positions_of_its_place(model):
    own = deepcopy(model)
    trunk = own.image_encoder.trunk
    torch.manual_seed(2)
    images = torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        trunk.pos_embed.normal_()
        trunk.blocks[5].window_size = 10  # the only block that looks at the whole image
        whole = encode(own, images)
        here, elsewhere = (encode(own, images[..., 160:, :160], corner) for corner in ((0, 160), (160, 0)))
    assert "_get_pos_embed" not in vars(trunk)
    # Not the same to the last digit: the first layer's filters reach over the quarter's border.
    there = whole.coarse[..., 10:, :10]
    assert (here.coarse - there).abs().mean() < 0.3 * (elsewhere.coarse - there).abs().mean()

    point = torch.tensor([[60.0, 90.0]])
    answers = [decode(own, quarter, 0, point) for quarter in (here, replace(here, corner=(0, 0)))]
    assert answers[0].looks[0].shape[2] == 100
    assert not torch.allclose(answers[0].tokens, answers[1].tokens, atol=1e-4), "clicks are coded by their place in the whole"


def test_cells_and_grids_are_the_same_values_in_other_order():
    maps = torch.arange(2 * 16 * 16).view(2, 16, 16)
    flat = cells(maps)
    assert torch.equal(grid(flat), maps)
    # The first position's sixteen cells are the upper left four by four, in two by two of two by two.
    assert flat[0, :16].tolist() == [0, 1, 16, 17, 2, 3, 18, 19, 32, 33, 48, 49, 34, 35, 50, 51]


def test_weights_are_written_in_half_precision_and_read_again(model, tmp_path):
    save_segmenter(model, tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "sam2.safetensors").values()} == {torch.float16}
    again = build_segmenter(tmp_path / "sam2.safetensors")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float()), name
