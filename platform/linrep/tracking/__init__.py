"""Runs in MLflow: one per artefact, found again by its key, so that a resumed job continues the run that it began."""

from linrep.tracking.client import PAUSES as PAUSES
from linrep.tracking.models import Model as Model
from linrep.tracking.models import log_models as log_models
from linrep.tracking.runs import PARENT as PARENT
from linrep.tracking.runs import Run as Run
from linrep.tracking.runs import flat as flat
from linrep.tracking.runs import run as run
from linrep.tracking.side_by_side import compare as compare
from linrep.tracking.side_by_side import compare_metrics as compare_metrics
from linrep.tracking.side_by_side import compare_tables as compare_tables
from linrep.tracking.source import COMMIT as COMMIT
from linrep.tracking.source import git as git
from linrep.tracking.where import EXPERIMENT as EXPERIMENT
from linrep.tracking.where import check as check
from linrep.tracking.where import inside as inside
from linrep.tracking.where import key_of as key_of
from linrep.tracking.where import notice as notice
from linrep.tracking.where import pages as pages
from linrep.tracking.where import tracking_uri as tracking_uri
from linrep.tracking.whole import uri_of as uri_of
from linrep.tracking.whole import whole as whole
