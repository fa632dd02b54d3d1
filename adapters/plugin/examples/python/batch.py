#!/usr/bin/python3
"""A Portolan adapter in Python: a small batch queue on this machine.

Each job is a directory below the site's; supervise.py runs it and outlives this
program, which can be killed at any time: what is in the directories is the truth,
and this program only reads it. Settings: slots, the number of jobs at once.

An adapter for a real manager has the same shape: submit writes the tag into the
manager's own record of the job, find looks for it there, status asks for many jobs
at once, and evidence is what the manager says, never a guess.
"""

import json
import math
import os
import platform
import pwd
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, HERE)

import adapter_pb2 as pb
import supervise
from portolan_plugin import Problem, log, serve

HANDLE = b"batch/1 "  # then the tag: the version comes first
TAG = re.compile(r"[A-Za-z0-9-]{1,64}\Z")
PHASES = {
    "exited": pb.PHASE_EXITED, "stopped": pb.PHASE_STOPPED, "cancelled": pb.PHASE_CANCELLED, "lost": pb.PHASE_LOST,
}
# The JSDL elements that this site honours. Every other one is refused by its name.
HONOURED = {
    "Executable", "Argument", "Input", "Output", "Error", "WorkingDirectory", "Environment", "UserName", "GroupName", "WallTimeLimit",
    "CandidateHosts", "ExclusiveExecution", "OperatingSystemType", "OperatingSystemVersion", "CPUArchitecture", "IndividualCPUSpeed",
    "IndividualCPUCount", "IndividualPhysicalMemory", "IndividualVirtualMemory", "IndividualDiskSpace", "TotalCPUCount",
    "TotalPhysicalMemory", "TotalVirtualMemory", "TotalDiskSpace", "TotalResourceCount", "FileSystem", "MountPoint", "Share",
}
LONGEST = 128 * 1024  # bytes of one argument or variable, with its NUL (Linux: MAX_ARG_STRLEN)
MOST = 1536 * 1024    # of all together: a quarter of the stack that a process may have


def unsupported(sentence):
    return Problem(pb.KIND_UNSUPPORTED, sentence)


def meets(needed, have, least=0.0):
    """Whether a number from least to have lies in a Range."""
    return any(
        (not i.HasField("lower") or i.lower < have or i.lower == have and not i.lower_excluded)
        and (not i.HasField("upper") or i.upper > least or i.upper == least and not i.upper_excluded)
        for i in needed.intervals)


def whole(needed, have):
    """Whether a whole number from 1 to have lies in a Range."""
    for i in needed.intervals:
        low = max(1, math.ceil(i.lower)) if i.HasField("lower") else 1
        if i.HasField("lower") and i.lower_excluded and low == i.lower:
            low += 1
        high = min(have, math.floor(i.upper)) if i.HasField("upper") else have
        if i.HasField("upper") and i.upper_excluded and high == i.upper:
            high -= 1
        if low <= high:
            return True
    return False


