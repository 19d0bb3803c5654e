"""Coverage-guided fuzzing of whatever reads what strangers, or operators, write: ``python -m tests.fuzz``."""
