"""The launchers on clusters, slurm.py and queue.py, with small programs in place of the schedulers.

What needs a real scheduler is in tests/cluster.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, environment

sys.path.insert(0, str(ROOT / "utils"))
import cluster_conf  # noqa: E402
import cluster_files  # noqa: E402
import cluster_scheduler  # noqa: E402
import launcher  # noqa: E402

LAUNCHERS = ("slurm.py", "queue.py")

# A scheduler: it runs tasks as processes, and keeps their states as files in the folder FAKE. A task named in
# FAKE/fate (lines `task STATE words`) is killed when it has made a file begun.<task>, and then has that state, and the
# words in its output; each fate befalls once.
FAKE = r'''
import os, re, signal, subprocess, sys, time

folder, me, words = os.environ["FAKE"], os.path.basename(sys.argv[0]), sys.argv[1:]
slurm = me[0] == "s"

def path(*parts):
    return os.path.join(folder, ".".join(map(str, parts)))

def read(name):
    try:
        with open(name) as text:
            return text.read()
    except OSError:
        return ""

def write(name, text):
    with open(name + ".partial", "w") as out:
        out.write(text)
    os.replace(name + ".partial", name)

def value(name, default=""):
    for number, word in enumerate(words):
        if word == name:
            return words[number + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return default

def call(text):
    with open(path("calls"), "a") as out:
        out.write(text + "\n")

def states():
    for name in sorted(os.listdir(folder)):
        match = re.fullmatch(r"state\.(\d+)\.(\d+)", name)
        if match:
            yield match[1], match[2], (read(os.path.join(folder, name)) or "RUNNING").split()

def begin(job, task, script, output):
    env = {name: text for name, text in os.environ.items() if name != "FAKE_TASK"}
    if slurm:
        env.update(SLURM_JOB_ID="9" + job, SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID=str(task))
    else:
        env.update(JOB_ID=job, SGE_TASK_ID=str(task), NSLOTS="1")
    broken = read(path("broken"))
    with open(output, "w") as out:
        if broken:
            script = ["-c", f"echo {broken} >&2; exit 1"]
        process = subprocess.Popen(["/bin/bash", *script], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                                   start_new_session=True)
    write(path("state", job, task), f"RUNNING {process.pid}")
    return process

def fate(task):
    lines = read(path("fate")).splitlines()
    mine = [line for line in lines if line.split()[0] == str(task)]
    if mine:
        lines.remove(mine[0])
        write(path("fate"), "".join(line + "\n" for line in lines))
        return mine[0].split()[1:]

def run(job, ids, limit, script, output):
    waiting, running = list(ids), {}
    while waiting or running:
        while waiting and len(running) < limit:
            task = waiting.pop(0)
            if read(path("state", job, task)) == "PENDING":
                running[task] = begin(job, task, script, output.format(task)), fate(task)
        for task, (process, end) in list(running.items()):
            if end and os.path.exists(f"begun.{task}"):
                os.unlink(f"begun.{task}")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                with open(output.format(task), "a") as out:
                    out.write(" ".join(end[1:]) + "\n")
                write(path("state", job, task), end[0])
                del running[task]
            elif process.poll() is not None:
                if read(path("state", job, task)).startswith("RUNNING"):
                    write(path("state", job, task), "COMPLETED" if process.returncode == 0 else "FAILED")
                del running[task]
        time.sleep(0.05)

def submit():
    call(me + " " + " ".join(words))
    refused = read(path("refuse")).splitlines()
    if refused:
        write(path("refuse"), "".join(line + "\n" for line in refused[1:]))
        sys.exit(refused[0])
    job = str(1 + len(read(path("calls")).splitlines()))
    ids, limit = value("--array").partition("%")[::2] if slurm else (value("-t"), value("-tc"))
    tasks = []
    for part in ids.split(","):
        first, _, last = part.partition("-")
        tasks += range(int(first), int(last or first) + 1)
    output = value("--output" if slurm else "-o")
    output = output.replace("%A", job).replace("%a", "{}").replace("$JOB_ID", job).replace("$TASK_ID", "{}").lstrip(":")
    number = next(number for number, word in enumerate(words) if word.endswith(".sh"))
    script = [path("spool", job), *words[number + 1:]]
    write(script[0], read(words[number]))
    for task in tasks:
        write(path("state", job, task), "ERROR" if os.path.exists(path("eqw")) else "PENDING")
    print(job if slurm else f"{job}.{ids}:1", flush=True)
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        run(job, tasks, int(limit or 1000), script, output)

def cancel():
    call(me + " " + " ".join(words))
    wanted = [word for word in words if word[0] != "-"]
    for job, task, state in states():
        if job in wanted or f"{job}_{task}" in wanted or f"{job}.{task}" in wanted:
            if state[0] in ("RUNNING", "PENDING"):
                write(path("state", job, task), "CANCELLED")
            if state[0] == "RUNNING":
                try:
                    os.killpg(int(state[1]), signal.SIGTERM if slurm else signal.SIGKILL)
                except ProcessLookupError:
                    pass

def show():
    call(me)
    if os.path.exists(path("deaf")):
        sys.exit("unable to contact the controller")
    if slurm:
        for job, task, state in states():
            if job in value("--jobs").split(",") and state[0] != "GONE":
                reason = "Resources" if state[0] == "PENDING" else "None"
                print(f"{job}_{task}|{state[0]}|{reason}")
        return
    if value("-j"):
        print("job_number: 2\nerror reason    1:          can't chdir to /nowhere")
        return
    print("<job_info><queue_info><Queue-List><name>all.q@h</name>")
    entry = "<job_list><JB_job_number>{}</JB_job_number><state>{}</state><tasks>{}</tasks></job_list>"
    print("".join(entry.format(job, "r", task) for job, task, state in states() if state[0] == "RUNNING"))
    print("</Queue-List></queue_info><job_info>")
    print("".join(entry.format(job, "qw", task) for job, task, state in states() if state[0] == "PENDING"))
    print("".join(entry.format(job, "Eqw", task) for job, task, state in states() if state[0] == "ERROR"))
    print("</job_info></job_info>")

def account():
    call(me)
    if slurm:
        sys.exit("Slurm accounting storage is disabled")
    for job, task, state in states():
        if job == value("-j") and state[0] not in ("RUNNING", "PENDING", "NODE_FAIL"):
            print("=" * 62)
            facts = {"taskid": task, "failed": "0", "ru_wallclock": "1s", "maxvmem": "1.0M"}
            limit, killed = "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit", "100 : assumedly after job"
            facts.update({"OUT_OF_MEMORY": {"failed": killed, "maxvmem": "7.5G"}, "CANCELLED": {"failed": killed},
                          "TIMEOUT": {"failed": limit, "ru_wallclock": "3601s"}}.get(state[0], {}))
            print("".join(f"{name:12} {text}\n" for name, text in facts.items()), end="")

{"sbatch": submit, "qsub": submit, "scancel": cancel, "qdel": cancel, "squeue": show, "qstat": show,
 "sacct": account, "qacct": account}[me]()
'''


@pytest.fixture(scope="session")
def fake_programs(tmp_path_factory):
    """A folder with the programs of both schedulers."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "fake").write_text(f"#!{sys.executable} -IS\n{FAKE}")
    (folder / "fake").chmod(0o755)
    for name in ("sbatch", "squeue", "sacct", "scancel", "qsub", "qstat", "qacct", "qdel"):
        (folder / name).symlink_to("fake")
    return folder


