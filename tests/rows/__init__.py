"""Rows of the table of cases, a file for every family of compressors."""
