"""What all training of networks shares: the schedule, checkpoints, the repair of rectified units."""

import json
import math
import os
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from voxark.errors import VoxarkError  # noqa: E402
from voxark.nnet.checkpoint import load_state, random_states, save_state, set_random_states  # noqa: E402
from voxark.nnet.layers import ConvReluNorm, PointwiseLinear, TdnnLayer  # noqa: E402
from voxark.nnet.relu_repair import ReluRepair, ReluRepairOptions, relu_layers, repairing  # noqa: E402
from voxark.nnet.schedule import Schedule  # noqa: E402

torch.set_num_threads(1)


# ------------------------------------------------------------------------------------------ the schedule


def test_a_scripted_sequence_of_losses():
    schedule = Schedule(patience=2, lr=0.8)
    script = [
        (1.0, "best", 0.8),
        (0.9, "best", 0.8),
        (0.9, "wait", 0.8),
        (0.95, "wait", 0.8),  # a tie does not improve
        (0.89, "best", 0.8),  # the second extra epoch does
        (0.9, "wait", 0.8),
        (0.9, "wait", 0.8),
        (0.9, "back", 0.4),
        (0.9, "wait", 0.4),
        (math.nan, "back", 0.2),  # at once, and waiting begins anew
        (0.9, "wait", 0.2),
        (0.91, "wait", 0.2),
        (0.88, "best", 0.2),
        (math.inf, "back", 0.1),
        (-math.inf, "back", 0.05),
        (math.nan, "back", 0.025),
        (math.nan, "back", 0.0125),  # a 64th of 0.8 is still allowed
        (0.9, "wait", 0.0125),
        (0.9, "wait", 0.0125),
        (0.9, "stop", 0.00625),
    ]
    for number, (loss, expected, lr) in enumerate(script, 1):
        assert (schedule.step(loss), schedule.num_epochs) == (expected, number)
        assert math.isclose(schedule.lr, lr) and schedule.finished == (expected == "stop")
    assert schedule.best == 0.88 and schedule.num_back == 7
    with pytest.raises(VoxarkError, match="has ended"):
        schedule.step(0.1)


def test_patience_none_and_the_smallest_rate():
    schedule = Schedule(patience=0, lr=1.0, factor=0.1, lr_min=0.01)
    assert [schedule.step(x) for x in (math.nan, 0.5, 0.5, 0.6)] == ["back", "best", "back", "stop"]
    third = Schedule(patience=0, lr=0.9, factor=1 / 3, lr_min=0.1)  # 0.9 / 9 is 0.1 but for rounding
    assert [third.step(math.nan) for _ in range(3)] == ["back", "back", "stop"]


def test_the_state_of_a_schedule():
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.96, math.nan, 0.8, 0.9]
    for cut in range(len(losses)):
        first, second = Schedule(lr=0.5), Schedule(lr=0.1, patience=7)
        begun = [first.step(x) for x in losses[:cut]]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        whole = Schedule(lr=0.5)
        assert begun + [second.step(x) for x in losses[cut:]] == [whole.step(x) for x in losses]
        assert second.state_dict() == whole.state_dict()
    with pytest.raises(VoxarkError, match="no state of a schedule"):
        second.load_state_dict({"lr": 1.0})
    for wrong in ({"lr": 0.0}, {"patience": -1}, {"factor": 1.0}, {"lr_min": -1.0}):
        with pytest.raises(VoxarkError, match="schedule with patience"):
            Schedule(**wrong)


# ------------------------------------------------------------------------------------------ checkpoints


def drawn():
    return random.random(), float(np.random.rand()), float(np.random.randn()), torch.rand(3).tolist()


def test_a_checkpoint_holds_the_training_and_the_random_numbers(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    np.random.randn()  # so that the second number of its pair is in the state too
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "place": [3, (4, None), "a"],
        "loss": math.nan,
        "rng": 2**100,
        5: True,
    }
    save_state(tmp_path / "a.pt", state)
    expected = drawn()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    again = load_state(tmp_path / "a.pt")
    assert drawn() == expected
    assert again["place"] == [3, (4, None), "a"] and again["rng"] == 2**100 and again[5] is True
    assert math.isnan(again["loss"])
    other = nn.Linear(3, 2)
    other.load_state_dict(again["model"])
    assert torch.equal(other.weight, model.weight)
    torch.optim.Adam(other.parameters()).load_state_dict(again["optimizer"])
    states = random_states()
    load_state(tmp_path / "a.pt", restore_random=False)
    following = drawn()
    set_random_states(states)
    assert drawn() == following
    assert os.listdir(tmp_path) == ["a.pt"]


def test_what_a_checkpoint_cannot_hold_is_named_and_the_old_file_stays(tmp_path):
    save_state(tmp_path / "a.pt", {"x": 1}, with_random=False)
    for value, where in (
        (np.float64(1), r"state\['x'\] is a float64"),
        ([{"y": {3, 4}}], r"\['x'\]\[0\]\['y'\] is a set"),
        (np.zeros(3), "is a ndarray: make it a tensor"),
        ({(1, 2): 3}, r"has a key \(1, 2\)"),
    ):
        with pytest.raises(VoxarkError, match=where):
            save_state(tmp_path / "a.pt", {"x": value})
    with pytest.raises(VoxarkError, match="made of a dict"):
        save_state(tmp_path / "a.pt", [1])
    with pytest.raises(VoxarkError, match="no directory"):
        save_state(tmp_path / "none" / "a.pt", {"x": 1})
    assert load_state(tmp_path / "a.pt") == {"x": 1} and os.listdir(tmp_path) == ["a.pt"]


