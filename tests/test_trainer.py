"""What Trainer takes: batches of every form, losses, metrics, epochs, callbacks, accumulation; and what it refuses."""

import io
import math
import signal
import subprocess
import sys

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.data import Batches, Streams, pad_sequences
from gpulstm.errors import DTypeError, FileExists, FormatError, GpulstmError, NotFinite, ShapeError, TapeError
from gpulstm.nn.contexts import evaluation
from gpulstm.train import Callback, Trainer, accuracy, checkpoint, count_tokens
from gpulstm.train.batch import target_of

SENTENCES = [[1, 2, 3], [4], [5, 6], [7, 8, 1, 2], [3, 3]]
CLASSES = np.array([0, 1, 0, 1, 0])


class Classifier(gl.Module):
    """Logits (B, 2) of padded token numbers and lengths."""

    def __init__(self, batch_first=False):
        generator = np.random.default_rng(1)
        self.table = gl.Embedding(9, 4, generator=generator)
        self.lstm = gl.LSTM(4, 5, batch_first=batch_first, generator=generator)
        self.head, self.dropout = gl.Linear(5, 2, generator=generator), gl.Dropout(0.3)

    def forward(self, ids, lengths=None):
        _, (h, _) = self.lstm(self.table(ids), lengths=lengths)
        return self.head(self.dropout(h[0]))


def of_pairs(model, batch, state):
    (ids, lengths), labels = batch
    return gl.cross_entropy(model(ids, lengths), labels), None


def line_loss(model, batch, state):
    x, y = batch
    return gl.mse(model(x), y), None


def line_data(n=12):
    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return x, (x @ np.array([[1.0], [-2.0]], np.float32))


def line_trainer(loss=line_loss, lr=0.1, **options):
    model = gl.Linear(2, 1, generator=np.random.default_rng(2))
    return Trainer(model, gl.SGD(model.parameters(), lr=lr), loss, **options)


def classifier_trainer(loss=of_pairs, **options):
    gl.manual_seed(3)
    model = Classifier()
    return Trainer(model, gl.Adam(model.parameters(), lr=0.05), loss, **options)


PAIRS = [(pad_sequences(SENTENCES[k : k + 2]), CLASSES[k : k + 2]) for k in (0, 2, 4)]
DICTS = [{"ids": ids, "lengths": lengths, "labels": labels} for (ids, lengths), labels in PAIRS]


def bits(trainer):
    return {name: np.array(array).tobytes() for name, array in trainer.model.state_dict().items()}


def without_clock(records):
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in records]


# -- what batches hold ---------------------------------------------------------------------------------------

PADDED, LENGTHS = np.zeros((4, 3), np.int64), np.array([4, 0, 2])


@pytest.mark.parametrize(
    ("batch", "want"),
    [
        ((np.zeros((5, 3, 2)), np.zeros((5, 3, 1))), 15),
        ([np.zeros((5, 3)), np.zeros((5, 3, 2))], 30),
        (((PADDED, LENGTHS), np.array([0, 1, 1])), 3),  # a label a sequence counts as one
        (((PADDED, LENGTHS), (PADDED, LENGTHS)), 6),  # a padded target: its own steps
        (((PADDED, LENGTHS), (np.zeros((4, 3, 2)), LENGTHS)), 12),
        ((PADDED, (PADDED - np.array([0, 100, 0]), LENGTHS)), 8),  # -100 says more than the lengths
        ((PADDED, np.where(np.arange(12).reshape(4, 3) < 5, -100, 1)), 7),
        ((PADDED, np.full((4, 3), -100.0)), 12),  # a number like others for floats
        ((PADDED, [0, 1, 1]), 3),
        ((PADDED, [[0, 1], [1, 1]]), 4),
        ([PADDED, [[0, 1], [1, 1]]], 4),
        ((PADDED, 1), 1),
        ((PADDED, gl.tensor(np.zeros((2, 2), np.float32))), 4),
        ({"x": PADDED, "y": np.zeros(3)}, 3),
        ({"label": np.zeros(3), "x": PADDED}, 3),
        ({"inputs": {"ids": PADDED}, "outputs": {"targets": np.zeros((4, 3))}}, 12),
        ((PADDED, {"labels": np.zeros(3)}), 3),
        ({"inputs": PADDED, "target": (PADDED, LENGTHS)}, 6),
        (np.zeros((5, 3)), 15),
        (np.zeros(7), 7),
    ],
)
def test_the_default_count_is_what_the_loss_averages_over(batch, want):
    assert count_tokens(batch) == want


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"ids": PADDED, "classes": LENGTHS}, "got a dict of 'ids', 'classes'; give .*tokens="),
        ({"label": LENGTHS, "labels": LENGTHS}, "expected one target, got 'label' and 'labels'"),
        ("text", "got str; give .*tokens="),
        ((), "got tuple"),
        (None, "got NoneType"),
    ],
)
def test_batches_without_a_target_to_be_found_ask_for_a_count(batch, message):
    with pytest.raises(DTypeError, match=f"batch: .*{message}"):
        count_tokens(batch)
    if isinstance(batch, dict):
        with pytest.raises(DTypeError, match=message):
            line_trainer().fit([batch], 1, progress=False)


def test_integer_targets_on_a_device_are_counted_there(device):
    target = device.asarray(np.array([1, -100, 3]))
    assert int(count_tokens((target, target))) == 2


