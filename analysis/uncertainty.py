"""Intervals of parameters and predictions, in one place: the names that other files ask for.

Bootstrap refits are in analysis/bootstrap.py, forward errors in analysis/origins.py, predictions in
analysis/prediction.py, profiles of the objective in analysis/profile.py.
"""

from analysis.bootstrap import DRAWS as DRAWS
from analysis.bootstrap import Draws as Draws
from analysis.bootstrap import Method as Method
from analysis.bootstrap import bootstrap as bootstrap
from analysis.bootstrap import check_level as check_level
from analysis.bootstrap import degrees_of_freedom as degrees_of_freedom
from analysis.bootstrap import leverage as leverage
from analysis.bootstrap import noise_pool as noise_pool
from analysis.bootstrap import parameter_intervals as parameter_intervals
from analysis.bootstrap import residual_sd as residual_sd
from analysis.origins import ForwardError as ForwardError
from analysis.origins import Origin as Origin
from analysis.origins import by_origin as by_origin
from analysis.origins import rolling_origin as rolling_origin
from analysis.origins import widening as widening
from analysis.prediction import Images as Images
from analysis.prediction import Prediction as Prediction
from analysis.prediction import predict as predict
from analysis.prediction import relative_error as relative_error
