"""Fit and extrapolate scaling laws from run directories and tables; imports nothing of lab.

    from analysis import fit, read_runs
    law = fit("power_floor_N", read_runs("runs/first_ladder").at_common_tokens())
    print(law.summary()); law.predict(N=331_776)

Names are loaded when they are first used, so that a command line answers at once. `fit` and
`forecast` are functions and also the modules that hold them; the package gives the functions.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.bootstrap import Method as Method
    from analysis.compare import Comparison as Comparison
    from analysis.compare import compare as compare
    from analysis.curve_fit import CurveFit as CurveFit
    from analysis.curve_fit import fit_curves as fit_curves
    from analysis.design import next_runs as next_runs
    from analysis.differences import neighbours as neighbours
    from analysis.differences import paired as paired
    from analysis.errors import AnalysisError as AnalysisError
    from analysis.estimate import Status as Status
    from analysis.fit import Fit as Fit
    from analysis.fit import fit as fit
    from analysis.forecast import Forecast as Forecast
    from analysis.forecast import forecast as forecast
    from analysis.forecast import freeze as freeze
    from analysis.forecast import verify as verify
    from analysis.forms import form_named as form_named
    from analysis.forms import named_forms as named_forms
    from analysis.forms import power as power
    from analysis.forms import power_floor as power_floor
    from analysis.forms import separable as separable
    from analysis.forms import skaling as skaling
    from analysis.importers import import_runs as import_runs
    from analysis.learning_curves import Curves as Curves
    from analysis.learning_curves import read_curves as read_curves
    from analysis.losses import Asymmetric as Asymmetric
    from analysis.losses import Huber as Huber
    from analysis.losses import Lad as Lad
    from analysis.losses import SoftL1 as SoftL1
    from analysis.losses import Squares as Squares
    from analysis.noise import Noise as Noise
    from analysis.noise import noise_of as noise_of
    from analysis.optimum import Optimum as Optimum
    from analysis.optimum import optimum as optimum
    from analysis.plan import Plan as Plan
    from analysis.plan import PlanStatus as PlanStatus
    from analysis.prediction import Images as Images
    from analysis.profile import Profile as Profile
    from analysis.rates import Schedule as Schedule
    from analysis.report import write_report as write_report
    from analysis.run_table import read_table as read_table
    from analysis.run_table import write_table as write_table
    from analysis.sensitivity import sensitivity as sensitivity
    from analysis.table import Table as Table
    from analysis.table import from_frame as from_frame
    from analysis.table import read_csv as read_csv
    from analysis.table import read_runs as read_runs

_HOME = {
    "bootstrap": ("Method",),
    "compare": ("Comparison", "compare"),
    "curve_fit": ("CurveFit", "fit_curves"),
    "design": ("next_runs",),
    "importers": ("import_runs",),
    "noise": ("Noise", "noise_of"),
    "optimum": ("Optimum", "optimum"),
    "plan": ("Plan", "PlanStatus"),
    "prediction": ("Images",),
    "profile": ("Profile",),
    "run_table": ("read_table", "write_table"),
    "sensitivity": ("sensitivity",),
    "differences": ("neighbours", "paired"),
    "errors": ("AnalysisError",),
    "estimate": ("Status",),
    "fit": ("Fit", "fit"),
    "forecast": ("Forecast", "forecast", "freeze", "verify"),
    "forms": ("form_named", "named_forms", "power", "power_floor", "separable", "skaling"),
    "learning_curves": ("Curves", "read_curves"),
    "losses": ("Asymmetric", "Huber", "Lad", "SoftL1", "Squares"),
    "rates": ("Schedule",),
    "report": ("write_report",),
    "table": ("Table", "from_frame", "read_csv", "read_runs"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


class _Package(types.ModuleType):
    """A package in which importing the module `fit` does not hide the function `fit`."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _MODULE_OF and isinstance(value, types.ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    value = module.__dict__[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
