"""Laws that are Gaussian: the prior, approximate posteriors, and the first-order law."""
