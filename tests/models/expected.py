"""Which tiny architectures are captured as one graph today.

An architecture listed here must give exactly one graph without a break, and its second call must be a replay;
one that is not listed is only held to eager's results. List one as soon as it passes; taking one off is a
regression.
"""

ONE_GRAPH = frozenset(
    """
    albert bart bert clip convnext deberta-v2 deit dinov2 distilbert electra gemma2 gpt2 gpt_neo gpt_neox gptj
    llama mistral mixtral modernbert mpnet opt phi phi3 qwen2 qwen2_moe qwen3 resnet roberta segformer swin t5
    vit wav2vec2 whisper xlnet
    """.split()
)