@pytest.mark.oracle
def test_batches_of_another_library_train():
    torch = pytest.importorskip("torch")
    x, y = map(torch.from_numpy, line_data())
    assert count_tokens((x, y)) == 12 and count_tokens(((x, torch.tensor([1, 2])), {"y": torch.tensor([1, -100])})) == 1
    trainer = line_trainer(lambda model, batch, state: (gl.mse(model(batch[0]), gl.tensor(batch[1])), None))
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    records = trainer.fit(batches, epochs=3, validation=batches, progress=False)
    assert len(records) == 3 and records[-1]["loss"] < records[0]["loss"]


def test_a_pair_at_the_top_is_an_input_and_its_labels():
    x, labels = np.zeros((4, 3)), np.array([0, 1, 2, 1])
    assert target_of((x, labels)) is labels


def of_dicts(model, batch, state):
    return gl.cross_entropy(model(batch["ids"], batch["lengths"]), batch["labels"]), None


@pytest.mark.parametrize("form", ["pairs", "dicts", "Batches"])
def test_ragged_lists_and_dicts_train(form):
    made = Batches(SENTENCES, CLASSES, batch_size=2)
    batches = {"pairs": PAIRS, "dicts": DICTS, "Batches": made}[form]
    model = Classifier(batch_first=getattr(batches, "batch_first", False))
    trainer = Trainer(model, gl.Adam(model.parameters(), lr=0.05), of_dicts if form == "dicts" else of_pairs)
    records = trainer.fit(batches, 60, validation=batches, log_every=20, progress=False)
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]


def test_every_mean_weighs_what_the_loss_averages_over():
    """Against the mean over all items at once: a batch of five, and one of one."""
    x, y = line_data(6)
    trainer = line_trainer(lr=0.0)
    whole = float(np.mean((trainer.model(x).numpy() - y) ** 2))
    parts = [(x[:5], y[:5]), (x[5:], y[5:])]
    assert trainer.evaluate(parts) == pytest.approx(whole, rel=1e-6)
    (record,) = trainer.fit(parts, 2, validation=parts, progress=False)
    assert record["val_loss"] == pytest.approx(whole, rel=1e-6) and record["loss"] == pytest.approx(whole, rel=1e-6)
    unweighted = line_trainer(lr=0.0, tokens=lambda batch: 1)
    assert unweighted.evaluate(parts) != pytest.approx(whole, rel=1e-3)


def test_ragged_sequences_count_one_a_label_whatever_their_padding():
    trainer = classifier_trainer()
    losses = [float(of_pairs(trainer.model.eval(), batch, None)[0].item()) for batch in PAIRS]
    trainer.model.train()
    assert trainer.evaluate(PAIRS) == pytest.approx(np.average(losses, weights=[2, 2, 1]), rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        (lambda batch: -1, ShapeError, "from 0 up, got -1"),
        (lambda batch: "many", DTypeError, "returns a number, got 'many'"),
        (lambda batch: None, DTypeError, "returns a number, got None"),
        (lambda batch: math.nan, ShapeError, "from 0 up, got nan"),
        (lambda batch: np.float32(-1), ShapeError, "from 0 up, got -1"),
        (lambda batch: gl.tensor(0.0), ShapeError, "expected at least one item for the loss"),
        (lambda batch: 0, ShapeError, "expected at least one item for the loss"),
    ],
)
def test_counts_that_are_none_are_refused(tokens, error, message):
    with pytest.raises(error, match=message):
        line_trainer(tokens=tokens).fit([line_data()], 1, progress=False)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (3, "batches: expected an iterable of batches.*got int"),
        ("text", "got str"),
        ({"x": 1}, "got a dict; put a batch into a list"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_batches_is_refused(batches, message):
    with pytest.raises(DTypeError, match=message):
        line_trainer().fit(batches, 3, progress=False)
    with pytest.raises(DTypeError, match=message):
        line_trainer().evaluate(batches)


def test_an_iterator_serves_one_pass_and_is_named_where_it_cannot():
    data = line_data()
    assert len(line_trainer().fit((data for _ in range(5)), 5, log_every=1, progress=False)) == 5
    assert line_trainer().evaluate(data for _ in range(2)) > 0
    with pytest.raises(ShapeError, match="got none; an iterator gives its batches only once"):
        line_trainer().fit((data for _ in range(2)), 5, progress=False)
    with pytest.raises(DTypeError, match=r"batches: .*as epochs counts passes over them; got a generator"):
        line_trainer().fit((data for _ in range(2)), epochs=1, progress=False)
    with pytest.raises(DTypeError, match=r"validation: .*as it is evaluated several times; got a generator"):
        line_trainer().fit([data], 1, validation=(data for _ in range(2)), progress=False)


def test_a_len_that_is_too_small_is_named():
    class Liar(list):
        def __len__(self):
            return 1

    with pytest.raises(ShapeError, match=r"batches: expected 1 in a pass, as their len\(\) says, got more"):
        line_trainer().fit(Liar([line_data(), line_data()]), 5, progress=False)


# -- what a loss returns -------------------------------------------------------------------------------------


def returning(make):
    return lambda model, batch, state: make(gl.mse(model(batch[0]), batch[1]), model, batch)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda loss, *_: loss, DTypeError, r"Tensor alone, of shape \(\); end the function with: return loss, None"),
        (lambda loss, model, batch: model(batch[0])[:2].reshape(2), DTypeError, r"got a Tensor alone, of shape \(2,\)"),
        (lambda loss, *_: 1.0, DTypeError, "got float"),
        (lambda loss, *_: None, DTypeError, "got None"),
        (lambda loss, *_: {"loss": loss}, DTypeError, "got dict"),
        (lambda loss, *_: (loss,), DTypeError, r"got 1 values: \(Tensor\)"),
        (lambda loss, *_: (loss, None, 3), DTypeError, r"got 3 values: \(Tensor, None, int\)"),
        (lambda loss, *_: (loss.item(), None), DTypeError, r"got float as the loss; do not call item\(\)"),
        (lambda loss, *_: (loss.numpy(), None), DTypeError, "got ndarray as the loss"),
        (lambda loss, model, batch: (model(batch[0]), None), ShapeError, r"a loss of shape \(12, 1\); take its mean"),
        (lambda loss, *_: (loss.detach(), None), TapeError, "got a loss without a gradient"),
    ],
)  # fmt: skip
def test_what_is_no_loss_and_state_is_named(make, error, message):
    trainer = line_trainer(returning(make))
    before = bits(trainer)
    with pytest.raises(error, match=rf"loss: expected \(loss, state\).*{message}"):
        trainer.fit([line_data()], 2, progress=False)
    assert bits(trainer) == before
    if error is not TapeError:
        with pytest.raises(error, match=message):
            trainer.evaluate([line_data()])


