"""The exact posterior, by Markov chains."""
