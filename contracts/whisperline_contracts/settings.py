"""Moved to `whisperline_runtime.settings`; these names go when the deployables have moved over."""

from whisperline_runtime.errors import SettingsError as WrongSettings
from whisperline_runtime.settings import ProcessSettings as DeployableSettings

__all__ = ["DeployableSettings", "WrongSettings"]