class Cluster:
    """A launcher with the programs of its scheduler, and the folder of their states."""

    def __init__(self, launcher_name, programs, folder):
        self.launcher, self.folder, self.state = launcher_name, folder, folder.parent / f"{folder.name}.state"
        self.state.mkdir()
        (self.state / "conf").write_text((ROOT / "conf" / f"{launcher_name[:-3]}.conf").read_text()
                                         + "default query-seconds=1\ndefault lost-wait=1\n")
        path = os.pathsep.join([str(programs), environment()["PATH"]])
        variable = f"VOXARK_{launcher_name[:-3].upper()}_CONF"
        self.env = environment(PATH=path, FAKE=str(self.state), **{variable: str(self.state / "conf")})
        self.env = {name: value for name, value in self.env.items() if not name.startswith(("SLURM_", "SGE_"))}

    def start(self, *words, env=None):
        """Start the launcher."""
        return subprocess.Popen([sys.executable, str(ROOT / "utils" / self.launcher), *words], cwd=self.folder,
                                env={**self.env, **(env or {})}, stderr=subprocess.PIPE, text=True)

    def run(self, *words, check=True, env=None):
        """Run the launcher; return its status and what it said without its name."""
        job = self.start(*words, env=env)
        said = job.communicate(timeout=60)[1]
        assert "Traceback" not in said, said
        assert not check or job.returncode == 0, said
        return job.returncode, said.replace(f"{self.launcher}: ", "").splitlines()

    def said(self, log):
        """What the command itself wrote into a log."""
        return [line for line in (self.folder / log).read_text().splitlines() if not line.startswith("#")]

    def fate(self, *lines):
        """What happens to tasks, see FAKE."""
        (self.state / "fate").write_text("".join(line + "\n" for line in lines))

    def calls(self, *programs):
        """The calls of programs of the scheduler."""
        lines = (self.state / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[0] in programs]

    def submissions(self):
        """The calls that submitted."""
        return self.calls("sbatch", "qsub")

    def running(self):
        """The processes of tasks."""
        pids = [path.read_text().split()[1:] for path in self.state.glob("state.*.*")]
        return [int(pid[0]) for pid in pids if pid]


@pytest.fixture(params=LAUNCHERS)
def cluster(request, fake_programs, tmp_path):
    """Each launcher in turn, in a folder of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Cluster(request.param, fake_programs, folder)


@pytest.fixture
def slurm(fake_programs, tmp_path):
    """slurm.py alone."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Cluster("slurm.py", fake_programs, folder)


