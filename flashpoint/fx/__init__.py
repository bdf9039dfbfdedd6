"""Recorded graphs as torch.fx graphs, and the backends of torch.compile that take them.

Imported on first use of such a backend: torch.fx and TorchDynamo's registry take a while to import.
"""
