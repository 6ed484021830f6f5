"""The HEAR 2021 benchmark as a library: tasks, embeddings, evaluation, report."""

import warnings

# dcase_util, which heareval's scores import, says so at every start; the lock settles it.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
