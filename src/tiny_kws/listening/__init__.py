"""From continuous sound to events: decoding probabilities, listening to devices, starting actions."""
