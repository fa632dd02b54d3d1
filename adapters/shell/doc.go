// Package shell is the adapter that runs jobs as programs of the gateway's own
// machine, which must be Linux, or of several machines that SSH reaches (see Hosts
// below).
//
// It has two halves. The Adapter lives in the gateway: it takes jobs, queues
// them, and hands each to a supervisor when a slot is free. A supervisor is a
// process of the same binary (SuperviseMain) that runs one job at a time, in a
// session of its own, and outlives the gateway: it starts the program, holds its
// process tree together, keeps its limits, and records its end.
//
// A job is a directory, Dir/jobs/TAG:
//
//	job      one file, there whole before the job exists under its name. Its
//	         first block says who began the job and when, its second takes the end,
//	         and the rest is what is to be run. Both blocks are there from the
//	         start, so that a disk which the job has filled still takes its exit
//	         status. Who begins or ends a job holds an exclusive lock (flock) on the
//	         file, and begins only what nobody has begun or ended: a tag is never
//	         started twice.
//	stdout, stderr   where the job names no files
//	work, tmp, scratch, fs   its directories, made when needed
//	private0, private1       what it sees as /tmp and /var/tmp, in a sandbox
//	hosts                    the list of hosts for a launcher of SPMD jobs
//
// Gateway and supervisor talk over a socket. When the gateway dies, an idle
// supervisor ends and a busy one goes on; the next gateway finds it by the job's
// file and connects again. When a supervisor dies, the socket closes, the
// gateway ends what is left of the job's tree and records the job as Lost.
//
// A job ends when its main process ends. What else is then left of its tree is
// killed.
//
// # Durability
//
// The death of any process loses nothing, as everything is in the kernel's hands
// by then. Against the death of the machine, Submit syncs the directory of jobs
// once a batch, so that placed tags are known after it; no job of before is then
// started, since its state may be gone while its effects are not.
//
// # Trees
//
// With cgroups of version 2, where the gateway may make some, the tree is a
// cgroup: killed, frozen and thawed by one write. With the freezer of version 1
// the same is done in steps. Without either, the supervisor is the tree's
// subreaper and walks it. Memory and process limits need the memory and pids
// controllers of either version. A service manager that kills a whole cgroup when
// the gateway stops (systemd: KillMode=control-group) also kills the jobs; use
// KillMode=process and Delegate=yes.
//
// # Limits
//
// POSIX limits are set on the program when it is loaded and before its first
// instruction, which needs the right to trace a child. They are soft and hard
// alike, but for CPU time, whose hard limit is a second later so that the program
// can be told apart that ran out of it. Time in suspension counts as wall time.
//
// Memory is limited by the memory controller alone. Without one the limit is refused
// by name: RLIMIT_AS counts what is mapped and not what is used, and whoever looks at
// the accounts now and then comes too late. A job that the kernel killed for want of
// memory is Stopped and the limit named; one that anybody else killed is Exited by
// SIGKILL: the cgroup counts the kernel's own kills (memory.events, memory.oom_control).
//
// # Accounts and sandboxes
//
// A job runs as the account that its owner is mapped to, or that it names itself and
// the settings allow; only root can do this. What the job names (files, directories,
// the program) is then opened with that account's rights, not the gateway's, and an
// output is read back only if it is the account's. The job's directory is its account's
// alone. No privileges are gained under no_new_privs, which the supervisor takes on
// itself; a private /tmp and a network of one's own are the supervisor's thread's, made
// anew for each job. An ordinary account gets them by a user namespace of the
// supervisor's. What the settings promise and the machine has not, makes Check refuse
// every job, and Health say so.
//
// # SPMD
//
// The processes of an SPMD job (GFD.115) are started one beside the other, each in
// the job's working directory, with the whole of Input for itself. Each is told its
// place: PORTOLAN_RANK and PORTOLAN_SIZE, PORTOLAN_LOCAL_RANK and PORTOLAN_LOCAL_SIZE on
// its machine, PORTOLAN_NODE and PORTOLAN_NODES of machines, PORTOLAN_HOSTS
// (HOST:COUNT,…), PMI_RANK and PMI_SIZE, and OMP_NUM_THREADS if ThreadsPerProcess was
// given. Their outputs come together line by line; only a line beyond 64 KiB may be cut.
// The first that fails ends the others, and its status is the job's. This is what the
// variation MPI gets; programs that are linked with an MPI library need its launcher,
// which the settings name by variation (launchers). A launcher runs as the job's one
// process, with the program after it.
//
// # Hosts
//
// A site of hosts keeps its queue in the gateway and gives a job to a host only when
// there is room. On each host an agent, started through SSH, is the adapter there: so
// a job there is what it is here, outlives connection, agent and gateway, and is adopted
// by the next. The agent is this program, copied by SFTP under the name of its hash,
// or one that is there already. Where a job is to run is on disk before the host
// hears of it, and a tag is a directory there: what was sent twice is done once, and a
// host that comes back is asked for all that it should have. Until then its jobs are
// Unknown. SSH is spoken by this process (golang.org/x/crypto/ssh), which bounds and
// interrupts it as it must; host keys must be in the file of known hosts. On a host
// whose login manager ends what a session leaves behind (KillUserProcesses=yes), the
// account must be allowed to linger.
//
// The processes of one SPMD job may be spread over hosts. Each host merges its own;
// across hosts whole lines are taken in turns as they are read, in an order that is
// kept. Files that such a job names are each host's own.
package shell
