package condor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/adapters"
)

// request is what is asked of HTCondor for one job.
type request struct {
	Account      string // whose the job is
	UID, GID     int
	Commands     [][2]string // of the submit language, sorted, each once
	Requirements []string    // expressions that must all hold
	Remove       []string    // expressions any of which takes the job out of the queue
	Container    string
	Labels       [][2]string // attribute and text
	// Name is what differs between alike jobs, beside their tags.
	Name string
}

// set gives a command of the submit language; the value is in its terms already.
func (r *request) set(command, value string) {
	i, found := slices.BinarySearchFunc(r.Commands, command, func(c [2]string, k string) int { return strings.Compare(c[0], k) })
	if found {
		r.Commands[i][1] = value
		return
	}
	r.Commands = slices.Insert(r.Commands, i, [2]string{command, value})
}

// shared is what a site's jobs have in common.
type shared struct {
	executable string // the runner's path
	jobs       string // the directory of jobs
	log        string // the event log; "" with spool
	site       string // the value of My.PortolanSite
	transfer   bool
	runnerHere bool // with transfer: the runner is on the nodes
	grace      int  // seconds
}

// body writes the submit description of alike jobs, but for what is queued. Nothing in
// it comes from a job without having been quoted or judged.
func (r *request) body(s shared, batch string) string {
	var b strings.Builder
	line := func(command, value string) { fmt.Fprintf(&b, "%s = %s\n", command, value) }
	if r.Container != "" {
		line("universe", "container")
		line("container_image", escape(r.Container))
	} else {
		line("universe", "vanilla")
	}
	line("executable", escape(s.executable))
	if s.transfer {
		line("transfer_executable", fmt.Sprint(!s.runnerHere))
		line("should_transfer_files", "YES")
		line("when_to_transfer_output", "ON_EXIT")
		line("transfer_input_files", nameJob)
		line("transfer_output_files", nameEnd+", stdout, stderr")
		line("initialdir", escape(s.jobs)+"/$(tag)")
		line("arguments", `"`+RunWord+" "+sandboxWord+" "+batch+`"`)
	} else {
		line("transfer_executable", "false")
		line("should_transfer_files", "NO")
		line("initialdir", escape(s.jobs)+"/$(tag)")
		line("arguments", `"`+RunWord+" "+argument(s.jobs)+" "+batch+` $(tag)"`)
	}
	if s.log != "" {
		line("log", escape(s.log))
		line("log_xml", "true")
	}
	line("submit_event_notes", notePrefix+"$(tag) "+batch)
	line("notification", "never")
	line("getenv", "false")
	line("job_max_vacate_time", fmt.Sprint(s.grace+2)) // the runner ends a stubborn program before
	line("My.PortolanTag", `"$(tag)"`)
	line("My.PortolanBatch", quote(batch))
	line("My.PortolanSite", quote(s.site))
	for _, c := range r.Commands {
		line(c[0], c[1])
	}
	if len(r.Requirements) > 0 {
		line("requirements", escape("("+strings.Join(r.Requirements, ") && (")+")"))
	}
	if len(r.Remove) > 0 {
		line("periodic_remove", escape("("+strings.Join(r.Remove, ") || (")+")"))
	}
	for _, l := range r.Labels {
		line("My."+l[0], escape(quote(l[1])))
	}
	line("My.JobBatchName", "$(name)")
	return b.String()
}

// argument quotes a path for the new syntax of arguments (condor_submit(1)).
func argument(path string) string {
	return "'" + escape(strings.NewReplacer("'", "''", `"`, `""`).Replace(path)) + "'"
}

// queue writes what is queued: a row for each job. The last value of a row is all of
// its rest.
func queue(b *strings.Builder, tags []adapters.Tag, requests []*request) {
	b.WriteString("queue tag,name from (\n")
	for i, r := range requests {
		name := r.Name
		if name == "" {
			name = string(tags[i])
		}
		b.WriteString(string(tags[i]) + " " + escape(quote(name)) + "\n")
	}
	b.WriteString(")\n")
}

// alike is the key of jobs that can be queued together.
func (r *request) alike() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\x00%d\x00%s\x00", r.Account, r.GID, r.Container)
	for _, c := range r.Commands {
		b.WriteString(c[0] + "\x00" + c[1] + "\x00")
	}
	b.WriteString(strings.Join(r.Requirements, "\x00") + "\x01" + strings.Join(r.Remove, "\x00") + "\x01")
	for _, l := range r.Labels {
		b.WriteString(l[0] + "\x00" + l[1] + "\x00")
	}
	return b.String()
}

// notePrefix marks the note of a submission in the event log; the tag and the batch
// follow.
const notePrefix = "portolan "

// parseNote reads such a note.
func parseNote(note string) (adapters.Tag, string, bool) {
	rest, ok := strings.CutPrefix(note, notePrefix)
	if !ok {
		return "", "", false
	}
	tag, batch, ok := strings.Cut(rest, " ")
	return adapters.Tag(tag), batch, ok && adapters.Tag(tag).Validate() == nil && validBatch(batch)
}

// validBatch reports whether a name is one that newBatch makes.
func validBatch(s string) bool {
	if len(s) < 2 || len(s) > 40 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
