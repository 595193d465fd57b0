"""The metrics of our processes, as their code declares them."""

import re
from dataclasses import dataclass

from prometheus_client import metrics as kinds
from rendering import REPOSITORY
from whisperline_gateway import metrics as gateway
from whisperline_persistence import metrics as persistence
from whisperline_transcriber import metrics as transcriber

MODEL = REPOSITORY / "model_repository/whisperline_models/serving/model.py"
PROCESSES = {"Gateway": gateway, "Transcriber": transcriber, "Persistence": persistence}


@dataclass(frozen=True)
class Metric:
    """A metric: its name as Prometheus has it, its type and its labels."""

    name: str
    type: str
    labels: frozenset[str]

    def series(self) -> dict[str, set[str]]:
        """Return the names of its series, with the labels of each."""
        labels = set(self.labels)
        if self.type == "histogram":
            parts = {f"{self.name}_sum": labels, f"{self.name}_count": labels}
            return parts | {f"{self.name}_bucket": labels | {"le"}}
        return {self.name: labels}


def of_process(name: str) -> dict[str, Metric]:
    """Return the metrics of a process by name."""
    found = {}
    for metric in vars(PROCESSES[name]).values():
        if isinstance(metric, kinds.MetricWrapperBase):
            (family,) = metric.describe()
            full = f"{family.name}_total" if family.type == "counter" else family.name
            # The client has no public access to a metric's labels; without this one, every test of queries fails.
            found[full] = Metric(full, family.type, frozenset(metric._labelnames))
    return found


def of_model() -> dict[str, Metric]:
    """Return the metrics that the model gives through Triton, read from its code, which runs only there."""
    text = MODEL.read_text()
    everywhere = set(re.findall(r'"(\w+)": ', re.findall(r"self\._labels = {(.*)}", text)[0]))
    found = {}
    for name, kind in re.findall(r'\("(\w+)", "[^"]+", kinds\.(\w+)\)', text):
        (labels,) = {
            frozenset(re.findall(r"(\w+)=", given))
            for given in re.findall(rf'(?:histogram|metric)\("{name}"(.*)\)\.', text)
        }
        found[f"whisper_{name}"] = Metric(f"whisper_{name}", kind.lower(), labels | everywhere)
    return found


def series() -> dict[str, set[str]]:
    """Return the series of all processes by name, with the labels that our code gives them."""
    metrics = [metric for name in PROCESSES for metric in of_process(name).values()] + list(of_model().values())
    return {name: labels for metric in metrics for name, labels in metric.series().items()}
