"""The CUDA C++ text of gpulstm's kernels; installed as the package ``gpulstm.kernels``, see gpulstm/launch.py."""
