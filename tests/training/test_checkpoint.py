"""Checkpoints are whole or not there, whatever happens; and the lines of metrics.jsonl that a resumed run keeps."""

import json
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from seqtext.errors import RunError
from seqtext.files import locked, replacing, restored
from seqtext.training.checkpoint import load_checkpoint, save_checkpoint, save_tensors
from seqtext.training.config import TrainConfig
from seqtext.training.log import MetricsLog
from seqtext.training.loop import Started, Stepped
from seqtext.training.snapshot import Snapshot
from tests.training.toy import Toy, model, points, training


def snapshot(value=1.0):
    weight = torch.full((2, 3), value)
    return Snapshot({"model.a": weight, "model.tied": weight, "rng.cpu": torch.get_rng_state()}, {"step": value})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded_and_all_may_read_it(tmp_path):
    save_checkpoint(tmp_path / "last", snapshot(2.0))
    loaded = load_checkpoint(tmp_path / "last")
    assert loaded.values == {"step": 2.0}
    assert {name: value.tolist() for name, value in loaded.tensors.items()} == {
        name: value.tolist() for name, value in snapshot(2.0).tensors.items()
    }
    plain = tmp_path / "plain"
    plain.touch()
    for name in ("state.json", "state.safetensors"):
        assert stat.S_IMODE((tmp_path / "last" / name).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("fails", range(3))
def test_a_stop_at_any_rename_leaves_a_whole_checkpoint(tmp_path, monkeypatch, fails):
    last = tmp_path / "last"
    save_checkpoint(last, snapshot(1.0))
    calls = []
    rename = Path.rename

    def stopping(self, target):
        calls.append(target)
        if len(calls) > fails:
            raise KeyboardInterrupt  # a kill: nothing after it is done
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stopping)
        if fails < 2:  # it takes two: the old one aside, the new one into its place
            with pytest.raises(KeyboardInterrupt):
                save_checkpoint(last, snapshot(2.0))
        else:
            save_checkpoint(last, snapshot(2.0))
    assert load_checkpoint(last).values == {"step": 2.0 if fails == 2 else 1.0}
    save_checkpoint(last, snapshot(3.0))
    save_checkpoint(last, snapshot(4.0))
    assert load_checkpoint(last).values == {"step": 4.0}
    assert names(tmp_path) == ["last"] and restored(last) == last


def test_an_error_while_writing_leaves_what_was_there_and_nothing_else(tmp_path):
    save_checkpoint(tmp_path / "last", snapshot(1.0))
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "last", Snapshot(snapshot(2.0).tensors, {"step": object()}))
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as unfinished:
        unfinished.write_text("half")
        1 / 0  # noqa: B018
    assert load_checkpoint(tmp_path / "last").values == {"step": 1.0}
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file", "last"]


def test_a_new_folder_never_takes_the_place_of_another(tmp_path):
    with pytest.raises(OSError), replacing(tmp_path / "run", new=True) as unfinished:
        unfinished.mkdir()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "of another").touch()
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["of another"]


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(RunError, match=r"another process is training in this folder; wait for it, or stop it$"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("state.json", Path.unlink, "{}: missing; the run folder is not complete"),
        ("state.json", cut, "{}: damaged, not the JSON that a run holds ("),
        ("state.json", lambda path: path.write_text("[]"), "{}: damaged, its content is not what a run holds"),
        ("state.safetensors", Path.unlink, "{}: missing; this run cannot be resumed"),
        ("state.safetensors", cut, "{}: damaged, not a checkpoint ("),
        ("state.safetensors", lambda path: path.write_bytes(b""), "{}: damaged, not a checkpoint ("),
    ],
)
def test_damage_is_told_with_the_file(tmp_path, name, damage, message):
    save_checkpoint(tmp_path / "last", snapshot())
    damage(tmp_path / "last" / name)
    with pytest.raises(RunError) as caught:
        load_checkpoint(tmp_path / "last")
    assert str(caught.value).startswith(message.format(tmp_path / "last" / name))


def started(module, resume=None):
    return next(iter(training(Toy(), module, TrainConfig(), train=points(4), resume=resume)))


