// Package adaptertest decides what an adapter is: every adapter passes Run.
//
// The first half of the suite is about placements: life cycle, tags, restarts,
// cancelling, evidence. The second is about real programs: arguments,
// environment, files, limits, process trees; it runs for an adapter whose jobs are
// programs of a POSIX system that shares the test's files. Abilities that an
// adapter does not claim are skipped aloud.
package adaptertest
