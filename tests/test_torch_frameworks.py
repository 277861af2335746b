"""gpulstm.torch in the hands of others: Lightning's and skorch's loops, scikit-learn's searches, several processes."""

import pytest

from tests.conftest import require

pytestmark = [pytest.mark.oracle, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of theirs
torch = require("torch")
lightning = require("lightning")
skorch = require("skorch")
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import gpulstm.torch as gt  # noqa: E402

KINDS = (torch.nn.LSTM, gt.LSTM)


class Classifier(torch.nn.Module):
    """Two directions over a sequence, their mean, a head."""

    def __init__(self, kind=gt.LSTM, hidden=6):
        super().__init__()
        self.rnn = kind(3, hidden, batch_first=True, bidirectional=True)
        self.head = torch.nn.Linear(2 * hidden, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0].mean(1))


class Lit(lightning.LightningModule):
    def __init__(self, kind):
        super().__init__()
        self.model, self.losses = Classifier(kind), []

    def training_step(self, batch, _):
        loss = cross_entropy(self.model(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        optimiser = torch.optim.Adam(self.parameters(), 0.02)
        return [optimiser], [torch.optim.lr_scheduler.StepLR(optimiser, 1, 0.9)]


@pytest.fixture(scope="module")
def data():
    x = torch.randn(64, 7, 3, generator=torch.Generator().manual_seed(1))
    return x, (x.sum((1, 2)) > 0).long()


def fitted(kind, folder, data, **options):
    """A module after Lightning has trained it."""
    torch.manual_seed(2)
    module = Lit(kind)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=4, gradient_clip_val=0.5, default_root_dir=folder, **quiet, **options)
    trainer.fit(module, DataLoader(TensorDataset(*data), 16))
    trainer.save_checkpoint(folder / "run.ckpt")
    again = Lit.load_from_checkpoint(folder / "run.ckpt", kind=kind)
    assert torch.equal(again.model(data[0]), module.model(data[0]))
    return module


def test_lightning_trains_it_as_torchs(data, tmp_path):
    theirs, ours = (fitted(kind, tmp_path, data).losses for kind in KINDS)
    assert ours == pytest.approx(theirs, rel=1e-5) and len(ours) == 16 and ours[-1] < 0.9 * ours[0]
    # torch.nn.LSTM itself takes no bfloat16 on many processors.
    half = fitted(gt.LSTM, tmp_path, data, precision="bf16-mixed").losses
    assert half == pytest.approx(ours, rel=2e-2) and half != ours


def network(kind, **options):
    return skorch.NeuralNetClassifier(
        Classifier, module__kind=kind, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.02,
        verbose=0, train_split=None, **options,
    )  # fmt: skip


def test_skorch_trains_it_as_torchs(data):
    x, y = (tensor.numpy() for tensor in data)
    seen = []
    for kind in KINDS:
        torch.manual_seed(3)
        net = network(kind, max_epochs=10).fit(x, y)
        seen.append(net.predict_proba(x))
    assert seen[1] == pytest.approx(seen[0], abs=1e-5) and net.score(x, y) > 0.8


def test_scikit_learn_searches_over_it(data):
    x, y = (tensor.numpy() for tensor in data)
    search = GridSearchCV(network(gt.LSTM, max_epochs=2), {"module__hidden": [3, 5]}, cv=2).fit(x, y)
    assert search.best_params_["module__hidden"] in (3, 5)
    assert cross_val_score(network(gt.GRU, max_epochs=2), x, y, cv=2, n_jobs=2).shape == (2,)


def share(rank, store, data, results):
    """One of two processes that train on halves of each batch."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = []
    for kind in KINDS:
        torch.manual_seed(4)
        model = torch.nn.parallel.DistributedDataParallel(Classifier(kind).double())
        optimiser = torch.optim.SGD(model.parameters(), 0.3)
        for k in range(4):
            x, y = (tensor[16 * k :][8 * rank : 8 * rank + 8] for tensor in data)
            optimiser.zero_grad()
            cross_entropy(model(x.double()), y).backward()
            optimiser.step()
        found.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.save(found, f"{results}{rank}")
    torch.distributed.destroy_process_group()


def test_processes_train_one_model(data, tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    arguments = str(tmp_path / "store"), data, str(tmp_path / "of")
    workers = [context.Process(target=share, args=(rank, *arguments), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    (theirs, ours), (other, same) = (torch.load(tmp_path / f"of{rank}") for rank in range(2))
    torch.manual_seed(4)
    assert torch.equal(ours, same) and torch.equal(theirs, other)
    start = torch.nn.utils.parameters_to_vector(Classifier().double().parameters())
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12) and not torch.allclose(ours, start, atol=1e-3)


def test_replicas_of_data_parallel_use_the_parameters_they_are_given(data):
    """What ``torch.nn.DataParallel`` does for each GPU, on the processor."""
    model = Classifier()
    wrapped = torch.nn.DataParallel(model)
    assert torch.equal(wrapped(data[0]), model(data[0]))
    replica = model.rnn._replicate_for_data_parallel()
    for name, parameter in model.rnn.named_parameters():
        setattr(replica, name, parameter * 2)
    output, _ = replica(data[0])
    output.sum().backward()
    doubled = gt.LSTM(3, 6, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for mine, theirs in zip(doubled.parameters(), model.rnn.parameters(), strict=True):
            mine.copy_(theirs * 2)
    want, _ = doubled(data[0])
    want.sum().backward()
    assert torch.equal(output, want)
    for mine, theirs in zip(doubled.parameters(), model.rnn.parameters(), strict=True):
        assert torch.allclose(theirs.grad, 2 * mine.grad)
