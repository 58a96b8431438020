"""Policy mirror descent on language models: losses, metrics, tasks, a lean training loop.

The folder is ``llm``, the import name ``pmdllm``: the name ``llm`` belongs to another package on PyPI.
"""
