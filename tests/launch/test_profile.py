"""Where the time of a step goes: real profiles of small runs, and what is refused."""

import json
import math

import jax
import pytest

from lab.core.errors import LabError, Stopped
from lab.core.hlo_parts import COPIES, OTHER, Kind
from lab.core.xplane import Event
from lab.launch import profile, profile_parts, profile_table, train
from tests.core.test_hlo_parts import compiled
from tests.launch.commands import TINY, command, only, place, refused
from tests.launch.several import ended, start_together
from tests.train import classifier_jobs, tokenizer_jobs
from tests.train.family_jobs import WORLDS, family_job

TRAIN = ("-m", "lab.launch.train")
WHOLE = {"attention", "feed-forward", "embedding", "head", "loss", "optimizer", "EMA"}


@pytest.fixture(autouse=True)
def metadata_in_keys():
    """Programs that are kept for the session may have been compiled with another's metadata."""
    name = "jax_compilation_cache_include_metadata_in_key"
    before = jax.config.values[name]
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


def tell(doing, step):
    """Nobody listens."""


def measured(job, folder, *, updates=3):
    """A profile as the command writes it, checked for what all have."""
    folder.mkdir()
    found = profile.measure(job, folder, updates=updates, tell=tell)
    document = profile_table.as_json(job, found, ["python", "-m", "lab.launch.train"])
    profile_table.write(folder, document)
    check(json.loads((folder / profile_table.FILE).read_text()))
    return document


def check(document):
    """Parts sum to the update, and none is negative."""
    rows = document["rows"]
    assert document["schema"] == "lab.profile/1"
    assert all(row["update_ms"] >= 0 for row in rows)
    assert math.isclose(sum(row["update_ms"] for row in rows), document["update_ms"], rel_tol=1e-9)
    assert math.isclose(sum(row["share"] for row in rows), 1, rel_tol=1e-9)
    assert rows[-1]["part"] == profile.HOST


def busy(document):
    """Milliseconds by part without the time in which no operation ran."""
    parts = profile_table.by_part(document)
    return {part: sum(of.values()) for part, of in parts.items() if part != profile.HOST}


def directions(document, part):
    return {row["direction"] for row in document["rows"] if row["part"] == part}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(WORLDS) if name != "elm"]


@pytest.mark.parametrize("name", ["elm", *SLOW])
def test_the_parts_of_a_family(tmp_path, name):
    job = family_job(tmp_path, name, devices=1)
    document = measured(job, tmp_path / "profile")
    spent = busy(document)
    diffusion = {"denoiser", "random draws"} if "denoiser" in spent else set()
    assert spent.keys() >= WHOLE | diffusion
    assert spent.get(OTHER, 0) < 0.15 * sum(spent.values()), spent
    for part in ("attention", "feed-forward"):
        assert directions(document, part) == {"forward", "backward"}
    assert directions(document, "optimizer") == {"update"}
    assert document["updates"] == 3
    assert document["identity"] == job.identity
    assert document["flops_per_s"] * document["update_without_profiler_ms"] == pytest.approx(
        1e3 * document["flops"]
    )
    trace = only(tmp_path, "profile/plugins/profile/*/*.xplane.pb")
    assert document["trace"] == str(trace)
    assert (trace.parent / "perfetto_trace.json.gz").exists()


