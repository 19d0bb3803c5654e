"""The load, the measure, the comparison."""
