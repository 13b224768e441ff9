"""Sound to train on, composed in batches from prepared data."""