def wait_for(condition, seconds=20):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "waited too long"
        time.sleep(0.02)


def leftovers(cluster):
    """What is left in the folder q of a run that has ended, besides its script."""
    return sorted(name for name in os.listdir(cluster.folder / "q") if not name.endswith(".sh"))


# -------------------------------------------------------------------------------------- the contract of run.py

COMMANDS = [
    ["false", "|", "cat"],
    ["cat", "/no/such/file", "|", "sort", "|", "head"],
    ["nosuchprogram"],
    ["exit 3"],
    ["echo", "x", "|", "head", "-n", "1"],
    ["echo", "*", "x?", "{a,b}", "feats.ark[0:3,:]", "a *", "it's \"so\"", "don't", "#x", "", "a  b ", "new\nline",
     "x y\\"],
    ["echo", "$[3+10]", "|", "sed", "s/1/x/", ">", "out", "&&", "echo", "err", ">&2", "&&", "cat", "out"],
    ["echo", "'single' $HOME `echo y`", "\\$HOME", "é", "100%", "%a", "$$ | true"],
    ["pwd", "&&", "cat", "&&", "echo", "$OMP_NUM_THREADS", "$OPENBLAS_NUM_THREADS"],
    ["echo", "BASH $0", ";", "exit", "99"],
    ["cd", "/", "&&", "kill", "-9", "$$"],
]


@pytest.mark.parametrize("launcher_name", LAUNCHERS)
def test_logs_are_those_of_run_py(launcher_name, fake_programs, tmp_path):
    """Same command lines: same log, same output, same status, same words of failure."""
    logs, said = {}, {}
    folder = tmp_path / "work"
    folder.mkdir()
    clusters = [Cluster(launcher_name, fake_programs, folder)]
    clusters.append(Cluster.__new__(Cluster))
    vars(clusters[1]).update(vars(clusters[0]), launcher="run.py")
    for which in clusters:
        for number, command in enumerate(COMMANDS):
            status, words = which.run("--num-threads", "2", f"{number}.log", *command, check=False,
                                      env={"FAKE_NOTE": "x"})
            text = (folder / f"{number}.log").read_text()
            text = re.sub(r"\(\w+ job [\d._]+\)| at \w{3} .*|Started.*|\d+ Killed|(time|cpu|mem)=\S+|\d{3,}", "", text)
            logs[which.launcher, number] = re.sub(r" +$", "", text, flags=re.MULTILINE)
            said[which.launcher, number] = status, [re.sub(r"\d{3,}", "", line) for line in words]
            (folder / f"{number}.log").unlink()
    for number in range(len(COMMANDS)):
        assert logs[launcher_name, number] == logs["run.py", number]
        assert said[launcher_name, number] == said["run.py", number]


def test_an_array_is_one_submission(cluster):
    cluster.run("JOB=1:5", "l/x.JOB.log", "echo", "JOB", "JOBS", "split5/JOB/a")
    assert [cluster.said(f"l/x.{n}.log") for n in range(1, 6)] == [[f"{n} JOBS split5/{n}/a"] for n in range(1, 6)]
    (call,) = cluster.submissions()
    assert re.search(r"--array=1-5 |-t 1-5 ", call)
    assert os.listdir(cluster.folder / "l/q") == ["x.sh"]
    script = (cluster.folder / "l/q/x.sh").read_text()
    assert "# echo JOB JOBS split5/JOB/a\n" in script and f"cd {cluster.folder}" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    head = (cluster.folder / "l/x.2.log").read_text().splitlines()[1]
    assert re.fullmatch(r"# Running on \S+ \((slurm job \d+_2|gridengine job \d+\.2)\)", head)
    assert not cluster.calls("squeue", "qstat")  # too short to be asked about


def test_few_questions(cluster):
    """Eight seconds of work are eight seconds without a question, however many polls there are."""
    (cluster.state / "conf").write_text((ROOT / "conf" / f"{cluster.launcher[:-3]}.conf").read_text())
    cluster.run("JOB=1:2", "x.JOB.log", "sleep", "2")
    assert len(cluster.calls("squeue", "qstat", "sacct", "qacct")) == 0


def test_failures_and_pick(cluster):
    count = ["JOB=1:5", "l.JOB.log", "echo", "JOB", ">>", "ran", "&&", "echo", "ERROR", "of", "JOB", "&&", "test",
             "-e", "ok.JOB"]
    (cluster.folder / "ok.1").touch()
    status, said = cluster.run(*count, check=False)
    assert status == 1 and said == ["4 / 5 failed, log is in l.*.log", "l.2.log says: ERROR of 2"]
    for number in (2, 5):
        (cluster.folder / f"ok.{number}").touch()
    (cluster.folder / "ran").unlink()
    (cluster.folder / "l.5.log").unlink()
    status, said = cluster.run("--pick", "failed", *count, check=False)
    assert status == 1 and said[0] == "2 / 5 failed, log is in l.*.log"
    assert sorted((cluster.folder / "ran").read_text().split()) == ["2", "3", "4", "5"]
    for number in (3, 4):
        (cluster.folder / f"ok.{number}").touch()
    (cluster.folder / "l.1.log").unlink()
    (cluster.folder / "ran").unlink()
    cluster.run("--pick", "failed", *count)
    assert sorted((cluster.folder / "ran").read_text().split()) == ["1", "3", "4"]
    assert re.search(r"--array=1,3-4 |-t 1-3 ", cluster.submissions()[-1])
    cluster.run("--pick", "failed", *count)
    assert len(cluster.submissions()) == 3


