"""Everything that needs torch: front end, networks, data, the training loop and export."""