class Machine:
    """What there is here."""

    def __init__(self, directory):
        self.names = {n.lower() for n in (socket.gethostname(), socket.getfqdn(), "localhost")}
        self.name = socket.gethostname()
        self.cpus = len(os.sched_getaffinity(0))
        memory = {}
        with open("/proc/meminfo") as f:
            for line in f:
                key, _, value = line.partition(":")
                memory[key] = int(value.split()[0]) * 1024
        self.memory = memory["MemTotal"]
        self.virtual = self.memory + memory["SwapTotal"]
        self.version = platform.release()
        self.architecture = {"aarch64": "arm", "i686": "x86"}.get(platform.machine(), platform.machine())
        self.directory = directory
        self.speed = 0.0
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("cpu MHz"):
                    self.speed = max(self.speed, float(line.split(":")[1]) * 1e6)

    def disk(self):
        s = os.statvfs(self.directory)
        return s.f_bavail * s.f_frsize

    def refusals(self, needs):
        """The elements of Resources that this machine does not meet."""
        def names():
            return not needs.candidate_hosts or any(h.lower().rstrip(".") in self.names for h in needs.candidate_hosts)

        architectures = {self.architecture} | ({"x86"} if self.architecture == "x86_64" else set())
        tests = [
            ("CandidateHosts", names),
            ("ExclusiveExecution", lambda: not needs.exclusive_execution),
            ("OperatingSystem", lambda: not needs.operating_system or needs.operating_system in ("LINUX", "Not_Applicable", "Unknown")),
            ("OperatingSystemVersion", lambda: not needs.HasField("operating_system_version") or needs.operating_system_version == self.version),
            ("CPUArchitecture", lambda: not needs.cpu_architecture or needs.cpu_architecture in architectures),
        ]
        for field, element, have in (
                ("individual_cpu_speed", "IndividualCPUSpeed", lambda: self.speed),
                ("individual_physical_memory", "IndividualPhysicalMemory", lambda: self.memory),
                ("total_physical_memory", "TotalPhysicalMemory", lambda: self.memory),
                ("individual_virtual_memory", "IndividualVirtualMemory", lambda: self.virtual),
                ("total_virtual_memory", "TotalVirtualMemory", lambda: self.virtual),
                ("individual_disk_space", "IndividualDiskSpace", self.disk),
                ("total_disk_space", "TotalDiskSpace", self.disk)):
            if needs.HasField(field):
                tests.append((element, lambda f=field, h=have: meets(getattr(needs, f), h())))
        for field, element, have in (
                ("individual_cpu_count", "IndividualCPUCount", self.cpus),
                ("total_cpu_count", "TotalCPUCount", self.cpus),
                ("total_resource_count", "TotalResourceCount", 1)):
            if needs.HasField(field):
                tests.append((element, lambda f=field, h=have: whole(getattr(needs, f), h)))
        return [element for element, fits in tests if not fits()]


