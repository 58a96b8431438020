"""The PyTorch path: values against the core, derivatives against finite differences, and second ones."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmdtheory import baseline_update, differentiable, kl_update, mixed_update, pmd_mean_update  # noqa: E402
from pmdtheory.theorems import family_problems  # noqa: E402

CORE = {
    "kl": (kl_update, ()),
    "pmd_mean": (pmd_mean_update, ()),
    "baseline": (baseline_update, (-0.3,)),
    "mixed": (mixed_update, (0.4,)),
}
each = pytest.mark.parametrize("name", CORE)


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(x, dtype=float)) for x in arrays]


@each
def test_values_are_those_of_the_core(name):
    core, extra = CORE[name]
    for _, (p, r, tau) in family_problems.contexts(np.random.default_rng(1), 400):
        if name == "baseline":
            r = r - np.einsum("nk,nk->n", p, r)[:, None]  # so that −0.3 is below the mean
        own, known = getattr(differentiable, name)(*tensors(p, r, tau), *extra), core(p, r, tau, *extra)
        assert np.abs(own.policy.numpy() - known.policy).sum(axis=-1).max() < 1e-12
        np.testing.assert_allclose(own.log_ratio.numpy(), known.log_ratio, atol=1e-10)
        np.testing.assert_allclose(own.chi2_weight.numpy(), known.chi2_weight, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(own.baseline.numpy(), known.baseline, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rare", [1e-3, 3.6e-11, 7e-25])
def test_a_rare_action_has_all_the_reward(rare):
    """λ hardly shows in E_p[e^s] then, and is found all the same; at τ = 0.025 and 0.04, and beside a KL update."""
    p, r = np.array([rare, 0.3 - rare, 0.7]), np.array([1.0, 0.0, 0.0])
    for tau in (0.025, 0.04, 0.3):
        own, known = differentiable.pmd_mean(*tensors(p, r, tau)), pmd_mean_update(p, r, tau)
        np.testing.assert_allclose(own.policy.numpy(), known.policy, atol=1e-13)
        np.testing.assert_allclose(own.chi2_weight.numpy(), known.chi2_weight, rtol=1e-8, atol=1e-15)


@each
def test_zeros_batches_and_constant_rewards(name):
    core, extra = CORE[name]
    p, r = [[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]], np.array([[[1.0, 9.0, 0.0]], [[0.5, 0.5, 0.5]]])
    r = r - (r * np.array(p)).sum(-1, keepdims=True) if name == "baseline" else r
    own, known = getattr(differentiable, name)(*tensors(p, r), 0.7, *extra), core(p, r, 0.7, *extra)
    assert own.policy.shape == known.policy.shape == (2, 2, 3)
    np.testing.assert_allclose(own.policy.numpy(), known.policy, atol=1e-13)
    assert own.policy[0, 0, 1] == 0 and own.log_ratio[0, 0, 1] == 0


@pytest.mark.parametrize(("name", "output"), [(n, i) for n in CORE for i in range(4) if (n, i) != ("kl", 2)])
def test_derivatives_against_finite_differences(name, output):
    """Of the policy through its logits, of rewards, τ, and the baseline or κ; first and second."""
    rng = np.random.default_rng(7)
    logits, r, tau = tensors(rng.normal(size=(2, 4)), rng.random((2, 4)), [0.6, 1.3])
    extra = [torch.tensor(x).double() for x in CORE[name][1]]

    def function(logits, r, tau, *extra):
        p = logits.softmax(-1)
        return getattr(differentiable, name)(p, r, tau, *extra)[output]

    inputs = [x.requires_grad_(True) for x in (logits, r, tau, *extra)]
    assert torch.autograd.gradcheck(function, inputs, rtol=1e-6, atol=1e-8)
    assert torch.autograd.gradgradcheck(function, inputs, rtol=1e-5, atol=1e-6)


@each
def test_functional_derivatives_are_those_of_autograd(name):
    """By ``torch.func``, forward, backward and twice; what is refused is refused in its words there too."""
    p, r = tensors([0.2, 0.3, 0.5], [0.4, -0.2, 0.1])

    def best(r):
        return getattr(differentiable, name)(p, r, 0.5, *CORE[name][1]).policy[0]

    (known,) = torch.autograd.grad(best(r.requires_grad_()), r)
    curved = torch.autograd.functional.hessian(best, r)
    r = r.detach()
    for derivative in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(derivative(best)(r), known, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(torch.func.hessian(best)(r), curved, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="reward must be finite"):
        torch.func.grad(best)(torch.full_like(r, torch.nan))


def test_rows_of_vmap_are_those_of_a_batch():
    p, r = tensors([0.2, 0.3, 0.5], [[0.4, -0.2, 0.1], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(
        torch.func.vmap(lambda r: differentiable.kl(p, r, 0.5).policy)(r), differentiable.kl(p, r, 0.5).policy
    )


def test_without_a_penalty_mixed_is_the_kl_update():
    p, r = tensors([0.1, 0.2, 0.7], [1.0, 0.0, 0.5])
    own, known = differentiable.mixed(p, r, 0.05, 0.0).policy, differentiable.kl(p, r, 0.05).policy
    assert torch.allclose(own, known, atol=1e-13)


def test_single_precision():
    p, r = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    for name, (core, extra) in CORE.items():
        own = getattr(differentiable, name)(p, r, 0.3, *extra).policy
        assert own.dtype == torch.float32
        np.testing.assert_allclose(own.numpy(), core(p.double().numpy(), r.numpy(), 0.3, *extra).policy, atol=2e-6)


def test_a_network_is_trained_through_an_update():
    """Rewards are learned from what the update leads to: gradient descent through PMD-mean finds those of a policy."""
    p = torch.tensor([0.25, 0.25, 0.5]).double()
    wanted = differentiable.pmd_mean(p, torch.tensor([0.0, 1.0, 0.2]).double(), 0.5).policy
    r = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([r], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def loss():
        optimizer.zero_grad()
        q = differentiable.pmd_mean(p, r, 0.5).policy
        value = (wanted * (wanted / q).log()).sum()
        value.backward()
        return value

    optimizer.step(loss)
    np.testing.assert_allclose((r - r[0]).detach().numpy(), [0.0, 1.0, 0.2], atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: differentiable.kl(torch.tensor([1, 0]), torch.tensor([0.0, 1.0]), 1.0), "policy must be a tensor"),
        (lambda: differentiable.kl(torch.ones(2) / 2, torch.ones(3), 1.0), "reward must have one entry per action, 2"),
        (lambda: differentiable.baseline(torch.ones(2) / 2, torch.tensor([0.0, 1.0]), 1.0, 0.9), "at most tau"),
        (lambda: differentiable.pmd_mean(torch.ones(2) / 2, torch.tensor([0.0, torch.nan]), 1.0), "reward must be fin"),
        (lambda: differentiable.pmd_mean(torch.ones(2) / 2, torch.tensor([0.0, 1.0]), 1e-40), "tau must be larger"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


BAD = {
    "NaN reward": {"r": [0.0, np.nan, 1.0]},
    "infinite reward": {"r": [0.0, np.inf, 1.0]},
    "no distribution": {"p": [0.5, 0.5, 0.5]},
    "negative probability": {"p": [-0.5, 1.0, 0.5]},
    "NaN probability": {"p": [np.nan, 0.5, 0.5]},
    "negative tau": {"tau": -0.3},
    "tau 0": {"tau": 0.0},
    "NaN tau": {"tau": np.nan},
    "one negative tau": {"tau": [0.5, -0.3]},
    "tau too small": {"tau": 1e-309},
    "shapes": {"p": [[0.2, 0.3, 0.5]] * 2, "tau": [1.0, 1.0, 1.0]},
}
EXTRA_BAD = [("baseline", np.nan), ("baseline", np.inf), ("mixed", -0.1), ("mixed", np.nan)]


def refused(call, *arguments):
    with pytest.raises(ValueError) as caught:
        call(*arguments)
    return str(caught.value)


@each
@pytest.mark.parametrize("bad", BAD)
def test_refused_with_the_words_of_the_core(name, bad):
    core, extra = CORE[name]
    p, r, tau = ({"p": [0.2, 0.3, 0.5], "r": [0.0, 0.5, 1.0], "tau": 0.7} | BAD[bad]).values()
    said = refused(core, p, r, tau, *extra)
    assert refused(getattr(differentiable, name), *tensors(p, r, tau), *extra) == said
    if not isinstance(tau, list):
        assert refused(getattr(differentiable, name), *tensors(p, r), tau, *extra) == said


@pytest.mark.parametrize(("name", "value"), EXTRA_BAD)
def test_what_only_one_update_takes_is_refused_with_the_words_of_the_core(name, value):
    problem = [0.2, 0.3, 0.5], [0.0, 0.5, 1.0], 0.7
    said = refused(CORE[name][0], *problem, value)
    assert refused(getattr(differentiable, name), *tensors(*problem), value) == said
    assert refused(getattr(differentiable, name), *tensors(*problem, value)) == said


@pytest.mark.parametrize("name", ["pmd_mean", "baseline", "mixed"])
@pytest.mark.parametrize("bad", ["NaN reward", "negative tau", "NaN tau", "one negative tau"])
def test_where_looking_would_wait_the_solution_says_what_was_wrong(monkeypatch, name, bad):
    """As on a GPU: nothing is looked at before, and the same is said after."""
    core, extra = CORE[name]
    monkeypatch.setattr(differentiable, "_at_hand", lambda tensor: False)
    p, r, tau = ({"p": [0.2, 0.3, 0.5], "r": [0.0, 0.5, 1.0], "tau": 0.7} | BAD[bad]).values()
    extra = (-3.0,) if name == "baseline" else extra
    assert refused(getattr(differentiable, name), *tensors(p, r, tau), *extra) == refused(core, p, r, tau, *extra)


def test_a_number_is_checked_on_any_device(monkeypatch):
    monkeypatch.setattr(differentiable, "_at_hand", lambda tensor: False)
    monkeypatch.setattr(differentiable, "_refuse", None)  # nothing of the tensors is looked at
    p, r = tensors([0.5, 0.5], [0.0, 1.0])
    for call, name in (
        (lambda: differentiable.kl(p, r, -1.0), "tau must be positive, got -1.0"),
        (lambda: differentiable.baseline(p, r, 1.0, float("nan")), "baseline must be finite, got nan"),
        (lambda: differentiable.mixed(p, r, 1.0, -0.5), "chi2_coef must be nonnegative, got -0.5"),
    ):
        assert name in refused(call)
    assert differentiable.kl(p, r * torch.nan, 1.0).policy.isnan().all()
