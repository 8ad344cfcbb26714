"""python -m benchmark.data.fidelity: how far the kernels are from torchvision, and what their views look like.

Every operation and whole recipes are run by each kernel and by `benchmark.data.by_torchvision` with the same parameters on
the same images; the crops' areas and shapes are compared with those that torchvision's sampler draws.
"""
