"""A penalty on the way from the parameters that training starts from: lambda |theta - theta_init|^2 by block.

It enters as a proximal step behind the optimizer's: theta becomes theta_init + (theta - theta_init) /
(1 + 2 lr lambda), which is stable for every lambda and leaves theta_init exactly as lambda grows without
limit; as a gradient it would diverge where 2 lr lambda is large. With SGD (lambda is divided by 1 - momentum,
as momentum multiplies steps) training settles where the gradient of loss + penalty is zero. With Adam it is
decoupled from the scaling of gradients, as the weight decay of AdamW is.
"""

import math

import torch

from voxark.errors import VoxarkError


def blocks_of(model):
    """Blocks of an E2eModel by name, general ones first: extractor, its parts, and backend."""
    blocks = {"extractor": model.extractor}
    blocks.update((name, part) for name, part in model.extractor.named_children() if list(part.parameters()))
    if model.scorer is not None:
        blocks["backend"] = model.scorer
    return blocks


def parse_penalties(text, names):
    """{block: lambda} of a number, for extractor and backend, or of a list such as f2s=1e-2,backend=1.

    VoxarkError for names not among ``names`` and for numbers below 0.
    """
    found = {}
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not number >= 0 or (not equals and "," in text) or (equals and name not in names):
            raise VoxarkError(f"--init-penalty={text}: expected a number from 0, or a list of BLOCK=NUMBER "
                              f"with blocks among {', '.join(names)}")
        found.update({name: number} if equals else {name: number for name in ("extractor", "backend")})
    return found


class InitPenalty:
    """Pulls the parameters of a model towards those it has now, ``text`` as parse_penalties takes it.

    A part of the extractor that is named goes before "extractor".
    """

    def __init__(self, model, text):
        blocks, strengths = blocks_of(model), {}
        penalties = parse_penalties(text, blocks)
        for block, part in blocks.items():
            if block in penalties:
                strengths.update((p, penalties[block]) for p in part.parameters())
        names = {p: name for name, p in model.named_parameters()}
        self._terms = [(names[p], p, strength) for p, strength in strengths.items() if strength > 0]
        self._start = {name: p.detach().clone() for name, p, _ in self._terms}

    @torch.no_grad()
    def value(self):
        """The penalty now; 0 where nothing has moved, however large lambda is."""
        total = 0.0
        for name, p, strength in self._terms:
            distance = float((p.double() - self._start[name].double()).square().sum())
            total += strength * distance if distance else 0.0
        return total

    @torch.no_grad()
    def pull(self, optimizer):
        """Take the proximal step of each parameter with the learning rate of its group."""
        step = {p: group["lr"] / (1.0 - group.get("momentum", 0.0))
                for group in optimizer.param_groups for p in group["params"]}
        for name, p, strength in self._terms:
            if p in step:
                start = self._start[name]
                p.copy_(start + (p - start) / (1.0 + 2.0 * step[p] * strength))

    def state_dict(self):
        """theta_init by name."""
        return dict(self._start)

    def load_state_dict(self, state):
        """Take over what state_dict gave."""
        for name, value in self._start.items():
            value.copy_(state[name])