@pytest.mark.slow
def test_a_classifier_of_images(tmp_path):
    spent = busy(measured(classifier_jobs.job(tmp_path, "conv", devices=1), tmp_path / "profile"))
    assert spent.keys() >= {"convolution", "norm", "layer stack", "loss", "optimizer"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vq", "binary", "kl"])
def test_a_tokenizer(tmp_path, kind):
    """With a discriminator from the first update on."""
    adversarial = {**tokenizer_jobs.ADVERSARIAL, "losses.adversarial_start": "0 steps"}
    made = tokenizer_jobs.job(tmp_path, kind, devices=1, **adversarial)
    spent = busy(measured(made, tmp_path / "profile"))
    own = {"encoder", "bottleneck", "decoder", "discriminator", "loss"}
    assert spent.keys() >= own | {"convolution", "norm", "layer stack", "optimizer"}
    assert spent.get(OTHER, 0) < 0.05 * sum(spent.values()), spent


@pytest.mark.slow
def test_several_updates_a_dispatch_remat_and_a_guard(tmp_path):
    more = {
        "execution.steps_per_dispatch": 2,
        "execution.remat": "full",
        "execution.accumulation": 2,
        "train.guard.policy": "skip",
    }
    document = measured(family_job(tmp_path, "elm", devices=1, **more), tmp_path / "profile")
    assert document["updates"] == 4  # whole dispatches
    assert directions(document, "attention") >= {"forward", "recomputed", "backward"}
    assert busy(document).keys() >= {*WHOLE, "guard"}


@pytest.mark.slow
def test_collectives_are_parts_of_their_own(tmp_path):
    document = measured(family_job(tmp_path, "elm", layout="fsdp", devices=2), tmp_path / "profile")
    assert busy(document).keys() & {"all-gather", "all-reduce", "reduce-scatter"}
    assert document["devices"] == 2


def test_the_command(tmp_path):
    words = ("--config", "configs/elm.py:s1", *TINY, *place(tmp_path))
    folder = tmp_path / "new" / "profile"
    found = command(*TRAIN, *words, "--profile", folder, "--profile-updates", 2)
    assert found.returncode == 0, found.stderr
    document = json.loads((folder / "profile.json").read_text())
    check(document)
    assert document["command"].startswith("python -m lab.launch.train --config configs/elm.py:s1")
    for word in ("attention", "host and waiting", "xprof --logdir", "ui.perfetto.dev", "next: "):
        assert word in found.stdout
    assert "--profile" not in found.stdout.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
    refused(command(*TRAIN, *words, "--profile", folder), f"--profile {folder}", "not an empty")


def halves(*parts):
    """A profile of which two parts share the time."""
    return {
        "command": "python -m lab.launch.train --profile old --seed 1",
        "execution": {"unroll_layers": False, "steps_per_dispatch": 1},
        "update_ms": 10.0,
        "rows": [{"part": part, "direction": "forward", "update_ms": 5.0} for part in parts],
    }


@pytest.mark.parametrize(("part", "advised"), [("feed-forward", True), ("convolution", False)])
def test_only_blocks_are_to_be_unrolled(part, advised):
    """A convolutional network's residuals are a layer stack as well, of no scan."""
    told = profile_table._next(halves("layer stack", part))
    assert ("unroll_layers True" in told) is advised


def test_a_gpu_is_asked_again_without_its_graphs(monkeypatch):
    monkeypatch.setattr(profile_table, "_platform", lambda: "gpu")
    flag = "--xla_gpu_enable_command_buffer="
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    assert profile_table._next(halves(OTHER, "attention")) == (
        f'XLA_FLAGS="$XLA_FLAGS {flag}" python -m lab.launch.train --seed 1 --profile NEW_FOLDER'
    )
    assert "graphs" in profile_table._notes(halves(OTHER, "attention"))[0]
    assert flag not in profile_table._next(halves("head", "attention"))
    monkeypatch.setenv("XLA_FLAGS", flag)
    assert flag not in profile_table._next(halves(OTHER, "attention"))
    assert "graphs" not in profile_table._notes(halves(OTHER, "attention"))[0]


def arguments(tmp_path, *more):
    return ["--config", "configs/elm.py:s1", *place(tmp_path), *map(str, more)]


def test_flags_that_do_not_go_together(tmp_path):
    for more, words in (
        (("--profile-updates", 3), "--profile is missing"),
        (("--profile", tmp_path / "p", "--profile-updates", 0), "--profile-updates 0: at least 1"),
        (("--profile", tmp_path / "p", "--parameters"), "one of the two"),
    ):
        with pytest.raises(LabError, match=words):
            train.main(arguments(tmp_path, *more))
    assert not (tmp_path / "p").exists()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for name, words in (
        ("file", "not an empty folder"),
        ("full", "not an empty folder"),
        ("file/below", "cannot be written: Not a directory"),
    ):
        with pytest.raises(LabError, match=words):
            profile.empty_folder(tmp_path / name)
    (tmp_path / "empty").mkdir()
    profile.empty_folder(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_wish_to_stop_ends_it(tmp_path):
    job = family_job(tmp_path, "elm", devices=1)

    def stop(doing, step):
        raise Stopped

    with pytest.raises(Stopped):
        profile.measure(job, tmp_path, updates=2, tell=stop)


def owner():
    """Of a program with an optimizer."""
    import jax.numpy as jnp

    from lab.core import hlo

    def step(w_DD):
        with jax.named_scope("optimizer"):
            return jnp.tanh(w_DD @ w_DD)

    program = hlo.read(compiled(step, (16, 16)))
    name = next(i.name for i in program.computations[program.entry].instructions.values())
    return profile_parts.Owner({"jit_step": [program]}, [Event(0, "jit_step", name, 0, 1)]), program


def test_what_no_program_knows():
    of, program = owner()
    dot = next(i.name for _, i, _ in program.running() if i.opcode == "dot")
    assert of.part_of(("jit_step", dot)) == ("optimizer", "update")
    assert of.part_of(("jit_step", "command_buffer_7")) == (OTHER, "")  # a graph of a GPU
    assert of.part_of(("", dot.replace(".", "_"))) == (OTHER, "")  # its kernel: numbered anew
    assert of.part_of(("jit_step", "nothing")) == (OTHER, "")
    assert of.part_of(("jit_encode", dot)) == (profile_parts.BATCH, "")
    assert of.part_of(("", "MemcpyD2D")) == (COPIES, "")
    assert of.kind_of(("", "MemcpyD2D")) is Kind.TRANSFER


def test_a_trace_that_lacks_updates_is_refused():
    of, program = owner()
    root = program.computations[program.entry].root
    events = [Event(0, "jit_step", root, at, at + 1) for at in range(3)]
    of.check_whole(events, dispatches=3, device="CPU 0")
    with pytest.raises(LabError, match="--profile-updates: the trace of CPU 0 has 3 of 4"):
        of.check_whole(events, dispatches=4, device="CPU 0")


def test_a_trace_without_the_step_is_refused():
    with pytest.raises(LabError, match="no program that updates parameters"):
        profile_parts.Owner({}, [Event(0, "jit_key", "add", 0, 1)])


def test_time_that_no_operation_took_is_never_negative():
    rows = list(profile.rows_of({("attention", "forward"): 3.0}, updates=2, wall_s=2.9))
    assert [row.update_s for row in rows] == [1.5, 0.0]


@pytest.mark.slow
def test_processes_together_write_a_folder_each(tmp_path):
    folder = tmp_path / "profile"
    found = ended(start_together(2, tmp_path, "--profile", folder, "--profile-updates", 2))
    assert [code for code, _, _ in found] == [0, 0], found
    for process in range(2):
        document = json.loads((folder / f"process_{process}" / "profile.json").read_text())
        check(document)
        assert (document["process"], document["processes"]) == (process, 2)
        assert busy(document).keys() & {"all-reduce", "all-gather"}
    assert "attention" in found[0][1] and "attention" not in found[1][1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_of_the_same_identity_stays_as_it_is(tmp_path):
    words = ["--config", "configs/elm.py:s1", *TINY, *place(tmp_path)]
    assert command(*TRAIN, *words).returncode == 0
    directory = only(tmp_path, "runs/*/*")

    def content():
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    before = content()
    assert command(*TRAIN, *words, "--profile", tmp_path / "profile").returncode == 0
    assert content() == before
    document = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert document["identity"] == directory.name
