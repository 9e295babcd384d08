"""The errors a user may see.

Each names the file or flag, what was found, what was expected and what to do.
Anything else that escapes is a defect of covid_jax and keeps its traceback.
"""


class CovidJaxError(Exception):
    """A mistake in what the user gave; the command line prints it and exits with status 2."""


class ConfigError(CovidJaxError):
    """A setting that cannot be, alone or together with another."""


class DataError(CovidJaxError):
    """A file or folder that is missing, damaged, or not what it should be."""


class RunError(CovidJaxError):
    """A run folder or a checkpoint that is missing, incomplete, or of another run."""