def test_a_loss_of_one_element_and_a_list_train():
    records = line_trainer(returning(lambda loss, *_: [loss.reshape(1), None])).fit([line_data()], 2, progress=False)
    assert len(records) == 1


# -- evaluation ----------------------------------------------------------------------------------------------


def test_a_failed_evaluation_leaves_every_mode_as_it_was():
    trainer = classifier_trainer()
    trainer.model.dropout.eval()  # a part that its user has frozen
    for batches, error in (([3], TypeError), ([*PAIRS, "bad"], GpulstmError)):
        with pytest.raises(error):
            trainer.evaluate(batches)
        assert trainer.model.training and trainer.model.lstm.training and not trainer.model.dropout.training
    trainer.evaluate(PAIRS)
    assert trainer.model.training and not trainer.model.dropout.training


def test_evaluation_of_nothing_and_of_nan():
    trainer, (x, y) = line_trainer(), line_data()
    with pytest.raises(ShapeError, match="expected at least one item to average over, got none in 0 batches"):
        trainer.evaluate([])
    with pytest.raises(NotFinite, match="loss: expected a finite number, got nan in batch 2"):
        trainer.evaluate([(x, y), (x, y * np.nan)])


def test_a_batch_whose_targets_are_all_ignored_does_not_spoil_the_mean():
    def loss(model, batch, state):
        x, classes = batch
        return gl.cross_entropy(model(x), classes), None

    model = gl.Linear(2, 3)
    trainer, x = Trainer(model, gl.SGD(model.parameters()), loss), line_data(4)[0]
    good, none = (x, np.array([0, 1, 2, 1])), (x, np.full(4, -100))
    assert trainer.evaluate([good, none]) == trainer.evaluate([good])
    with pytest.raises(ShapeError, match="expected at least one item to average over, got none in 1 batches"):
        trainer.evaluate([none])


def test_a_context_of_evaluation_ends_with_the_modes_as_they_were():
    model = Classifier()
    model.dropout.eval()
    with pytest.raises(KeyError), evaluation(model):
        assert not model.lstm.training
        raise KeyError
    assert model.lstm.training and not model.dropout.training


# -- metrics -------------------------------------------------------------------------------------------------


def test_metrics_stand_beside_the_loss_in_records_progress_and_evaluate():
    trainer = classifier_trainer(metrics={"accuracy": accuracy, "ones": lambda prediction, batch: 1.0})
    stream = io.StringIO()
    records = trainer.fit(PAIRS, 40, validation=PAIRS, validate_every=20, log_every=10, progress=stream)
    assert records[0]["accuracy"] < records[-1]["accuracy"] <= 1 and records[0]["val_accuracy"] is None
    predicted = np.concatenate([trainer.model.eval()(*batch[0]).numpy().argmax(-1) for batch in PAIRS])
    trainer.model.train()
    results = trainer.evaluate(PAIRS, return_dict=True)
    assert results["accuracy"] == pytest.approx(np.mean(predicted == CLASSES)) and results["ones"] == 1
    assert results["loss"] == trainer.evaluate(PAIRS) and list(results) == ["loss", "accuracy", "ones"]
    line = stream.getvalue().splitlines()[1]
    assert "loss " in line and ", accuracy " in line and "validation " in line


def test_metrics_change_nothing_that_is_computed():
    with_metrics, without = classifier_trainer(metrics={"accuracy": accuracy}), classifier_trainer()
    for trainer in (with_metrics, without):
        gl.manual_seed(5)
        trainer.generator = gl.random.default_generator()
        trainer.fit(PAIRS, 6, validation=PAIRS, progress=False)
    assert bits(with_metrics) == bits(without)


