# SPDX-License-Identifier: Apache-2.0
"""A Slurm cluster in namespaces of one machine: a head with munge and slurmctld, and nodes that have a host name, an
address, processes and shared memory of their own, so that MPI and Slurm take them for several hosts.

enter() puts the calling program itself into a namespace of processes: when it ends, however it ends, the kernel ends all of
the cluster, and the network goes with it. Nothing outside is changed. It takes root, and Slurm and munge installed.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

NODES = ("n1", "n2", "n3", "n4")
CPUS = 8
PROGRAMS = ("unshare", "ip", "munged", "slurmctld", "slurmd", "sbatch")
NAMESPACES = ("unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
SKIPPED = 77
_INSIDE = "ROLLCALL_SLURM_TEST_INSIDE"

CONFIGURATION = """\
ClusterName=rollcall
SlurmctldHost=head(10.77.0.1)
AuthType=auth/munge
# A job that was requeued waits until its credentials have expired: 120 s, unless told 5 or more.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdTimeout=4
MessageTimeout=3
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
NodeName=n[1-4] NodeAddr=10.77.0.[11-14] CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n[1-4] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=4
PartitionName=urgent Nodes=n[1-4] MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""

NODE = """
set -e
hostname {name}
mount -t tmpfs none /dev/shm
mount -t tmpfs none {folder}/tmp-{name} && mount --bind {folder}/tmp-{name} /var/tmp
while ! ip link show {name} >/dev/null 2>&1; do sleep 0.02; done
ip link set {name} name eth0
ip address add {address}/24 dev eth0
ip link set eth0 up
ip link set lo up
ip route add default via 10.77.0.1
slurmd -D & wait
"""


def run(*words, timeout=30, check=True):
    """What the program prints."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def enter():
    """Goes on inside the namespaces. Where that cannot be, says why and exits with the code for a skipped test."""
    if os.environ.get(_INSIDE):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))  # the first process of a namespace ignores it by itself
        return
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "needs root" if os.geteuid() != 0 else ""
    if not reason and subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode != 0:
        reason = "no namespaces may be made here"
    if reason:
        print(f"skipped: a real Slurm cluster: {reason}", file=sys.stderr)
        sys.exit(SKIPPED)
    os.execvpe(NAMESPACES[0], [*NAMESPACES, sys.executable, *sys.argv], {**os.environ, _INSIDE: "yes"})


class Cluster:
    """Running from its construction on. `folder` is empty and all nodes see it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._nodes = {}
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self._write_configuration()
        (self.folder / "state").mkdir()
        self._make_network()
        self._start_munge()
        subprocess.Popen(["slurmctld", "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in NODES:
            self.start_node(name)
        self.wait_for(lambda: set(self.states().values()) == {"idle"}, "every node is idle", 30)

    def _write_configuration(self, more=""):
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(folder=self.folder, cpus=CPUS) + more)

    def configure(self, more=""):
        """The usual configuration and `more`, from now on."""
        self._write_configuration(more)
        run("scontrol", "reconfigure")

    def _make_network(self):
        hosts = "127.0.0.1 localhost\n10.77.0.1 head\n" + "".join(f"{self.address(n)} {n}\n" for n in NODES)
        (self.folder / "hosts").write_text(hosts)
        run("mount", "--bind", self.folder / "hosts", "/etc/hosts")
        run("hostname", "head")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "address", "add", "10.77.0.1/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")

    def _start_munge(self):
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{option}={self.folder / file}" for option, file in files.items()]
        subprocess.Popen(["munged", "--foreground", "--force", f"--key-file={key}", *options],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_for((self.folder / "munge.socket").exists, "munge answers")

    @staticmethod
    def address(name):
        return f"10.77.0.{11 + NODES.index(name)}"

    def start_node(self, name):
        for made in (f"spool-{name}", f"tmp-{name}"):
            (self.folder / made).mkdir(exist_ok=True)
        script = NODE.format(name=name, address=self.address(name), folder=self.folder)
        with (self.folder / f"node-{name}.log").open("a") as log:
            node = subprocess.Popen([*NAMESPACES, "bash", "-c", script], stdout=log, stderr=log)
        children = pathlib.Path(f"/proc/{node.pid}/task/{node.pid}/children")
        self.wait_for(lambda: children.read_text().split(), f"{name} has a first process")
        first = int(children.read_text().split()[0])
        # A node that comes back has the hardware address that the others still know.
        run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", name, "address", f"02:00:00:00:00:{11 + NODES.index(name)}",
            "netns", first)
        run("ip", "link", "set", f"to-{name}", "master", "bridge", "up")
        self._nodes[name] = (node, first)

    def kill_node(self, name):
        """As by a power cut: first it is silent, then all its processes are gone, its daemon too."""
        node, first = self._nodes.pop(name)
        run("ip", "link", "delete", f"to-{name}")
        os.kill(first, signal.SIGKILL)
        node.wait(20)

    def shared_memory(self):
        """What lies in the shared memory of all nodes."""
        folders = [pathlib.Path("/proc", str(first), "root", "dev", "shm") for _, first in self._nodes.values()]
        return [str(path) for folder in folders for path in folder.iterdir()]

    def states(self):
        lines = run("sinfo", "-h", "-N", "-o", "%N %t").split("\n")
        return dict(line.split() for line in lines if line)

    def job(self, job_id):
        """Fields of `scontrol show job`: JobState, Restarts, ExitCode and others."""
        text = run("scontrol", "show", "job", "-o", job_id, check=False)
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)

    def state(self, job_id):
        return self.job(job_id).get("JobState", "")

    def is_off(self, job_id):
        """It runs no more. A controller that does not answer says nothing of that."""
        return self.state(job_id) not in ("", "RUNNING")

    def jobs(self):
        return run("squeue", "-h", "-o", "%i %t").split("\n")

    def wait_for_end(self, job_id, seconds=90):
        """The state in which the job has ended."""
        unfinished = ("", "PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "REQUEUED", "SIGNALING")
        self.wait_for(lambda: self.state(job_id) not in unfinished, f"job {job_id} ends", seconds)
        return self.state(job_id)

    @staticmethod
    def wait_for(condition, what, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.1)
