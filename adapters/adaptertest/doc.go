// Package adaptertest decides what an adapter is: every adapter passes Run.
//
// The first half of the suite is about placements: life cycle, tags, restarts,
// cancelling and holding in every state, evidence, many jobs at once, what a site
// says of itself and what it costs its manager. Faults takes the manager down, kills
// it, loses its answers and reuses its ids, as far as the Harness knows how. The
// half named Programs is about real programs: arguments, environment, files, limits,
// process trees; it runs for an adapter whose jobs are programs of a POSIX system
// that shares the test's files.
//
// Abilities that an adapter does not claim are skipped aloud, with the harness's
// sentence why the manager lacks them. parts.go lists the parts.
//
// Run judges within a test, Judge anywhere: `portolan adapter test` is Judge over a
// site's own plug-in. The mutants in the package's tests break one promise each, to
// prove that each part can fail.
package adaptertest
