"""The ONNX graphs of a version, the model's dimensions from its manifest, and the device that runs the graphs.

ONNX Runtime calls a loaded graph a session. Here it is called a graph, because a session is a stream of audio in this
project.
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
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
}
_CUDA = "CUDAExecutionProvider"

SPIN_US = 50  # how long a thread of ONNX Runtime's pool waits awake for the next operator (docs/adr/0009)


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
    """The CPU or a GPU. `arrays` is its array module: NumPy for the CPU; CuPy, with the same interface, for a GPU."""

    arrays: ModuleType
    on_gpu: bool
    index: int = 0

    @classmethod
    def find(cls, gpu: int = 0) -> Device:
        """Return the GPU with this index if this build of ONNX Runtime supports CUDA, else the CPU."""
        if _CUDA not in onnxruntime.get_available_providers():
            return cls(np, on_gpu=False)
        onnxruntime.preload_dlls()
        import cupy  # type: ignore[import-not-found]  # noqa: PLC0415 - installed only together with onnxruntime-gpu

        device = cls(cupy, on_gpu=True, index=gpu)
        device.use()
        return device

    def use(self) -> None:
        """Let this thread allocate its arrays on this device."""
        if self.on_gpu:
            self.arrays.cuda.Device(self.index).use()

    @property
    def name(self) -> str:
        """ONNX Runtime's name for the device."""
        return "cuda" if self.on_gpu else "cpu"

    def providers(self, *, captured: bool) -> list[Any]:
        """Return the execution providers for a graph; with `captured`, a GPU records its runs as CUDA graphs."""
        cpu = ["CPUExecutionProvider"]
        options = {"device_id": str(self.index), "enable_cuda_graph": "1" if captured else "0", "use_tf32": "0"}
        return [(_CUDA, options), *cpu] if self.on_gpu else cpu

    def bucket(self, n_rows: int, n_slots: int) -> int:
        """Return the number of slots that a step for `n_rows` rows runs over.

        On a GPU it is `n_rows` rounded up to a power of two: each size needs a CUDA graph of its own, which takes
        memory, so there must be few sizes.
        """
        return min(n_slots, 1 << (n_rows - 1).bit_length()) if self.on_gpu else n_rows

    def run(self, graph: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, graph_id: int = -1) -> None:
        """Run a graph over bound arrays and wait until it is done.

        With a `graph_id`, a GPU captures the first run as a CUDA graph under that id, and replays it in later runs.
        """
        options = onnxruntime.RunOptions()
        if self.on_gpu:
            options.add_run_config_entry("gpu_graph_id", str(graph_id))
            # ONNX Runtime runs the graph in its own CUDA stream, which does not wait for CuPy's.
            self.arrays.cuda.get_current_stream().synchronize()
        graph.run_with_iobinding(binding, options)

    def mirror(self, host: NDArray[Any]) -> Any:
        """Return a copy of a host array on the device; on the CPU, the array itself."""
        return self.arrays.asarray(host)

    def upload(self, host: NDArray[Any], mirror: Any) -> None:
        """Copy `host` to its mirror on the device; on the CPU they are the same array, and this does nothing."""
        if self.on_gpu:
            mirror.set(host)

    def download(self, array: Any) -> NDArray[Any]:
        """Return a copy of a device array in host memory; on the CPU, the array itself."""
        host: NDArray[Any] = array.get() if self.on_gpu else array
        return host

    def bind_input(self, binding: onnxruntime.IOBinding, name: str, array: Any) -> None:
        """Let a graph read an array in place. The array must outlive the binding."""
        binding.bind_input(name, self.name, self.index, array.dtype, array.shape, _pointer(array))

    def bind_output(self, binding: onnxruntime.IOBinding, name: str, array: Any) -> None:
        """Let a graph write to an array in place. The array must outlive the binding."""
        binding.bind_output(name, self.name, self.index, array.dtype, array.shape, _pointer(array))


def _pointer(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


@dataclass(frozen=True)
class Graphs:
    """The loaded graphs of a version, with the encoder's pieces in the order in which they run.

    `open_beam_decoder` loads the decoder for beam search, whose weights take memory of their own.
    """

    spectrogram: onnxruntime.InferenceSession
    encoder: tuple[onnxruntime.InferenceSession, ...]
    decoder: onnxruntime.InferenceSession
    open_beam_decoder: Callable[[], onnxruntime.InferenceSession]
    aligner: onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec, device: Device, threads: int) -> Graphs:
        """Load the graphs of a version folder; `threads` 0 means one thread per core."""
        pieces = [f"encoder_{number}" for number in range(spec.encoder_pieces)]
        spectrogram, *encoder, decoder, aligner = (
            open_graph(folder / f"{name}.onnx", device, threads)
            for name in ("spectrogram", *pieces, "decoder", "aligner")
        )

        def open_beam_decoder() -> onnxruntime.InferenceSession:
            return open_graph(folder / "beam_decoder.onnx", device, threads)

        return cls(spectrogram, tuple(encoder), decoder, open_beam_decoder, aligner)


def open_graph(path: Path, device: Device, threads: int) -> onnxruntime.InferenceSession:
    """Load one graph. Raises `RuntimeError` if the device is a GPU that ONNX Runtime cannot use."""
    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Pool threads spin between two operators of a run, because the next one often comes within microseconds. They must
    # not spin for longer, or between two runs: the cores are for other units of work and for other processes.
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    providers = device.providers(captured="decoder" in path.stem)
    graph = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if device.on_gpu and _CUDA not in graph.get_providers():  # ONNX Runtime falls back to the CPU without an error
        raise RuntimeError(
            f"{path.name}: ONNX Runtime cannot use CUDA, see the log above: check cuDNN and the version of the driver"
        )
    return graph


@cache
def _share_memory() -> None:
    """Let all graphs of this process share one arena for scratch memory, because only a few of them run at a time."""
    arena = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(arena, None)


def dtype_of(graph: onnxruntime.InferenceSession, name: str) -> type[np.generic]:
    """Return the NumPy type of a graph's input."""
    return _DTYPES[next(value.type for value in graph.get_inputs() if value.name == name)]
