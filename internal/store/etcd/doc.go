// Package etcd is the store in etcd: embedded in the process, with its data in a
// directory and no socket opened, or a cluster that is reached by its endpoints.
//
// # Keys
//
// All are below /portolan/v1/; what strangers choose is escaped or hashed.
//
//	schema                    the version of this layout, checked at every start
//	job/i/<hash>/<newest>     a job's immutable part: owner, name, first history line,
//	                          the document when it is small; below its owner's hash,
//	                          the id inverted so that a range gives the newest first
//	job/l/<shard>/<newest>    the status of a job that is not final, spread over 64
//	                          shards; what Live reads
//	job/f/<newest>            the status of a final job
//	doc/<id>/<sum>/<n>        the parts of a larger document
//	history/<id>/<sequence>   the lines that one update appended
//	submission/<hash>/<text>  the job that an owner's SubmissionId made
//	replica/<name>            a session, under a lease
//	setting/<name>
//	r/<key>                   a record: 16 bytes that name its write, then the value;
//	                          under its session's lease if it is bound to it
//
// Of a store with a Domain, all but the schema is below /portolan/v1/domain/<name>/
// instead, so that several gateways share a cluster and see nothing of each other; what
// they do share are records below /portolan/v1/r/, which Shared gives.
//
// A job's creation writes two keys and one for its SubmissionId; an update one for
// the status and one for its history lines.
//
// # Commits
//
// Create and Update wait in one queue. Whatever waits while a transaction is on
// its way goes into the next one together; nothing waits for a timer. Each write
// is a set of comparisons and puts; all of a batch are tried as one flat
// transaction, and if any comparison fails, as nested ones that succeed or fail
// each by itself. Every write can be repeated: when an answer is lost it is sent
// again, and what it finds tells whether the first one had arrived.
//
// # Space
//
// etcd ends the process when its disk is full. So the store asks before each
// batch how much is free, and refuses new jobs at Options.ReserveBytes and all
// writes at half of it; blocks are set aside in the database's file, as etcd sets
// them aside in its log, so that what was accepted can be written even when
// somebody else takes the rest of the disk. New jobs are also refused when a
// tenth of the quota is left, so that jobs that exist can be brought to their
// end; then old revisions are compacted and the file is defragmented (which holds
// up everything for about a second a gigabyte, and is done only then), and the
// alarm is taken back when that helped. Old revisions are compacted every
// Options.CompactionInterval; history lines are keys, and stay.
//
// Of an external cluster, compaction, quota and disks are its operator's matter;
// an alarm it raised is reported by Health.
package etcd
