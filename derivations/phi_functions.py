# %% [markdown]
# # The φ functions
#
# Every exact rule of discretisation is an integral of an exponential, and all of them are made of a few functions:
#
# $$\varphi_1(z) = \int_0^1 e^{sz}\,ds = \frac{e^z-1}{z},\qquad
#   \varphi_2(z) = \int_0^1 (1-s)\,e^{sz}\,ds = \frac{e^z-1-z}{z^2}.$$
#
# $\bar B_{\text{ZOH}} = \varphi_1(\Delta A)\,\Delta B$; the first-order hold uses $\varphi_2$ too; gradients need
# their derivatives. The closed forms subtract nearly equal numbers near $z = 0$, so `ssm_edu.phi` sums power series
# there.

# %%
from math import factorial

import mpmath as mp
import numpy as np
import sympy as sp

from ssm_edu import phi
from ssm_edu.ledger import Work, claim, run_as_script

s = sp.Symbol("s", positive=True)
z = sp.Symbol("z", nonzero=True)

PHI1 = (sp.exp(z) - 1) / z
PHI2 = (sp.exp(z) - 1 - z) / z**2
WEIGHTS = {"phi1": sp.Integer(1), "phi2": 1 - s, "dphi1": s, "dphi2": s * (1 - s), "d2phi1": s**2}
CLOSED = {"phi1": PHI1, "phi2": PHI2, "dphi1": PHI1.diff(z), "dphi2": PHI2.diff(z), "d2phi1": PHI1.diff(z, 2)}


# %%
@claim(
    "PHI-1",
    r"\varphi_1=\int_0^1 e^{sz}ds,\ \varphi_2=\int_0^1(1-s)e^{sz}ds,\ \varphi_1'=\int_0^1 s\,e^{sz}ds,"
    r"\ \varphi_2'=\int_0^1 s(1-s)e^{sz}ds,\ \varphi_1''=\int_0^1 s^2e^{sz}ds",
    source="Hochbruck & Ostermann 2010, §2.1",
    method="symbolic",
    declared="proved",
)
def integral_forms(work: Work) -> None:
    """Each φ is a weighted mean of the exponential"""
    for name, weight in WEIGHTS.items():
        work.equal(sp.integrate(weight * sp.exp(s * z), (s, 0, 1)), CLOSED[name], name)


@claim(
    "PHI-2",
    r"\varphi_1 = 1 + z\varphi_2,\quad \varphi_1' = (e^z-\varphi_1)/z = \varphi_1-\varphi_2,\quad"
    r" \varphi_2' = (\varphi_1'-\varphi_2)/z,\quad \varphi_1'' = (e^z-2\varphi_1')/z",
    source="Hochbruck & Ostermann 2010, §2.1",
    method="symbolic",
    declared="proved",
)
def recurrences(work: Work) -> None:
    """The closed forms that the code evaluates away from zero"""
    work.equal(PHI1, 1 + z * PHI2, "φ₁ from φ₂")
    work.equal(PHI1.diff(z), (sp.exp(z) - PHI1) / z, "φ₁′")
    work.equal(PHI1.diff(z), PHI1 - PHI2, "φ₁′ is also the weight of x_{t−1} in a first-order hold")
    work.equal(PHI2.diff(z), (PHI1.diff(z) - PHI2) / z, "φ₂′")
    work.equal(PHI1.diff(z, 2), (sp.exp(z) - 2 * PHI1.diff(z)) / z, "φ₁″")


@claim(
    "PHI-3",
    r"\varphi_2=\sum\tfrac{z^k}{(k+2)!},\ \varphi_1'=\sum\tfrac{(k+1)z^k}{(k+2)!},\ "
    r"\varphi_2'=\sum\tfrac{(k+1)z^k}{(k+3)!},\ \varphi_1''=\sum\tfrac{(k+1)(k+2)z^k}{(k+3)!}",
    source="Hochbruck & Ostermann 2010, §2.1",
    method="symbolic",
    declared="proved",
)
def power_series(work: Work) -> None:
    """The power series that the code sums near zero, for every k"""
    k = sp.Symbol("k", integer=True, nonnegative=True)
    # the k-th coefficient is the weight's k-th moment over k!
    coefficients = {
        "phi2": 1 / sp.factorial(k + 2),
        "dphi1": (k + 1) / sp.factorial(k + 2),
        "dphi2": (k + 1) / sp.factorial(k + 3),
        "d2phi1": (k + 1) * (k + 2) / sp.factorial(k + 3),
    }
    for name, coefficient in coefficients.items():
        moment = sp.integrate(sp.expand(WEIGHTS[name] * s**k), (s, 0, 1)) / sp.factorial(k)
        work.equal(
            sp.gammasimp((moment / coefficient).rewrite(sp.gamma)), 1, f"{name}: the coefficient of zᵏ over ours"
        )
    remainder = sp.Rational(1, factorial(len(phi.TERMS) + 1))
    work.true(remainder < sp.Rational(1, 2**54), f"the first term left out is below 2⁻⁵⁴: {float(remainder):.2g}")


# %% [markdown]
# How many digits are left? The bound below is the price of the steps just outside the unit disc, where the closed forms
# still subtract: $\varphi_2'$ there is about $0.13$ and comes from a difference of two numbers near $0.3$.


# %%
BOUNDS = {"phi1": 4, "phi2": 4, "dphi1": 8, "dphi2": 16, "d2phi1": 16}


@claim(
    "PHI-4",
    r"|\mathrm{fl}(\varphi(z))-\varphi(z)| \le 4,\,4,\,8,\,16,\,16\ \mathrm{ulp}\ \text{ for }\ "
    r"\varphi_1,\varphi_2,\varphi_1',\varphi_2',\varphi_1''",
    source="Higham 2002, §1.14.1",
    method="numeric",
    declared="verified",
)
def accuracy(work: Work) -> None:
    """ssm_edu.phi against 60 digits, real and complex, near zero and far"""
    rng = np.random.default_rng(0)
    exact = {name: sp.lambdify(z, closed, "mpmath") for name, closed in CLOSED.items()}
    for dtype in (np.float64, np.float32, np.complex128, np.complex64):
        precision = np.finfo(dtype)
        size = 10 ** rng.uniform(-12, np.log10(0.9 * np.log(float(precision.max))), 200)
        size[:20] = rng.uniform(0.9, 1.2, 20)
        # complex z: the left half-plane, away from the zeros of eᶻ − 1 on the imaginary axis
        angle = rng.uniform(0.6, 1.4, 200) * np.pi if np.dtype(dtype).kind == "c" else rng.choice([0, np.pi], 200)
        points = (
            (size * np.exp(1j * angle)).astype(dtype)
            if np.dtype(dtype).kind == "c"
            else (size * np.cos(angle)).astype(dtype)
        )
        for name, bound in BOUNDS.items():
            got = getattr(phi, name)(points)
            with mp.workdps(60):
                errors = [
                    float(abs(mp.mpmathify(complex(g)) / exact[name](mp.mpmathify(complex(p))) - 1))
                    for g, p in zip(got, points, strict=True)
                ]
            work.within(np.array(errors) / float(precision.eps), bound, f"{name}, {np.dtype(dtype)}")


# %%
if __name__ == "__main__":
    run_as_script(globals())
