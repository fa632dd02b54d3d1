// Package telemetry is what an operator sees of a running gateway: metrics for
// Prometheus and a log.
//
// It is a leaf: the parts offer hooks, and the program ties a Metrics to them.
// Nothing here is global, so that two gateways in one process count apart.
package telemetry
