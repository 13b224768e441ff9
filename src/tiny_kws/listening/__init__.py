"""Sound that goes on to events: probabilities decoded, devices heard, actions started."""
