"""Runs jobs that outlive whoever asked for them. It is the part of the example that
a real site does not need: there the manager does this.

As a program it reads directories of jobs from standard input, one a line, and
starts a supervisor for each, which is no child of anybody. A job's directory has

    job.json   what is to be run, written before anything else
    lock       held by the supervisor as long as it lives
    control    a FIFO: a byte written to it wakes the supervisor
    cancel     is there when the job is to be ended
    started    when the program was started, written before it is
    ended      how it ended: the last thing that is written

so that whoever looks, at any time, sees the truth: no `started`: it may be started;
`ended`: that is its end; `started` and nobody holds `lock`: its end is lost.
"""

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE = 3  # seconds between SIGTERM and SIGKILL
libc = ctypes.CDLL(None, use_errno=True)


def write(path, value):
    """Writes a JSON file that is there as a whole or not at all."""
    with open(path + ".new", "w") as f:
        json.dump(value, f)
        f.flush()
        os.fsync(f.fileno())
    os.rename(path + ".new", path)


def read(path):
    """Reads what write wrote; None when it is not there."""
    try:
        with open(path) as f:
            return json.load(f)
    except FileNotFoundError:
        return None


def lock(directory):
    """Takes the job's lock: a file to keep open, or None when another holds it."""
    try:
        f = open(os.path.join(directory, "lock"), "r+")
    except FileNotFoundError:
        return None  # the job is forgotten
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return f
    except OSError:
        f.close()
        return None


def tell(directory):
    """Tells the queue that there is news of the job, if it listens."""
    try:
        news = os.open(os.path.join(directory, "..", "..", "news"), os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.write(news, (os.path.basename(directory) + "\n").encode())
    except OSError:
        pass
    os.close(news)


class NotRun(Exception):
    """The program could not be started; the sentence says why."""


def why(error, what, path):
    sentence = {
        errno.ENOENT: "does not exist", errno.EACCES: "may not be opened", errno.ENOTDIR: "is not a directory or leads through a file",
        errno.EISDIR: "is a directory", errno.ENAMETOOLONG: "has too long a name",
    }.get(error.errno, error.strerror)
    return NotRun("%s: %s %s" % (what, path, sentence))


def find(program, path):
    """Looks a program up as execvp does, but says what is wrong with it."""
    if "/" in program:
        candidates = [program]
    else:
        candidates = [os.path.join(d or ".", program) for d in path.split(":")]
        candidates = [c for c in candidates if os.path.isfile(c) and os.access(c, os.X_OK)]
        if not candidates:
            raise NotRun("Executable: there is no program %s in the PATH of the job, %s" % (program, path))
    file = candidates[0]
    if os.path.isdir(file):
        raise NotRun("Executable: %s is a directory" % program)
    try:
        os.stat(file)
    except OSError as error:
        raise why(error, "Executable", program)
    if not os.access(file, os.X_OK):
        raise NotRun("Executable: %s is not executable" % program)
    return file


def become(job, directory):
    """Is called in the new process and becomes the job's program, or raises NotRun."""
    if job["relative"]:
        os.makedirs(job["directory"], exist_ok=True)
    try:
        os.chdir(job["directory"])
    except OSError as error:
        raise why(error, "WorkingDirectory", job["directory"])

    def opened(what, path, flags):
        try:
            file = os.open(path, flags, 0o666)
            if flags == os.O_RDONLY and os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, "")
            return file
        except OSError as error:
            raise why(error, what, path)

    os.umask(0o022)
    write_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    files = [opened("Input", job["input"], os.O_RDONLY), opened("Output", job["output"], write_flags | os.O_APPEND)]
    if job["error"] == job["output"]:
        files.append(files[1])
    else:
        files.append(opened("Error", job["error"], write_flags | os.O_APPEND))
    program = find(job["argv"][0], job["environment"].get("PATH", ""))
    for number, file in enumerate(files):
        os.dup2(file, number)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.closerange(10, 256)
    try:
        os.execve(program, job["argv"], job["environment"])
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotRun("Executable: the interpreter that %s names in its first line does not exist" % job["argv"][0])
        if error.errno == errno.ENOEXEC:
            raise NotRun("Executable: %s is no program of this machine; a script begins with #! and its interpreter" % job["argv"][0])
        raise why(error, "Executable", job["argv"][0])


