"""All metrics by their keys, in the order in which tables show them."""

from __future__ import annotations

from collections.abc import Mapping

from openautoglm.evaluate.base import Metric
from openautoglm.evaluate.metrics.bleu import Bleu
from openautoglm.evaluate.metrics.chrf import Chrf
from openautoglm.evaluate.metrics.coverage import Coverage
from openautoglm.evaluate.metrics.distinct import Distinct
from openautoglm.evaluate.metrics.e2e_rouge_l import E2eRougeL
from openautoglm.evaluate.metrics.exact_match import ExactMatch
from openautoglm.evaluate.metrics.length_ratio import LengthRatio
from openautoglm.evaluate.metrics.likelihood import BitsPerByte, Perplexity
from openautoglm.evaluate.metrics.rouge import TITLES, Rouge
from openautoglm.evaluate.metrics.ter import Ter

_ALL: tuple[Metric, ...] = (
    Bleu(), Chrf(), Ter(),
    *(Rouge(kind, first=first) for first in (False, True) for kind in TITLES),
    E2eRougeL(), ExactMatch(), Coverage(), LengthRatio(), Distinct(1), Distinct(2),
    Perplexity(), BitsPerByte(),
)

METRICS: Mapping[str, Metric] = {metric.key: metric for metric in _ALL}
