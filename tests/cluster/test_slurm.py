"""slurm.py with two real nodes: a node that is lost, time limits, trainings on both nodes."""

import re
import signal
import time

import pytest
from helpers import ROOT, run, save_ark, shell
from launching import launch, launched, started
from slurm_daemons import Slurm

pytest.importorskip("torch")

import slow_training  # noqa: E402
import test_train_e2e  # noqa: E402
import test_train_fhvae  # noqa: E402
from slow_training import same  # noqa: E402


WAIT_FOR_GO = "while [ ! -e go ]; do sleep 0.2; done"


def test_a_lost_node(tmp_path):
    """What ran on it runs again, elsewhere, and nothing else does."""
    with started(Slurm, cpus=2) as slurm:
        line = f"echo $SLURMD_NODENAME >> on.JOB && {WAIT_FOR_GO}; echo JOB > out.JOB"
        with launched(slurm, "JOB=1:4", "l.JOB.log", *line.split(), cwd=tmp_path) as process:
            slurm.wait(lambda: len(list(tmp_path.glob("on.*"))) == 4, "the members do not run")
            slurm.crash_node("node2")
            slurm.wait(lambda: slurm.states()["node2"] == "down*", "the node is not given up", 60)
            (tmp_path / "go").touch()
            said = process.communicate(timeout=90)[1]
    assert process.returncode == 0 and "Traceback" not in said, said
    where = {job: (tmp_path / f"on.{job}").read_text().split() for job in "1234"}
    assert sorted(where.values()) == [["node1"], ["node1"], ["node2", "node1"], ["node2", "node1"]]
    assert all((tmp_path / f"out.{job}").read_text() == f"{job}\n" for job in "1234")
    lost = [job for job in "1234" if len(where[job]) == 2]
    assert all("# Ended (code 0)" in (tmp_path / f"l.{job}.log").read_text() for job in "1234")
    assert re.search("node", said, re.I) and all(job in said for job in lost), said


def test_a_controller_that_does_not_answer_a_submission(tmp_path):
    """The submission is repeated; a member runs once, though the controller may have taken it twice."""
    with started(Slurm, cpus=2) as slurm:
        slurm.processes["slurmctld"].send_signal(signal.SIGSTOP)
        with launched(slurm, "JOB=1:2", "l.JOB.log", *"echo run >> ran.JOB".split(), cwd=tmp_path) as process:
            time.sleep(6)
            slurm.processes["slurmctld"].send_signal(signal.SIGCONT)
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 0 and "WARNING" in said, said
        assert [(tmp_path / f"ran.{job}").read_text() for job in (1, 2)] == ["run\n", "run\n"]
        slurm.wait(lambda: not slurm.jobs(), "jobs are left")


def test_a_controller_that_is_away_at_the_end(tmp_path):
    """Members tell by their files how they have ended."""
    with started(Slurm, cpus=2) as slurm:
        with launched(slurm, "JOB=1:2", "l.JOB.log", *WAIT_FOR_GO.split(), cwd=tmp_path) as process:
            slurm.wait(lambda: sum("RUNNING" in line for line in slurm.jobs()) == 2, "the members do not run")
            slurm.processes["slurmctld"].send_signal(signal.SIGSTOP)
            (tmp_path / "go").touch()
            try:
                said = process.communicate(timeout=40)[1]
            finally:
                slurm.processes["slurmctld"].send_signal(signal.SIGCONT)
    assert process.returncode == 0, said


