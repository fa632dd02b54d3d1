package boinctest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// Program says what an application runs on a host.
type Program struct {
	// Kind is "shell": /bin/sh ./job.sh with the command line's words, its streams in
	// the files stdout and stderr, and any failure shown as 195, as the stock wrapper
	// does. "capture" is the same, but its exit status goes to the file exitcode and
	// the instance succeeds. "native" runs Path with the words, and its exit status is
	// the instance's. "" runs Go, a function of this process.
	Kind string
	Path string
	Go   func(dir string, args []string) (exit int, stderr string) `json:"-"`
}

// Contact is what a host tells the scheduler.
type Contact struct {
	Host    Host
	Holding []string // results it has not reported yet
	Want    int      // instances
	Reports []Report
}

// Report is how an instance ended on a host.
type Report struct {
	Result        string
	ExitStatus    int
	ClientState   int
	CPU, Elapsed  float64
	ClientVersion string // "7.20.5" when empty
	Message       string // of the client, about a failure
	StderrTxt     string // of the application's main program
	Files         map[int][]byte
	Credit        float64
	Time          int64 // when it was received; 0 is now
}

// Answer is what the scheduler tells a host.
type Answer struct {
	Work  []Assignment
	Abort []string // results to be given up
	Done  []string // reports that were taken
}

// Assignment is an instance sent to a host.
type Assignment struct {
	Result   string
	App      string
	Version  int
	Program  Program
	Command  string
	Inputs   []Input
	Outputs  []Output
	Limits   Limits
	Deadline int64
}

// Host is a volunteer's machine.
type Host struct {
	ID       int64
	User     int64
	Platform string
	Flops    float64 // speed; 1e9
	Memory   float64 // bytes; 0 is enough
	Disk     float64
}

// Contact answers a host. What a host was sent and does not hold any more is sent
// again: the answer was lost.
func (p *Project) Contact(c Contact) (Answer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config.SchedStopped {
		return Answer{}, fmt.Errorf("the scheduler is stopped")
	}
	var a Answer
	for _, r := range c.Reports {
		p.report(c.Host.ID, r)
		a.Done = append(a.Done, r.Result)
	}
	for name := range p.tasks[c.Host.ID] {
		r := p.byName[name]
		w := (*Workunit)(nil)
		if r != nil {
			w = p.wus[r.Workunit]
		}
		switch {
		case w == nil || r.ServerState != ServerInProgress:
			delete(p.tasks[c.Host.ID], name)
		case !slices.Contains(c.Holding, name) && w.ErrorMask&ErrorCancelled == 0:
			a.Work = append(a.Work, p.assignment(r))
		case !slices.Contains(c.Holding, name):
			p.report(c.Host.ID, Report{Result: name, ExitStatus: 202, ClientState: ClientAborted})
		}
	}
	for _, name := range c.Holding {
		r := p.byName[name]
		if r == nil || p.wus[r.Workunit] == nil || p.wus[r.Workunit].ErrorMask&ErrorCancelled != 0 {
			a.Abort = append(a.Abort, name)
		}
	}
	for len(a.Work) < c.Want {
		r := p.pick(c.Host)
		if r == nil {
			break
		}
		p.send(r, c.Host.ID)
		a.Work = append(a.Work, p.assignment(r))
	}
	p.commit()
	return a, nil
}

// feed fills the feeder's cache with unsent instances, those of high priority first.
func (p *Project) feed() {
	p.cache = slices.DeleteFunc(p.cache, func(id int64) bool { return p.results[id] == nil || p.results[id].ServerState != ServerUnsent })
	p.unsent = slices.DeleteFunc(p.unsent, func(id int64) bool { return p.results[id] == nil || p.results[id].ServerState != ServerUnsent })
	if len(p.cache) >= p.config.FeederSlots {
		return
	}
	slices.SortStableFunc(p.unsent, func(a, b int64) int {
		return p.wus[p.results[b].Workunit].Priority - p.wus[p.results[a].Workunit].Priority
	})
	in := make(map[int64]bool, len(p.cache))
	for _, id := range p.cache {
		in[id] = true
	}
	for _, id := range p.unsent {
		if len(p.cache) >= p.config.FeederSlots {
			break
		}
		if !in[id] {
			p.cache = append(p.cache, id)
		}
	}
}

// pick finds an instance in the feeder's cache that fits a host. What no host takes
// stays in the cache and may fill it.
func (p *Project) pick(h Host) *Result {
	if len(p.cache) < p.config.FeederSlots/2 || !slices.ContainsFunc(p.cache, func(id int64) bool { return p.fits(p.results[id], h) }) {
		p.feed()
	}
	for i, id := range p.cache {
		if r := p.results[id]; p.fits(r, h) {
			p.cache = slices.Delete(p.cache, i, i+1)
			return r
		}
	}
	if p.config.PurgeStale {
		stale := p.cache
		p.cache = nil
		p.unsent = slices.DeleteFunc(p.unsent, func(id int64) bool { return slices.Contains(stale, id) })
		p.unsent = append(p.unsent, stale...)
	}
	return nil
}

