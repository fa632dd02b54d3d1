// Package condor is the adapter for HTCondor.
//
// # Submission
//
// What a job runs, with its arguments, environment, files and limits, is written into
// its directory, and HTCondor starts the runner there (RunMain, a process of this same
// program), which does the rest: no string of a job's passes through the submit
// language or a shell, but for names and labels, and expressions that the pool judged.
// Jobs that ask HTCondor for the same are one cluster, one call of condor_submit, and
// each still its own job. Before condor_submit is called, what it is to do is written
// down; what came of it is settled by the event log or, when in doubt, by one query.
// A job's directory is claimed once: a submission that was given up and appears all
// the same runs nothing.
//
// # State
//
// All jobs of an account share an event log, which is watched; nothing asks the queue
// about a job. What ended, and how, is what the runner recorded in the job's directory,
// or else what the log says. Only after a restart, a lost answer or a damaged log the
// queue and then the history are asked, once for everything that is open. A job that
// HTCondor holds is Held with the reason in words; one that it holds for good, as the
// job itself is wrong, is taken out of the queue and is Stopped (the setting holds).
//
// With the setting spool, for a schedd that is elsewhere, there is no log at hand: one
// query for all jobs is made every poll, and files are fetched when a job has ended.
//
// # Files
//
// Nodes are to share the directory of jobs with the gateway (the setting directory).
// With the setting transfer HTCondor carries a job's directory to its node and back:
// then its program and the files that it names are the node's, its outputs appear when
// it has ended, and it can have no directories beside its working directory.
//
// # Accounts
//
// HTCondor runs no job as root. A gateway that is root submits as the account that the
// job's owner is mapped to, else as the one of the setting account, else as HTCondor's
// own (CONDOR_IDS). That account must be able to enter the directory of jobs; where it
// may not enter the site's own directory, jobs live below /var/tmp. The gateway's
// account must be one of the pool's QUEUE_SUPER_USERS to steer jobs of others.
//
// # Several processes
//
// A job runs on one machine. The processes of an SPMD application are started by the
// runner, each with PORTOLAN_RANK and PORTOLAN_SIZE (and PMI_RANK and PMI_SIZE), or by
// the launcher that the settings name for its variation; they have request_cpus for
// all of them. The parallel universe is not used.
package condor
