"""What slurm.py and queue.py share: one submission for an array, its members followed by the files they write at
their end, lost members submitted again, a clean end at Ctrl-C.

The scheduler is asked seldom: the members' exit files, in a folder beside the logs, say how they ended, and one
listing of that folder is a poll. It is asked what has become of members without such a file, and why it ended one.
"""

import collections
import json
import os
import re
import shutil
import signal
import sys
import time

import cluster_conf
import cluster_files as files
import launcher
from cluster_scheduler import FINAL, GONE, LOST, SubmitError
from launcher import say

ADVICE = {
    "TIMEOUT": "over the time limit: raise --time",
    "DEADLINE": "over the deadline: raise --time",
    "OUT_OF_MEMORY": "over the memory: raise --mem",
    "CANCELLED": "cancelled or killed, not by this launcher",
    "VANISHED": "ended without an exit file (is this folder on a file system that the nodes share?)",
    "UNSAVED": "ended before the time limit without having saved: raise --time, or --save-seconds",
    "TOO OFTEN": "submitted again as often as --requeue-limit allows",
}
REASON_SECONDS = 20  # how long to ask why the scheduler has ended a member
REASON_LAG_SECONDS = 5  # how long a reason, or an exit file, may be late
CANCEL_SECONDS = 15  # how long to wait for cancelled jobs to end


class Member:
    """One job of the array as the launcher sees it."""

    def __init__(self, number, command, log):
        """``number`` is what JOB stands for."""
        self.number, self.command, self.log = number, command, log
        self.attempt = self.key = self.job = None  # attempt: the number of the submission
        self.num_lost = self.num_saved = 0
        self.kept = None  # where the log of the last attempt is
        self.verdict = None  # "done", or why it failed; "" for a status of its own
        self.begin()

    def begin(self):
        """Forget the last attempt."""
        self.exit = self.state = None  # what the exit file says, what the scheduler says
        self.gone_since = self.told_since = self.retry_at = None

    @property
    def own_end(self):
        """True if the command ended with a status of its own, not by the scheduler or a signal it may have sent."""
        return self.exit is not None and not self.exit["told"] and self.exit["code"] != 137


