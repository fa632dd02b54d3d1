// Package jsdl is the Job Submission Description Language 1.0 (GFD.56/136) with
// its POSIX (GFD.56 §8), HPC Profile (GFD.111) and SPMD (GFD.115) applications and
// our own extension Placement (placement.xsd): typed reading, checking and writing.
//
// Reading is strict: what the normative schemas refuse is a Problem with file,
// line, column, element and what would be right. What is valid but cannot be
// done here is a Problem of another severity, so that servers can answer the
// right fault. Foreign elements and attributes survive reading and writing.
// The package is pure: no I/O, no clock.
//
// The schemas stand here as tables (core.go, application.go, spmd.go, placement.go,
// known.go), one for each complex type, and one walker (walk.go) obeys them; rules.go
// has what only the prose says and lenient.go what real documents are forgiven on
// request. For managers, elements.go names what a job uses, and request.go turns
// ranges into numbers.
// Where the verdict of this package and that of a validator with the normative
// schemas differ, this package is the stricter: rules.go lists how. It does not
// look into the tokens of WS-Security, and takes xsi:type for granted.
package jsdl
