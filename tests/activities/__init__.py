"""What activities ask of the world, in moments that whole flows do not bring about by themselves."""
