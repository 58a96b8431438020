r"""Muon: gradient steps that turn every singular value of a matrix of weights alike.

Of a matrix, the momentum B of its gradients is replaced by the nearest orthogonal matrix, U Vᵀ where B = U S Vᵀ.
Five steps of a polynomial in B Bᵀ come close to it; a step then moves as far along directions that gradients seldom
take. Embeddings, biases and output layers are moved by AdamW.

`torch.optim.Muon` does the same for single matrices. Parameters may have leading axes here: a stack of networks is
moved as each of them would be. A step has the size of Adam's, 0.2 √max(a, b) times the rate for a matrix (a, b).

References
----------
K. Jordan et al., *Muon*, 2024; J. Liu et al., *Muon is scalable for LLM training*, arXiv 2502.16982.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["Muon", "matrices", "orthogonal"]

POLYNOMIAL, STEPS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """Muon on the parameters of some names, tensors (..., a, b), and AdamW with its `options` on the others.

    Parameters
    ----------
    parameters : iterable of (str, tensor)
        As a model's ``named_parameters()``.
    inside : set of str
        Names of those that Muon moves, such as `matrices` of the model; without any this is AdamW.
    lr : float
        The rate of both.
    """

    def __init__(self, parameters: Iterable[tuple[str, torch.Tensor]], inside: set[str], lr: float, **options: Any):
        named = dict(parameters)
        groups = [
            {"params": [value for name, value in named.items() if (name in inside) == is_inside], "inside": is_inside}
            for is_inside in (False, True)
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: Callable[..., Any] | None = None) -> Any:
        """Make one step."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"] if group["inside"] else ():
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"])
                    parameter.grad = None  # nothing is left for AdamW
        super().step()
        return loss

    def _move(self, parameter, rate, decay):
        gradient, state = parameter.grad, self.state[parameter]
        if not state:
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(gradient)}  # AdamW looks for a step
        state["step"] += 1
        momentum = state["momentum"]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = orthogonal(gradient.lerp(momentum, MOMENTUM))
        parameter.mul_(1 - rate * decay).sub_(direction, alpha=0.2 * rate * max(parameter.shape[-2:]) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return about U Vᵀ for each matrix U S Vᵀ of a tensor (..., a, b), or something smaller where S is near 0.

    Singular values above 0.0015 times the Frobenius norm end between 0.65 and 1.21, those below stay below 0.66.

    Examples
    --------
    >>> close = orthogonal(torch.diag(torch.tensor([3.0, 0.3])))
    >>> bool(((close.diag() > 0.7) & (close.diag() < 1.2)).all())
    True
    """
    first, second, third = POLYNOMIAL
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    wide = wide / wide.flatten(-2).norm(dim=-1)[..., None, None].clamp(min=1e-12)
    for _ in range(STEPS):
        square = wide @ wide.mT
        wide = first * wide + (second * square + third * square @ square) @ wide
    return wide if matrix.shape[-2] <= matrix.shape[-1] else wide.mT


def matrices(model: Any) -> set[str]:
    """Names of the matrices inside a language model: its two-dimensional weights that are no embeddings, in or out."""
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    left_out = {id(module.weight) for module in (*embeddings, model.get_output_embeddings())}
    return {name for name, weight in model.named_parameters() if weight.ndim == 2 and id(weight) not in left_out}