def test_max_jobs_run(cluster):
    cluster.run("--max-jobs-run", "2", "-tc", "7", "JOB=1:4", "l.JOB", "touch", "on.JOB", "&&", "ls", "&&",
                "sleep", "0.2", "&&", "rm", "on.JOB")
    at_once = [sum(line.startswith("on.") for line in cluster.said(f"l.{job}")) for job in range(1, 5)]
    assert max(at_once) <= 2
    assert re.search(r"--array=1-4%2 |-tc 2 ", cluster.submissions()[0])


def test_the_folder_of_the_logs_may_have_the_job_in_it(cluster):
    cluster.run("JOB=1:2", "log/JOB/x.JOB.log", "echo", "JOB")
    assert os.listdir(cluster.folder / "log/q") == ["JOB.x.sh"] or os.listdir(cluster.folder / "log/q") == ["x.sh"]
    assert cluster.said("log/2/x.2.log") == ["2"]


def test_a_log_that_cannot_be_written(cluster):
    (cluster.folder / "file").touch()
    status, said = cluster.run("JOB=1:2", "file/x.JOB.log", "true", check=False)
    assert status == 1 and "cannot start the job of file/x.1.log" in said[0]
    assert not (cluster.state / "calls").exists()


@pytest.mark.parametrize("words,message", [
    (["log"], "a log file and a command are needed"),
    (["JOB=1:4", "one.log", "true"], "would write to one log file"),
    (["--num-threads", "0", "l", "true"], "--num-threads 0"),
    (["--gpu", "x", "l", "true"], "--gpu x: expected a number"),
    (["--mem", "much", "l", "true"], "--mem much: expected a size"),
    (["--time", "soon", "l", "true"], "--time soon: expected"),
    (["--requeue", "yes", "l", "true"], "--requeue yes: expected true or false"),
    (["--colour", "red", "l", "true"], "add a line `option colour=* --colour=$0`"),
    (["--config", "nowhere.conf", "l", "true"], "nowhere.conf: No such file"),
])
def test_wrong_use(cluster, words, message):
    status, said = cluster.run(*words, check=False)
    assert status == 1 and said[-1].startswith("ERROR: ") and message in said[-1]
    assert os.listdir(cluster.folder) == []


