// Package slurm is the adapter that runs jobs at a Slurm cluster.
//
// # Ways
//
// There are two ways to Slurm: its commands (sbatch, squeue, scancel, scontrol, sacct),
// and slurmrestd in the versions of its interface for which there is a mapping with a
// test. The best one that works is used, and Health says which, and why not a better.
// What slurmrestd's interface can't say is left to the commands where they are there.
// All requests wait for the site's budget (requestsPerSecond).
//
// # The spool
//
// Gateway and nodes share a directory, the spool:
//
//	jobs/TAG/          a job
//	  job              what is to be run, written before Slurm hears of it
//	  start            made by who begins the job, or by the gateway when it withdraws
//	                   it; it can be made only once, so that a job never runs twice
//	  end              how the program ended, by the runner
//	  final            the last evidence, by the gateway
//	  cancel           the gateway wants the job to end
//	  stdout, stderr, work, tmp, scratch, fs
//	batches/NAME.members, NAME.job   what was submitted at once, and its id at Slurm
//	events/TAG.s, TAG.e              a job has started, has ended: a hint
//	logs/NAME          what the batch script itself had to say
//	bin/portolan-HASH  the runner
//
// It must be reachable for the accounts that jobs run as (mode 0711 is enough).
//
// # The runner
//
// What Slurm runs on a node is a script of one line that starts the runner, a copy of
// this program (RunMain): nothing of a job passes through a shell or an option. The
// runner claims the job, starts its program as the shell adapter does, keeps its POSIX
// limits and its wall time to the second, and records its end exactly: Slurm's accounting
// can't tell a signal from an exit status above 128, and forgets.
//
// # Submission
//
// Alike jobs of one call of Submit become an array. A job's name at Slurm is that of its
// batch, portolan.INSTANCE.TAG.RANDOM, with the tag of its first member: the one field
// by which both squeue and sacct find jobs. Members and batch are on disk before sbatch
// is run, and sbatch dies with the gateway; so whatever is interrupted, Find can tell. If
// Slurm does not know a batch, and has answered for a while since the time in which it
// may have been working on it, its jobs are withdrawn by making their start files: a job
// that turns up later after all runs nothing, and is ended.
//
// # State
//
// One request lists all jobs, however many there are and whoever asks. Beside that,
// runners leave events, which are watched, and so does Slurm itself where its
// administrator installs the hook (see Hook): these make it ask at once. A program that
// ended by itself is known by the runner's word alone. Ends that others brought about
// (time, memory, cancelling, nodes) wait for Slurm's word.
//
// A controller that is killed forgets what happened in its last seconds. Jobs that it
// lost before they began are submitted again; those that run, run on, and their ends are
// known from the runner; those that it would start again are held until they end.
package slurm
