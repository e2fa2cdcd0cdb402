"""What the launchers show while data are prepared and a model is trained."""

import io

from rich.console import Console

from lab.launch.live import SweepView
from lab.launch.runner import Preparing
from lab.launch.watch import RunBar
from lab.train.loop import Progress
from tests.models.worlds import config


def screen(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)


def shown(console):
    return console.file.getvalue()


def test_a_bar_counts_images_and_then_steps():
    console = screen(terminal=True)
    with RunBar(console, name="s1[b]") as bar:
        bar.prepare(Preparing("data"))
        bar.prepare(Preparing("train images", 640, 20833))
        bar.bar.refresh()
        task = bar.bar.tasks[0]
        assert (task.completed, task.total) == (640, 20833)
        assert "640/20833 preparing train images" in shown(console)
        bar.prepare(Preparing("train images", 128))
        bar.bar.refresh()
        assert "128 preparing train images" in shown(console)
        assert task.percentage == 0, "without a total there is no share"
        bar.prepare(Preparing("model"))
        bar.show(Progress(50, 300, 1.5, "nats/token"))
        bar.bar.refresh()
        assert (task.completed, task.total) == (50, 300)
        assert "step 50/300 loss 1.5000 nats/token" in shown(console)
    assert "s1[b]" in shown(console)


def test_without_a_terminal_a_line_comes_every_so_often(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("lab.launch.watch.time.monotonic", lambda: clock[0])
    console = screen(terminal=False)
    with RunBar(console, name="s1") as bar:
        for done in range(0, 20833, 64):
            clock[0] += 0.04
            bar.prepare(Preparing("train images", done, 20833))
        assert shown(console) == "s1: preparing train images 16000/20833\n"
        bar.show(Progress(0, 300, 2.5, "nats/token", evaluated=True))
    assert shown(console).splitlines()[1:] == ["s1: step 0/300 validation loss 2.5000 nats/token"]


def messages(view, *, run):
    """What a worker says of a run."""
    view.hear({"run": run, "doing": "preparing data", "done": 0, "total": None})
    for done in (0, 64, 128):
        view.hear({"run": run, "doing": "preparing train images", "done": done, "total": 200})


def test_a_sweep_shows_images_and_then_steps(tmp_path):
    run = config("s1", **{"name": "a", "execution.workdir": str(tmp_path)})
    console = screen(terminal=True)
    with SweepView(console, [run], title="sweep") as view:
        messages(view, run="a")
        view.live.refresh()
        assert "train images 128/200" in shown(console)
        loss = {"loss": 1.25, "loss_unit": "nats/token"}
        view.hear({"run": "a", "step": 5, "total_steps": 10, **loss})
        console.file.truncate(0)
        view.live.refresh()
        assert "5/10" in shown(console) and "images" not in shown(console)
        view.hear({"run": "a", "doing": "finished"})
        assert view.rows["a"].share == 1.0


def test_a_sweep_without_a_terminal_says_each_thing_once(tmp_path):
    run = config("s1", **{"name": "a", "execution.workdir": str(tmp_path)})
    console = screen(terminal=False)
    with SweepView(console, [run], title="sweep") as view:
        messages(view, run="a")
        assert shown(console).splitlines() == ["a: preparing data", "a: preparing train images"]
        view.last_line_s -= 100
        view.refresh()
    assert shown(console).splitlines()[-1].endswith("so far a train images 128/200")