func (p *Project) fits(r *Result, h Host) bool {
	if r == nil || r.ServerState != ServerUnsent {
		return false
	}
	w := p.wus[r.Workunit]
	version := slices.ContainsFunc(p.appOf(w.App).Versions, func(v AppVersion) bool {
		return v.Platform == h.Platform && (w.VersionNum == 0 || v.Number == w.VersionNum)
	})
	again := p.config.OneHostOnce && slices.ContainsFunc(p.ofWU[w.ID], func(o *Result) bool { return o.Host == h.ID })
	return version && !again && w.TargetHost == 0 && w.TargetUser == 0 && w.TargetTeam == 0 &&
		(h.Memory == 0 || w.Limits.MemoryBound <= h.Memory) && (h.Disk == 0 || w.Limits.DiskBound <= h.Disk)
}

func (p *Project) send(r *Result, host int64) {
	now := p.now()
	r.ServerState, r.Host, r.SentTime = ServerInProgress, host, now
	r.Deadline = now + p.wus[r.Workunit].Limits.DelayBound
	p.hold(host, r.Name)
	p.touch(r)
}

func (p *Project) assignment(r *Result) Assignment {
	w := p.wus[r.Workunit]
	app := p.appOf(w.App)
	version := w.VersionNum
	for _, v := range app.Versions {
		version = max(version, v.Number)
	}
	return Assignment{
		Result: r.Name, App: app.Name, Version: version, Program: app.Program, Command: w.CommandLine, Inputs: w.Inputs, Outputs: w.Outputs,
		Limits: w.Limits, Deadline: r.Deadline,
	}
}

// Send sends an instance to a host, whatever the host asked for.
func (p *Project) Send(host int64, results ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range results {
		r := p.byName[name]
		if r == nil || r.ServerState != ServerUnsent {
			return fmt.Errorf("there is no unsent instance %s", name)
		}
		p.send(r, host)
	}
	p.commit()
	return nil
}

// Report takes a report that a host makes.
func (p *Project) Report(reports ...Report) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range reports {
		if p.byName[r.Result] == nil {
			return fmt.Errorf("there is no instance %s", r.Result)
		}
		p.report(p.byName[r.Result].Host, r)
	}
	p.commit()
	p.stir()
	return nil
}

// report notes the end of an instance. One that timed out may still succeed, until
// its job is done.
func (p *Project) report(host int64, rep Report) {
	r := p.byName[rep.Result]
	if r == nil || r.Host != host {
		return
	}
	w := p.wus[r.Workunit]
	late := r.ServerState == ServerOver && r.Outcome == OutcomeNoReply
	if r.ServerState != ServerInProgress && !late {
		return
	}
	delete(p.tasks[host], r.Name)
	r.ServerState, r.Outcome, r.ExitStatus, r.ClientState = ServerOver, OutcomeSuccess, rep.ExitStatus, rep.ClientState
	if rep.ClientState == 0 {
		r.ClientState = ClientUploaded
	}
	if rep.ExitStatus != 0 || rep.ClientState != 0 && rep.ClientState != ClientUploaded {
		r.Outcome = OutcomeClientError
	}
	r.CPUTime, r.ElapsedTime, r.Credit, r.ReceivedTime = rep.CPU, rep.Elapsed, rep.Credit, p.now()
	if rep.Time != 0 {
		r.ReceivedTime = rep.Time
	}
	r.Stderr = stderrOut(rep)
	for i := range w.Outputs {
		if content, ok := rep.Files[i]; ok {
			name := fmt.Sprintf("%s_r%d_%d", r.Name, r.Random, i)
			if p.write("upload", name, content) == nil {
				r.Files = append(r.Files, OutputFile{Index: i, Name: name, Size: int64(len(content))})
			}
		}
	}
	if late && w.Canonical != 0 {
		r.ValidateState = ValidateTooLate
	}
	p.touch(r)
	p.transition(w)
}

// stderrOut is a client's report in its own form.
func stderrOut(r Report) string {
	version := r.ClientVersion
	if version == "" {
		version = "7.20.5"
	}
	s := "\n<core_client_version>" + version + "</core_client_version>\n<![CDATA[\n"
	if r.Message != "" {
		s += "<message>\n" + r.Message + "</message>\n"
	}
	return s + "<stderr_txt>\n" + r.StderrTxt + "\n</stderr_txt>\n]]>\n"
}

// serveContact lets hosts of other processes in.
func (p *Project) serveContact(w http.ResponseWriter, r *http.Request) {
	var c Contact
	if err := json.NewDecoder(io.LimitReader(r.Body, 256<<20)).Decode(&c); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a, err := p.Contact(c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a)
}
