"""Muon against the singular value decomposition, against PyTorch's own, and without matrices against AdamW."""

import copy

import pytest
import torch
from pmdllm import models
from pmdllm.muon import Muon, matrices, orthogonal


def moved(optimizer, parameters, steps=5):
    """The parameters after some steps of a quadratic loss whose gradients never have equal singular values."""
    for step in range(steps):
        optimizer.zero_grad()
        sum((value - torch.cos(torch.arange(value.numel()) * (1.0 + step)).view(value.shape)).square().sum()
            for value in parameters).backward()  # fmt: skip
        optimizer.step()
    return [value.detach().clone() for value in parameters]


def some(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (2, 3, 7)])
def test_singular_values_are_made_alike_and_directions_kept(shape):
    (matrix,) = some(shape)
    U, _, V = torch.linalg.svd(matrix, full_matrices=False)
    near = torch.linalg.svd(orthogonal(matrix))
    assert near.S.min() > 0.65 and near.S.max() < 1.25
    core = U.mT @ orthogonal(matrix) @ V.mT
    assert torch.allclose(core, torch.diag_embed(torch.diagonal(core, dim1=-2, dim2=-1)), atol=1e-4)
    assert (torch.diagonal(core, dim1=-2, dim2=-1) > 0.65).all()


def test_small_singular_values_stay_small():
    """Below 0.0015 of the norm five steps do not suffice: each multiplies by 3.4445 at most."""
    for small in (0.002, 1e-5):
        found = orthogonal(torch.diag(torch.tensor([1.0, small]))).diag()
        assert 0.65 < found[0] < 1.21 and (0.65 < found[1] < 1.21 if small > 0.0015 else found[1] < 3.5**5 * small)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has Muon since 2.9")
def test_one_matrix_is_moved_as_pytorch_moves_it():
    """But for its arithmetic, which is bfloat16."""
    (own,), (other,) = some((6, 4)), some((6, 4))
    theirs = torch.optim.Muon([other], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    found = moved(Muon([("w", own)], {"w"}, lr=0.1, weight_decay=0.1), [own])[0]
    assert torch.allclose(found, moved(theirs, [other])[0], atol=0.02)
    assert not torch.allclose(found, some((6, 4))[0], atol=0.2)


def test_a_stack_is_moved_as_each_of_its_matrices():
    (stack,) = some((3, 6, 4))
    alone = [value.detach().clone().requires_grad_() for value in stack]
    target = torch.sin(torch.arange(24.0)).view(6, 4)
    for values in ([stack], alone):
        optimizer = Muon([(str(i), value) for i, value in enumerate(values)], set("012"), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            sum((value - target).square().sum() for value in values).backward()
            optimizer.step()
    assert torch.allclose(stack, torch.stack(alone), atol=1e-5)


def test_without_matrices_it_is_adamw():
    own, other = some((3, 2), (2,)), some((3, 2), (2,))
    options = {"lr": 0.05, "weight_decay": 0.1, "betas": (0.9, 0.98)}
    found = moved(Muon(zip("ab", own), set(), **options), own)
    for value, expected in zip(found, moved(torch.optim.AdamW(other, **options), other)):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("copied", [False, True], ids=["from a file", "pickled whole"])
def test_it_goes_on_from_a_saved_state_bit_for_bit(copied, tmp_path):
    """Matrices and others, with a rate that a schedule has changed, after seven steps as without the break."""

    def started():
        values = some((6, 4), (3, 5, 2), (4,))
        return values, Muon(zip("abc", values), {"a", "b"}, lr=0.1, weight_decay=0.1, betas=(0.9, 0.98))

    through, optimizer = started()
    moved(optimizer, through, steps=3)
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.03
    torch.save([through, optimizer.state_dict()], tmp_path / "state.pt")
    if copied:
        again, other = copy.deepcopy((through, optimizer))
    else:
        again, other = started()
        values, state = torch.load(tmp_path / "state.pt")
        for value, saved in zip(again, values):
            value.data.copy_(saved)
        other.load_state_dict(state)
    for found, expected in zip(moved(other, again, steps=4), moved(optimizer, through, steps=4)):
        assert torch.equal(found, expected)
    assert {float(state["step"]) for state in other.state.values()} == {7.0}


def test_the_matrices_of_a_model_are_those_of_its_layers():
    model = models.tiny(models.character_tokenizer("01"), hidden_size=8, layers=2, heads=2, max_length=4)
    names = matrices(model)
    assert len(names) == 2 * 4 and all(".h." in name for name in names)  # attention in and out, MLP in and out
