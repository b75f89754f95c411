"""Everything that is particular to Horovod's releases: what a build contains, how it is started, what it gets wrong."""
