"""The errors that end a process.

    ProcessError
    ├── SettingsError            a setting is wrong: exit status 2
    ├── StartupError             the process cannot start: exit status 1
    │   ├── BrokerRefusedError   Kafka answers and refuses us: a wrong password, mechanism or certificate
    │   └── PartitionsDifferError   a topic has another number of partitions than it must keep
    └── FatalError               the process cannot go on: exit status 1
        └── TooManyDeadLettersError   so many records in a row cannot be used that the records are not at fault

Each message is for people: it says what is wrong and what to do. `process.run` logs it as one line.
"""


class ProcessError(Exception):
    """End the process; the message says why."""


class SettingsError(ProcessError):
    """Refuse to start: the message has one line for each wrong setting, and each line begins with its name."""


class StartupError(ProcessError):
    """Refuse to start: something the process needs is missing or refuses it."""


class BrokerRefusedError(StartupError):
    """Kafka answers and refuses us. Waiting does not help."""


class PartitionsDifferError(StartupError):
    """A topic whose number of partitions must never change has another number than was asked for."""


class FatalError(ProcessError):
    """Stop: the process cannot go on, and retrying does not help."""


class TooManyDeadLettersError(FatalError):
    """So many records in a row cannot be used that this release, and not the records, must be at fault."""