def test_a_job_that_is_refused(slurm, tmp_path):
    done = launch(slurm, "--mem", "9000G", "JOB=1:2", "l.JOB.log", "true", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "memory" in done.stderr.lower() and "sbatch" in done.stderr, done.stderr


# -------------------------------------------------------------------------------------------------- trainings


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """{program: its arguments for a short training, but for the folder}."""
    folder = tmp_path_factory.mktemp("data")
    feats, labels = test_train_e2e.synthetic(folder / "e2e", 16)
    save_ark(folder / "raw.ark", test_train_fhvae.synthetic()[0])
    run("copy-feats", f"ark:{folder}/raw.ark", f"ark,scp:{folder}/f.ark,{folder}/feats.scp")
    e2e = test_train_e2e.words(num_epochs=1, exact=True, micro_batch=4)
    return {"train-e2e-verif": [*e2e, feats, labels],
            "train-fhvae": [*test_train_fhvae.SMALL, f"scp:{folder}/feats.scp"]}


def with_options(arguments, **changes):
    """The arguments with other values of some options."""
    changes = {name.replace("_", "-"): value for name, value in changes.items()}
    kept = [word for word in arguments if word.split("=")[0].lstrip("-") not in changes]
    return [*(f"--{name}={value}" for name, value in changes.items()), *kept]


TORCHRUN = ["torchrun", "--nnodes=$VOXARK_NUM_NODES", "--nproc-per-node=1", "--rdzv-backend=c10d",
            "--rdzv-id=$VOXARK_JOB", "--rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT"]


def on_one_machine(program, arguments, folder):
    """What the tests compare with: two workers on this machine, never stopped."""
    shell(f"torchrun --standalone --nproc-per-node=2 {ROOT}/bin/{program} {' '.join(arguments)} {folder}")


def test_a_training_on_two_nodes(slurm, data, tmp_path):
    """Two workers on two nodes make the model of two workers on one machine."""
    program = "train-e2e-verif"
    words = [*TORCHRUN, ROOT / "bin" / program, *data[program], "nodes"]
    launch(slurm, "--num-nodes", 2, "--mem", "4G", "train.log", *words, cwd=tmp_path)
    log = (tmp_path / "train.log").read_text()
    assert "epoch 1:" in log and "# Ended (code 0)" in log
    on_one_machine(program, data[program], tmp_path / "here")
    assert same(tmp_path / "nodes", tmp_path / "here")


def test_a_training_on_two_nodes_is_told_to_save(slurm, data, tmp_path):
    """SIGUSR1, as Slurm sends it to the first node before the time is up: it goes on to the same bits."""
    program, metrics = "train-fhvae", tmp_path / "nodes/metrics.jsonl"
    arguments = with_options(data[program], num_steps=1200, steps_per_epoch=100)  # 8 s where nothing else runs
    options = ["--num-nodes", 2, "--time", "1:00:00", "--requeue", "true", "--retries", 0, "--mem", "4G"]
    words = [*TORCHRUN, ROOT / "bin" / program, "--resume", *arguments, "nodes"]
    with launched(slurm, *options, "nodes.log", *words, cwd=tmp_path) as process:
        slurm.wait(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 1, "no epoch is done", 60)
        job = slurm.jobs(name="nodes")[0].split()[0]
        slurm.command("scancel", "--batch", "--signal=USR1", job)
        said = process.communicate(timeout=100)[1]
    assert process.returncode == 0 and said.count("nodes.log: job") == 1, said
    assert "# Ended (code 0)" in (tmp_path / "nodes.log").read_text()
    steps = [int(found) for path in (tmp_path / "q").glob("nodes.log.*")
             for found in re.findall(r"(\d+) steps in", path.read_text())]
    assert len(steps) == 1 and 100 <= steps[0] < 1200  # of the first job, which saved and ended
    on_one_machine(program, arguments, tmp_path / "here")
    assert same(tmp_path / "nodes", tmp_path / "here")


# ------------------------------------------------------------------------------------------------ time limits


@pytest.fixture(scope="module", autouse=True)
def begun(slurm, tmp_path_factory):
    """{name: (launcher, folder, ...)} of jobs that reach their time limit of a minute while the other tests run.

    A training, which is told to save between 0 and 30 seconds after its start (Slurm looks that often), and a job that
    never ends.
    """
    folders = {name: tmp_path_factory.mktemp(name) for name in ("training", "endless")}
    slow, fast = slow_training.write(folders["training"], num_epochs=30, pause=0.07)  # 50 seconds
    options = ["--time", "0:01:00", "--save-seconds", 45, "--requeue", "true", "--retries", 0]
    training = [*options, "train.log", slow_training.PROGRAM, "--resume", *slow, "parts"]
    endless = ["--time", "0:01:00", "--retries", 2, "a.log", *"echo run >> ran && sleep 300".split()]
    with (launched(slurm, *training, cwd=folders["training"]) as one,
          launched(slurm, *endless, cwd=folders["endless"]) as two):
        yield {"training": (one, folders["training"], fast), "endless": (two, folders["endless"])}


def test_a_training_that_reaches_its_time_limit(begun):
    """It is warned, saves, and goes on in another job, to the same bits."""
    launcher, folder, fast = begun["training"]
    said = launcher.communicate(timeout=300)[1]
    assert launcher.returncode == 0 and "train.log: job" in said, said
    assert "# Ended (code 0)" in (folder / "train.log").read_text()
    slow_training.check(folder, fast)


def test_a_job_over_its_time(begun):
    """It is ended, the reason is named, and it is not tried again."""
    launcher, folder = begun["endless"]
    said = launcher.communicate(timeout=200)[1]
    assert launcher.returncode == 1 and re.search("job failed.*, log is in a.log", said), said
    assert "time limit" in said and (folder / "ran").read_text() == "run\n", said