@pytest.mark.parametrize("name", (*LAUNCHERS, "run.py"))
def test_help(name):
    done = subprocess.run([sys.executable, str(ROOT / "utils" / name), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and f"Usage: {name} [options] [JOB=1:nj] <log-file> <command...>" in done.stdout


def test_where_there_is_no_scheduler(cluster):
    status, said = cluster.run("a.log", "true", check=False, env={"PATH": os.path.dirname(sys.executable)})
    assert status == 1 and "is this a machine of the cluster?" in said[0]
    assert said[1] == "job failed (NOT SUBMITTED), log is in a.log" and leftovers(cluster) == []


# --------------------------------------------------------------------------------------------- the option file


def test_options_become_the_schedulers(cluster):
    cluster.run("--mem", "4g", "--num-threads", "2", "--time", "1:30:00", "--gpu=1", "-l", "arch=x y", "JOB=1:2",
                "l.JOB", "true")
    (call,) = cluster.submissions()
    wanted = {"slurm.py": ["--mem=4G ", "--cpus-per-task=2 ", "--time=1:30:00 ", "--gres=gpu:1 ", "-l arch=x y "],
              "queue.py": ["-l mem_free=4G ", "-pe smp 2 ", "-l h_rt=1:30:00 ", "-l gpu=1 ", "-l arch=x y "]}
    assert all(words in call for words in wanted[cluster.launcher]), call
    assert call.count("gpu") == 1


KALDI = {
    "slurm.py": """
        command sbatch --export=PATH  --ntasks-per-node=1
        option time=* --time $0   # comment
        option mem=* --mem-per-cpu $0
        option mem=0          # Do not add anything
        option num_threads=* --cpus-per-task $0 --ntasks-per-node=1
        option num_threads=1 --cpus-per-task 1  --ntasks-per-node=1 # Do not add anything
        default gpu=0
        option gpu=0 -p shared
        option gpu=* -p gpu --gres=gpu:$0 --time 4:0:0  # in reality, we probably should have --cpus-per-task=$((6*$0))
        # note: the --max-jobs-run option is supported as a special case
        """,
    "queue.py": """
        # Default configuration
        command qsub -v PATH -cwd -S /bin/bash -j y -l arch=*64*
        option mem=* -l mem_free=$0,ram_free=$0
        option mem=0          # Do not add anything to qsub_opts
        option num_threads=* -pe smp $0
        option num_threads=1  # Do not add anything to qsub_opts
        option max_jobs_run=* -tc $0
        default gpu=0
        option gpu=0
        option gpu=* -l gpu=$0 -q g.q
        """,
}


def test_the_files_of_kaldi_are_accepted(cluster):
    (cluster.folder / "conf").mkdir()
    (cluster.folder / "conf" / "kaldi.conf").write_text(KALDI[cluster.launcher])
    cluster.run("--config", "conf/kaldi.conf", "--mem", "2G", "--num_threads", "3", "--max-jobs-run", "5", "--gpu", "1",
                "JOB=1:2", "l.JOB", "echo", "$PYTHONPATH")
    wanted = {"slurm.py": "sbatch --export=PATH --ntasks-per-node=1 --cpus-per-task 3 --ntasks-per-node=1 -p gpu "
                          "--gres=gpu:1 --time 4:0:0 --mem-per-cpu 2G --parsable",
              "queue.py": "qsub -v PATH -cwd -S /bin/bash -j y -l arch=*64* -pe smp 3 -l gpu=1 -q g.q "
                          "-l mem_free=2G,ram_free=2G -terse"}
    assert sorted(cluster.submissions()[0].partition(" --parsable")[0].partition(" -terse")[0].split()) == sorted(
        wanted[cluster.launcher].partition(" --parsable")[0].partition(" -terse")[0].split())
    assert cluster.said("l.1") == [str(ROOT)]  # whatever the command passes on


def test_the_option_file_is_words(tmp_path):
    path = tmp_path / "x.conf"
    path.write_text("command sub '$(touch a)' \"b c\" `d`\noption mem=* -m $1 -M $0\noption big_one=yes --big\n"
                    "default big-one=yes\noption mem=0\n")
    conf = cluster_conf.Conf(str(path))
    assert conf.command == ["sub", "$(touch a)", "b c", "`d`"]
    assert conf.words("mem", "4G", 3) == ["-m", "1398102K", "-M", "4G"] and conf.words("mem", "0", 3) == []
    request = launcher.parse(["--mem", "1.5G", "l", "true"])
    memory = "1572864K"
    assert cluster_conf.Settings(request, conf).words(conf, []) == [*conf.command, "-m", memory, "-M", memory, "--big"]
    with pytest.raises(launcher.UsageError, match="knows only yes for it"):
        conf.words("big-one", "no", 1)


@pytest.mark.parametrize("text,message", [
    ("option mem=* -m $0", "it has no line `command"), ("command x\noption mem", "x.conf:2: expected `command"),
    ("command x\noption mem=* 'a", "x.conf:2: No closing quotation"), ("command x\nqueue=long", "x.conf:2: expected"),
    ("command x\ndefault mem=1 2", "x.conf:2: expected"),
])
def test_a_wrong_option_file(text, message, tmp_path):
    (tmp_path / "x.conf").write_text(text)
    with pytest.raises(launcher.UsageError) as caught:
        cluster_conf.Conf(str(tmp_path / "x.conf"))
    assert message in str(caught.value)


def test_sizes_and_times():
    sizes = {"4G": "4G", "500M": "500M", "4g": "4G", "16GB": "16G", "2000": "2000M", "0": "0", "0.5G": "524288K"}
    assert {text: cluster_conf.memory(text) for text in sizes} == sizes
    times = {"30": 1800, "1:30": 90, "4:00:00": 14400, "1-0": 86400, "2-12": 216000, "1-1:30": 91800, "1-0:0:1": 86401}
    assert {text: cluster_conf.duration(text) for text in times} == times
    assert cluster_conf.as_clock(216001) == "60:00:01"
    assert cluster_scheduler.ranges([1, 2, 3, 4, 7, 9, 10]) == "1-4,7,9-10"


# ---------------------------------------------------------------------------------------------- the environment


def test_environment(cluster):
    """The submit environment, without what is of a job that the launcher itself runs in."""
    stale = {"slurm.py": "SLURM_MEM_PER_NODE", "queue.py": "SGE_TASK_LAST"}[cluster.launcher]
    words = ["a.log", "echo", f"$SOME_VALUE/${stale}/$CUDA_VISIBLE_DEVICES/$SEVERAL", "&&", "type", "-t", "exported",
             "||", "true"]
    cluster.run(*words, env={"SOME_VALUE": "a b", stale: "7", "CUDA_VISIBLE_DEVICES": "3",
                             "BASH_FUNC_exported%%": "() { echo\n}", "SEVERAL": "a\nb"})
    assert cluster.said("a.log") == ["a b///"]


def test_queue_py_does_not_stand_in_for_the_module_queue(tmp_path):
    code = "import queue, concurrent.futures.thread; print(queue.Queue.__module__, queue.Empty())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "utils", capture_output=True, text=True)
    assert done.stdout.split() == ["queue"], done.stderr


# ------------------------------------------------------------------------------------------------ lost members


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "GONE"])
def test_a_lost_member_is_submitted_again(slurm, state):
    """The other members are left alone."""
    slurm.fate(f"2 {state}")
    status, said = slurm.run("JOB=1:3", "l/x.JOB.log", "echo", "JOB", ">>", "ran", "&&", "echo", "begun", "&&", "touch",
                             "begun.JOB", "&&", "sleep", "0.4", "&&", "echo", "JOB", ">>", "ended")
    why = "VANISHED" if state == "GONE" else state
    assert len(said) == 1 and f"l/x.2.log: job 2_2 was lost ({why}) and is submitted again (1 of 1)" in said[0]
    assert sorted((slurm.folder / "ran").read_text().split()) == ["1", "2", "2", "3"]
    assert sorted((slurm.folder / "ended").read_text().split()) == ["1", "2", "3"]
    assert [re.search(r"--array=(\S+)", call)[1] for call in slurm.submissions()] == ["1-3", "2"]
    assert sorted(os.listdir(slurm.folder / "l/q")) == ["x.2.log.1", "x.sh"]
    assert "# Ended" not in (slurm.folder / "l/q/x.2.log.1").read_text()
    assert slurm.said("l/x.2.log") == ["begun"]


