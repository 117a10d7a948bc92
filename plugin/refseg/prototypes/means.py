"""The mean of the references of each class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def class_prototypes(vectors: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K, C) unit vectors: the mean of each class's un-normalised instance vectors (method.md B3).

    Args:
        vectors: (R, C) float32.
        labels: (R,) int64 in [0, K).
        num_classes: K.
    """
    members = F.one_hot(labels, num_classes).to(vectors.dtype)  # (R, K)
    return F.normalize(members.T @ vectors / members.sum(0)[:, None], dim=-1)
