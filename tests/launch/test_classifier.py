"""A classifier's run through the launcher's doors: its job, its weight in a sweep, what is next."""

from lab.launch import jobs, live, next_command, runner
from lab.train.classifier_job import ClassifierJob
from lab.train.job import Images
from tests.train.classifier_jobs import CLASSES, KINDS, config, split


def test_the_config_chooses_the_job(monkeypatch, tmp_path):
    seen = []

    def images_of(data, encoder, watch, *, are_images):
        seen.append((data.name, encoder.resolution, encoder.levels, are_images))
        return Images(train=split(20, seed=0), validation=split(10, seed=1))

    monkeypatch.setattr(jobs, "images_of", images_of)
    for kind in KINDS:
        run = config(kind, **{"execution.workdir": str(tmp_path), "execution.devices": 1})
        made = runner.make_job(run, lambda preparing: None)
        assert isinstance(made, ClassifierJob) and made.spec.classes == CLASSES
    assert seen == [("made_up", 16, 256, True)] * len(KINDS)


def test_a_sweep_knows_it_and_a_judgement_is_next():
    run = config("conv")
    assert live._weight(run) < live._weight(config("conv", **{"classifier.width": 16}))
    line = next_command.after_study([run])
    assert line == next_command.after_run(run)
    assert line.startswith("next: python -m lab.launch.evaluate RUN --what fd --extractor runs/")
