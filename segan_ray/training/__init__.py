"""The adversarial step, the loop, losses and checkpoints; torch alone."""
