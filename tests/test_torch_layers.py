"""gpulstm.torch: its modules are torch.nn's in numbers, names and habits, and their gradients are right."""

import copy
import inspect
import io
import itertools
import pickle

import numpy as np
import pytest

from tests.conftest import ROOT, require

pytestmark = [pytest.mark.oracle, pytest.mark.slow]
torch = require("torch")
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import gpulstm as gl  # noqa: E402
import gpulstm.torch as gt  # noqa: E402
from gpulstm import threads  # noqa: E402

THEIRS = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}
LAYERS = (
    "LSTM",
    "GRU",
    "RNN",
    "PeepholeLSTM",
    "CoupledLSTM",
    "LayerNormLSTM",
    "SLSTM",
    "GeneralLSTM",
    "MinLSTM",
    "MinGRU",
)
VARIANTS = [
    *[(name, {}) for name in LAYERS],
    ("GRU", {"reset": "before", "update": "cho"}), ("PeepholeLSTM", {"peepholes": "full"}), ("LSTM", {"proj_size": 2}),
    ("GeneralLSTM", {"activations": ("sigmoid", "softsign", "tanh"), "coupled": True, "peepholes": True}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(5)
    number = threads.get_num_threads()
    yield
    threads.set_num_threads(number)


def made(name, *sizes, **options):
    return getattr(gt, name)(*sizes, dtype=torch.float64, **options)


def flat(result) -> list:
    """All tensors of a result."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, torch.nn.utils.rnn.PackedSequence):
        return [result.data]
    return [tensor for part in result for tensor in flat(part)]


def weighed(result) -> "torch.Tensor":
    """A number that every element of a result matters to."""
    return sum((tensor * torch.sin(torch.arange(tensor.numel(), dtype=tensor.dtype)).reshape(tensor.shape)).sum()
               for tensor in flat(result))  # fmt: skip


def gradients(module, result, *inputs) -> list:
    wanted = [*inputs, *module.parameters()]
    return torch.autograd.grad(weighed(result), wanted, allow_unused=True, retain_graph=True)


# -- as torch's own layers ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", THEIRS)
def test_two_hundred_random_configurations_are_torchs(name):
    rng = np.random.default_rng(3)
    for _ in range(200):
        D, H, B, T = (int(n) for n in rng.integers(1, (9, 12, 5, 8)))
        options = {"num_layers": int(rng.integers(1, 4)), "bidirectional": bool(rng.integers(2)),
                   "batch_first": bool(rng.integers(2)), "bias": bool(rng.integers(2))}  # fmt: skip
        if name == "LSTM" and H > 1 and rng.integers(2):
            options["proj_size"] = int(rng.integers(1, H))
        if name == "RNN" and rng.integers(2):
            options["nonlinearity"] = "relu"
        ours, theirs = made(name, D, H, **options), THEIRS[name](D, H, dtype=torch.float64, **options)
        assert ours.load_state_dict(theirs.state_dict()).missing_keys == []
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        kind = rng.choice(["batch", "packed", "alone"])
        x = torch.randn(*((T, D) if kind == "alone" else (B, T, D) if options["batch_first"] else (T, B, D)))
        x = x.double().requires_grad_()
        rows = options["num_layers"] * (1 + options["bidirectional"])
        leading = (rows,) if kind == "alone" else (rows, B)
        sizes = [options.get("proj_size") or H, H] if name == "LSTM" else [H]
        states = [torch.randn(*leading, size, dtype=torch.float64, requires_grad=True) for size in sizes]
        hx = None if rng.integers(2) else states[0] if len(states) == 1 else tuple(states)
        given = x
        if kind == "packed":
            lengths = torch.from_numpy(rng.integers(1, T + 1, B))
            given = pack_padded_sequence(x, lengths, options["batch_first"], enforce_sorted=False)
        got, want = ours(given, hx), theirs(given, hx)
        if kind == "packed":
            assert torch.equal(got[0].batch_sizes, want[0].batch_sizes)
            assert torch.equal(got[0].unsorted_indices, want[0].unsorted_indices)
        inputs = [x, *(states if hx is not None else [])]
        pairs = [*zip(flat(got), flat(want), strict=True)]
        pairs += zip(gradients(ours, got, *inputs), gradients(theirs, want, *inputs), strict=True)
        for ours_is, theirs_is in pairs:
            torch.testing.assert_close(ours_is, theirs_is, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "states"), [("LSTMCell", 2), ("GRUCell", 1), ("RNNCell", 1)])
def test_cells_are_torchs(name, states):
    ours, theirs = made(name, 3, 5), getattr(torch.nn, name)(3, 5, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    hx = [torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(states)]
    given = tuple(hx) if states > 1 else hx[0]
    got, want = ours(x, given), theirs(x, given)
    pairs = [*zip(flat(got), flat(want), strict=True)]
    pairs += zip(gradients(ours, got, x, *hx), gradients(theirs, want, x, *hx), strict=True)
    for ours_is, theirs_is in pairs:
        torch.testing.assert_close(ours_is, theirs_is, rtol=1e-10, atol=1e-10)


class Tagger(torch.nn.Module):
    """Embedding, two bidirectional layers, head."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 6)
        self.lstm = kind(6, 7, num_layers=2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(14, 4)

    def forward(self, ids):
        return self.head(self.lstm(self.embedding(ids))[0])


def test_a_model_trains_to_the_same_losses():
    torch.set_default_dtype(torch.float64)
    try:
        ids, targets = torch.randint(20, (64, 9)), torch.randint(4, (64, 9))
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ids, targets), batch_size=16)
        theirs = Tagger(torch.nn.LSTM)
        ours = Tagger(gt.LSTM)
        ours.load_state_dict(theirs.state_dict())
        losses = []
        for model in (ours, theirs):
            optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 100)
            losses.append([])
            for x, y in itertools.islice(itertools.cycle(data), 100):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                losses[-1].append(loss.item())
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(*losses, rtol=1e-9)
    assert losses[0][-1] < 0.9 * losses[0][0]


