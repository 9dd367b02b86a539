"""Samplers: one loop (`base`) and a file a family."""

from sciffusion.core.samplers.ancestral import DDIM, DDPM
from sciffusion.core.samplers.base import Sampler, Samples
from sciffusion.core.samplers.consistency import Consistency
from sciffusion.core.samplers.multistep import DPMSolverPP, SDEDPMSolverPP
from sciffusion.core.samplers.ode import DormandPrince, Euler, Heun
from sciffusion.core.samplers.particles import Twisted
from sciffusion.core.samplers.sde import Churn, PredictorCorrector, alphafold3

__all__ = [
    "DDIM",
    "DDPM",
    "Churn",
    "Consistency",
    "DPMSolverPP",
    "DormandPrince",
    "Euler",
    "Heun",
    "PredictorCorrector",
    "SDEDPMSolverPP",
    "Sampler",
    "Samples",
    "Twisted",
    "alphafold3",
]
