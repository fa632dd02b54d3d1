package shell

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/jsdl"
)

// maxRanks bounds the processes of one job on one machine.
const maxRanks = 4096

// ranks are the processes of an SPMD job (GFD.115) on this machine.
type ranks struct {
	Size    int      `json:"size"`  // of the whole job
	First   int      `json:"first"` // rank of the first process here
	Count   int      `json:"count"` // processes here
	Node    int      `json:"node"`  // which of the job's machines this is
	Nodes   int      `json:"nodes"`
	Threads int      `json:"threads,omitzero"` // that each is to make; 0 was not said
	Hosts   []string `json:"hosts,omitzero"`   // of the job's machines, in order
}

// part is what a job over several hosts has of one of them.
type part struct {
	Size  int      `json:"size"`
	First int      `json:"first"`
	Count int      `json:"count"`
	Node  int      `json:"node"`
	Hosts []string `json:"hosts"` // HOST:COUNT
	Need  int      `json:"need"`  // slots here
}

// processes says how many processes are started here, and by what.
func (p *planner) processes(string) {
	m, w, s, no := p.site, p.w, p.s, &p.refusals
	want := w.program.SPMD
	if want == nil {
		return
	}
	launcher, own := m.options.Launchers[want.Variation]
	switch reason := m.launchers[want.Variation]; {
	case !own && want.Variation != jsdl.VariationMPI:
		no.add("SPMDVariation: this site has no launcher for %s; it starts %s by itself", want.Variation, jsdl.VariationMPI)
		return
	case reason != "":
		no.add("SPMDVariation: %s", reason)
		return
	}
	r := &ranks{Node: 0, Nodes: 1, Threads: want.Threads}
	if want.ThreadsActual {
		r.Threads = s.Need
	}
	if own := w.part; own != nil {
		r.Size, r.First, r.Count, r.Node, r.Nodes, r.Hosts = own.Size, own.First, own.Count, own.Node, len(own.Hosts), own.Hosts
		s.Need = own.Need
		if want.ThreadsActual {
			r.Threads = own.Need
		}
	} else {
		m.local(w, r, s, no)
	}
	s.Ranks = r
	if own {
		m.launch(launcher, want, s)
	}
}

// local gives all processes to this machine.
func (m *site) local(w wanted, r *ranks, s *spec, no *refusals) {
	want, resources := w.program.SPMD, w.definition.Description.Resources
	exclusive := resources != nil && resources.ExclusiveExecution != nil && *resources.ExclusiveExecution
	processes := want.Processes
	if processes == 0 {
		processes = s.Need // as many as CPUs are allocated
	}
	r.Size, r.Count = processes, processes
	r.Hosts = []string{fmt.Sprintf("localhost:%d", processes)}
	if want.ProcessesPerHost > 0 && want.ProcessesPerHost < processes {
		no.add("ProcessesPerHost: %d processes, %d on each host, need more than this one machine", processes, want.ProcessesPerHost)
	}
	if processes > maxRanks {
		no.add("NumberOfProcesses: this machine starts at most %d, not %d", maxRanks, processes)
		return
	}
	need := processes * min(max(want.Threads, 1), maxSlots)
	switch {
	case exclusive: // it has every slot, and may crowd them
	case processes > m.options.Slots:
		no.add("NumberOfProcesses: this machine has %d slots, which is not enough for %d processes", m.options.Slots, processes)
	case need > m.options.Slots:
		no.add("ThreadsPerProcess: this machine has %d slots, which is not enough for %d processes of %d threads", m.options.Slots, processes, want.Threads)
	case resources != nil && resources.TotalCPUCount != nil:
		// Processes have what the job asked for in all; more of them than that are
		// refused, more threads share (GFD.115).
		if most, ok := resources.TotalCPUCount.HighestInteger(); ok && int64(processes) > most {
			no.add("NumberOfProcesses: %d processes are more than the CPUs that TotalCPUCount allows, %d", processes, most)
		}
		if n, ok := resources.TotalCPUCount.LowestInteger(int64(need)); ok && n <= int64(m.options.Slots) {
			need = int(n)
		}
		s.Need = max(s.Need, min(need, m.options.Slots))
	default:
		s.Need = max(s.Need, need)
	}
}

// launch fills in the words of a launcher's command.
func (m *site) launch(command []string, want *jsdl.SPMD, s *spec) {
	r := s.Ranks
	perHost := want.ProcessesPerHost
	var lines strings.Builder
	for _, h := range r.Hosts {
		host, count := cutHost(h)
		perHost = max(perHost, count)
		fmt.Fprintf(&lines, "%s slots=%d\n", host, count)
	}
	words := strings.NewReplacer(
		"{processes}", strconv.Itoa(r.Size), "{perhost}", strconv.Itoa(perHost), "{threads}", strconv.Itoa(max(r.Threads, 1)),
		"{hosts}", strings.Join(r.Hosts, ","), "{hostfile}", filepath.Join(m.jobs, string(s.Tag), nameHosts),
	)
	for _, word := range command {
		s.Launcher = append(s.Launcher, words.Replace(word))
	}
	s.HostFile = lines.String()
}

func cutHost(s string) (host string, count int) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, 1
	}
	count, err := strconv.Atoi(s[i+1:])
	if err != nil {
		return s, 1
	}
	return s[:i], count
}

// findLaunchers sees which commands of launchers are there.
func findLaunchers(o *Options) map[string]string {
	found := map[string]string{}
	for uri, command := range o.Launchers {
		found[uri] = ""
		if _, err := lookupIn(command[0], "/", o.Path); err != nil {
			found[uri] = fmt.Sprintf("the launcher %q for %s is not on this machine", command[0], uri)
		}
	}
	return found
}

// environment gives what one process is told of its place among the others.
func (r *ranks) environment(base []string, local int) []string {
	rank := r.First + local
	own := []string{
		fmt.Sprintf("PORTOLAN_RANK=%d", rank), fmt.Sprintf("PORTOLAN_SIZE=%d", r.Size),
		fmt.Sprintf("PORTOLAN_LOCAL_RANK=%d", local), fmt.Sprintf("PORTOLAN_LOCAL_SIZE=%d", r.Count),
		fmt.Sprintf("PORTOLAN_NODE=%d", r.Node), fmt.Sprintf("PORTOLAN_NODES=%d", r.Nodes),
		"PORTOLAN_HOSTS=" + strings.Join(r.Hosts, ","),
		fmt.Sprintf("PMI_RANK=%d", rank), fmt.Sprintf("PMI_SIZE=%d", r.Size),
	}
	out := make([]string, 0, len(base)+len(own))
	for _, v := range base {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc(own, func(o string) bool { return strings.HasPrefix(o, name+"=") }) {
			out = append(out, v)
		}
	}
	return append(out, own...)
}

// writeHosts leaves the launcher its list of hosts.
func (d jobDir) writeHosts(s *spec) error {
	if s.HostFile == "" {
		return nil
	}
	if err := os.WriteFile(d.path(nameHosts), []byte(s.HostFile), 0o644); err != nil { // the job's account reads it
		return refuse("the launcher's list of hosts could not be written: %s", why(err))
	}
	return nil
}
