// Package bench measures the gateway against the least that its work could cost
// on the same machine, in one run:
//
//	go test -run '^$' -bench Ratios -benchtime 1x ./internal/e2e/bench
//
// Each ratio's two sides take turns, so that what else the machine does falls on
// both. docs/performance.md says what the numbers mean and where the time goes.
package bench
