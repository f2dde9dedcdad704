"""How much each dimension matters for a low validation loss."""

from __future__ import annotations

import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

FEWEST = 5


def importances(study: optuna.study.Study) -> dict[str, float]:
    """Return each searched dimension's share, largest first; empty below 5 completed trials.

    PED-ANOVA (Watanabe et al., IJCAI 2023): how far the best quarter of the trials departs from all of them.
    It needs no scikit-learn, which fANOVA's random forest would.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST:
        return {}
    with warnings.catch_warnings():  # equal values put all trials in the best quarter: equal shares
        warnings.filterwarnings("ignore", message="Target and region quantiles", category=UserWarning)
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))
    return dict(sorted(((name, float(share)) for name, share in found.items()), key=lambda pair: -pair[1]))
