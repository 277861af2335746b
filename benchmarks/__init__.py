"""What is measured, and how: eight commands, each run from the top of a checkout.

    python -m benchmarks.recurrent      one LSTM layer beside torch, onnxruntime and a per-gate NumPy loop
    python -m benchmarks.cells          every cell beside torch's way to it, and what each learns of a text
    python -m benchmarks.text           the text lab on a corpus, beside published figures
    python -m benchmarks.parallel       several processes on this machine: sums, and the text lab's speed
    python -m benchmarks.gpu            everything that needs an NVIDIA GPU, in under 8 minutes
    python -m benchmarks.tune           which path is the fastest on the GPU that is here, for path="auto"
    python -m benchmarks.registers      what the CUDA kernels take of a multiprocessor, by NVRTC alone
    python -m benchmarks.model          what a step should cost on a GPU, from bytes, operations and latencies

Each but tune and model leaves ``<name>.json`` and ``<name>.md`` in ``benchmarks/results/``, or in the folder given as
``--out``; with ``--quick`` it only shows that it works, and writes nothing unless it is told where. tune writes into
gpulstm's cache folder; model measures nothing, needs no GPU and writes what ``--json`` names. ``--help`` has more.

    problem.py      the sequence to compute, the float64 agreement that comes before any timing
    peers.py        the implementations: gpulstm and those it is compared with; per_gate.py: the float64 reference
    cell_problem.py, cell_peers.py, torch_loops.py    the same for the cells beside the LSTM
    worker.py       the process that an implementation runs in; memory.py: what it used; floor.py: the least it could
    team.py         starts the workers and lets them take turns; comparison.py: what they are asked for
    harness.py      percentiles, rows, result files, tables; facts.py: machine, versions, commit
    part.py         what the parts of benchmarks.gpu share: warm.py, suite.py, losses.py, cudnn.py, hardware.py
    cost_facts.py, cost_counts.py, cost_tiles.py, cost_times.py    the model: constants, counts, tiles, times
    cost_beside.py, cost_report.py    what stands beside its predictions; its tables
    cost_links.py, cost_nodes.py    the model of many GPUs: links, and the sums of gradients
    clock.py        how hardware.py measures; products.py: its matrix products
"""
