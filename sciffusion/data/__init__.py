"""Downloads, and what feeds a training."""
