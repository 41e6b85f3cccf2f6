"""Exceptions with actionable messages: what was given, what was expected, what to do."""


class MobiVidError(Exception):
    """Base of all errors that MobiVid raises on purpose."""


class ProfileError(MobiVidError):
    """An unknown profile was asked for."""


class ParameterError(MobiVidError):
    """A notebook or function was given a parameter it does not know, or a value out of range."""


class CheckpointError(MobiVidError):
    """A checkpoint is missing, truncated or corrupt."""


class VideoError(MobiVidError):
    """A video cannot be decoded, or is too small or too short."""


class BudgetError(MobiVidError):
    """A pruning budget lies outside what the plan's levels can reach."""


class TrainingError(MobiVidError):
    """Training diverged (a non-finite loss) and could not go on from the last good step."""


class ExportError(MobiVidError):
    """A model cannot be converted to a Core ML package faithfully."""


class RunError(MobiVidError):
    """A reproduction run failed: a cell raised, or an artefact is missing or stale."""


class TeachingError(MobiVidError):
    """A master of the teaching notebooks is malformed, or an edition cannot be written where it was asked for."""
