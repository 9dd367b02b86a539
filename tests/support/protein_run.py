"""A run of the protein domain with a tiny network whose weights are noise: quick, and blind."""

import torch

from sciffusion.domains.base import build_denoiser
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.io.config import compose
from sciffusion.io.run import save_weights
from sciffusion.training.fit import shareable

FACTS = {"sigma_data": 8.0, "largest": 60, "lengths": [20, 30, 40, 60], "classes": 3}
STEPS = 3
SMALL = (
    "model.irreps=16x0e+8x1e", "model.edge=8x0e+8x1e", "model.value=8x0e+8x1e",
    "model.mixed=8x0e+8x1e", "model.layers=1", "model.heads=4", "model.pair_dim=8",
    "model.hidden=8", "model.radial=8", f"sampler.steps={STEPS}",
)  # fmt: skip


def make_run(path, *settings):
    """Write model.safetensors and config.json."""
    config = compose(
        "train", ["domain=protein", "data=backbones", "data.root=none", *SMALL, *settings]
    )
    domain = ProteinDomain(facts=FACTS)
    torch.manual_seed(0)
    denoiser = build_denoiser(domain, config)
    with torch.no_grad():  # the last layer starts at zero: such a network would heed nothing
        for p in denoiser.network.parameters():
            p.add_(0.02 * torch.randn_like(p))
    path.mkdir(parents=True, exist_ok=True)
    save_weights(path, denoiser.network.state_dict(), shareable(config, domain))
    return path
