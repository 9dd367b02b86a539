"""Parts of networks that more than one domain uses."""