class Batch:
    """The adapter. self.lock guards what is in memory; files need none."""

    def __init__(self, request):
        try:
            settings = json.loads(request.settings_json)
        except ValueError as error:
            raise Problem(pb.KIND_INVALID, "settings: %s" % error)
        unknown = sorted(set(settings) - {"slots"})
        if unknown:
            raise Problem(pb.KIND_INVALID, "settings: there is no setting %s; the setting is slots" % ", ".join(unknown))
        self.machine = Machine(request.directory)
        self.slots = settings.get("slots", self.machine.cpus)
        if not isinstance(self.slots, int) or isinstance(self.slots, bool) or not 1 <= self.slots <= 10000:
            raise Problem(pb.KIND_INVALID, "slots: it must be a number from 1 to 10000, not %r" % (self.slots,))
        self.root = os.path.join(os.path.realpath(request.directory), "jobs")
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        self.user = pwd.getpwuid(os.getuid())
        self.lock = threading.RLock()
        self.jobs = {}           # tag: how it ended, or None
        self.waiting = []        # tags that are to be started, in order
        self.running = {}        # tag: when it was handed to the nursery, or found
        self.announced = set()   # tags whose start was told
        self.watchers = []
        self.placing = {}        # tag: a lock, so that one tag is placed once
        self.told, self.static, self.dynamic = (None, None), 0, 0  # of the last answer of resources
        self.closed = threading.Event()
        self.nursery = subprocess.Popen(
            [sys.executable, "-I", os.path.join(HERE, "supervise.py")], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.listen()
        self.recover()
        threading.Thread(target=self.patrol, daemon=True).start()
        log("INFO", "the queue is open with %d slots and %d jobs" % (self.slots, len(self.jobs)))

    def properties(self):
        return pb.Properties(type="batch", manager_uri="urn:portolan:example:batch", version="1", push=True)

    # ---- What may be run ----

    def check(self, definition):
        self.plan(definition, "/nonexistent")

    def plan(self, definition, directory):
        """What supervise.py is to run; raises Problem naming each element that can't be had."""
        p, needs = definition.program, definition.needs
        refused = [e for e in definition.elements if re.split("[/:]", e)[-1] not in HONOURED]
        refused += ["%s: this machine does not have it" % e for e in self.machine.refusals(needs)]
        if p.HasField("user_name") and p.user_name != self.user.pw_name:
            refused.append("UserName: jobs run as %s here, not as %s" % (self.user.pw_name, p.user_name))
        if p.HasField("group_name") and p.group_name != self.group():
            refused.append("GroupName: jobs run in the group %s here, not in %s" % (self.group(), p.group_name))
        if needs.placement.HasField("share") and needs.placement.share != "batch":
            refused.append("Share: there is none named %s; the share is batch" % needs.placement.share)
        mounts = {"ROOT": "/", "HOME": self.user.pw_dir, "TMP": directory + "/tmp", "SCRATCH": directory + "/work"}
        for fs in needs.file_systems:
            if fs.HasField("mount_point"):
                mounts[fs.name] = fs.mount_point
                if not os.path.isdir(fs.mount_point):
                    refused.append("FileSystem: %s is to be at %s, which is no directory here" % (fs.name, fs.mount_point))

        def text(element, t):
            if not t.file_system:
                return t.value
            if t.path:
                return t.path
            if t.file_system not in mounts:
                refused.append("%s: there is no file system %s here" % (element, t.file_system))
                return ""
            if ".." in t.value.split("/"):
                refused.append("%s: the path leads out of the file system %s" % (element, t.file_system))
            return mounts[t.file_system].rstrip("/") + "/" + t.value.lstrip("/") if t.value else mounts[t.file_system]

        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": self.user.pw_dir, "USER": self.user.pw_name, "LOGNAME": self.user.pw_name}
        for v in p.environment:
            environment[v.name] = text("Environment", v.value)
            if len(v.name.encode()) + 1 + len(environment[v.name].encode()) >= LONGEST:
                refused.append("Environment: the variable %s is too long for this system" % v.name)
        argv = [text("Executable", p.executable)] if p.HasField("executable") else []
        argv += [text("Argument", a) for a in p.arguments] if argv else []
        for a in argv:
            if len(a.encode()) >= LONGEST:
                refused.append("Argument: one is too long for this system")
        if sum(len(k.encode()) + len(v.encode()) + 10 for k, v in environment.items()) + sum(len(a.encode()) + 9 for a in argv) > MOST:
            refused.append("Environment and Argument: together they are too long for this system")
        work, relative = directory + "/work", True
        if p.HasField("working_directory"):
            wanted = text("WorkingDirectory", p.working_directory)
            if ".." in wanted.split("/") and not os.path.isabs(wanted):
                refused.append("WorkingDirectory: %s leads out of the job's directory" % wanted)
            relative = not os.path.isabs(wanted) or wanted.startswith(directory + "/")
            work = os.path.join(work, wanted)

        def file(element, t, otherwise):
            return os.path.normpath(os.path.join(work, text(element, t))) if t.value or t.file_system else otherwise

        plan = {
            "argv": argv, "environment": environment, "directory": work, "relative": relative,
            "input": file("Input", p.input, "/dev/null"),
            "output": file("Output", p.output, directory + "/stdout"), "error": file("Error", p.error, directory + "/stderr"),
            "wall_time": p.limits.wall_time if p.limits.HasField("wall_time") and p.limits.wall_time < 1 << 40 else None,
        }
        if refused:
            raise unsupported("; ".join(dict.fromkeys(refused)))
        return plan

    def group(self):
        import grp
        return grp.getgrgid(os.getgid()).gr_name

    # ---- Placing jobs ----

    def submit(self, jobs):
        outcomes = []
        for job in jobs:
            try:
                outcomes.append(self.place(job))
            except Problem as problem:
                outcomes.append(problem)
            except OSError as error:
                outcomes.append(Problem(pb.KIND_UNCERTAIN, "the job's directory could not be written: %s" % error))
        self.advance()
        return outcomes

    def place(self, job):
        if not TAG.match(job.tag):
            raise Problem(pb.KIND_INVALID, "a tag is made of letters, digits and '-'")
        if job.account and job.account != self.user.pw_name:
            raise Problem(pb.KIND_DENIED, "jobs run as %s here, not as the account %s" % (self.user.pw_name, job.account))
        directory = os.path.join(self.root, job.tag)
        with self.lock:
            if job.tag in self.jobs:
                return HANDLE + job.tag.encode()
            turn = self.placing.setdefault(job.tag, threading.Lock())
        with turn:
            with self.lock:
                if job.tag in self.jobs:
                    return HANDLE + job.tag.encode()
            plan = self.plan(job.definition, directory)
            plan["owner"], plan["submitted"] = job.owner, time.time_ns()
            new = directory + ".new"  # no tag has a dot
            shutil.rmtree(new, ignore_errors=True)
            for name in ("", "/work", "/tmp"):
                os.mkdir(new + name, 0o755)
            os.mkfifo(new + "/control", 0o600)
            open(new + "/lock", "w").close()
            supervise.write(new + "/job.json", plan)
            os.rename(new, directory)  # from here on it is placed, whatever happens to us
            with self.lock:
                self.jobs[job.tag] = None
                self.waiting.append(job.tag)
                self.placing.pop(job.tag, None)
        return HANDLE + job.tag.encode()

    def recover(self):
        """Learns from the directories what there is."""
        found = []
        for tag in os.listdir(self.root):
            directory = os.path.join(self.root, tag)
            if not TAG.match(tag):
                shutil.rmtree(directory, ignore_errors=True)  # was never placed, or is forgotten
                continue
            end = supervise.read(directory + "/ended")
            self.jobs[tag] = end
            if end is not None:
                continue
            if os.path.exists(directory + "/started"):
                self.running[tag] = 0
                self.announced.add(tag)
            else:
                found.append((supervise.read(directory + "/job.json")["submitted"], tag))
        self.waiting = [tag for _, tag in sorted(found)]
        self.advance()

    def advance(self):
        """Hands jobs to the nursery while there are slots."""
        with self.lock:
            while self.waiting and len(self.running) < self.slots and not self.closed.is_set():
                tag = self.waiting.pop(0)
                if self.jobs.get(tag, {}) is not None:
                    continue  # it was cancelled or forgotten
                self.running[tag] = time.monotonic()
                self.nursery.stdin.write(json.dumps(os.path.join(self.root, tag)).encode() + b"\n")
            self.nursery.stdin.flush()

    def find(self, tags):
        # A tag that is being placed just now is waited for: the answer is for good.
        found = {}
        for tag in tags:
            with self.lock:
                turn = self.placing.get(tag)
            if turn is not None:
                with turn:
                    pass
            with self.lock:
                if tag in self.jobs:
                    found[tag] = HANDLE + tag.encode()
        return found

    # ---- Evidence ----

    def tag(self, handle):
        tag = handle[len(HANDLE):].decode("ascii", "replace") if handle.startswith(HANDLE) else ""
        if not TAG.match(tag):
            raise Problem(pb.KIND_INVALID, "the handle is none of this adapter")
        return tag

    def status(self, handles):
        evidence = []
        for handle in handles:
            try:
                evidence.append(self.evidence(self.tag(handle)))
            except Problem as problem:
                evidence.append(pb.Evidence(handle=handle, problem=problem.message))
        return evidence

    def refresh(self, tag):
        """Reads how a job ended, if it did, and tells what is new."""
        with self.lock:
            if self.jobs.get(tag, {}) is not None:
                return
            directory = os.path.join(self.root, tag)
            end = supervise.read(directory + "/ended")
            news = end is not None
            if news:
                self.jobs[tag] = end
                self.running.pop(tag, None)
                self.announced.discard(tag)
                if tag in self.waiting:
                    self.waiting.remove(tag)
            elif tag not in self.announced and os.path.exists(directory + "/started"):
                self.announced.add(tag)
                news = True
            if news:
                e = self.evidence(tag, False)
                for w in self.watchers:
                    w.put(e)
        if end is not None:
            self.advance()

    def evidence(self, tag, look=True):
        if look:
            self.refresh(tag)
        e = pb.Evidence(tag=tag, handle=HANDLE + tag.encode())
        with self.lock:
            if tag not in self.jobs:
                e.phase, e.reason = pb.PHASE_LOST, "the queue does not know this job"
                return e
            end = self.jobs[tag]
        started = None
        if end is None:
            started = supervise.read(os.path.join(self.root, tag, "started"))
            e.phase = pb.PHASE_QUEUED if started is None else pb.PHASE_RUNNING
        else:
            e.phase = PHASES[end["phase"]]
            started = end.get("started")
            e.ended.FromNanoseconds(int(end["ended"] * 1e9))
            e.reason, e.signal, e.not_run = end.get("reason", ""), end.get("signal", ""), end.get("not_run", False)
            if "status" in end:
                e.exit_status = end["status"]
            e.cpu.FromNanoseconds(int(end.get("cpu", 0) * 1e9))
            e.memory = end.get("memory", 0)
        if started is not None:
            e.started.FromNanoseconds(int(started * 1e9))
            e.hosts.append(self.machine.name)
        return e

    def listen(self):
        """Hears of news through a FIFO that supervisors write tags to."""
        path = os.path.join(self.root, "..", "news")
        if not os.path.exists(path):
            os.mkfifo(path, 0o600)
        self.news = os.fdopen(os.open(path, os.O_RDWR), "rb", buffering=0)

        def hear():
            rest = b""
            while not self.closed.is_set():
                rest += self.news.read(65536)
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    try:
                        self.refresh(line.decode("ascii", "replace"))
                    except Exception as error:
                        log("ERROR", "news of %r: %r" % (line, error))

        threading.Thread(target=hear, daemon=True).start()

    def patrol(self):
        """Looks after jobs whose supervisor says nothing any more."""
        while not self.closed.wait(1):
            with self.lock:
                running = list(self.running.items())
            for tag, since in running:
                try:
                    self.inspect(tag, since)
                except Exception as error:
                    log("ERROR", "looking after %s: %r" % (tag, error))

    def inspect(self, tag, since):
        self.refresh(tag)
        with self.lock:
            if tag not in self.running:
                return
        directory = os.path.join(self.root, tag)
        held = supervise.lock(directory)
        if held is None:
            return  # the supervisor lives
        with held:
            if os.path.exists(directory + "/ended"):
                pass
            elif os.path.exists(directory + "/started"):
                supervise.write(directory + "/ended", {
                    "phase": "lost", "reason": "the job's supervisor was killed, so that its end is not known", "ended": time.time(),
                    "started": supervise.read(directory + "/started")})
            elif time.monotonic() - since > 5:
                with self.lock:  # the nursery lost it
                    self.running.pop(tag, None)
                    self.waiting.insert(0, tag)
        if self.nursery.poll() is not None:
            log("ERROR", "the nursery of jobs ended")
            os._exit(1)  # the gateway starts us again
        self.refresh(tag)
        self.advance()

    def watch(self, stopped):
        mine = queue.SimpleQueue()
        with self.lock:
            self.watchers.append(mine)

        def batches():
            try:
                while not stopped.is_set() and not self.closed.is_set():
                    batch = []
                    try:
                        batch.append(mine.get(timeout=1))
                        while len(batch) < 500:
                            batch.append(mine.get_nowait())
                    except queue.Empty:
                        pass
                    if batch:
                        yield batch
            finally:
                with self.lock:
                    self.watchers.remove(mine)

        return batches()

    # ---- Acting on jobs ----

    def cancel(self, handles):
        outcomes = []
        for handle in handles:
            try:
                self.cancel_one(self.tag(handle))
                outcomes.append(None)
            except Problem as problem:
                outcomes.append(problem)
        return outcomes

    def cancel_one(self, tag):
        self.refresh(tag)
        with self.lock:
            if tag not in self.jobs:
                raise Problem(pb.KIND_NOT_FOUND, "the queue does not know the job %s" % tag)
            if self.jobs[tag] is not None:
                return
        directory = os.path.join(self.root, tag)
        open(directory + "/cancel", "w").close()
        held = supervise.lock(directory)
        if held is not None:  # nobody supervises it: not yet, or not any more
            with held:
                if not os.path.exists(directory + "/started") and not os.path.exists(directory + "/ended"):
                    supervise.write(directory + "/ended", {"phase": "cancelled", "not_run": True, "ended": time.time()})
            self.refresh(tag)
            return
        try:  # it looks for `cancel` when it is woken, and once before it starts the program
            control = os.open(directory + "/control", os.O_WRONLY | os.O_NONBLOCK)
            os.write(control, b"!")
            os.close(control)
        except OSError:
            pass

    def output(self, handle, stream, offset):
        tag = self.tag(handle)
        plan = supervise.read(os.path.join(self.root, tag, "job.json"))
        if plan is None:
            raise Problem(pb.KIND_NOT_FOUND, "the queue does not know the job %s" % tag)
        path = plan["error"] if stream == pb.STREAM_STDERR else plan["output"]
        try:
            # A device or a FIFO would keep us for ever.
            if os.path.isfile(path) and os.path.exists(os.path.join(self.root, tag, "started")):
                with open(path, "rb") as f:
                    f.seek(max(offset, 0))
                    size = os.fstat(f.fileno()).st_size - f.tell()  # what is written so far
                    while size > 0:
                        data = f.read(min(size, 65536))
                        if not data:
                            break
                        size -= len(data)
                        yield data
        except OSError as error:
            raise Problem(pb.KIND_NOT_FOUND, "the output can't be read: %s" % error)

    def forget(self, handle):
        tag = self.tag(handle)
        self.refresh(tag)
        with self.lock:
            if tag not in self.jobs:
                return
            if self.jobs[tag] is None:
                raise Problem(pb.KIND_CONFLICT, "the job has not ended; only a job that ended can be forgotten")
            gone = os.path.join(self.root, tag + ".gone")
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(os.path.join(self.root, tag), gone)
            del self.jobs[tag]
        shutil.rmtree(gone, ignore_errors=True)

    # ---- The site ----

    def resources(self):
        m = self.machine
        with self.lock:
            running, waiting = len(self.running), len(self.waiting)
            disk = m.disk() >> 30 << 30  # in steps, as it changes all the time
            # A version grows when what it is about has changed.
            self.static += disk != self.told[0]
            self.dynamic += (running, waiting) != self.told[1]
            self.told = disk, (running, waiting)
            reply = pb.ResourcesReply(static=self.static, dynamic=self.dynamic)
        reply.environments.add(
            id="machine", operating_system="LINUX", os_version=m.version, cpu_architecture=m.architecture, cpus=m.cpus, cpu_speed=m.speed,
            memory=m.memory, virtual_memory=m.virtual, disk=disk, host_names=[m.name], nodes=1, available=1)
        reply.shares.add(
            id="batch", default=True, environments=["machine"], slots=self.slots, open=True, running=running, waiting=waiting,
            free_slots=max(0, self.slots - running))
        return reply

    def health(self):
        reply = pb.HealthReply(path="directories", version="1", offered=["directories"])
        reply.contact.GetCurrentTime()
        return reply

    def close(self):
        with self.lock:
            self.closed.set()
            self.nursery.stdin.close()
        self.nursery.wait()


if __name__ == "__main__":
    serve(Batch)
