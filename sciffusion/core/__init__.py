"""The generic diffusion core: torch only."""
