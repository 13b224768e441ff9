"""Applications around the models. `web/` holds the built page: `make web` makes it from the repository's `web/`."""
