"""Methods that wrap another method: temperature scaling and importance correction."""
