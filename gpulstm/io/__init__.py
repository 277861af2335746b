"""Files: models and checkpoints in safetensors."""

from gpulstm.io.files import atomic_write, check_writable, load_arrays, save_arrays

__all__ = ["atomic_write", "check_writable", "load_arrays", "save_arrays"]