# -- gradients ---------------------------------------------------------------------------------------------
MODES = {
    "plain": ({}, {}),
    "levels": ({"num_layers": 2, "bidirectional": True, "merge": "mul"}, {"lengths": [3, 1]}),
    "noise": ({"regularize": "noise", "num_layers": 2, "dropout": 0.3}, {"reset": True}),
    "recompute": ({"recompute": True, "return_sequences": False}, {"mask": True}),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_gradients_are_differences(name, options, mode):
    more, modes = MODES[mode]
    more, modes = dict(more), dict(modes)
    scans = name.startswith("Min")
    if scans:
        more.pop("recompute", None)  # they keep little anyway
    if "regularize" in more:
        more["regularize"] = [gl.VariationalDropout(0.3)] if scans else [gl.Zoneout(0.3), gl.WeightDrop(0.2)]
    for key in ("reset", "mask"):
        if key in modes:
            modes[key] = torch.tensor([[False, True], [True, True], [False, True]])
    layer = made(name, 3, 4, **options, **more)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    parameters = list(layer.parameters())

    def call(x, *parameters):
        torch.manual_seed(1)  # the same noise
        return tuple(
            flat(torch.func.functional_call(layer, dict(zip(layer._names, parameters, strict=True)), x, modes))
        )

    assert torch.autograd.gradcheck(call, (x, *parameters), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["additive", "dot", "general", "concat", "scaled_dot"])
def test_attention_is_gpulstms_and_its_gradients_are_differences(kind):
    attention, ours = made("Attention", 3, 3, kind), gl.Attention(3, 3, kind, device="cpu", dtype=np.float64)
    ours.load_state_dict(attention.state_dict())
    query, keys = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 2, 3), (4, 2, 3)))
    got, want = attention(query, keys, lengths=[4, 2]), ours(query.detach(), keys.detach(), lengths=[4, 2])
    for ours_is, tensor in zip(want, got, strict=True):
        np.testing.assert_array_equal(tensor.detach(), ours_is.data)
    assert torch.autograd.gradcheck(lambda q, k: attention(q, k, lengths=[4, 2]), (query, keys))


