"""ONNX Runtime sessions over a version folder, what its manifest says of the model, and where it runs."""

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
        """Read a version folder."""
        manifest = json.loads((folder / "manifest.json").read_text())
        fields = {k: manifest["dimensions"][k] for k in cls.__dataclass_fields__ if k in manifest["dimensions"]}
        own = {"name": manifest["model"], "encoder_pieces": manifest["encoder_pieces"]}
        return cls(windows_s=tuple(manifest["windows_s"]), **own, **fields)


@dataclass(frozen=True)
class Device:
    """Where arrays lie: `arrays` is NumPy, or CuPy for a GPU, whose interface is the same."""

    arrays: ModuleType
    on_gpu: bool
    index: int = 0

    @classmethod
    def find(cls, gpu: int = 0) -> Device:
        """The GPU of this index where this ONNX Runtime can use one, else the processor."""
        if _CUDA not in onnxruntime.get_available_providers():
            return cls(np, on_gpu=False)
        onnxruntime.preload_dlls()
        import cupy  # type: ignore[import-not-found]  # noqa: PLC0415 - only there where onnxruntime-gpu is

        device = cls(cupy, on_gpu=True, index=gpu)
        device.use()
        return device

    def use(self) -> None:
        """Let this thread's arrays lie here."""
        if self.on_gpu:
            self.arrays.cuda.Device(self.index).use()

    @property
    def name(self) -> str:
        """As ONNX Runtime calls it."""
        return "cuda" if self.on_gpu else "cpu"

    def providers(self, *, captured: bool) -> list[Any]:
        """The execution providers of a session; with `captured`, its runs are replayed as CUDA graphs."""
        cpu = ["CPUExecutionProvider"]
        options = {"device_id": str(self.index), "enable_cuda_graph": "1" if captured else "0", "use_tf32": "0"}
        return [(_CUDA, options), *cpu] if self.on_gpu else cpu

    def bucket(self, n_rows: int, n_slots: int) -> int:
        """How many slots a step runs over: on a GPU a power of two, for each of which one graph is captured."""
        return min(n_slots, 1 << (n_rows - 1).bit_length()) if self.on_gpu else n_rows

    def run(self, session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, graph_id: int = -1) -> None:
        """Run a graph over bound arrays to its end; with a `graph_id`, a GPU replays what it captured under it."""
        options = onnxruntime.RunOptions()
        if self.on_gpu:
            options.add_run_config_entry("gpu_graph_id", str(graph_id))
            self.arrays.cuda.get_current_stream().synchronize()  # the graph runs in another stream
        session.run_with_iobinding(binding, options)

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """An array of the device that holds anything."""
        return self.arrays.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """An array of the device."""
        return self.arrays.zeros(shape, dtype)

    def mirror(self, host: NDArray[Any]) -> Any:
        """The device's array of what is written in `host`: on the processor the same."""
        return self.arrays.asarray(host)

    def upload(self, host: NDArray[Any], mirror: Any) -> None:
        """Bring what was written in `host` to the device."""
        if self.on_gpu:
            mirror.set(host)

    def download(self, array: Any) -> NDArray[Any]:
        """An array for NumPy: on the processor the same."""
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
class Sessions:
    """One session a graph; the encoder's pieces in their order."""

    spectrogram: onnxruntime.InferenceSession
    encoder: tuple[onnxruntime.InferenceSession, ...]
    decoder: onnxruntime.InferenceSession
    aligner: onnxruntime.InferenceSession

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec, device: Device, threads: int) -> Sessions:
        """Open the graphs of a version; `threads` 0 means one thread a core."""
        pieces = [f"encoder_{number}" for number in range(spec.encoder_pieces)]
        names = ("spectrogram", *pieces, "decoder", "aligner")
        spectrogram, *encoder, decoder, aligner = (_open(folder / f"{name}.onnx", device, threads) for name in names)
        return cls(spectrogram, tuple(encoder), decoder, aligner)


@cache
def _share_memory() -> None:
    """Let the sessions of this process take their scratch memory from one arena: only one of them runs at a time."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, None)


def _open(path: Path, device: Device, threads: int) -> onnxruntime.InferenceSession:
    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # between two operators a thread is worth waiting for awake; between two runs others want the processor
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.use_env_allocators", "1")
    providers = device.providers(captured=path.stem == "decoder")
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    if device.on_gpu and _CUDA not in session.get_providers():  # ONNX Runtime falls back to the processor by itself
        raise RuntimeError(
            f"{path.name}: CUDA cannot be used, see the log above: is cuDNN installed, and the driver new?"
        )
    return session


def dtype_of(session: onnxruntime.InferenceSession, name: str) -> type[np.generic]:
    """The type of a graph's input."""
    return _DTYPES[next(value.type for value in session.get_inputs() if value.name == name)]
