"""Moved to `whisperline_runtime.broker`; these names go when the deployables have moved over."""

from whisperline_runtime.broker import Broker
from whisperline_runtime.errors import BrokerRefusedError as BrokerRefused

__all__ = ["Broker", "BrokerRefused"]
