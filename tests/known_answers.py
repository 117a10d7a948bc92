"""What the models answered in this session to the same numbers, so that tests do not wait for it again.

Most tests show the demo models the same dozen images. The first time a model looks for itself; afterwards its answer, which is
the same to the last digit, is handed out again, to every process of the session: workers, the App's server, the delegated
service. Nothing of RefSeg is skipped: only the forward passes of the two image encoders and of the mask decoder. Tests of the
models themselves do without, see `conftest.py`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

MOST_BYTES = 1 << 29
"""Of answers that are kept; the oldest go first."""

FOLDER = "REFSEG_TEST_ANSWERS"
"""The environment variable that names the folder in which the processes of a session keep answers for one another."""

Key = tuple[Any, ...]


def digest(*tensors: Tensor) -> bytes:
    """Of shapes, kinds and values, and of how they lie in memory, which moves the last digits of what is made of them."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)).encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return found.digest()


class KnownAnswers:
    """Answers by what was asked, and of which weights.

    Args:
        folder: shared with other processes; None for none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.num_known = 0
        self._folder = folder
        self._answers: OrderedDict[Key, Any] = OrderedDict()
        self._num_bytes = 0
        self._weights: WeakKeyDictionary[nn.Module, tuple[int, bytes]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, key: Key, ask: Callable[[], Any]) -> Any:
        """What was answered before, or is answered now."""
        if key in self._answers:
            self.num_known += 1
            return _copy(self._answers[key])
        file = None if self._folder is None else self._folder / hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
        if file is not None and file.exists():
            self.num_known += 1
            # This session itself has written it.
            answer = torch.load(file, weights_only=False)
        else:
            answer = ask()
            if file is not None:
                beside = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
                torch.save(answer, beside)
                beside.replace(file)
        kept = _copy(answer)
        self._answers[key] = kept
        self._num_bytes += _num_bytes(kept)
        while self._num_bytes > MOST_BYTES:
            self._num_bytes -= _num_bytes(self._answers.popitem(last=False)[1])
        return answer

    def weights(self, module: nn.Module) -> bytes:
        """Digest of a module's weights as they are now."""
        changes = sum(parameter._version for parameter in module.parameters())
        if self._weights.get(module, (-1, b""))[0] != changes:
            self._weights[module] = changes, digest(*module.state_dict().values())
        return self._weights[module][1]


KNOWN = KnownAnswers(Path(os.environ[FOLDER]) if FOLDER in os.environ else None)
"""Of this session."""


@contextmanager
def handed_out(known: KnownAnswers = KNOWN) -> Iterator[KnownAnswers]:
    """Within the block the models of this process answer the same numbers once; outside `torch.inference_mode` always anew."""
    from refseg.candidates.clicks import ClickDecoder
    from refseg.models.loaded import import_libraries

    # Two threads cannot import transformers at once, and the panel may be about to.
    import_libraries()
    from sam2.modeling.backbones.image_encoder import ImageEncoder
    from transformers import Dinov2Model

    look, see, decode = Dinov2Model.forward, ImageEncoder.forward, ClickDecoder._decode

    def forward(self: nn.Module, pixel_values: Tensor, *arguments: Any, **options: Any) -> Any:
        if arguments or options or not torch.is_inference_mode_enabled():
            return look(self, pixel_values, *arguments, **options)
        key = "patches", known.weights(self), digest(pixel_values)
        return known.answer(key, lambda: look(self, pixel_values))

    def encode(self: nn.Module, sample: Tensor) -> Any:
        if not torch.is_inference_mode_enabled():
            return see(self, sample)
        return known.answer(("image", known.weights(self), digest(sample)), lambda: see(self, sample))

    def decode_prompts(self: Any, points: Tensor, terms: Any, least: float) -> Any:
        asked = digest(points, terms.keys, terms.values, terms.image.upscaled, *terms.fine)
        key = "masks", known.weights(self._decoder), known.weights(self._prompts), asked, least
        return known.answer(key, lambda: decode(self, points, terms, least))

    with (
        patch.object(Dinov2Model, "forward", forward),
        patch.object(ImageEncoder, "forward", encode),
        patch.object(ClickDecoder, "_decode", decode_prompts),
    ):
        yield known


def _copy(answer: Any) -> Any:
    """The answer in tensors of its own: whoever asked may write into them."""
    if isinstance(answer, Tensor):
        return answer.clone()
    if isinstance(answer, dict):
        copied = {name: _copy(part) for name, part in answer.items()}
        return copied if type(answer) is dict else type(answer)(**copied)
    if isinstance(answer, list | tuple):
        return type(answer)(map(_copy, answer))
    return answer


def _num_bytes(answer: Any) -> int:
    if isinstance(answer, Tensor):
        return answer.nbytes
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list | tuple) else ()
    return sum(map(_num_bytes, parts))
