"""The exact updates in PyTorch, with and without a gradient, on every device that is there.

Times a softmax of the same tensor; the floor of all of them is one pass over the memory, of which the first row of a
device tells the rate: a copy reads and writes its tensor once. float64, the seconds of a finished computation.
"""

import numpy as np

from .rows import row, show, taking_turns

ON_GPU = "PyTorch on "
SHAPES, TAU = ((1, 1_000_000), (1000, 1000), (100_000, 10)), 1 / 30


def devices():
    """Devices and their names."""
    import torch

    found = [("cpu", "PyTorch")]
    if torch.cuda.is_available():
        found.append(("cuda", ON_GPU + torch.cuda.get_device_name()))
    return found


def functions(policy, reward):
    """What takes turns on one device, by what it computes; the softmax last."""
    import torch

    from pmdtheory import differentiable as updates

    def pulled(update, *arguments):
        leaf = reward.detach().clone().requires_grad_()
        value = (update(policy, leaf, TAU, *arguments).policy * policy).sum()
        return torch.autograd.grad(value, leaf)

    softmax = torch.nn.functional.softmax
    return {
        "KL": lambda: updates.kl(policy, reward, TAU),
        "PMD-mean": lambda: updates.pmd_mean(policy, reward, TAU),
        "mixed": lambda: updates.mixed(policy, reward, TAU, TAU),
        "KL and its gradient": lambda: pulled(updates.kl),
        "PMD-mean and its gradient": lambda: pulled(updates.pmd_mean),
        "copy": lambda: reward.clone(),
        "softmax": lambda: softmax(reward, -1),
    }


def waited(function, device):
    """The function, and all that it started on the device."""
    import torch

    def finished():
        function()
        if device != "cpu":
            torch.cuda.synchronize()

    return finished


def rows(shapes=SHAPES, rounds=5):
    """All of them."""
    import torch

    found = []
    for device, path in devices():
        for shape in shapes:
            rng = np.random.default_rng(0)
            policy, reward = (
                torch.from_numpy(x).to(device) for x in (rng.dirichlet(np.ones(shape[1]), shape[0]), rng.random(shape))
            )
            every = functions(policy, reward)
            seconds, ratios = taking_turns([waited(one, device) for one in every.values()], rounds)
            size = f"{shape[0]:,} × {shape[1]:,}, tau {TAU:.3g}"
            for what, spent, ratio in zip(every, seconds, ratios):
                rate = f", {2 * reward.nbytes / spent / 1e9:.0f} GB a second" if what == "copy" else ""
                found.append(row(f"{what}{rate}, differentiable", size, path, spent, ratio=ratio, peer="a softmax"))
    return found


if __name__ == "__main__":
    show(rows())