def test_only_what_needs_a_gradient_has_one():
    lstm = made("LSTM", 3, 4)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    lstm.weight_hh_l0.requires_grad_(False)
    lstm(x)[0].sum().backward()
    assert lstm.weight_hh_l0.grad is None and lstm.weight_ih_l0.grad is not None and x.grad is None
    lstm.requires_grad_(False)
    assert not lstm(x)[0].requires_grad
    x.requires_grad_()
    (h_n,) = lstm(x)[1][:1]
    h_n.sum().backward()
    assert x.grad is not None


def test_a_graph_that_is_kept_gives_its_gradients_twice():
    lstm, x = made("LSTM", 3, 4, num_layers=2), torch.randn(5, 2, 3, dtype=torch.float64)
    loss = weighed(lstm(x))
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in lstm.parameters()]
    loss.backward()
    for parameter, first in zip(lstm.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_second_derivative_is_refused():
    lstm, x = made("LSTM", 3, 4), torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    output = lstm(x)[0]
    for loss in (output.sum(), (output**2).sum()):
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(loss, x, retain_graph=True)[0])
        with pytest.raises(gl.TapeError, match=r"gpulstm\.torch has no second derivatives"):
            (loss + gradient.norm()).backward(retain_graph=True)


@pytest.mark.parametrize("what", ["x", "weight_hh_l0", "output"])
def test_what_was_written_to_since_is_noticed(what):
    lstm, x = made("LSTM", 3, 4), torch.randn(5, 2, 3, dtype=torch.float64)
    output, _ = lstm(x)
    with torch.no_grad():
        {"x": x, "weight_hh_l0": lstm.weight_hh_l0, "output": output}[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# -- what torch does with modules and saved tensors ----------------------------------------------------------
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_gives_the_same_gradients_noise_included(reentrant):
    lstm = made("LSTM", 3, 4, num_layers=2, dropout=0.3, regularize=gl.Zoneout(0.2))
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(2)
    want = gradients(lstm, lstm(x), x)
    torch.manual_seed(2)
    weighed(checkpoint(lambda x: tuple(flat(lstm(x))), x, use_reentrant=reentrant)).backward()
    for got, gradient in zip([x.grad, *(p.grad for p in lstm.parameters())], want, strict=True):
        torch.testing.assert_close(got, gradient)


def test_a_checkpoint_keeps_nothing_between_the_passes():
    import gc
    import weakref

    from gpulstm.torch.call import Record

    lstm, x = made("LSTM", 3, 4), torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    for checkpointed, kept in ((False, 1), (True, 0)):
        gc.collect()
        before = sum(type(thing) is Record for thing in gc.get_objects())
        result = checkpoint(lambda x: lstm(x)[0], x, use_reentrant=False) if checkpointed else lstm(x)[0]
        gc.collect()
        assert sum(type(thing) is Record for thing in gc.get_objects()) - before == kept
        held = weakref.ref(result)
        result.sum().backward()
        del result
        assert held() is None


def test_saved_tensors_may_be_kept_elsewhere():
    lstm, x = made("LSTM", 3, 4, regularize=gl.Zoneout(0.2)), torch.randn(5, 2, 3, dtype=torch.float64)
    torch.manual_seed(2)
    want = gradients(lstm, lstm(x))
    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), torch.from_numpy):
        result = lstm(x)
    for got, gradient in zip(gradients(lstm, result), want, strict=True):
        torch.testing.assert_close(got, gradient)


@pytest.mark.parametrize("name", [*LAYERS, "LSTMCell", "SLSTMCell"])
def test_copies_pickles_and_files_hold_the_same(name):
    layer = getattr(gt, name)(3, 4)
    x = torch.randn(2, 3) if name.endswith("Cell") else torch.randn(5, 2, 3)
    want = flat(layer(x))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    others = (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False))
    for other in others:
        for got, wanted in zip(flat(other(x)), want, strict=True):
            assert torch.equal(got, wanted)
        with torch.no_grad():
            next(other.parameters()).add_(1)
        assert not torch.equal(flat(other(x))[0], want[0]) and torch.equal(flat(layer(x))[0], want[0])


