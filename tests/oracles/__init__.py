"""Independent float64 NumPy transcriptions of what is tested; nothing here imports the package under test."""
