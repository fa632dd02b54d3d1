// Package federation has the experiment of `make federation`, as a test: three domains in
// network namespaces of their own, bsc with a real Slurm, fiu with a real HTCondor, ibm
// with hosts over SSH, each with a gateway, its data and its etcd; the same seeded
// workload overloads each in turn, once with each domain by itself and once with all as
// peers, and then under faults.
//
//   - namespace_test.go: network namespaces, and how this process does things within them
//   - proxy_test.go: what lies between gateways: delay, cuts, resets, bandwidth
//   - domain_test.go: a domain: its manager and its gateway, and how they are ended
//   - hosts_test.go: the hosts of ibm
//   - config_test.go: a gateway's configuration
//   - clock_test.go: the program, with a clock that can be wrong
//   - workload_test.go: the jobs of a seed
//   - run_test.go: one run of them; ledger_test.go: what they wrote, and what that says
//   - report_test.go: the table
package federation