def test_the_seed_of_torch_decides_parameters_and_noise():
    def all_of_it():
        torch.manual_seed(3)
        layer = gt.LSTM(3, 4, num_layers=2, dropout=0.5)
        return [*layer.parameters(), layer(torch.ones(5, 2, 3))[0], layer(torch.ones(5, 2, 3))[0]]

    first, again = all_of_it(), all_of_it()
    assert all(map(torch.equal, first, again)) and not torch.equal(first[-1], first[-2])
    layer = gt.LSTM(3, 4, num_layers=2, dropout=0.5).eval()
    assert torch.equal(layer(torch.ones(5, 2, 3))[0], layer(torch.ones(5, 2, 3))[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_seed_gives_the_parameters_that_torchs_own_layer_has(name, dtype):
    """And leaves torch's generator where torch's own layer does: a model with one line changed begins as before."""
    projected = {"num_layers": 2, "proj_size": 3} if name == "LSTM" else {"bias": False}
    for options in ({}, {"num_layers": 2, "bidirectional": True}, projected):
        made = []
        for kind in (THEIRS[name], getattr(gt, name)):
            torch.manual_seed(9)
            layer = kind(5, 7, dtype=getattr(torch, dtype), **options)
            made.append({**layer.state_dict(), "next": torch.rand(3)})
        assert list(made[0]) == list(made[1])
        assert all(map(torch.equal, made[0].values(), made[1].values()))


@pytest.mark.parametrize("init", ["keras", "orthogonal"])
def test_a_seed_gives_the_same_parameters_again_whatever_their_distribution(init):
    layers = []
    for _ in range(2):
        torch.manual_seed(9)
        layers.append(gt.LSTM(3, 4, init=init))
    assert all(map(torch.equal, *(layer.parameters() for layer in layers)))


def test_a_setting_that_is_changed_later_counts():
    layer, x = gt.LSTM(3, 4, num_layers=2, dropout=0.5), torch.ones(5, 2, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.dropout = 0.0
    assert layer.dropout == 0 and torch.equal(layer(x)[0], layer(x)[0]) and "dropout" not in vars(layer)
    again = copy.deepcopy(layer)
    layer.dropout = 0.5
    assert again.dropout == 0 and torch.equal(again(x)[0], again(x)[0])


@pytest.mark.parametrize("noise", [gl.Zoneout(0.4), gl.VariationalDropout(0.4), gl.WeightDrop(0.4)])
def test_the_seed_of_torch_decides_every_kind_of_noise(noise):
    layer, x = gt.LSTM(3, 4, regularize=noise), torch.ones(5, 2, 3)

    def output():
        torch.manual_seed(3)
        return layer(x)[0]

    assert torch.equal(output(), output()) and not torch.equal(output(), layer(x)[0])


def test_a_generator_decides_in_the_place_of_torchs_seed():
    def all_of_it():
        layer = gt.LSTM(3, 4, regularize=gl.Zoneout(0.3), generator=np.random.default_rng(7))
        return [*layer.parameters(), layer(torch.ones(5, 2, 3))[0], layer(torch.ones(5, 2, 3))[0]]

    first, again = all_of_it(), all_of_it()
    assert all(map(torch.equal, first, again)) and not torch.equal(first[-1], first[-2])


def test_no_gradients_where_torch_records_none():
    lstm, x = gt.LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        assert not lstm(x)[0].requires_grad
    with torch.inference_mode():
        output, _ = lstm(x)
        assert output.is_inference()
    with gl.no_grad():  # gpulstm's own is another
        lstm(x)[0].sum().backward()
    assert lstm.weight_hh_l0.grad is not None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_and_autocast(dtype):
    dtype = getattr(torch, dtype)
    lstm, x = gt.LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    want = lstm(x)[0]
    half = copy.deepcopy(lstm).to(dtype)
    got = half(x.detach().to(dtype))[0]
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=3e-2, rtol=3e-2)
    got.sum().backward()
    assert half.weight_hh_l0.grad.dtype == dtype
    with torch.autocast("cpu", dtype):
        inside = lstm(x)[0]
    assert inside.dtype == dtype and torch.equal(inside, got)
    inside.sum().backward()
    assert lstm.weight_hh_l0.grad.dtype == torch.float32 == x.grad.dtype


def test_hooks_and_parametrizations():
    from torch.nn.utils import parametrize

    class Twice(torch.nn.Module):
        def forward(self, w):
            return 2 * w

    lstm, x, seen = made("LSTM", 3, 4), torch.randn(5, 2, 3, dtype=torch.float64), []
    lstm.register_forward_hook(lambda module, args, output: seen.append(output[0].shape))
    lstm.register_full_backward_hook(lambda module, inputs, outputs: seen.append("back"))
    lstm(x.requires_grad_())[0].sum().backward()
    assert seen == [(5, 2, 4), "back"]
    twice = copy.deepcopy(lstm)
    with torch.no_grad():
        twice.weight_hh_l0.mul_(2)
    parametrize.register_parametrization(lstm, "weight_hh_l0", Twice())
    assert torch.equal(lstm(x)[0], twice(x)[0])
    lstm(x)[0].sum().backward()
    assert lstm.parametrizations.weight_hh_l0.original.grad is not None


def test_torchs_threads_are_taken():
    number = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            gt.LSTM(3, 4)(torch.randn(5, 2, 3))
            assert gl.get_num_threads() == n
    finally:
        torch.set_num_threads(number)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, of its break
def test_compiled_models_give_the_same():
    model = Tagger(gt.LSTM)
    ids = torch.randint(20, (4, 9))
    compiled = torch.compile(model, backend="eager")
    want, got = model(ids), compiled(ids)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    assert model.lstm.weight_hh_l1.grad is not None


# -- arguments ---------------------------------------------------------------------------------------------
def test_memory_is_shared_both_ways():
    lstm, x = gt.LSTM(3, 4), torch.randn(5, 2, 3)
    from gpulstm.torch.memory import as_array, as_tensor

    for tensor in (x, x.bfloat16(), x.transpose(0, 1), lstm.weight_hh_l0):
        array = as_array(tensor)
        assert array.ctypes.data == tensor.data_ptr() and array.shape == tuple(tensor.shape)
        back = as_tensor(array)
        assert back.data_ptr() == tensor.data_ptr() and back.dtype == tensor.dtype and torch.equal(back, tensor)
    backwards = np.arange(4.0)[::-1]
    assert as_tensor(backwards).tolist() == [3, 2, 1, 0]
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    assert as_tensor(frozen).tolist() == [0, 1, 2, 3]


def test_bad_arguments_are_named():
    lstm = gt.LSTM(3, 4)
    with pytest.raises(gl.ShapeError, match="x: expected 3 = input_size"):
        lstm(torch.randn(5, 2, 4))
    with pytest.raises(gl.DTypeError, match="x: expected float32"):
        lstm(torch.randn(5, 2, 3).double())
    with pytest.raises(gl.DTypeError, match=r"x: expected a torch\.Tensor, got ndarray"):
        lstm(np.zeros((5, 2, 3), np.float32))
    with pytest.raises(gl.ShapeError, match="lengths: expected"):
        lstm(torch.randn(5, 2, 3), lengths=[9, 1])
    with pytest.raises(gl.ShapeError, match="lengths: expected no lengths"):
        lstm(pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2])), lengths=[5, 2])
    with pytest.raises(gl.DTypeError, match="dtype: expected one of torch's floating types"):
        gt.LSTM(3, 4, dtype=torch.int32)
    with pytest.raises(gl.ShapeError, match="hidden_size"):
        gt.LSTM(3, 0)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lstm.nothing  # noqa: B018


def test_it_looks_like_the_layer_of_gpulstm():
    lstm = gt.LSTM(3, 4, num_layers=2, regularize=gl.Zoneout(0.1))
    assert repr(lstm) == repr(gl.LSTM(3, 4, num_layers=2, regularize=gl.Zoneout(0.1)))
    assert inspect.signature(gt.LSTM) == inspect.signature(gl.LSTM)
    assert (lstm.hidden_size, lstm.num_layers, lstm.batch_first, lstm.output_size) == (4, 2, False, 4)
    assert len(lstm.all_weights) == 2 and lstm.flatten_parameters() is None
    assert {name for name in gt.__all__ if name != "Module"} <= set(dir(gl))
    packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    assert pad_packed_sequence(lstm(packed)[0])[0].shape == (5, 2, 4)


def test_the_readme_shows_a_model_that_trains():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Inside PyTorch") : text.index("## What runs where")]
    names = {"gl": gl}
    exec(section.partition("```python\n")[2].partition("```")[0], names)  # our own README
    assert names["scores"].shape == (20, 3, 5)
