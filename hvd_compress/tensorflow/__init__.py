"""Everything that `horovod.tensorflow` is, with compression: `import hvd_compress.tensorflow as hvd`."""