def test_retries_come_to_an_end(slurm):
    slurm.fate("1 NODE_FAIL", "1 NODE_FAIL", "1 NODE_FAIL")
    status, said = slurm.run("--retries", "2", "x.log", "touch", "begun.1", "&&", "sleep", "9", check=False)
    assert status == 1 and len(slurm.submissions()) == 3
    assert said[-2] == "job failed (NODE_FAIL), log is in x.log"
    assert "# Ended (code 137; NODE_FAIL) at" in (slurm.folder / "x.log").read_text()
    assert launcher.log_state(slurm.folder / "x.log", "touch begun.1 && sleep 9") == "failed"


@pytest.mark.parametrize("state,words,advice", [
    ("OUT_OF_MEMORY", "", "raise --mem"), ("TIMEOUT", "", "raise --time"), ("CANCELLED", "", "not by this launcher"),
    ("FAILED", "slurmstepd: error: StepId=1.batch exceeded memory limit (9 > 1), being killed", "raise --mem"),
])
def test_what_would_fail_again_is_not_submitted_again(cluster, state, words, advice):
    if cluster.launcher == "queue.py" and words:
        state = "OUT_OF_MEMORY"
    cluster.fate(f"1 {state} {words}")
    status, said = cluster.run("--mem", "2G", "--time", "1:00:00", "JOB=1:2", "x.JOB.log", "touch", "begun.JOB",
                               "&&", "sleep", "0.5", check=False)
    why = "OUT_OF_MEMORY" if words else state
    assert status == 1 and len(cluster.submissions()) == 1
    assert said[0].startswith(f"1 {why}: ") and said[0].endswith(advice)
    assert said[1] == f"1 / 2 failed (1 {why}), log is in x.*.log"
    text = (cluster.folder / "x.1.log").read_text()
    assert f"# Ended (code 137; {why}) at" in text and words in text


def test_a_job_that_cannot_be_started(cluster):
    """It is tried twice; its own words are in the log."""
    (cluster.state / "broken").write_text("bash: python3: command not found")
    status, said = cluster.run("x.log", "echo", "y", check=False)
    assert status == 1 and len(cluster.submissions()) == 2
    assert said[-2:] == ["job failed (VANISHED), log is in x.log",
                         "x.log says: bash: python3: command not found"]


def test_an_error_state_of_gridengine(fake_programs, tmp_path):
    """Eqw: the job would wait for ever."""
    (tmp_path / "work").mkdir()
    cluster = Cluster("queue.py", fake_programs, tmp_path / "work")
    (cluster.state / "eqw").touch()
    status, said = cluster.run("x.log", "true", check=False)
    assert status == 1 and said[-2] == "job failed (STUCK: can't chdir to /nowhere), log is in x.log"
    assert cluster.calls("qdel") == ["qdel 2.1"]


def test_slow_file_systems_get_time(slurm):
    """The scheduler has forgotten the job for a while when its exit file appears."""
    job = slurm.start("--lost-wait", "30", "x.log", "touch", "begun", "&&", "sleep", "4")
    wait_for(lambda: (slurm.folder / "begun").exists())
    (slurm.state / "state.2.1").write_text("GONE")
    assert job.wait(timeout=30) == 0 and len(slurm.submissions()) == 1
    assert (slurm.folder / "x.log").read_text().count("Ended (code 0)") == 1


