"""The laws by name: the one place where a functional form is added.

    L(x)        power (M1), power_floor (M2), saturating (M3), sigmoid (M4), broken (BNSL)
    L(N, D)     separable, shared_exponent, skaling, kaplan
    L(N, D, U)  repeats, repeats_excess: U unique tokens among D
    L(N, S, R)  annealing, annealing_S: whole curves with their schedule (analysis/curve_fit.py)

A new law is a class of about 20 lines in curves.py, surfaces.py or a file of its own (the entries
of theta, a formula, the log loss in scaled units, its amplitudes; gradients come from a complex
step where it gives no own) and one line in `named_forms`. Every test of laws then runs on it.
"""

from __future__ import annotations

from analysis.annealing import OF_CURVES, Annealing
from analysis.curves import Broken, Saturating, Sigmoid
from analysis.errors import AnalysisError
from analysis.form import Form
from analysis.repeats import Repeats
from analysis.surfaces import SharedExponent, Skaling, SumOfPowers


def power_floor(variable: str = "N") -> SumOfPowers:
    """L(x) = E + A x^-a for x one of N, D, C (M2)."""
    return SumOfPowers(f"power_floor_{variable}", (variable,))


def power(variable: str = "N") -> SumOfPowers:
    """L(x) = A x^-a, without a floor (M1)."""
    return SumOfPowers(f"power_{variable}", (variable,), floor=False)


def saturating(variable: str = "N") -> Saturating:
    """L(x) = A (1/x + 1/x0)^a (M3)."""
    return Saturating(f"saturating_{variable}", (variable,))


def sigmoid(variable: str = "N", *, chance: float | None = None) -> Sigmoid:
    """(L - E) / (L0 - L)^h = A x^-a with L0 the loss of chance, or fitted (M4)."""
    return Sigmoid(f"sigmoid_{variable}", (variable,), chance)


def broken(variable: str = "N", *, breaks: int = 1) -> Broken:
    """A broken neural scaling law with so many breaks (BNSL)."""
    return Broken(f"broken{breaks}_{variable}", (variable,), breaks)


def separable() -> SumOfPowers:
    """L(N, D) = E + A N^-a + B D^-b."""
    return SumOfPowers("separable", ("N", "D"))


def shared_exponent() -> SharedExponent:
    """L(N, D) = E + A N^-a + B D^-a."""
    return SharedExponent("shared_exponent", ("N", "D"))


def skaling() -> Skaling:
    """L(N, D) = E + A (N^-a + R D^-b)^k."""
    return Skaling("skaling", ("N", "D"))


def kaplan() -> Skaling:
    """L(N, D) = E + A (N^-a + R D^-1)^k."""
    return Skaling("kaplan", ("N", "D"), data_exponent=1.0)


def repeats() -> Repeats:
    """L(N, D, U), data worth less when they are seen again."""
    return Repeats("repeats", ("N", "D", "U"))


def repeats_excess() -> Repeats:
    """The same, and a loss that rises where a model can hold its data."""
    return Repeats("repeats_excess", ("N", "D", "U"), excess=True)


def annealing() -> Annealing:
    """L(N, S, R) of every evaluation of runs: S tokens at the peak rate, R mean relative rate."""
    return Annealing(OF_CURVES[0], ("N", "S", "R"))


def annealing_one_size() -> Annealing:
    """L(S, R), the same for runs of one size."""
    return Annealing(OF_CURVES[1], ("S", "R"))


def curve_forms() -> dict[str, Annealing]:
    """The laws of whole curves by name: `fit_curves` fits them, with the schedules of the runs."""
    return {form.name: form for form in (annealing(), annealing_one_size())}


def named_forms() -> dict[str, Form]:
    """Every form of a table of runs by its name."""
    curves = (power_floor, power, saturating, sigmoid, broken)
    forms: list[Form] = [make(variable) for make in curves for variable in ("N", "D", "C")]
    forms += [broken(variable, breaks=2) for variable in ("N", "D", "C")]
    forms += [separable(), shared_exponent(), skaling(), kaplan(), repeats(), repeats_excess()]
    return {form.name: form for form in forms}


def form_named(name: str) -> Form:
    """The form of that name; an AnalysisError lists the names."""
    forms = named_forms()
    if name in OF_CURVES:
        raise AnalysisError(
            f"form {name!r}: of whole curves; fit_curves(read_curves(DIR), {name!r}) or "
            f"`python -m analysis fit DIR --form {name}`"
        )
    if name not in forms:
        raise AnalysisError(f"form {name!r}: allowed are {', '.join(forms)}")
    return forms[name]
