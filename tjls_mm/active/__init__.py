"""The stage loop: who is labelled, what a stage runs, what it left on disk."""
