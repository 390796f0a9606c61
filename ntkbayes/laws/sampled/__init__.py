"""Laws of trained predictors over random initialisations, known by their draws."""