def test_metrics_on_a_device_are_read_with_the_losses(emulated, monkeypatch):
    place = gl.device("cuda")
    reads, backend = [], place.backend
    monkeypatch.setattr(backend, "to_numpy", lambda x: reads.append(x.shape) or x.get())
    x, labels = backend.asarray(line_data(4)[0]), backend.asarray(np.array([0, 1, 1, -100]))

    def loss(model, batch, state):
        return gl.cross_entropy(model(batch[0]), batch[1]), None

    model = gl.Linear(2, 2, device=place)
    trainer = Trainer(model, gl.SGD(model.parameters()), loss, metrics={"accuracy": accuracy})
    (record,) = trainer.fit([(x, labels)], 3, progress=False)
    assert (reads == [(9,)] and record["accuracy"] in (0, *(k / 9 for k in range(10)))) or record["accuracy"] <= 1


@pytest.mark.parametrize(
    ("prediction", "target", "want"),
    [
        ([[2.0, 1.0], [0.0, 3.0], [5.0, 0.0]], [0, 1, 1], 2 / 3),
        ([[2.0, 1.0], [0.0, 3.0], [5.0, 0.0]], [0, 1, -100], 1.0),
        ([[[2.0, 1.0]], [[0.0, 3.0]]], [[1], [1]], 0.5),
        ([[2.0], [-1.0], [3.0]], [1.0, 0.0, 0.0], 2 / 3),
        ([[2.0], [-1.0], [3.0]], [0, -100, 1], 1 / 2),
    ],
)
def test_accuracy(prediction, target, want):
    batch = (None, np.array(target))
    assert float(accuracy(gl.tensor(prediction), batch)) == pytest.approx(want)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [(3, 1), (3, 1, 2), (3, 3, 1), (1, 0, 0, 2)])
@pytest.mark.parametrize("kind", [int, float])
def test_accuracy_leaves_out_what_fills_a_target_up(batch_first, lengths, kind):
    """As the means of the loss do, whatever the number that fills it up; also where T = B."""
    for targets in (
        [[(t + n) % 2 for t in range(length)] for n, length in enumerate(lengths)],
        [[1] * n for n in lengths],
    ):
        for value in (0, 1):
            columns = [list(map(kind, row)) for row in targets]
            (batch,) = Batches(columns, batch_size=9, batch_first=batch_first, value=value)
            ones = np.ones((*batch[0].shape, 1)) if kind is float else np.broadcast_to([0.0, 1.0], (*batch[0].shape, 2))
            assert float(accuracy(ones, (None, batch))) == pytest.approx(sum(map(sum, targets)) / sum(lengths))


def test_parts_that_cannot_be_used_are_named():
    for options, error, message in (
        ({"schedule": 3}, DTypeError, "schedule: expected e.g. gl.StepLR"),
        ({"schedule": gl.StepLR}, DTypeError, "schedule: expected e.g. gl.StepLR"),
        ({"clip_norm": -1}, ShapeError, "clip_norm: expected a number from 0 up, got -1"),
        ({"clip_value": "a"}, ShapeError, "clip_value: expected a number from 0 up, got 'a'"),
    ):
        with pytest.raises(error, match=message):
            line_trainer(**options)


@pytest.mark.parametrize("name", ["notes", "about"])
def test_notes_that_no_checkpoint_could_hold_are_refused_before_any_step(name, tmp_path):
    with pytest.raises(DTypeError, match=f"{name}: expected a dict of JSON values"):
        line_trainer(lambda *_: 1 / 0).fit(
            [line_data()], 1, checkpoint=tmp_path / "c", progress=False, **{name: {"a": {1}}}
        )
    line_trainer().fit([line_data()], 1, checkpoint=tmp_path / "c", progress=False, **{name: {"a": np.float32(1)}})


def test_callbacks_may_answer_with_numpys_booleans():
    answers = iter([np.bool_(False), np.bool_(True)])
    assert len(line_trainer().fit([line_data()], epochs=9, callbacks=lambda *_: next(answers), progress=False)) == 2


def test_metrics_that_cannot_be_used_are_named():
    with pytest.raises(ShapeError, match=r"accuracy: expected logits \(..., C\) for the target \(3,\)"):
        accuracy(np.zeros((2, 2)), (None, np.zeros(3)))
    for metrics, error, message in (
        (["accuracy"], DTypeError, "metrics: expected a dict of functions, e.g. {'accuracy'"),
        ({"accuracy": 3}, DTypeError, "metrics: expected a dict of functions"),
        ({"loss": accuracy}, ShapeError, "got 'loss'"),
        ({"val_x": accuracy}, ShapeError, "got 'val_x'"),
    ):
        with pytest.raises(error, match=message):
            line_trainer(metrics=metrics)
    wrong = line_trainer(metrics={"all": lambda prediction, batch: prediction})
    with pytest.raises(DTypeError, match=r"metric 'all': expected one number for a batch, got shape \(12, 1\)"):
        wrong.fit([line_data()], 1, progress=False)

    def uncalled(model, batch, state):
        return (model.weight * model.weight).sum(), None

    with pytest.raises(DTypeError, match="metrics: expected a loss function that calls the model"):
        line_trainer(uncalled, metrics={"one": lambda *_: 1}).fit([line_data()], 1, progress=False)


def test_the_best_model_may_go_by_a_metric():
    values = iter([0.2, 0.9, 0.5, 0.4, 0.3])

    def score(prediction, batch):
        return next(values) if not trainer.model.training else 0.0

    trainer = line_trainer(metrics={"score": score})
    records = trainer.fit(
        [line_data()], 100, validation=[line_data()], validate_every=1, patience=2, monitor="val_score", mode="max",
        progress=False,
    )  # fmt: skip
    assert [record["val_score"] for record in records] == [0.2, 0.9, 0.5, 0.4]
    best, two = line_trainer(), bits(trainer)
    best.fit([line_data()], 2, progress=False)
    assert bits(best) == two and trainer.stopped == "2 validations without a better val_score"