def test_a_checkpoint_of_another_model_or_without_its_parts_is_told_with_the_folder(tmp_path):
    event = started(model())
    assert isinstance(event, Started)
    save_checkpoint(tmp_path / "last", event.snapshot())
    whole = load_checkpoint(tmp_path / "last")
    with pytest.raises(RunError, match="last: damaged, or not a checkpoint of this run: size mismatch for weight"):
        started(nn.Linear(4, 1), Snapshot({"model.weight": torch.zeros(1, 3)}, whole.values, place="last"))
    for part in ("schedule", "step", "window", "optimizer", "carry"):
        values = {name: value for name, value in whole.values.items() if name != part}
        with pytest.raises(RunError, match=f"last: damaged, or not a checkpoint of this run: '{part}'"):
            started(model(), Snapshot(whole.tensors, values, place="last"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "3"}, "step: Input should be a valid integer, not '3'"),
        ({"epoch": -1}, "epoch: Input should be greater than or equal to 0, not '-1'"),
        ({"best": []}, "best: Input should be a valid number, not '[]'"),
        ({"window": [3]}, "window.0: Input should be a valid list, not '3'"),
        ({"schedule": {"scale": None, "best": None, "waited": 0}}, "schedule.scale: Input should be a valid number, "),
        ({"average": {"count": 0, "start": None, "scores": 1}}, "average.scores: Input should be a valid list, not "),
        ({"carry": [0, [None]]}, "0 tensors of a carry that has 1"),
        ({"batch": 5}, "5 batches into an epoch of 4"),
    ],
)
def test_a_number_of_a_checkpoint_that_is_something_else_is_told(changes, message):
    config, train = TrainConfig(batch_tokens=1), points(4)
    event = next(iter(training(Toy(), model(), config, train=train)))
    assert isinstance(event, Started)
    whole = event.snapshot()
    damaged = Snapshot(whole.tensors, whole.values | changes, place="last")
    with pytest.raises(RunError) as caught:
        list(training(Toy(), model(), config, train=train, resume=damaged))
    assert str(caught.value).startswith("last: damaged") and message in str(caught.value)


def test_the_state_of_an_optimizer_that_does_not_fit_is_told():
    events = training(Toy(), model(), TrainConfig(), train=points(4))
    whole = next(event for event in events if isinstance(event, Stepped)).snapshot()
    for tensors, message in (
        (whole.tensors | {"optimizer.0.exp_avg": torch.zeros(7)}, "optimizer.0.exp_avg is of the shape [7], the param"),
        ({k: v for k, v in whole.tensors.items() if k != "optimizer.1.exp_avg"}, "optimizer.1 is not the state of a "),
        (whole.tensors | {"optimizer.9.exp_avg": torch.zeros(1)}, "optimizer.9 is not the state of a parameter"),
    ):
        with pytest.raises(RunError) as caught:
            started(model(), Snapshot(tensors, whole.values, place="last"))
        assert str(caught.value).startswith(f"last: damaged, or not a checkpoint of this run: {message}")


def test_a_resumed_log_keeps_what_stands_before_the_checkpoint(tmp_path):
    def lines():
        return [tuple(json.loads(line).values())[:3] for line in (tmp_path / "metrics.jsonl").open(encoding="utf-8")]

    log = MetricsLog(tmp_path)
    for kind, step, epoch in [("train", 5, 1), ("valid", 5, 1), ("epoch", 5, 1), ("train", 8, 2), ("train", 10, 2)]:
        log.write(kind, {"step": step, "epoch": epoch})
    log.write("valid", {"step": 10, "epoch": 2})
    log.write("final.valid", {"step": 5, "f1": 0.5})
    log.close()
    first = [("train", 5, 1), ("valid", 5, 1), ("epoch", 5, 1), ("train", 8, 2)]
    (tmp_path / "metrics.jsonl").open("ab").write(b'{"kind": "train", "step": 9, "note": "\xc3')
    MetricsLog(tmp_path, resumed_at=(10, 2)).close()  # the second epoch was done, and what it ends with written
    assert lines() == [*first, ("train", 10, 2), ("valid", 10, 2)]
    MetricsLog(tmp_path, resumed_at=(10, 1)).close()  # the last step of the epoch was done, and not scored
    assert lines() == [*first, ("train", 10, 2)]
    MetricsLog(tmp_path, resumed_at=(8, 1)).close()
    assert lines() == first
    MetricsLog(tmp_path, resumed_at=(5, 0)).close()
    assert lines() == first[:1]


def test_equal_tensors_and_words_about_them_are_equal_bytes(tmp_path):
    about = {f"key {number}": 'with "quotes", \\ and\n\x01\x7f\u2028 é 漢 \U0001f600' for number in range(20)}
    weights = {"a": torch.arange(6.0).view(2, 3), "ü\t": torch.ones(1, dtype=torch.int8)}
    for name in ("one", "other"):
        save_tensors(tmp_path / name, weights, dict(sorted(about.items(), reverse=name == "other")))
        with safe_open(tmp_path / name, framework="pt") as file:
            assert file.metadata() == about
            assert {key: file.get_tensor(key).tolist() for key in file.keys()} == {  # noqa: SIM118
                key: value.tolist() for key, value in weights.items()
            }
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