def start(job, directory):
    """Starts the program: its process id. NotRun says why it could not be."""
    reader, writer = os.pipe()  # closed by execve, so that nothing on it is good news
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writer, 9, inheritable=False)
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            become(job, directory)
        except NotRun as problem:
            os.write(9, str(problem).encode("utf-8", "replace"))
        except BaseException as problem:
            os.write(9, ("the job could not be started: %r" % problem).encode("utf-8", "replace"))
        os._exit(127)
    os.close(writer)
    with os.fdopen(reader, "rb") as f:
        problem = f.read(4000)
    if problem:
        os.waitpid(pid, 0)
        raise NotRun(problem.decode("utf-8", "replace"))
    return pid


def descendants():
    """The processes below this one. Whatever a job leaves behind becomes our child."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as f:
                    fields = f.read().rpartition(") ")[2].split()
                children.setdefault(int(fields[1]), []).append(int(name))
            except OSError:
                pass
    found, open_ = [], [os.getpid()]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def signal_all(number):
    for pid in descendants():
        try:
            os.kill(pid, number)
        except OSError:
            pass


def supervise(directory):
    os.setsid()
    held = lock(directory)
    if held is None:
        return
    path = lambda name: os.path.join(directory, name)
    if os.path.exists(path("started")) or os.path.exists(path("ended")):
        return
    job = read(path("job.json"))
    if job is None:
        return
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    control = os.open(path("control"), os.O_RDWR | os.O_NONBLOCK)
    end = {"phase": "cancelled", "not_run": True}
    if not os.path.exists(path("cancel")):
        write(path("started"), time.time())
        try:
            end = watch(job, directory, control, start(job, directory) if job["argv"] else None)
        except NotRun as problem:
            end = {"phase": "stopped", "not_run": True, "reason": str(problem)}
    if not end.get("not_run"):
        end["started"] = read(path("started"))
    end["ended"] = time.time()
    write(path("ended"), end)
    tell(directory)


def watch(job, directory, control, main):
    """Waits for the end of the program and ends all that is left of it."""
    if main is None:
        return {"phase": "exited", "status": 0}  # a job that runs nothing
    tell(directory)
    limit = time.time() + job["wall_time"] if job["wall_time"] is not None else None
    cancelled, over, deadline = False, False, None
    waker, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    status, usage = None, None
    while True:
        # Reap whatever ended.
        try:
            while True:
                pid, code, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == main:
                    status, usage = code, used
        except ChildProcessError:
            break  # nobody is left
        now = time.time()
        if status is None and not cancelled and not over:
            cancelled = os.path.exists(os.path.join(directory, "cancel"))
            over = not cancelled and limit is not None and now >= limit
            if cancelled or over:
                signal_all(signal.SIGTERM)
                deadline = now + GRACE
        if status is not None or deadline is not None and now >= deadline:
            signal_all(signal.SIGKILL)
            timeout = 0.01
        else:
            timeout = min([t - now for t in (limit, deadline) if t is not None and t > now] + [60])
        ready, _, _ = select.select([control, waker], [], [], timeout)
        for file in ready:
            os.read(file, 4096)
    end = {"cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024}
    if cancelled:
        end["phase"] = "cancelled"
    elif over:
        end["phase"] = "stopped"
        end["reason"] = "WallTimeLimit: the job was ended after its %d seconds" % job["wall_time"]
    elif os.WIFSIGNALED(status):
        end["phase"], end["signal"] = "exited", signal.Signals(os.WTERMSIG(status)).name
    else:
        end["phase"], end["status"] = "exited", os.WEXITSTATUS(status)
    return end


def main():
    for line in sys.stdin.buffer:
        directory = json.loads(line)
        pid = os.fork()
        if pid == 0:
            # The supervisor is a grandchild: nobody has to wait for it.
            if os.fork() == 0:
                null = os.open("/dev/null", os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                try:
                    supervise(directory)
                finally:
                    os._exit(0)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
