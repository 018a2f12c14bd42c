"""Search spaces: parameters, sampler and scheduler settings, and the files they are in."""