def test_a_metric_that_is_nan_is_shown_and_cannot_decide():
    trainer, data = line_trainer(metrics={"nan": lambda *_: math.nan}), [line_data()]
    (record,) = trainer.fit(data, 1, validation=data, progress=False)
    assert math.isnan(record["nan"]) and math.isnan(record["val_nan"])
    with pytest.raises(
        NotFinite, match="val_nan: expected a finite number, got nan at step 1; no checkpoint was written"
    ):
        trainer.fit(data, 1, validation=data, monitor="val_nan", mode="max", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2}, "patience: expected validation batches to compare, got validation=None"),
        ({"monitor": "val_accuracy", "mode": "max"}, "monitor: expected validation batches"),
        ({"monitor": "accuracy"}, "monitor: expected one of val_loss, val_accuracy, got 'accuracy'"),
        ({"monitor": "val_accuracy", "validation": PAIRS}, "mode: expected 'min' or 'max'.*got None"),
        ({"mode": "best", "validation": PAIRS}, "mode: expected 'min' or 'max'"),
        ({"mode": "max"}, "mode: expected validation batches"),
        ({"resume": True}, "resume: expected checkpoint="),
        ({"checkpoint": "a", "log": "./a"}, "log: expected another file than the checkpoint"),
        ({"epochs": 2}, "steps, epochs: expected one of them, to say how long to train, got both"),
        ({"steps": None}, "steps, epochs: expected one of them, to say how long to train, got neither"),
        ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
        ({"steps": True}, "steps: expected a whole number, got True"),
        ({"progress": 3}, "progress: expected True, False or a text stream, got 3"),
        ({"callbacks": [3]}, "callbacks: expected gl.train.Callback objects or functions, got 3"),
        ({"callbacks": [Callback]}, "callbacks: expected"),
        ({"callbacks": 3}, "callbacks: expected gl.train.Callback objects or functions, got 3"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(options, message):
    trainer = classifier_trainer(metrics={"accuracy": accuracy})
    with pytest.raises(GpulstmError, match=message):
        trainer.fit(PAIRS, **{"steps": 1, "progress": False, **options})


@pytest.mark.parametrize("steps", [np.int64(3), np.uint8(3)])
def test_counts_may_be_numpys(steps):
    assert line_trainer(accumulate=steps).fit([line_data()], steps, log_every=steps, progress=False)[-1]["step"] == 3


def test_parts_that_do_not_fit_each_other_are_refused():
    model, other = gl.Linear(2, 1), gl.Linear(2, 1)
    optimizer = gl.SGD(model.parameters())
    for arguments, options, message in (
        ((None, optimizer, line_loss), {}, "model: expected a gl.Module, got None"),
        ((model, gl.SGD, line_loss), {}, "optimizer: expected e.g. gl.Adam"),
        ((model, gl.SGD(other.parameters()), line_loss), {}, "optimizer: expected parameters of the model"),
        ((model, optimizer, 3), {}, "loss: expected a function, got 3"),
        ((model, optimizer, line_loss), {"tokens": 3}, "tokens: expected a function, got 3"),
        ((model, optimizer, line_loss), {"accumulate": 0}, "accumulate: expected a whole number of batches"),
        ((model, optimizer, line_loss), {"generator": 3}, "generator: expected a numpy.random.Generator"),
        (
            (model, optimizer, line_loss),
            {"schedule": gl.StepLR(gl.SGD(model.parameters()), 3)},
            "schedule: expected one made for this optimizer",
        ),
    ):
        with pytest.raises(GpulstmError, match=message):
            Trainer(*arguments, **options)


def test_parameters_outside_the_model_start_each_step_without_a_gradient():
    scale = gl.Parameter(np.ones((), np.float32))
    grads = []

    def loss(model, batch, state):
        grads.append(scale.grad)
        return gl.mse(model(batch[0]) * scale, batch[1]), None

    model = gl.Linear(2, 1)
    Trainer(model, gl.SGD([*model.parameters(), scale]), loss).fit([line_data()], 3, progress=False)
    assert grads == [None, None, None]


def test_a_trainer_shows_its_parts():
    model = gl.Linear(2, 1)
    optimizer = gl.Adam(model.parameters())
    options = {
        "schedule": gl.StepLR(optimizer, 3),
        "clip_norm": 1.0,
        "accumulate": 2,
        "metrics": {"accuracy": accuracy},
    }
    assert repr(Trainer(model, optimizer, line_loss)) == "Trainer(Linear, Adam, line_loss)"
    assert repr(Trainer(model, optimizer, line_loss, **options)) == (
        "Trainer(Linear, Adam, line_loss, schedule=StepLR, clip_norm=1.0, accumulate=2, metrics=[accuracy])"
    )


# -- axes ----------------------------------------------------------------------------------------------------


class Layout(list):
    """Batches that say which axis comes first."""

    def __init__(self, batches, batch_first):
        super().__init__(batches)
        self.batch_first = batch_first


def sequence_trainer(batch_first, transposed=False):
    class Model(gl.Module):
        def __init__(self):
            self.lstm, self.head = gl.LSTM(3, 4, batch_first=batch_first), gl.Linear(4, 1)

        def forward(self, x):
            x = gl.tensor(x)
            return self.head(self.lstm(x.transpose(1, 0, 2) if transposed else x)[0]).mean((0, 1)).sum()

    def loss(model, batch, state):
        return model(batch[0]) + 0.0, None

    model = Model()
    return Trainer(model, gl.SGD(model.parameters()), loss)


def sequences(*sizes):
    return [(np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)) for size in sizes]


