"""The embedded stack of one machine: real Apache Kafka, PostgreSQL and Triton, and Whisperline's own processes.

    async with Stack(LocalSettings(port_offset=1000)) as stack:
        stack.kill("transcriber")
        await stack.wait_healthy("transcriber")

Every error is a `LocalError`, whose message says what to do; `errors.py` has the tree.
"""

from whisperline_local.errors import AlreadyRunning, LocalError, PortTaken, StepFailed
from whisperline_local.settings import LocalSettings
from whisperline_local.stack import Stack

__all__ = ["AlreadyRunning", "LocalError", "LocalSettings", "PortTaken", "Stack", "StepFailed"]