def test_a_copy_that_still_runs_ends_before_another_begins(slurm):
    """A node is cut off, and its job runs on: it notices that it was given up."""
    job = slurm.start("x.log", "echo", "$$", ">>", "pids", "&&", "sleep", "$(( $(wc -l < pids) == 1 ? 60 : 1 ))")
    wait_for(lambda: (slurm.folder / "pids").exists() and (slurm.folder / "pids").read_text().strip())
    first = slurm.running()[0]
    (slurm.state / "state.2.1").write_text("NODE_FAIL")
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 0 and "was lost (NODE_FAIL)" in said
    assert len((slurm.folder / "pids").read_text().split()) == 2
    with pytest.raises(ProcessLookupError):
        os.killpg(first, 0)


def test_a_member_runs_once_however_often_it_was_submitted(tmp_path):
    """Two jobs have the same attempt: the second does nothing."""
    (tmp_path / "request.json").write_text(json.dumps({
        "line": "echo JOB >> ran", "log": str(tmp_path / "x.JOB.log"), "job_name": "JOB", "members": [7], "threads": 1,
        "nodes": 1, "scheduler": "slurm", "warn_after": None, "revoked_seconds": 5}))
    (tmp_path / "tasks.1").write_text("1 7\n")
    for job in ("5", "6", "5"):
        env = environment(SLURM_JOB_ID=job, SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID="1")
        task = [sys.executable, str(ROOT / "utils/cluster_task.py"), str(tmp_path), "1"]
        assert subprocess.run(task, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "ran").read_text() == "7\n" and (tmp_path / "claim.7.1").read_text() == "5_1"
    cluster_files.revoke(tmp_path / "claim.7.1")
    assert cluster_files.is_revoked((tmp_path / "claim.7.1").read_text())


def test_a_scheduler_that_does_not_answer(slurm):
    (slurm.state / "deaf").touch()
    job = slurm.start("x.log", "sleep", "3")
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 0 and said == "slurm.py: WARNING: slurm does not answer; waiting\n"


def test_a_busy_scheduler(cluster):
    """A submission is repeated where that helps, not where the scheduler refuses it."""
    (cluster.state / "refuse").write_text("error: unable to contact the controller: Connection refused\n")
    status, said = cluster.run("x.log", "true")
    assert "trying again in 2 s" in said[0] and len(cluster.submissions()) == 2
    (cluster.state / "refuse").write_text("error: invalid partition specified: nowhere\n")
    status, said = cluster.run("x.log", "true", check=False)
    assert status == 1 and "refuses the job: error: invalid partition specified: nowhere" in said[0]
    assert "# Ended (code 1; NOT SUBMITTED)" in (cluster.folder / "x.log").read_text()


def test_arrays_higher_than_the_cluster_allows(slurm):
    """Ids above MaxArraySize are numbered anew, in the table of the submission."""
    slurm.run("JOB=1009:1011", "x.JOB.log", "echo", "JOB")
    assert [slurm.said(f"x.{n}.log") for n in range(1009, 1012)] == [["1009"], ["1010"], ["1011"]]
    assert "--array=1-3 " in slurm.submissions()[0]


# ------------------------------------------------------------------------------ signals, and an end before the limit


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_cancel_the_jobs(cluster, number, status):
    job = cluster.start("--max-jobs-run", "2", "JOB=1:4", "l.JOB", "sleep", "100", "|", "cat")
    wait_for(lambda: all((cluster.folder / f"l.{n}").exists() for n in (1, 2)))
    pids = cluster.running()
    job.send_signal(number)
    said = job.communicate(timeout=30)[1]
    assert job.returncode == status and "Traceback" not in said and "cancelling 4 jobs" in said
    assert len(cluster.calls("scancel", "qdel")) == 1
    for pid in pids:
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    for log in ("l.1", "l.2"):
        text = (cluster.folder / log).read_text()
        assert f"was stopped by {signal.Signals(number).name}" in text and "# Ended" not in text
    assert not (cluster.folder / "l.3").exists() and leftovers(cluster) == []


def test_nohup(cluster):
    """A launcher whose terminal is closed goes on."""
    script = 'trap "" HUP; exec "$@"'
    job = subprocess.Popen(["bash", "-c", script, "-", sys.executable, str(ROOT / "utils" / cluster.launcher), "x.log",
                            "touch", "begun", "&&", "sleep", "1"], cwd=cluster.folder, env=cluster.env)
    wait_for(lambda: (cluster.folder / "begun").exists())
    job.send_signal(signal.SIGHUP)
    assert job.wait(timeout=30) == 0 and "Ended (code 0)" in (cluster.folder / "x.log").read_text()


