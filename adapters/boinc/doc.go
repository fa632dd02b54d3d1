// Package boinc runs jobs on volunteers' hosts through the project server of BOINC.
//
// A gateway hands a project jobs by its remote submission interface and asks for
// them; which host runs a job, and when, is the hosts' doing. The project gives a job
// to as many hosts as its quorum says and compares what they send back; a job has
// exited here only when the project found a result to be right (the canonical one).
//
// # What runs
//
// A project runs only applications that its staff installed, so there are two ways:
//
//   - The setting wrapper names an application that runs a shell script: its main
//     program starts /bin/sh ./job.sh, it has versions for the hosts in use, and it has
//     no input template of its own. The adapter writes the job's executable, arguments,
//     environment and limits into job.sh, which leaves three files behind:
//     portolan.out and portolan.err (the streams) and portolan.status (how the program
//     ended). job.sh itself always succeeds: a program that fails is no failure of the
//     host that ran it, and is not tried on others.
//   - The setting applications maps jsdl:ApplicationName to applications whose program
//     is fixed. Arguments become the command line; the exit status is that of the
//     instance, 0 for every job that has a canonical result.
//
// # Placements
//
// Jobs of one Submit that use the same application are one batch. The name of a job is
// made from its tag; names are unique in a project for ever, so that no tag can run as
// two jobs. A batch is made in two steps (create_batch, then submit_batch into it)
// with a line in the adapter's journal before each, so that after a lost answer the
// batch's state tells what happened; and a batch that is given up is retired, after
// which no late submission can get into it.
//
// # Asking
//
// One query_batch2 asks for all open batches, for what changed since the last one;
// the details are asked only of batches in which a job ended. Everything goes through
// one budget of requests.
package boinc
