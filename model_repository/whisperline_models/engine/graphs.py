"""The ONNX graphs of a version, what its manifest says of the model, and the device that runs it.

ONNX Runtime calls a loaded graph a session. Here it is a graph, since a session is a stream of audio in this project.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
}
_CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class ModelSpec:
    """The part of a version's `manifest.json` that decoding depends on."""

    name: str
    windows_s: tuple[float, ...]
    encoder_pieces: int
    n_mels: int
    n_audio_state: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_vocab: int

    @classmethod
    def read(cls, folder: Path) -> ModelSpec:
        """Read the manifest in a version folder."""
        manifest = json.loads((folder / "manifest.json").read_text())
        fields = {k: manifest["dimensions"][k] for k in cls.__dataclass_fields__ if k in manifest["dimensions"]}
        own = {"name": manifest["model"], "encoder_pieces": manifest["encoder_pieces"]}
        return cls(windows_s=tuple(manifest["windows_s"]), **own, **fields)


@dataclass(frozen=True)
class Device:
    """The processor or a GPU. `arrays` is NumPy, or CuPy for a GPU, whose interface is the same."""

    arrays: ModuleType
    on_gpu: bool
    index: int = 0

    @classmethod
    def find(cls, gpu: int = 0) -> Device:
        """Return the GPU of this index if this ONNX Runtime can use one, else the processor."""
        if _CUDA not in onnxruntime.get_available_providers():
            return cls(np, on_gpu=False)
        onnxruntime.preload_dlls()
        import cupy  # type: ignore[import-not-found]  # noqa: PLC0415 - only there where onnxruntime-gpu is

        device = cls(cupy, on_gpu=True, index=gpu)
        device.use()
        return device

    def use(self) -> None:
        """Make this the device of the arrays that this thread makes."""
        if self.on_gpu:
            self.arrays.cuda.Device(self.index).use()

    @property
    def name(self) -> str:
        """What ONNX Runtime calls the device."""
        return "cuda" if self.on_gpu else "cpu"

    def providers(self, *, captured: bool) -> list[Any]:
        """Return the execution providers for a graph; with `captured`, a GPU replays its runs as CUDA graphs."""
        cpu = ["CPUExecutionProvider"]
        options = {"device_id": str(self.index), "enable_cuda_graph": "1" if captured else "0", "use_tf32": "0"}
        return [(_CUDA, options), *cpu] if self.on_gpu else cpu

    def bucket(self, n_rows: int, n_slots: int) -> int:
        """Return how many slots a step over `n_rows` rows runs over.

        On a GPU it is a power of two, because a CUDA graph is captured for each number, and captures take memory.
        """
        return min(n_slots, 1 << (n_rows - 1).bit_length()) if self.on_gpu else n_rows

    def run(self, graph: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, graph_id: int = -1) -> None:
        """Run a graph over bound arrays, to its end; with a `graph_id`, a GPU replays what it captured under that."""
        options = onnxruntime.RunOptions()
        if self.on_gpu:
            options.add_run_config_entry("gpu_graph_id", str(graph_id))
            # ONNX Runtime runs the graph in a stream of its own, which does not wait for CuPy's.
            self.arrays.cuda.get_current_stream().synchronize()
        graph.run_with_iobinding(binding, options)

    def mirror(self, host: NDArray[Any]) -> Any:
        """Return the device's copy of a host array; on the processor it is that array itself."""
        return self.arrays.asarray(host)

    def upload(self, host: NDArray[Any], mirror: Any) -> None:
        """Copy what was written in `host` to its mirror; on the processor there is nothing to do."""
        if self.on_gpu:
            mirror.set(host)

    def download(self, array: Any) -> NDArray[Any]:
        """Return an array in the host's memory; on the processor it is the array itself."""
        host: NDArray[Any] = array.get() if self.on_gpu else array
        return host

    def bind_input(self, binding: onnxruntime.IOBinding, name: str, array: Any) -> None:
        """Let a graph read an array where it lies. The array must outlive the binding."""
        binding.bind_input(name, self.name, self.index, array.dtype, array.shape, _pointer(array))

    def bind_output(self, binding: onnxruntime.IOBinding, name: str, array: Any) -> None:
        """Let a graph write an array where it lies. The array must outlive the binding."""
        binding.bind_output(name, self.name, self.index, array.dtype, array.shape, _pointer(array))


def _pointer(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


@dataclass(frozen=True)
class Graphs:
    """The loaded graphs of a version; the encoder's pieces are in their order."""

    spectrogram: onnxruntime.InferenceSession
    encoder: tuple[onnxruntime.InferenceSession, ...]
    decoder: onnxruntime.InferenceSession
    aligner: onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec, device: Device, threads: int) -> Graphs:
        """Load the graphs of a version folder; `threads` 0 means one thread for each core."""
        pieces = [f"encoder_{number}" for number in range(spec.encoder_pieces)]
        spectrogram, *encoder, decoder, aligner = (
            open_graph(folder / f"{name}.onnx", device, threads)
            for name in ("spectrogram", *pieces, "decoder", "aligner")
        )
        return cls(spectrogram, tuple(encoder), decoder, aligner)


def open_graph(path: Path, device: Device, threads: int) -> onnxruntime.InferenceSession:
    """Load one graph. Raises `RuntimeError` where the device is a GPU and ONNX Runtime cannot use it."""
    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread of the pool spins between two operators of a run, since the next one comes within microseconds. Between
    # two runs it must not: other processes on this machine want the core.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    providers = device.providers(captured=path.stem == "decoder")
    graph = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if device.on_gpu and _CUDA not in graph.get_providers():  # ONNX Runtime falls back to the processor by itself
        raise RuntimeError(
            f"{path.name}: CUDA cannot be used, see the log above: is cuDNN installed, and the driver new?"
        )
    return graph


@cache
def _share_memory() -> None:
    """Let all graphs of this process take their scratch memory from one arena: only one of them runs at a time."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, None)


def dtype_of(graph: onnxruntime.InferenceSession, name: str) -> type[np.generic]:
    """Return the type of a graph's input."""
    return _DTYPES[next(value.type for value in graph.get_inputs() if value.name == name)]
