"""The embedded stack of one machine: real Apache Kafka, PostgreSQL and Triton, and Whisperline's own processes.

    async with Stack(LocalSettings(port_offset=1000)) as stack:
        stack.kill("transcriber")
        await stack.wait_healthy("transcriber")

Errors, all of them `LocalError`, each with a message that says what to do:

    PortTaken       a port of the stack is in use
    AlreadyRunning  another supervisor owns the state folder
    StepFailed      a download, a preparation or a service's start did not succeed
"""

from whisperline_local.errors import AlreadyRunning, LocalError, PortTaken, StepFailed
from whisperline_local.settings import LocalSettings
from whisperline_local.stack import Stack

__all__ = ["AlreadyRunning", "LocalError", "LocalSettings", "PortTaken", "Stack", "StepFailed"]