class Run:
    """One call of a launcher: its members and its folder."""

    def __init__(self, request, settings, scheduler, tasks):
        """Choose the names of the files; nothing is written yet."""
        self.request, self.settings, self.scheduler = request, settings, scheduler
        self.members = [Member(*task) for task in tasks]
        self.q, self.name = files.names(request)
        self.folder = files.new_folder(self.q, self.name)
        self.jobs, self.submissions = [], 0
        self.began = self.asked = time.time()
        self.silent, self.told_waiting = False, None

    def open(self):
        """The members whose end is not known."""
        return [member for member in self.members if member.verdict is None]

    def path(self, kind, member):
        """The path of a file of a member's attempt."""
        return os.path.join(self.folder, f"{kind}.{member.number}.{member.attempt}")

    # --------------------------------------------------------------------------------------------- submission

    def prepare(self):
        """Write the request and the script; members whose log cannot be written fail here."""
        for member in self.members:
            try:
                os.makedirs(os.path.dirname(member.log) or ".", exist_ok=True)
                with open(member.log, "a", encoding="utf-8"):
                    pass
                os.unlink(member.log)
            except OSError as error:
                say(f"cannot start the job of {member.log}: {error.filename}: {error.strerror}")
                member.verdict = ""
        if not self.open():
            return
        os.makedirs(self.folder)
        request, settings = self.request, self.settings
        files.write_once(os.path.join(self.folder, "request.json"), json.dumps({
            "line": launcher.command_line(request.words), "log": request.log, "job_name": request.job_name,
            "members": [member.number for member in self.members], "threads": settings.threads,
            "nodes": settings.nodes, "scheduler": self.scheduler.name, "warn_after": self.scheduler.warn_after(),
            "revoked_seconds": settings.revoked_seconds,
        }))
        self.script = os.path.join(self.q, f"{self.name}.sh")
        files.write_once(self.script, files.script_text(request))

    def submit(self, members):
        """Submit members, as one array as a rule; those that are refused have failed."""
        by_number = {member.number: member for member in members}
        for part in self.scheduler.parts(sorted(by_number)):
            self.submissions += 1
            attempt = str(self.submissions)
            files.write_once(os.path.join(self.folder, f"tasks.{attempt}"),
                             "".join(f"{task} {number}\n" for task, number in part))
            chosen = [by_number[number] for _, number in part]
            for member in chosen:
                member.begin()
                member.attempt = attempt
            try:
                job = self.scheduler.submit([self.script, self.folder, attempt], [task for task, _ in part], self.name,
                                            os.path.join(self.folder, "out"), f"{os.getcwd()} {self.request.log}")
            except SubmitError as error:
                say(f"ERROR: {error}")
                for member in chosen:
                    member.key = None
                    self.fail(member, "NOT SUBMITTED", 1, str(error))
                continue
            self.add_job(job)
            for task, number in part:
                by_number[number].job, by_number[number].key = job, self.scheduler.key(job, task)
        self.began = self.asked = time.time()

    def add_job(self, job):
        """Note the id of a job of this run, for a launcher that comes after this one was killed."""
        self.jobs.append(job)
        files.write_once(os.path.join(self.folder, "jobs"), "".join(f"{job}\n" for job in self.jobs))

    # --------------------------------------------------------------------------------------------- following

    def follow(self, bell):
        """Submit, and wait for the members to end; return a stop status or None."""
        self.submit(self.open())
        while self.open() and bell.number is None:
            bell.wait(self.wait_seconds())
            self.collect()
            self.ask_if_due()
            for member in self.open():
                self.judge(member)
            again = [member for member in self.open() if member.retry_at and time.time() >= member.retry_at]
            if again and bell.number is None:
                self.submit(again)
        return self.stop(bell) if bell.number is not None else None

    def wait_seconds(self):
        """A poll waits for a twentieth of the time that has passed, 0.2 to 10 seconds."""
        if any(member.gone_since or member.told_since or member.retry_at for member in self.open()):
            return 0.5
        return min(10.0, max(0.2, 0.05 * (time.time() - self.began)))

    def collect(self):
        """Read the exit files that are new."""
        try:
            names = set(os.listdir(self.folder))
        except OSError:
            return  # the file system does not answer
        for member in self.open():
            path = self.path("done", member)
            if member.exit is None and os.path.basename(path) in names:
                try:
                    member.exit = json.loads(files.read(path))
                except ValueError:
                    continue  # not whole yet on this machine
                member.gone_since = None

    def ask_if_due(self):
        """Ask the scheduler now and then, and sooner where it has to say why it ended a member."""
        members = self.open()
        due = min(self.settings.query_seconds, max(10, (time.time() - self.began) / 2))
        if any(member.told_since or member.gone_since for member in members):
            due = min(due, 2)
        if not members or time.time() - self.asked < due:
            return
        self.asked = time.time()
        states = self.scheduler.ask(sorted({member.job for member in members}))
        if states is None:
            if not self.silent:
                say(f"WARNING: {self.scheduler.name} does not answer; waiting")
            self.silent = True
            return
        self.silent = False
        for member in members:
            member.state = states.get(member.key, GONE)
            if member.state.phase != "gone":
                member.gone_since = None
            elif member.exit is None and member.retry_at is None:
                member.gone_since = member.gone_since or time.time()
        self.ask_history([member for member in members if member.gone_since or member.told_since])
        self.say_what_waits(members)

    def ask_history(self, members):
        """Ask accounting about members that are gone for a reason that is not known."""
        wanted = [member for member in members if member.state.phase == "gone" and member.state.reason not in FINAL]
        found = self.scheduler.history(sorted({member.job for member in wanted})) if wanted else {}
        for member in wanted:
            if found.get(member.key):
                member.state = GONE._replace(reason=found[member.key])

    def say_what_waits(self, members):
        """Say once why all members wait: some wait for ever."""
        text = ", ".join(sorted({member.state.reason for member in members if member.state.reason}))
        if text and text != self.told_waiting and all(member.state.phase == "waiting" for member in members):
            say(f"{len(members)} jobs of {' '.join(self.jobs)} wait: {text}")
            self.told_waiting = text

    # ---------------------------------------------------------------------------------------------- verdicts

    def judge(self, member):
        """Decide what has become of a member, where that is known by now."""
        now = time.time()
        if member.own_end:
            if member.retry_at:  # the copy that was given up has ended by itself in the last moment
                os.replace(member.kept, member.log)
            self.judge_own_end(member)
        elif member.retry_at:
            if member.exit is not None:  # the copy that was given up has ended: nothing to wait for
                member.retry_at = now
        elif member.exit is not None:
            member.told_since = member.told_since or now
            waited, reason = now - member.told_since, self.reason(member)
            known = member.state is not None and member.state.phase == "gone" and waited >= self.lag()
            if reason or known or waited >= REASON_SECONDS:
                self.judge_loss(member, reason)
        elif member.state is not None and member.state.phase == "stuck":
            self.scheduler.cancel([member.key])
            self.fail(member, f"STUCK: {member.state.reason}", 137)
        elif member.gone_since is not None:
            reason = self.reason(member)
            sure = reason in FINAL and (self.scheduler.sure or reason != "NODE_FAIL")
            patience = self.lag() if sure else self.settings.lost_wait
            if now - member.gone_since >= patience and not self.found_after_all(member):
                self.judge_loss(member, reason or "VANISHED")

    def lag(self):
        """How long what a scheduler says may lag behind the end of a job."""
        return min(REASON_LAG_SECONDS, self.settings.lost_wait)

    def judge_own_end(self, member):
        """A command that ended with a status of its own."""
        outcome = member.exit
        if outcome["code"] == 0:
            member.verdict = "done"
        elif not (self.settings.requeue and outcome["warned"]):
            member.verdict = ""
        elif files.has_saved(member.log, outcome["start"]):
            self.go_on(member)
        else:  # of the signal, or for another reason
            self.fail(member, "UNSAVED" if outcome["code"] in (138, 140) else "", outcome["code"])

    def judge_loss(self, member, reason):
        """A member that the scheduler ended or lost for a reason; "" if none could be found."""
        outcome = member.exit
        saved = outcome is not None and files.has_saved(member.log, outcome["start"])
        if self.settings.requeue and saved and reason not in ("", "CANCELLED"):
            self.go_on(member)
        elif reason in LOST and member.num_lost < self.settings.retries:
            member.num_lost += 1
            self.again(member, f"was lost ({reason}) and is submitted again ({member.num_lost} of "
                               f"{self.settings.retries})")
        else:
            self.fail(member, reason, outcome["code"] if outcome else 137)

    def reason(self, member):
        """The reason why a member was ended: what the daemons wrote, the scheduler's or accounting's; or ""."""
        said = files.said_by_daemons(self.output(member))
        if said not in ("", "CANCELLED"):  # which they write in other cases, too
            return said
        state = member.state
        if state is None or state.phase != "gone":
            return ""
        return state.reason if state.reason in FINAL else said

    def output(self, member):
        """What the job itself and the daemons wrote, outside of the log."""
        task = re.split(r"[_.]", member.key)[-1]
        return files.read(os.path.join(self.folder, f"out.{member.job}.{task}"), 65536)

    def found_after_all(self, member):
        """Look again, with care: the attempt may run under another job's name, or its log may have an end."""
        files.touch(self.folder)
        self.collect()
        if member.exit is not None:
            return True
        key = files.read(self.path("claim", member)).partition("\n")[0]
        if not key:
            return False
        if key != member.key:  # a submission that seemed to fail was taken all the same
            member.key, member.job, member.gone_since = key, re.split(r"[_.]", key)[0], None
            self.add_job(member.job)
            return True
        state = launcher.log_state(member.log, member.command)
        if state == "incomplete" or f" job {key})" not in files.read(member.log, 65536):
            return False
        member.verdict = "done" if state == "done" else ""
        return True

    # ---------------------------------------------------------------------------------- what follows from them

    def go_on(self, member):
        """A training that was told to end, and has saved, goes on in a new job."""
        if member.num_saved >= self.settings.requeue_limit:
            self.fail(member, "TOO OFTEN", member.exit["code"])
        else:
            member.num_saved += 1
            self.again(member, f"has saved and goes on in a new job (number {member.num_saved + 1})")

    def again(self, member, text):
        """Have a member submitted again. A copy that may still run gets time to notice that it is given up."""
        wait = 0
        if member.exit is None:
            wait = self.settings.revoke_wait
            files.revoke(self.path("claim", member))
            self.scheduler.cancel([member.key])
        self.close_log(member)
        member.kept = os.path.join(self.q, f"{os.path.basename(member.log)}.{member.num_lost + member.num_saved}")
        os.replace(member.log, member.kept)
        say(f"{member.log}: job {member.key} {text}; its log so far is {member.kept}")
        member.retry_at = time.time() + wait
        member.gone_since = member.told_since = None

    def fail(self, member, reason, code, said=""):
        """A member that has failed, as a rule for a reason outside of its command; ``said`` are words for its log."""
        member.verdict = reason
        self.close_log(member, reason, code, said)

    def close_log(self, member, reason="", code=None, said=""):
        """Copy what the daemons wrote to the log and, with ``code``, write its end, where it has none."""
        text = ""
        if not os.path.exists(member.log):
            text = f"{launcher.comment(member.command)}\n# Job {member.key or '(none)'} has not begun\n#\n"
        said = (said or self.output(member)).splitlines()
        text += "".join(f"{line}\n" for line in list(dict.fromkeys(said))[-20:])
        if launcher.log_state(member.log, member.command) != "incomplete":
            text += f"# {reason}\n" if reason else ""
        elif code is not None:
            text += launcher.log_end(code, f"; {reason}" if reason else "", self.seconds(member), self.settings.threads)
        with open(member.log, "a", encoding="utf-8", errors="surrogateescape") as log:
            log.write(text)

    def seconds(self, member):
        """How long a member has run, by the exit file, or else since the job claimed it."""
        if member.exit is not None:
            return member.exit["seconds"]
        try:
            return max(0, time.time() - os.path.getmtime(self.path("claim", member)))
        except OSError:
            return 0

    # --------------------------------------------------------------------------------------------------- the end

    def stop(self, bell):
        """Cancel what is left, wait for a while, say so in the logs; return the exit status."""
        number, bell.number = bell.number, None
        left = [member for member in self.open() if member.key]
        say(f"stopped by {signal.Signals(number).name}: cancelling {len(left)} jobs of {' '.join(self.jobs)}")
        self.scheduler.cancel(sorted({member.job for member in left}))
        deadline, wait = time.time() + CANCEL_SECONDS, 0.2
        while left and time.time() < deadline and bell.number is None:
            bell.wait(wait)
            self.collect()
            left = [member for member in left if member.exit is None]
            states = self.scheduler.ask(sorted({member.job for member in left})) if left else {}
            if states is not None:
                left = [member for member in left if states.get(member.key, GONE).phase != "gone"]
            wait = min(3.0, 1.5 * wait)
        for member in self.open():
            if os.path.exists(member.log) and launcher.log_state(member.log, member.command) == "incomplete":
                launcher.note_killed(member.log, number)
        if left:
            say(f"{len(left)} jobs have not ended yet; their folder is {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return 128 + number

    def end(self):
        """Remove the folder of the run; return the logs of members that failed, in order, and why, in words."""
        shutil.rmtree(self.folder, ignore_errors=True)
        failed = [member for member in self.members if member.verdict != "done"]
        reasons = collections.Counter(member.verdict for member in failed if member.verdict)
        for reason in reasons:
            if reason in ADVICE:
                say(f"{reasons[reason]} {reason}: {ADVICE[reason]}")
        why = ", ".join(f"{count} {reason}" if len(self.members) > 1 else reason for reason, count in reasons.items())
        return [member.log for member in failed], f" ({why})" if why else ""


def pause(bell, seconds):
    """Wait; returns False, and at once, if a signal asks the launcher to stop."""
    deadline = time.time() + seconds
    while bell.number is None and time.time() < deadline:
        bell.wait(deadline - time.time())
    return bell.number is None


def main(scheduler_class, doc, variable, conf_name):
    """Parse, submit, follow, report; return the exit status."""
    try:
        request = launcher.parse(sys.argv[1:])
        if "help" in request.options:
            print(doc)
            return 0
        conf = cluster_conf.Conf(cluster_conf.find(request.options.get("config"), variable, conf_name))
        settings = cluster_conf.Settings(request, conf)
        scheduler = scheduler_class(settings)
        scheduler.words = settings.words(conf, request.passed)
        tasks, failed = launcher.choose(request)
        run = Run(request, settings, scheduler, tasks)
        files.refuse_leftovers(request, run.q, run.name, scheduler)
    except launcher.UsageError as error:
        print(launcher.short_help(doc), file=sys.stderr)
        say(f"ERROR: {error}")
        return 1
    bell, why = launcher.Bell(), ""
    scheduler.pause = lambda seconds: pause(bell, seconds)
    if tasks:
        run.prepare()
        status = run.follow(bell) if run.open() else None
        if status is not None:
            return status
        newly_failed, why = run.end()
        failed += newly_failed
    if failed:
        launcher.report(request, failed, why)
    return 1 if failed else 0
