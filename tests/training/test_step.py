"""What a training step depends on: (seed, step, place), and nothing else."""

import pytest
import torch

from sciffusion import train
from sciffusion.core.geometry import full_precision
from sciffusion.data.order import Ordered
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.domains.image.model import UNet
from sciffusion.errors import InputError
from sciffusion.io.run import Run, load_checkpoint
from sciffusion.training.fit import make_module

DOUBLE = "trainer.precision=64-true"


@pytest.fixture(scope="module")
def config(tiny):
    return train.configure([*tiny, DOUBLE, "run=nowhere", "data.augment.shift=1"])[0]


@pytest.fixture(scope="module")
def domain(config):
    return ImageDomain(config["data"])


def global_batch(domain, config, step):
    size = config["trainer"]["batch_size"]
    data = Ordered(domain.train_set(), config["seed"], size)
    return data.__getitems__(list(range(step * size, (step + 1) * size)))


def test_losses_do_not_depend_on_micro_batches(config, domain):
    module = make_module(domain, config)
    batch = global_batch(domain, config, 7)
    whole = module.loss_of(batch, 7)
    parts = [module.loss_of({k: v[i : i + 4] for k, v in batch.items()}, 7) for i in (0, 4, 8, 12)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    # Shuffled within the process, each sample keeps what belongs to its place.
    order = torch.randperm(16)
    mixed = module.loss_of({k: v[order] for k, v in batch.items()}, 7)
    torch.testing.assert_close(mixed, whole[order], rtol=1e-12, atol=1e-12)


def test_losses_do_not_depend_on_what_ran_before(config, domain):
    module = make_module(domain, config)
    batch = global_batch(domain, config, 3)
    first = module.loss_of(batch, 3)
    module.loss_of(global_batch(domain, config, 4), 4)
    torch.randn(100)
    assert torch.equal(module.loss_of(batch, 3), first)


def test_losses_do_depend_on_seed_step_and_place(config, domain):
    module = make_module(domain, config)
    batch = global_batch(domain, config, 3)
    first = module.loss_of(batch, 3)
    assert (module.loss_of(batch, 4) != first).all()
    assert (module.loss_of(batch | {"place": batch["place"].flip(0)}, 3) != first).all()
    module.seed += 1
    assert (module.loss_of(batch, 3) != first).all()


def weights(path):
    state = load_checkpoint(Run(path).checkpoint)
    return torch.cat([v.flatten() for v in state["weights"].values()])


def test_accumulation_does_not_change_the_training(tiny, tmp_path):
    for parts in (1, 4, 5):
        train.main([*tiny, DOUBLE, f"run={tmp_path / str(parts)}", f"trainer.accumulate={parts}"])
    for parts in ("4", "5"):
        gap = (weights(tmp_path / parts) - weights(tmp_path / "1")).abs().max()
        assert gap < 1e-12


def test_a_batch_too_large_for_memory_is_halved(tiny, tmp_path, monkeypatch, capsys):
    train.main([*tiny, DOUBLE, f"run={tmp_path / 'given'}"])
    forward = UNet.forward

    def small(self, x, *rest):
        if self.training and len(x) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, x, *rest)

    monkeypatch.setattr(UNet, "forward", small)
    capsys.readouterr()
    train.main([*tiny, DOUBLE, f"run={tmp_path / 'halved'}"])
    said = [line for line in capsys.readouterr().out.splitlines() if "memory" in line]
    assert len(said) == 1
    assert "2 parts of 8" in said[0]
    assert (weights(tmp_path / "halved") - weights(tmp_path / "given")).abs().max() < 1e-12


def test_a_sample_too_large_for_memory_is_refused(tiny, tmp_path, monkeypatch):
    def never(self, *rest):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(UNet, "forward", never)
    with pytest.raises(InputError, match="one sample alone"):
        train.main([*tiny, f"run={tmp_path / 'run'}"])
    assert not Run(tmp_path / "run").checkpoint.exists()


def test_a_loss_that_is_no_number_is_not_saved(tiny, tmp_path):
    run = Run(tmp_path / "run")
    train.main([*tiny, f"run={run.path}"])
    kept = run.checkpoint.read_bytes(), run.weights.read_bytes()
    with pytest.raises(InputError, match=r"lower rate\.lr"):
        train.main([f"run={run.path}", "trainer.steps=40", "rate.lr=1e30", "trainer.clip=0"])
    assert kept == (run.checkpoint.read_bytes(), run.weights.read_bytes())


def test_what_runs_in_full_precision_has_gradients_in_full_precision(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(UNet, "forward", full_precision(UNet.forward))
    for precision in ("32-true", "bf16-mixed"):
        train.main([*tiny, f"trainer.precision={precision}", f"run={tmp_path / precision}"])
    assert torch.equal(weights(tmp_path / "bf16-mixed"), weights(tmp_path / "32-true"))
