"""The CUDA C++ text of gpulstm's kernels, as the package ``gpulstm.kernels`` so that every kind of install finds it."""
