"""The configuration: what may stand in it, where it comes from, and what is wrong with it."""

from falco_talon.config.model import Config
from falco_talon.config.settings import NotifierSettings

__all__ = ["Config", "NotifierSettings"]
