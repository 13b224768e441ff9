"""Own words: a few recordings of a word to a model that hears it, with its error rates told before use."""
