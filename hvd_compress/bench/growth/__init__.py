"""Growth: what an exchange costs with more parameters, more tensors and more workers."""
