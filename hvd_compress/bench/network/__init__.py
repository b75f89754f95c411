"""Workers on shaped links: one Linux network namespace a worker, on one machine."""
