"""The benchmarks: each is a command to run from the top of a checkout, and ``--help`` shows its options.

    python -m benchmarks.recurrent      one LSTM layer, compared with torch, onnxruntime and a per-gate NumPy loop
    python -m benchmarks.cells          every cell, compared with torch, and how well each learns a text
    python -m benchmarks.training       whole training steps of language models, compared with torch
    python -m benchmarks.parallel       several processes on this machine: all-reduces and training speed
    python -m benchmarks.text           the text lab on a corpus, compared with published results
    python -m benchmarks.forecast       the forecasting lab on ETTh1
    python -m benchmarks.sentiment      the sentiment lab on rt-polarity
    python -m benchmarks.speech         the speech lab on spoken digits
    python -m benchmarks.translate      the translation lab on Multi30k
    python -m benchmarks.gpu            everything that needs an NVIDIA GPU, in under 8 minutes
    python -m benchmarks.tune           measures which path is the fastest on this GPU, for path="auto"
    python -m benchmarks.registers      the registers and the shared memory of the CUDA kernels; needs NVRTC only
    python -m benchmarks.model          predicts the time of a step on a GPU; needs no GPU

Each command except tune and model writes a ``.json`` and a ``.md`` file to ``benchmarks/results/``, or to the folder
``--out``. With ``--quick`` it only checks that the benchmark works, and writes nothing without ``--out``. tune writes
to gpulstm's cache folder. model measures nothing, and writes to the file ``--json`` if you name one.

    problem.py      the sequence to compute, and the check against float64 before any timing
    peers.py        the implementations to compare; per_gate.py: the float64 reference
    cell_problem.py, cell_peers.py, torch_loops.py    the same for the other cells
    worker.py       the process of one implementation; memory.py: its memory; floor.py: the lower bound of its time
    team.py         starts the workers and lets them take turns; comparison.py: what they are asked to do
    harness.py      percentiles, rows, result files, tables; facts.py: machine, versions, commit
    part.py         shared by the parts of benchmarks.gpu: warm.py, suite.py, losses.py, cudnn.py, hardware.py
    cost_facts.py, cost_counts.py, cost_tiles.py, cost_times.py    the cost model: constants, counts, tiles, times
    cost_beside.py, cost_report.py    the measurements to compare with its predictions; its tables
    cost_links.py, cost_nodes.py    the cost model of many GPUs: links, and all-reduces of gradients
    clock.py        how hardware.py measures time; products.py: its matrix products
"""
