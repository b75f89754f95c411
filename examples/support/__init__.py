"""What the examples share; nothing here is needed to use hvd_compress."""
