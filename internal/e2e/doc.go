// Package e2e holds the tests that run the real program: built once, started as
// a process of its own, spoken to over real sockets, killed when it hurts most.
//
//	captured_test.go   requests of real clients, byte for byte
//	samples_test.go    the sample documents and messages, judged as their index says
//	interop_test.go    SOAP stacks that we did not write, from ?wsdl alone
//	conformance_test.go the kit against our own gateway
//	crash_test.go      SIGKILL at random moments under load, and a ledger
//	faults_test.go     what fails around a job: its status and history say so
//	domains_test.go    two gateways on one etcd cluster, and what their quiet costs it
//	peers_test.go      gateways of several domains: one is lost for good, cut off, all are killed
//	agreements_test.go promises at a real Slurm: a reservation, a deadline, a site that is killed
//	thousand_test.go   a thousand offers at once for what a hundred can have, with kills
//	hostile_test.go    messages meant to do harm, and the memory that they cost
//	bench              the four ratios of docs/performance.md
package e2e
