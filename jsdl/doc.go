// Package jsdl is the Job Submission Description Language 1.0 (GFD.56/136) with
// its POSIX (GFD.56 §8) and HPC Profile (GFD.111) applications: typed reading,
// checking and writing.
//
// Reading is strict: what the normative schemas refuse is a Problem with file,
// line, column, element and what would be right. What is valid but cannot be
// done here is a Problem of another severity, so that servers can answer the
// right fault. Foreign elements and attributes survive reading and writing.
// The package is pure: no I/O, no clock.
package jsdl
