from __future__ import annotations

import pytest
import torch
from torch import nn

from refseg.demo.training.state import Average, TrainingState, cosine_rate


def test_rate_warms_up_and_falls():
    rates = [cosine_rate(1.0, step, 100, warm_up=10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], abs=0.05)
    assert rates[-1] == pytest.approx(0.03, abs=0.01)


def test_a_running_mean_follows_and_soon_forgets_the_beginning():
    model = nn.Linear(1, 1)
    average = Average(model, keep=0.9)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for step in range(200):
        average.update(model, step)
    assert average.model.weight.item() == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        model.weight.fill_(2.0)
    average.update(model, 200)
    assert average.model.weight.item() == pytest.approx(1.1, abs=1e-4)


def test_a_state_is_whole_or_not_there(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    state = TrainingState(tmp_path / "in" / "state.pt", {"model": model}, optimizer)
    assert state.load() == 0
    state.save(7)
    kept = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    assert TrainingState(state.path, {"model": model}, optimizer).load() == 7
    assert torch.equal(model.weight, kept)
    assert [path.name for path in state.path.parent.iterdir()] == ["state.pt"]
