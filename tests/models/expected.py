"""Which tiny architectures are captured as one graph today.

An architecture listed here must give exactly one graph without a break, and its second call must be a replay;
one that is not listed is only held to eager's results. List one as soon as it passes; taking one off is a
regression.
"""

ONE_GRAPH = frozenset(
    """
    convnext deit dinov2 resnet segformer vit
    """.split()
)
