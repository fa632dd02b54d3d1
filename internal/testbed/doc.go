// Package testbed brings up real local managers for tests, each below a directory of
// its own and on ports of its own, and ends them with whatever they started: when the
// test ends, or when its process dies.
package testbed