@pytest.mark.parametrize("batches_first", [True, False])
@pytest.mark.parametrize("layer_first", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_layer_that_reads_the_axes_the_wrong_way_is_named(batches_first, layer_first, transposed):
    batches = Layout(sequences((5, 7)), batches_first)
    for act in ("fit", "evaluate"):
        trainer = sequence_trainer(layer_first, transposed)
        run = (lambda: trainer.fit(batches, 2, progress=False)) if act == "fit" else lambda: trainer.evaluate(batches)  # noqa: B023
        if batches_first != layer_first and not transposed:
            with pytest.raises(ShapeError, match=rf"x of lstm: .*make the layer with batch_first={batches_first}"):
                run()
        else:
            run()


def test_batches_of_the_data_sets_are_held_to_their_axes():
    x, y = np.zeros((5, 7, 3), np.float32), np.zeros(5, np.float32)
    with pytest.raises(ShapeError, match="make the layer with batch_first=True"):
        sequence_trainer(False).fit(Batches(x, y, batch_size=4), 2, progress=False)
    sequence_trainer(True).fit(Batches(x, y, batch_size=4), 2, progress=False)
    series = np.zeros((30, 3), np.float32)
    with pytest.raises(ShapeError, match="make the layer with batch_first=False, the batches with batch_first=True"):
        sequence_trainer(True).fit(Streams(series, 3, 5), 2, progress=False)
    sequence_trainer(False).fit(Streams(series, 3, 5), 2, progress=False)
    sequence_trainer(True).fit(Streams(series, 3, 5, batch_first=True), 2, progress=False)
    # Sequences padded time first beside rows of an array: the layer reads the rows, and reads them right.
    sequence_trainer(True).fit(Batches(x, SENTENCES, batch_size=4), 2, progress=False)


def test_batches_that_do_not_say_their_axes_are_left_alone():
    sequence_trainer(False).fit(sequences((5, 7)), 2, progress=False)


def test_equal_axes_cannot_tell_and_a_later_batch_does():
    batches = Layout(sequences((6, 6), (5, 7)), batch_first=True)
    sequence_trainer(False).fit(batches, 1, progress=False)
    with pytest.raises(ShapeError, match="the batches are"):
        sequence_trainer(False).fit(batches, 2, progress=False)


# -- epochs, accumulation, callbacks -------------------------------------------------------------------------


class Uncounted:
    """Batches without a len."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("wrapped", [list, Uncounted])
def test_epochs_are_passes_with_a_record_and_a_validation_each(wrapped):
    stream = io.StringIO()
    records = classifier_trainer().fit(wrapped(PAIRS), epochs=4, validation=PAIRS, log_every=2, progress=stream)
    ends = [record for record in records if record["val_loss"] is not None]
    assert [(r["epoch"], r["step"]) for r in ends] == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert [r["step"] for r in records][:2] == [2, 3] and all(math.isfinite(r["loss"]) for r in records)
    assert stream.getvalue().splitlines()[-1].startswith("epoch 4/4  step 12")


def test_an_epoch_that_ends_with_a_record_has_one_record():
    records = classifier_trainer().fit(PAIRS, epochs=2, validation=PAIRS, log_every=3, validate_every=3, progress=False)
    assert [r["step"] for r in records] == [3, 6] and records[1]["val_loss"] is not None


def test_the_bar_counts_epochs_and_steps():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    classifier_trainer().fit(PAIRS, epochs=2, validation=PAIRS, progress=stream)
    assert "epoch 2/2" in stream.getvalue() and "6/6" in stream.getvalue()


def gradients_of(trainer):
    return [parameter.grad.copy() for parameter in trainer.model.parameters()]


def test_accumulated_gradients_are_those_of_one_large_batch():
    x, y = line_data(7)
    parts = [(x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])]
    large, small = line_trainer(), line_trainer(accumulate=3)
    (want,), (got,) = (t.fit(b, 1, progress=False) for t, b in ((large, [(x, y)]), (small, parts)))
    for a, b in zip(gradients_of(small), gradients_of(large), strict=True):
        assert np.allclose(a, b, rtol=1e-5)
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-6) and got["step"] == 1
    # The last group of a pass has two batches and weighs them alone.
    two = line_trainer(accumulate=3)
    two.fit(parts[1:], epochs=1, progress=False)
    large = line_trainer()
    large.fit([(x[4:], y[4:])], 1, progress=False)
    for a, b in zip(gradients_of(two), gradients_of(large), strict=True):
        assert np.allclose(a, b, rtol=1e-5)


def test_callbacks_are_called_and_may_end_the_run():
    calls = []

    class Watcher(Callback):
        def on_record(self, trainer, record):
            calls.append(("record", record["step"]))

        def on_validation(self, trainer, record):
            calls.append(("validation", record["val_loss"] > 0))

        def on_epoch_end(self, trainer, epoch, record):
            calls.append(("epoch", epoch, record["step"]))
            return "two are enough" if epoch == 2 else None

    stream = io.StringIO()
    trainer = classifier_trainer()
    records = trainer.fit(PAIRS, epochs=9, validation=PAIRS, callbacks=[Watcher()], progress=stream)
    assert records[-1]["epoch"] == 2 and trainer.stopped == "two are enough"
    one = [("record", 3), ("validation", True), ("epoch", 1, 3)]
    assert calls == [*one, ("record", 6), ("validation", True), ("epoch", 2, 6)]
    assert "stopped early, after step 6 of 9 epochs: two are enough; the model of step" in stream.getvalue()
    trainer.fit(PAIRS, 9, log_every=2, callbacks=lambda trainer, record: record["step"] == 4, progress=False)
    assert "<lambda> asked for it" in trainer.stopped
    with pytest.raises(DTypeError, match="callback <lambda>: expected None, True or a reason to stop, got 3"):
        trainer.fit(PAIRS, 3, callbacks=lambda trainer, record: 3, progress=False)


def test_an_early_stop_says_why_and_which_model_is_kept():
    stream = io.StringIO()
    trainer = line_trainer(lr=1e-12)
    trainer.fit([line_data()], 100, validation=[line_data()], validate_every=2, patience=2, progress=stream)
    words = (
        "stopped early, after step 6 of 100 steps: 2 validations without a better val_loss; the model of step 2 is kept"
    )
    assert stream.getvalue().splitlines()[-1] == words


class Counting(Callback):
    """A callback with a state: it ends the run after its eighth record."""

    def __init__(self):
        self.count = 0

    def on_record(self, trainer, record):
        self.count += 1
        return self.count == 8

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Stopped(Exception):
    """Stands for a process that is killed."""


def rich_run(file, die_at=None, **options):
    """A run with everything in it: epochs, groups, metrics, a callback, shuffled batches and validation."""
    gl.manual_seed(7)
    order = np.random.default_rng(4)
    steps = iter(range(1, 1000))

    def loss(model, batch, state):
        if model.training and next(steps) == die_at:
            raise Stopped
        x, labels = batch
        return gl.cross_entropy(model(x), labels), None

    model = gl.Sequential(gl.Linear(2, 3), gl.Dropout(0.3), gl.Linear(3, 2))
    trainer = Trainer(model, gl.Adam(model.parameters(), lr=0.05), loss, accumulate=2, metrics={"accuracy": accuracy})
    x, y = line_data(5)
    validation = Batches(x, (y > 0)[:, 0].astype(int), batch_size=3, generator=np.random.default_rng(5))
    records = trainer.fit(
        Batches(x, CLASSES, batch_size=2, generator=order), validation=validation, callbacks=[Counting()],
        checkpoint=file, monitor="val_accuracy", mode="max",
        **{"epochs": 8, "log_every": 3, "checkpoint_every": 4, "progress": False} | options,
    )  # fmt: skip
    return bits(trainer), without_clock(records), trainer.stopped


@pytest.mark.parametrize("die_at", [5, 6, 8, 13, 16, 18])
def test_a_rich_run_that_is_killed_goes_on_with_the_same_bits(tmp_path, die_at):
    whole = rich_run(tmp_path / "whole")
    assert whole[2] == "the callback Counting asked for it" and whole[1][-1]["epoch"] < 8
    with pytest.raises(Stopped):
        rich_run(tmp_path / "run", die_at)
    assert (tmp_path / "run").exists() == (die_at > 7)
    assert rich_run(tmp_path / "run", resume=True) == whole


# -- checkpoints of other runs, runs made longer -------------------------------------------------------------


def line_run(steps, file, **options):
    trainer = line_trainer(**{name: options.pop(name) for name in ("accumulate", "clip_norm") if name in options})
    records = trainer.fit([line_data()], steps, checkpoint=file, progress=False, log_every=2, **options)
    return bits(trainer), without_clock(records)


def test_a_checkpoint_or_log_of_another_run_is_not_overwritten_unasked(tmp_path):
    file, log = tmp_path / "run", tmp_path / "log"
    line_run(4, file, log=log)
    before = file.read_bytes(), log.read_text()
    with pytest.raises(FileExists, match="run: exists already; give resume=True to continue from it, force=True"):
        line_run(4, file)
    with pytest.raises(FileExists, match="log: exists already and is not the log of this run"):
        line_run(4, tmp_path / "other", log=log)
    with pytest.raises(FileExists, match="log: exists already"):
        line_run(4, None, log=log)
    assert (file.read_bytes(), log.read_text()) == before and not (tmp_path / "other").exists()
    line_run(6, file, log=log, resume=True)
    assert log.read_text().startswith(before[1]) and log.read_text().count("\n") == 3
    line_run(2, file, log=log, force=True)
    assert log.read_text().count("\n") == 1
    assert issubclass(FileExists, FileExistsError)


def test_a_log_that_is_not_empty_has_a_checkpoint(tmp_path):
    """So that a run killed at any moment can be resumed into its own log."""
    file, log = tmp_path / "run", tmp_path / "log"

    def dies(model, batch, state):
        if log.exists() and log.read_text():
            raise Stopped
        return line_loss(model, batch, state)

    trainer = line_trainer(dies)
    with pytest.raises(Stopped):
        trainer.fit([line_data()], 9, checkpoint=file, log=log, log_every=2, progress=False)
    assert line_run(9, file, log=log, resume=True) == line_run(9, tmp_path / "whole")


def test_a_finished_run_goes_on_to_more_steps_with_the_same_bits(tmp_path):
    file = tmp_path / "run"
    line_run(4, file)
    assert line_run(10, file, resume=True)[0] == line_run(10, tmp_path / "whole")[0]
    with pytest.raises(ShapeError, match=r"steps: expected at least 10, as many as .*run has done, got 9"):
        line_run(9, file, resume=True)


def test_an_interrupted_run_may_be_made_shorter(tmp_path):
    file, short = tmp_path / "run", {"validation": [line_data()], "validate_every": 3}
    line_run(4, file, checkpoint_every=2)
    _, records = line_run(4, file, resume=True, **short)
    assert records[-1]["val_loss"] is not None and records[-1]["step"] == 4


def test_an_early_stop_ends_again_unless_more_is_asked_for(tmp_path):
    def run(**options):
        trainer = line_trainer(lr=1e-12)
        plan = {"steps": 50, "patience": 2, "validate_every": 2, "checkpoint": tmp_path / "run", "progress": False}
        records = trainer.fit([line_data()], validation=[line_data()], **plan | options)
        return records[-1]["step"]

    assert run() == 6 and run(resume=True) == 6
    assert run(resume=True, steps=60) == 10  # a new number of steps: patience begins anew
    assert run(resume=True, steps=60, patience=4) == 18


def test_what_decides_the_result_must_be_the_same_and_is_named(tmp_path):
    file = tmp_path / "run"
    line_run(2, file, notes={"a": 1, "b": 2, "c": 3})
    words = (
        "accumulate: expected 1, as at the start, got 2; b: expected 2, as at the start, got 5; clip_norm: .* got 1.0"
    )
    with pytest.raises(FormatError, match=words):
        line_run(4, file, notes={"a": 1, "b": 5, "c": 3}, accumulate=2, clip_norm=1.0, resume=True)
    model = gl.Linear(2, 1)
    for optimizer, schedule, metrics, words in (
        (gl.SGD(model.parameters(), lr=0.2), None, {}, "optimizer lr: expected 0.1, as at the start, got 0.2"),
        (gl.SGD(model.parameters(), lr=0.1, momentum=0.5), None, {}, "optimizer momentum: expected 0.0, as at the"),
        (gl.Adam(model.parameters()), None, {}, "optimizer: expected SGD, as at the start, got Adam"),
        (
            gl.SGD(model.parameters(), lr=0.1),
            None,
            {"one": lambda *_: 1},
            "metrics: expected None, as at the start, got one",
        ),
        (o := gl.SGD(model.parameters(), lr=0.1), gl.StepLR(o, 9), {}, "it has no schedule"),
    ):
        trainer = Trainer(model, optimizer, line_loss, schedule=schedule, metrics=metrics)
        with pytest.raises(FormatError, match=f"run: expected a checkpoint of this run: .*{words}"):
            trainer.fit([line_data()], 4, checkpoint=file, notes={"a": 1, "b": 2, "c": 3}, resume=True, progress=False)
    line_run(4, file, notes={"a": 1, "b": 2, "c": 3}, about={"new": 1}, resume=True)
    assert checkpoint.load(file)["about"] == {"new": 1}


# -- signals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_sigterm_saves_and_exits_with_143(tmp_path, times):
    """As a program of its own, which does not know of signals: the status is the signal's."""
    code = f"""
import os, signal, sys
import numpy as np
import gpulstm as gl
steps = 0
def loss(model, batch, state):
    global steps
    steps += 1
    if steps == 3:
        for _ in range({times}):
            os.kill(os.getpid(), signal.SIGTERM)
    return gl.mse(model(batch[0]), batch[1]), None
model = gl.Linear(2, 1)
x = np.ones((4, 2), np.float32)
gl.Trainer(model, gl.SGD(model.parameters()), loss).fit([(x, x[:, :1])], 9, checkpoint="run", progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 143 and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "run").exists() == (times == 1)
    if times == 1:
        assert checkpoint.load(tmp_path / "run")["run"]["step"] == 3


def test_a_handler_of_sigterm_that_was_there_stays_in_force():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:

        def loss(model, batch, state):
            signal.raise_signal(signal.SIGTERM)
            return line_loss(model, batch, state)

        line_trainer(loss).fit([line_data()], 2, progress=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["mine", "mine"]


def test_a_second_ctrl_c_tells_the_last_checkpoint(tmp_path):
    steps = iter(range(1, 100))

    def loss(model, batch, state):
        if next(steps) == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return line_loss(model, batch, state)

    with pytest.raises(KeyboardInterrupt) as stop:
        line_trainer(loss).fit([line_data()], 9, checkpoint=tmp_path / "run", checkpoint_every=4, progress=False)
    assert str(stop.value).startswith("stopped in step 6; the last good checkpoint is") and stop.value.checkpoint


def test_streams_carry_their_state_through_groups(tmp_path):
    """Truncated back-propagation with accumulation: the state goes from batch to batch, and starts anew each pass."""
    seen = []

    def loss(model, batch, state):
        seen.append(state is None)
        y, state = model(batch[0], state)
        return gl.mse(y, batch[1]), state

    series = np.sin(np.arange(100, dtype=np.float32))[:, None]
    model = gl.LSTM(1, 1)
    Trainer(model, gl.SGD(model.parameters()), loss, accumulate=2).fit(Streams(series, 3, 8), epochs=2, progress=False)
    assert seen == [True, *[False] * 4] * 2