def test_a_damaged_file_gives_one_clear_line(tmp_path):
    path, bad = tmp_path / "a.pt", tmp_path / "b.pt"
    save_state(path, {"w": torch.ones(1000), "n": 3})
    data = path.read_bytes()
    inside = data.find(torch.ones(8).numpy().tobytes()) + 11
    # torch.load alone gives other numbers for a byte of a tensor that was changed
    bad.write_bytes(data[:inside] + bytes([data[inside] ^ 0x40]) + data[inside + 1 :])
    assert not torch.load(bad, weights_only=True)["state"]["w"].eq(1).all()
    places = [inside, *range(0, 200, 9), *range(len(data) - 400, len(data), 13)]
    damaged = [data[:p] + bytes([data[p] ^ 0x41]) + data[p + 1 :] for p in places]
    for content in [
        *damaged,
        b"",
        data[:10],
        data[: len(data) // 2],
        data[:-1],
        b"\0" * 500,
        b"PK\3\4nothing",
    ]:
        bad.write_bytes(content)
        try:
            assert load_state(bad)["w"].eq(1).all()  # some bytes of a zip file mean nothing
        except VoxarkError as error:
            assert str(bad) in str(error) and "\n" not in str(error) and len(str(error)) < 300 + len(str(bad))
        else:
            assert content in damaged[1:]
    with pytest.raises(VoxarkError, match="none.pt: the checkpoint cannot be read: No such file"):
        load_state(tmp_path / "none.pt")
    torch.save({"w": torch.ones(2)}, bad)
    with pytest.raises(VoxarkError, match="not a checkpoint of voxark"):
        load_state(bad)


def test_nothing_in_a_file_is_executed(tmp_path):
    class Touch:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"format": "voxark-checkpoint", "version": 1, "state": Touch()}, tmp_path / "a.pt")
    with pytest.raises(VoxarkError, match="no checkpoint, or a damaged one"):
        load_state(tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------------------------------ rectified units


def network(seed=0):
    """Two rectified layers on (B,T,6); unit 0 of the first is dead, unit 1 always on."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        model[0].bias[0], model[0].bias[1] = -5.0, 5.0
        model[2].bias.fill_(0.1)
    return model


def frames(number=400, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, number // 5, 6, dtype=torch.float64, generator=generator) + 0.3


def fractions(layer, x):
    return (layer(x) > 0).double().flatten(0, -2).mean(dim=0)


def test_only_dead_units_and_those_always_on_get_a_gradient():
    model, x = network(), frames()
    layers = relu_layers(model)
    assert [name for name, _ in layers] == ["0", "2"]
    repair = ReluRepair(layers, ReluRepairOptions(scale=1e-2, min_frames=400))
    assert repair.add_gradients() == 0  # nothing was counted yet
    model(x).mean().backward()
    before = [p.grad.clone() for p in model.parameters()]
    hidden = torch.relu(model[0](x))
    p = [fractions(model[0], x), fractions(model[2], hidden)]
    delta = [1e-2 * ((part > 0.95).double() - (part < 0.05).double()) for part in p]
    assert delta[0][:2].tolist() == [-1e-2, 1e-2]
    pushed = repair.add_gradients()
    assert pushed == sum(int((d != 0).sum()) for d in delta)
    after = [p.grad for p in model.parameters()]
    means = [x.flatten(0, 1).mean(dim=0), hidden.flatten(0, 1).mean(dim=0)]
    for layer, (d, mean) in enumerate(zip(delta, means)):
        torch.testing.assert_close(after[2 * layer], before[2 * layer] + d[:, None] * mean)
        torch.testing.assert_close(after[2 * layer + 1], before[2 * layer + 1] + d)
        healthy = d == 0
        assert healthy.any()
        assert torch.equal(after[2 * layer][healthy], before[2 * layer][healthy])  # to the bit
        assert torch.equal(after[2 * layer + 1][healthy], before[2 * layer + 1][healthy])
    assert all(torch.equal(a, b) for a, b in zip(after[4:], before[4:]))
    counts = repair.counts()
    assert counts["0"] == (int((delta[0] < 0).sum()), int((delta[0] > 0).sum()), 10)


def test_both_ways_give_the_same_gradients_of_the_layer():
    model, x = network(), frames()
    repair = ReluRepair([("0", model[0])], ReluRepairOptions(scale=1e-2, min_frames=1))
    model(x).mean().backward()
    repair.add_gradients()
    expected = [model[0].weight.grad.clone(), model[0].bias.grad.clone()]
    delta = 1e-2 * ((fractions(model[0], x) > 0.95).double() - (fractions(model[0], x) < 0.05).double())
    model.zero_grad()
    x.requires_grad_()
    model[1:](repairing(model[0](x), delta)).mean().backward()
    torch.testing.assert_close(model[0].weight.grad, expected[0], rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(model[0].bias.grad, expected[1], rtol=1e-13, atol=1e-16)
    through = x.grad.clone()
    x.grad = None
    model(x).mean().backward()
    torch.testing.assert_close(
        through, x.grad + (delta @ model[0].weight / 400).expand_as(x)
    )  # handed on below


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_units_are_repaired_within_some_steps_and_do_not_cross(optimizer, caplog):
    caplog.set_level("INFO")
    model, x = network(), frames()
    make = {"sgd": lambda p: torch.optim.SGD(p, 0.5), "adam": lambda p: torch.optim.Adam(p, 0.05)}[optimizer]
    step = make([model[0].weight, model[0].bias])
    repair = ReluRepair(relu_layers(model)[:1], ReluRepairOptions(scale=0.1, min_frames=400))
    seen = []
    for epoch in range(2):
        repair.restart()
        for _ in range(100):
            step.zero_grad()
            (0.0 * model(x)).sum().backward()  # no gradient but the repair's
            repair.add_gradients()
            step.step()
            seen.append(fractions(model[0], x)[:2].clone())
    seen = torch.stack(seen)
    assert seen[0, 0] < 0.05 and seen[0, 1] > 0.95
    assert 0.05 < seen[99, 0] < 0.95 and 0.05 < seen[99, 1] < 0.95  # in the first epoch, and they stay there
    assert seen[:, 0].max() < 0.9 and seen[:, 1].min() > 0.1
    assert repair.counts() == {"0": (0, 0, 10)}
    repair.log()
    assert "rectified units: 10, of them 0 dead, 0 always on" in caplog.text


@pytest.mark.parametrize(
    "module, shape",
    [
        (nn.Conv1d(3, 4, 3, padding=2, dilation=2), (2, 3, 9)),
        (nn.Conv1d(3, 4, 3, stride=2), (2, 3, 9)),
        (nn.Conv2d(2, 4, 3, padding=1, bias=False), (2, 2, 5, 6)),
        (PointwiseLinear(3, 4), (2, 3, 9)),
        (TdnnLayer(3, 4, (-3, 0, 1)), (2, 3, 9)),
        (TdnnLayer(3, 4, (-2, 0, 2)), (2, 3, 9)),
        (TdnnLayer(3, 4), (2, 3, 9)),
        (nn.Linear(3, 4), (2, 9, 3)),
        (nn.Linear(3, 4), (7, 3)),
    ],
)
def test_every_kind_of_layer_has_the_gradients_of_its_autograd(module, shape):
    """Thresholds of 0.5 make a repair for nearly every unit: it must be what delta in autograd gives."""
    module, generator = module.double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for q in module.parameters():
            q.copy_(torch.randn(q.shape, dtype=q.dtype, generator=generator))
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    options = ReluRepairOptions(scale=1.0, dead=0.5, always_on=0.500001, min_frames=1)
    repair = ReluRepair([("layer", module)], options)
    module(x)
    assert repair.add_gradients() >= 2
    tdnn = isinstance(module, TdnnLayer)
    z = module._affine(x) if tdnn else module(x)
    axis = -1 if type(module) is nn.Linear else 1
    rows = z.movedim(axis, -1)
    p = (rows > 0).double().flatten(0, -2).mean(dim=0)
    found = [q.grad.clone() for q in (module.weight, module.bias) if q is not None]
    module.zero_grad()
    (0 * repairing(rows, (p > 0.500001).double() - (p < 0.5).double())).sum().backward()
    for gradient, expected in zip(found, (q.grad for q in (module.weight, module.bias) if q is not None)):
        torch.testing.assert_close(gradient, expected)


def test_the_layers_of_a_network_are_found():
    model = nn.Sequential(
        TdnnLayer(3, 4),
        TdnnLayer(4, 4, relu=False),
        ConvReluNorm(4, 5, 3),
        nn.Sequential(nn.Conv1d(5, 4, 1), nn.ReLU(), nn.Conv1d(4, 4, 1, groups=2), nn.ReLU()),
    )
    assert [name for name, _ in relu_layers(model)] == ["0", "2.conv", "3.0"]
    repair = ReluRepair(relu_layers(model), ReluRepairOptions(min_frames=10))
    with torch.no_grad():
        model(torch.randn(2, 3, 20))  # as in the first of two passes
    repair.add_gradients()
    assert {name: count[2] for name, count in repair.counts().items()} == {"0": 4, "2.conv": 5, "3.0": 4}
    model.eval()
    repair.restart()
    model(torch.randn(2, 3, 20))
    repair.add_gradients()
    assert repair.counts() == {}  # in evaluation nothing is counted
    with pytest.raises(VoxarkError, match="drop: a Dropout is no affine layer"):
        ReluRepair([("drop", nn.Dropout())])
    with pytest.raises(VoxarkError, match="make no sense"):
        ReluRepair([], ReluRepairOptions(dead=0.9, always_on=0.1))
