"""What tests/test_exact_gradient.py runs in other processes: a small training on one worker or several.

python exact_gradient_workers.py OUT PORT   forks 1 and 4 workers in turn; parameters go to OUT-1.pt,
OUT-4.pt torchrun --nproc-per-node=2 exact_gradient_workers.py OUT      writes OUT-2.pt
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from voxark.e2e.exact_gradient import exact_step  # noqa: E402
from voxark.e2e.losses import IdentificationHead, all_pairs, joint_loss, verification_loss  # noqa: E402
from voxark.e2e.scorers import build_scorer  # noqa: E402
from voxark.nnet import distributed  # noqa: E402
from voxark.nnet.layers import StatisticsPooling, TdnnLayer  # noqa: E402
from voxark.nnet.relu_repair import ReluRepair, ReluRepairOptions, relu_layers  # noqa: E402

NUM_STEPS, NUM_SPEAKERS, DIM = 20, 4, 6


class Transposed(nn.Module):
    """(B,T,F) to (B,F,T)."""

    def forward(self, x):
        """Swap the axes."""
        return x.transpose(1, 2)


class Network(nn.Module):
    """A small x-vector with dropout, a classifier and a scorer."""

    def __init__(self, dropout=0.1, kind="dplda", head="aam"):
        super().__init__()
        self.extractor = nn.Sequential(
            Transposed(),
            TdnnLayer(DIM, 16, (-2, 0, 2)),
            nn.Dropout(dropout),
            TdnnLayer(16, 16),
            StatisticsPooling(),
            nn.Linear(32, 8),
        )
        self.head = IdentificationHead(8, NUM_SPEAKERS, head)
        self.scorer = build_scorer(kind, 8, front_dim=5)

    def loss_of(self, speakers):
        """The joint loss of embeddings, as a function of them."""
        target, mask = all_pairs(speakers)

        def loss(x):
            identification = self.head.loss(x, speakers)
            verification = verification_loss(self.scorer(x), target, 0.3, mask=mask)
            return joint_loss(identification, verification, (0.25, 0.75)), identification.item()

        return loss


class LazyBatch:
    """Utterances of mixed lengths, made when they are asked for; remembers which were."""

    def __init__(self, step, num_utts=24):
        self.generator = torch.Generator().manual_seed(step)
        self.lengths = [(9, 12, 17)[(u + step) % 3] for u in range(num_utts)]
        self.speakers = torch.arange(num_utts) % NUM_SPEAKERS
        self.keys = [f"utt{step}-{u}" for u in range(num_utts)]
        self.step, self.asked = step, set()

    def __getitem__(self, u):
        self.asked.add(u)
        generator = torch.Generator().manual_seed(1000 * self.step + u)
        return torch.randn(self.lengths[u], DIM, generator=generator) + 0.5 * self.speakers[u]


def train(out):
    """Twenty steps of Adam on this worker; the first one writes the parameters."""
    torch.set_num_threads(1)
    workers = distributed.init()
    torch.manual_seed(100 * workers.rank)  # every worker begins with other parameters and random numbers
    model = Network()
    if workers.rank == 0:
        torch.manual_seed(0)
        model = Network()
    distributed.broadcast_parameters(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    repair = ReluRepair(
        relu_layers(model), ReluRepairOptions(scale=1e-3, dead=0.3, always_on=0.7, min_frames=2000)
    )
    losses, asked, pushed = [], 0, 0
    for step in range(NUM_STEPS):
        batch = LazyBatch(step)
        optimizer.zero_grad()
        losses.append(
            exact_step(
                model,
                batch,
                model.loss_of(batch.speakers),
                lengths=batch.lengths,
                keys=batch.keys,
                seed=step,
                max_frames=40,
            ).loss
        )
        pushed += repair.add_gradients()
        optimizer.step()
        asked += len(batch.asked)
    total = distributed.total(asked)
    if distributed.is_main():
        torch.save(
            {
                "parameters": model.state_dict(),
                "losses": losses,
                "asked": asked,
                "total": total,
                "pushed": pushed,
            },
            f"{out}-{distributed.world_size()}.pt",
        )
    distributed.barrier()
    distributed.shutdown()


def fork_workers(out, port, size):
    """Train on ``size`` forked processes; exits if one of them fails."""
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ.update(
                RANK=str(rank),
                WORLD_SIZE=str(size),
                LOCAL_RANK=str(rank),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            status = 1
            try:
                train(out)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit(f"a worker of {size} failed")


if __name__ == "__main__":
    if "RANK" in os.environ:
        train(sys.argv[1])
    else:
        torch.optim.Adam(
            Network().parameters()
        )  # what this imports takes a second: once, not in every worker
        fork_workers(sys.argv[1], int(sys.argv[2]), 1)
        fork_workers(sys.argv[1], int(sys.argv[2]), 4)
