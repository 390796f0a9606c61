"""The application: studies, sweeps, reports and the command line."""
