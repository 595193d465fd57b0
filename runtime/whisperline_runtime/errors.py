"""The errors that end a process.

    ProcessError
    ├── SettingsError            a setting is wrong: exit status 2
    ├── StartupError             the process cannot start: exit status 1
    │   ├── BrokerRefusedError   Kafka refuses this client: a wrong password, mechanism or certificate
    │   └── PartitionsDifferError   a topic whose partitions must not change has another number of them
    └── FatalError               the process cannot go on: exit status 1
        └── TooManyDeadLettersError   too many unusable records in a row: the release is at fault

Each message is for people: it says what is wrong and what to do. `process.run` logs it as one line.
"""


class ProcessError(Exception):
    """Base of the errors that end a process. The message says why it ends."""


class SettingsError(ProcessError):
    """A setting is wrong. The message has one line for each wrong setting, which begins with its name."""


class StartupError(ProcessError):
    """The process cannot start, because something that it needs is missing or refuses it."""


class BrokerRefusedError(StartupError):
    """Kafka refuses this client. Waiting does not help."""


class PartitionsDifferError(StartupError):
    """A topic whose number of partitions must never change does not have the requested number."""


class FatalError(ProcessError):
    """The process cannot go on, and retrying does not help."""


class TooManyDeadLettersError(FatalError):
    """Too many records in a row cannot be used: this release, not the records, must be at fault."""
