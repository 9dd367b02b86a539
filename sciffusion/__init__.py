"""Scientific generative modelling of images, proteins and molecules on one diffusion core."""

__version__ = "0.1.0"
