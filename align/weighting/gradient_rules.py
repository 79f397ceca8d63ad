"""Weighs objectives by the Gram matrix of their gradients, or of their advantages.

With gradients the guarantees are those of the papers. With advantages (Aᵀ A / B, no backward pass) they hold for the
advantages: a completion's, not the policy's, improvement. A Gram matrix that is not finite leaves the weights as they
are, and `gram_is_finite` is logged as 0.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Statistics, Weighting, WeightingRule, flag, in_range, one_of
from .gram import NORMALISATIONS, Gram, Weights, alive, divisors, mgda_weights, normalised, upgrad_weights

Base = Sequence[float] | Float[Tensor, " objectives"]


class GramRule(WeightingRule):
    """A rule whose weights are a function of the Gram matrix."""

    needs = "gradients"

    def update(self, stats: Statistics) -> Weighting:
        """Weights from `stats.gram`.

        Raises:
            ValueError: If there is none, or it is not K by K.
        """
        gram = self._matrix("gram", stats.gram)
        if not gram.isfinite().all():
            return Weighting(self.weights_without(), metrics={"gram_is_finite": 0.0})
        return Weighting(self.weights(gram, stats), metrics=_told(gram))

    def weights(self, gram: Gram, stats: Statistics) -> Weights:
        """The weights for a finite Gram matrix (float64, CPU)."""
        raise NotImplementedError

    def weights_without(self) -> Weights:
        """The weights when the Gram matrix is of no use."""
        return self.base.float()

    def _matrix(self, name: str, matrix: Tensor | None) -> Gram:
        count = len(self.base)
        if matrix is None:
            raise ValueError(f"{type(self).__name__} needs Statistics.{name}, got None; compute it before `update`")
        if matrix.shape != (count, count):
            raise ValueError(f"Statistics.{name}: {count} by {count} for {count} weights, got {tuple(matrix.shape)}")
        return matrix.detach().double().cpu()


class GradientInfluence(GramRule):
    """Mirror descent towards objectives whose gradient helps all: w_k ← w_k exp(step I_k) / Z, I_k = Σ_j ⟨g_k, g_j⟩.

    Lu et al. 2025, arXiv:2509.11452, who write step = η/μ with the learning rate η = 1e-6 and μ = 1e-5. Here the
    ratio is given and stays constant; theirs decays with the learning rate. It favours the largest gradient, not the
    most needed objective, and has no floor of its own.

    Args:
        base: The weights to begin with. One that is 0 stays 0 without a floor.
        step: η/μ.
        normalisation: What is done to each gradient first: "clip" to norm 1, as the authors' code does (their paper
            does not), "unit" or "none". Only the influences feel it.
        estimator: "plugin" reads `Statistics.gram`. Its noise makes influences too large, by 27 to 39% with 8 samples
            on a bandit. "split" reads `Statistics.halves`, without that bias (exactly so under normalisation "none").
        include_self: Count ⟨g_k, g_k⟩ in I_k, as in the paper.
        floor: Share of the weight that is spread evenly after each step, in [0, 1).
        as_published: The gradients as the authors' code has them, which `Statistics.gram` is then of: summed over micro-batches
            with the KL penalty in each, clipped to norm 1 over the whole model, their layers taken after that. With
            normalisation "clip" and estimator "plugin" alone. Sums over many micro-batches are clipped nearly always, so that
            influences are cosines, and ⟨g_k, g_k⟩ about the same for all.
    """

    remembered = ("log_shares",)

    def __init__(
        self,
        base: Base,
        step: float = 0.1,
        normalisation: str = "clip",
        estimator: str = "plugin",
        include_self: bool = True,
        floor: float = 0.0,
        as_published: bool = False,
    ) -> None:
        super().__init__(base)
        self.step = in_range("step", step, 0.0, 1e9)
        self.normalisation = one_of("normalisation", normalisation, NORMALISATIONS)
        self.split = one_of("estimator", estimator, ("plugin", "split")) == "split"
        self.include_self = flag("include_self", include_self)
        self.floor = in_range("floor", floor, 0.0, 1.0, below=True)
        self.log_shares = (self.base / self.base.sum()).log()
        self.as_published = flag("as_published", as_published)
        if self.as_published and (normalisation != "clip" or self.split):
            raise ValueError(
                f"as_published: is with normalisation 'clip' and estimator 'plugin', got {normalisation!r} and {estimator!r}"
            )

    def weights(self, gram: Gram, stats: Statistics) -> Weights:
        """The weights after one step."""
        inner = self._matrix("halves", stats.halves) if self.split else gram
        if inner.isfinite().all():
            inner = inner if self.as_published else normalised(inner, divisors(gram, self.normalisation))
            influence = inner.sum(1) if self.include_self else inner.sum(1) - inner.diagonal()
            self.log_shares = (self.log_shares + self.step * influence).log_softmax(0)
            if self.floor:
                even = torch.full_like(self.log_shares, self.floor / len(self.base))
                self.log_shares = ((1 - self.floor) * self.log_shares.exp() + even).log()
        return self.weights_without()

    def weights_without(self) -> Weights:
        """The weights as they are."""
        return self.on_simplex(self.log_shares.exp())


class MGDA(GramRule):
    """The multiple-gradient descent algorithm: see `gram.mgda_weights`. The base weights only set the sum.

    Args:
        base: Their sum is the sum of the weights; they are used themselves while no objective has a gradient.
        normalisation: "unit" shortens all gradients to norm 1 first, so that a large reward is not left out for the
            length of its gradient; the weights are those of the gradients as they are.
    """

    def __init__(self, base: Base, normalisation: str = "none") -> None:
        super().__init__(base)
        self.normalisation = one_of("normalisation", normalisation, NORMALISATIONS)

    def weights(self, gram: Gram, stats: Statistics) -> Weights:
        """The weights of the shortest convex combination."""
        live = alive(gram)
        if not live.any():
            return self.base.float()
        lengths = divisors(gram, self.normalisation)
        solution = mgda_weights(normalised(gram, lengths).where(live & live[:, None], 0.0)) / lengths
        return self.on_simplex(solution / solution.sum())


class UPGrad(GramRule):
    """Unconflicting projection of gradients: see `gram.upgrad_weights`. The default gradient rule.

    No objective is made worse (to first order), also at very different scales of reward. The weights are at least the
    base weights and do not keep their sum.

    Args:
        base: The preference.
        ridge: Robustness against gradients that are opposite but for rounding; see `gram.upgrad_weights`.
    """

    def __init__(self, base: Base, ridge: float = 1e-6) -> None:
        super().__init__(base)
        self.ridge = in_range("ridge", ridge, 0.0, 1.0, above=True)

    def weights(self, gram: Gram, stats: Statistics) -> Weights:
        """The weights of the sum of projections."""
        return upgrad_weights(gram, self.base, self.ridge).float()


class GramFunction(GramRule):
    """Weights by any function of the Gram matrix, such as a `torchjd` weighting; to be given in Python.

    Args:
        base: The weights where the Gram matrix is not finite.
        function: From the Gram matrix (K by K, float64, on the CPU) to K finite weights, taken as they are. It should
            be deterministic, and what it remembers is not in checkpoints.
    """

    def __init__(self, base: Base, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(base)
        if not callable(function):
            raise ValueError(f"function: a callable from Gram matrix to weights, given in Python, got {function!r}")
        self.function = function

    def weights(self, gram: Gram, stats: Statistics) -> Weights:
        """What the function returns.

        Raises:
            ValueError: If that is not K finite numbers.
        """
        weights = torch.as_tensor(self.function(gram)).detach().float().cpu()
        if weights.shape != self.base.shape or not weights.isfinite().all():
            raise ValueError(f"function: {len(self.base)} finite weights, got {weights.tolist()}")
        return weights


def _told(gram: Gram) -> dict[str, float]:
    """The lowest cosine between two objectives with a gradient: below 0 they conflict; 1 with fewer than two."""
    live = alive(gram)
    inner = gram[live][:, live]
    cosines = normalised(inner, divisors(inner, "unit"))
    return {"gram_is_finite": 1.0, "lowest_cosine": float(cosines.min()) if len(cosines) > 1 else 1.0}
