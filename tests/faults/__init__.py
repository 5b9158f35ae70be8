"""What providers do to us, through the whole service: every fault ends in the right outcome, and hurts nobody else."""
