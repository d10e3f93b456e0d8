"""The operator under many HeliosDeployments at once: see `__main__`."""
