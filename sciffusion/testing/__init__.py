"""Conformance checks for extensions: any schedule, space or sampler must pass them.

Each raises AssertionError with what is wrong; call them from a test of your own class.
"""

from sciffusion.testing.samplers import check_sampler_conformance
from sciffusion.testing.schedules import check_schedule_conformance
from sciffusion.testing.spaces import check_space_conformance

__all__ = [
    "check_sampler_conformance",
    "check_schedule_conformance",
    "check_space_conformance",
]
