"""The update inside trainers that others have written, one module an engine, importable only where the engine is.

============ ================================================================================================
``trl``      `PMDConfig` and `PMDTrainer`, of TRL's GRPO
``verl``     advantage estimators and policy losses in verl's registries, loaded by the entry point ``verl.plugins``
``prime_rl`` a function of the form of prime-rl's custom loss
============ ================================================================================================

``law`` makes any of their losses one that `pmdtheory.identify` can follow.

Baselines come from `pmdtheory.baselines`, credit from `pmdllm.credit`, losses from `pmdllm.losses`: a module here
renames what an engine hands over, and divides by the number of completions that its optimiser step is a mean over.
``docs/engines.md`` says how each is installed and run, and what differs.
"""