def test_jobs_of_a_launcher_that_was_killed(cluster):
    """They go on; a second launcher does not write the same logs meanwhile, and cleans up after them."""
    words = ["JOB=1:2", "l.JOB", "echo", "JOB", ">>", "ran", "&&", "sleep", "1.5"]
    job = cluster.start(*words)
    wait_for(lambda: (cluster.folder / "ran").exists() and len((cluster.folder / "ran").read_text()) == 4)
    wait_for(lambda: list(cluster.folder.glob("q/*.run/jobs")))
    job.kill()
    job.communicate()
    status, said = cluster.run("--pick", "incomplete", *words, check=False)
    assert status == 1 and "of an earlier call write the same logs" in said[-1]
    assert re.search(r"cancel them: (scancel|qdel) \d+ \(", said[-1]) and len(said) < 12
    cluster.run("JOB=3", "l.JOB", "true")  # another log, though of the same name
    wait_for(lambda: all("Ended (code 0)" in (cluster.folder / f"l.{n}").read_text() for n in (1, 2)))
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in cluster.running()))
    (cluster.folder / "l.2").unlink()
    cluster.run("--pick", "incomplete", *words)
    assert sorted((cluster.folder / "ran").read_text().split()) == ["1", "2", "2"] and leftovers(cluster) == []


TRAINING = """
import os, signal, sys, time
path, last = "state", int(sys.argv[1])
asked = []
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))
step = int(open(path).read()) if os.path.exists(path) else 0
open("begun.%d" % step, "w").close()
while step < last:
    while not asked:
        time.sleep(0.02)
    step += 1
    with open(path, "w") as state:
        state.write(str(step))
    print("ERROR (train) saved in state; --resume continues", flush=True)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGUSR1)
print("finished")
"""


def test_a_training_saves_before_its_limit_and_goes_on(cluster):
    (cluster.folder / "train.py").write_text(TRAINING)
    job = cluster.start("--requeue", "true", "--time", "1:00", "--save-seconds", "59", "--retries", "0", "x.log",
                        "cat", "/dev/null", "|", sys.executable, "train.py", "2")
    for step in range(2):
        wait_for(lambda step=step: (cluster.folder / f"begun.{step}").exists())
        if cluster.launcher == "slurm.py":  # queue.py's jobs look at the clock themselves
            state = cluster.state / f"state.{step + 2}.1"
            wait_for(state.exists)
            os.kill(int(state.read_text().split()[1]), signal.SIGUSR1)
    said = job.communicate(timeout=60)[1].splitlines()
    assert job.returncode == 0, said
    assert [line.partition(" has saved and ")[2].partition(";")[0] for line in said] == [
        "goes on in a new job (number 2)", "goes on in a new job (number 3)"]
    assert cluster.said("x.log") == ["finished"] and sorted(leftovers(cluster)) == ["x.log.1", "x.log.2"]
    assert ("--signal=B:USR1@59" in cluster.submissions()[0]) == (cluster.launcher == "slurm.py")


def test_a_training_that_makes_no_progress_is_not_begun_for_ever(slurm):
    """It ends when it is asked to, and has saved nothing."""
    (slurm.folder / "train.py").write_text(TRAINING.replace("saved in state", "nothing in state"))
    job = slurm.start("--requeue", "true", "x.log", sys.executable, "train.py", "2")
    wait_for(lambda: (slurm.folder / "begun.0").exists())
    os.kill(slurm.running()[0], signal.SIGUSR1)
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 1 and "job failed (UNSAVED), log is in x.log" in said and "raise --time" in said


def test_requeue_has_a_limit(slurm):
    (slurm.folder / "train.py").write_text(TRAINING)
    job = slurm.start("--requeue", "true", "--requeue-limit", "0", "x.log", sys.executable, "train.py", "2")
    wait_for(lambda: (slurm.folder / "begun.0").exists())
    os.kill(slurm.running()[0], signal.SIGUSR1)
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 1 and "job failed (TOO OFTEN), log is in x.log" in said


def test_requeue_needs_a_limit_in_gridengine(fake_programs, tmp_path):
    (tmp_path / "work").mkdir()
    status, said = Cluster("queue.py", fake_programs, tmp_path / "work").run("--requeue", "true", "l", "true",
                                                                             check=False)
    assert status == 1 and "--requeue true needs a time limit of more than 120 seconds" in said[-1]


# ------------------------------------------------------------------------------------------------ several nodes


def test_a_job_of_two_nodes(slurm, tmp_path):
    """srun runs the command, with where its parts meet; the other launchers say that they cannot."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text('#!/bin/bash\necho "srun $1 $2"\nwhile [[ $1 == --* ]]; do shift; done\n'
                                           '"$@"\n')
    (tmp_path / "bin" / "srun").chmod(0o755)
    slurm.run("--num-nodes", "2", "x.log", "echo", "$MASTER_ADDR:$((MASTER_PORT > 1024))", "$VOXARK_NUM_NODES",
              env={"PATH": f"{tmp_path / 'bin'}:{slurm.env['PATH']}"})
    assert slurm.said("x.log") == ["srun --nodes=2 --ntasks=2", f"{os.uname().nodename}:1 2"]
    assert "--nodes=2 --ntasks-per-node=1" in slurm.submissions()[0]
    for name in ("run.py", "queue.py"):
        slurm.launcher = name
        status, said = slurm.run("--num-nodes", "2", "y.log", "true", check=False)
        assert status == 1 and "see slurm.py" in said[-1]
