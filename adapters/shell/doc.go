// Package shell is the adapter that runs jobs as programs of the gateway's own
// machine, which must be Linux.
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
package shell
