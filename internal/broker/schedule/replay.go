package schedule

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Bounds of a trace.
const (
	MaxTraceLine = 8 << 20 // bytes
	maxRequests  = 1 << 20
	maxEntries   = 1 << 21 // jobs that wait, or have a place, at once
	maxKnown     = 1 << 20
	maxCPUs      = 1 << 31
	maxClass     = 1 << 10
	maxLength    = 100 * 365 * 24 * time.Hour
	maxName      = 1 << 10
	maxPeers     = 1 << 12
	maxHolds     = 1 << 16
)

// Result is what a replay found.
type Result struct {
	Rounds    int `json:"rounds"`
	Decisions int `json:"decisions"` // that were recorded
	Same      int `json:"same"`      // of them, alike in every bit
	// Differences are the first ones that were not, at most MaxDifferences; More is how
	// many further ones there are.
	Differences []Difference `json:"differences,omitempty"`
	More        int          `json:"more,omitempty"`
	// Cut is that the trace has no end: whoever wrote it was stopped.
	Cut bool `json:"cut,omitempty"`
	// Swapped tells what other policies would have decided, each round with the jobs,
	// the room and the usage that there were then; nil where none were asked for.
	Swapped *Comparison `json:"swapped,omitempty"`
}

// MaxDifferences bounds a Result's.
const MaxDifferences = 100

// Difference is one decision that the replay made another way.
type Difference struct {
	Round int                  `json:"round"` // from 1
	At    time.Time            `json:"at"`
	Job   string               `json:"job"`
	Was   *resourcemodel.Place `json:"was"` // nil: there was no such decision
	Is    *resourcemodel.Place `json:"is"`  // nil: there is none; the same as Was: the record differs otherwise
}

// Replayer replays traces.
type Replayer struct {
	Catalogue *Catalogue                                   // nil: the built-in policies
	Places    func(*resourcemodel.Snapshot) Places         // nil: those that ship
	Compile   func(Source) (*resourcemodel.Request, error) // nil: of JSDL
}

// Replay replays a trace with the built-in policies: see Replayer.Replay.
func Replay(r io.Reader, swap map[policy.Kind]policy.Setting) (Result, error) {
	return new(Replayer).Replay(r, swap)
}

// Compile makes the request that a source is of.
func (s *Source) Compile() (*resourcemodel.Request, error) {
	def, problems := jsdl.Parse(s.Document, jsdl.Options{})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if len(s.Criteria) == 0 {
		return resourcemodel.Compile(def, s.Subject)
	}
	criteria, problems := jsdl.ParseCriteria(s.Criteria, jsdl.Options{})
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return resourcemodel.CompileWith(def, s.Subject, criteria)
}

// replay is one passage through a trace.
type replay struct {
	Replayer
	swap     map[policy.Kind]policy.Setting
	s        *Scheduler
	result   Result
	model    *resourcemodel.Snapshot // while it is read
	begun    *modelEvent
	requests map[int]*resourcemodel.Request
	known    map[answer]answer
	shares   map[string]float64
	line     int
}

// Replay does everything again that a trace tells of, and compares each decision with
// the one that was made then: they must be alike in every bit. With swap, it also tells
// what would have been decided with these policies in the place of those in force, in
// every scope. What is no trace is fail.Invalid and names the line.
func (p *Replayer) Replay(in io.Reader, swap map[policy.Kind]policy.Setting) (Result, error) {
	r := &replay{Replayer: *p, swap: swap, requests: map[int]*resourcemodel.Request{}, known: map[answer]answer{}, shares: map[string]float64{}}
	if r.Catalogue == nil {
		r.Catalogue = BuiltIn()
	}
	if r.Places == nil {
		r.Places = NewPlaces
	}
	if r.Compile == nil {
		r.Compile = func(s Source) (*resourcemodel.Request, error) { return s.Compile() }
	}
	if len(swap) > 0 {
		r.result.Swapped = &Comparison{Sites: map[string]Tally{}}
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 1<<16), MaxTraceLine)
	ended := false
	for lines.Scan() {
		r.line++
		if ended {
			return r.result, r.wrong("it goes on after its end")
		}
		var err error
		if r.line == 1 {
			err = r.head(lines.Bytes())
		} else {
			var e event
			if err = r.read(lines.Bytes(), &e); err == nil {
				ended, err = e.End != nil, r.do(&e)
			}
		}
		if err != nil {
			return r.result, err
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			r.line++
			return r.result, r.wrong("it is longer than %d bytes", MaxTraceLine)
		}
		return r.result, fail.E("schedule.Replay", fail.Unavailable, "", err)
	}
	if r.line == 0 {
		r.line = 1
		return r.result, r.wrong("it is empty: a trace begins with a head")
	}
	r.result.Cut = !ended
	return r.result, nil
}

func (r *replay) wrong(format string, args ...any) error {
	return fail.Errorf("schedule.Replay", fail.Invalid, "", "line %d of the trace: "+format, append([]any{r.line}, args...)...)
}

// because is wrong with an error that another part gave.
func (r *replay) because(err error) error {
	return fail.Errorf("schedule.Replay", fail.Invalid, "", "line %d of the trace: %s", r.line, fail.Sentence(err)).Because(err)
}

func (r *replay) read(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fail.Errorf("schedule.Replay", fail.Invalid, "", "line %d of the trace is not readable: %s", r.line, err.Error())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return r.wrong("more follows on the line")
	}
	return nil
}

func (r *replay) head(text []byte) error {
	var h traceHead
	if err := r.read(text, &h); err != nil {
		return err
	}
	switch {
	case h.Trace != traceName:
		return r.wrong("it is no trace of a %s", traceName)
	case h.Version != TraceVersion:
		return r.wrong("it has version %d of the form; this program reads version %d", h.Version, TraceVersion)
	case h.Window < 1 || h.Window > 1<<16:
		return r.wrong("the window is %d; it must be 1 to %d", h.Window, 1<<16)
	}
	var err error
	r.s, err = New(Options{Places: r.Places(resourcemodel.Empty()), Catalogue: r.Catalogue, Seed: h.Seed, Window: h.Window, Derived: r.derived})
	return err
}

// do does what one line tells of.
func (r *replay) do(e *event) error {
	parts := 0
	for _, there := range []bool{
		e.Request != nil, e.Add != nil, e.Remove != "", e.Policies != nil, e.Usage != nil, e.Charge != nil, e.Model != nil, e.Delta != nil, e.Touched != nil,
		e.Peers != nil, e.Far != nil, e.Site != nil, e.Limits != nil, e.Given != nil, e.Settled != "", e.Left != "", e.Holds != nil, e.Held != nil, e.Began != nil, e.Known != nil, e.Round != nil, e.End != nil,
	} {
		if there {
			parts++
		}
	}
	if parts != 1 {
		return r.wrong("it has %d events; it must have one", parts)
	}
	if r.begun != nil && e.Model == nil {
		return r.wrong("a snapshot of the model is not complete yet")
	}
	s := r.s
	switch {
	case e.Request != nil:
		return r.request(e.Request)
	case e.Add != nil:
		return r.add(e.Add)
	case e.Remove != "":
		s.Remove(e.Remove)
	case e.Policies != nil:
		return r.policies(e.Policies)
	case e.Usage != nil:
		return r.usage(e.Usage)
	case e.Charge != nil:
		s.Charge(e.Charge.Group, e.Charge.Used, e.Charge.At)
	case e.Model != nil:
		return r.snapshot(e.Model)
	case e.Delta != nil:
		if err := s.Apply(*e.Delta); err != nil {
			return r.because(err)
		}
	case e.Peers != nil:
		if len(e.Peers.Peers) > maxPeers {
			return r.wrong("there are more than %d peers", maxPeers)
		}
		s.SetPeers(e.Peers)
	case e.Far != nil:
		if err := s.ApplyFar(*e.Far); err != nil {
			return r.because(err)
		}
	case e.Touched != nil:
		s.Touched(*e.Touched)
	case e.Site != nil:
		s.SetSite(e.Site.Key, e.Site.Site)
	case e.Limits != nil:
		s.SetLimits(*e.Limits)
	case e.Given != nil:
		return r.given(e.Given)
	case e.Settled != "":
		s.Settled(e.Settled)
	case e.Left != "":
		s.Left(e.Left)
	case e.Holds != nil:
		if len(e.Holds.Holds) > maxHolds {
			return r.wrong("more than %d holds are too many", maxHolds)
		}
		s.SetHolds(e.Holds.Holds)
	case e.Held != nil:
		if len(e.Held.Holds)+s.held() > maxHolds {
			return r.wrong("more than %d holds are too many", maxHolds)
		}
		for i := range e.Held.Holds {
			if e.Held.Holds[i].Agreement != e.Held.Agreement {
				return r.wrong("a hold of the agreement %q is said to be of %q", e.Held.Holds[i].Agreement, e.Held.Agreement)
			}
		}
		s.ChangeHolds(e.Held.Agreement, e.Held.Holds)
	case e.Began != nil:
		s.Began(e.Began.Job, e.Began.At)
	case e.Known != nil:
		r.learn(e.Known)
	case e.Round != nil:
		r.round(e.Round)
	case e.End != nil:
		if e.End.Rounds != r.result.Rounds || e.End.Decisions != r.result.Decisions {
			return r.wrong("it says that there were %d rounds and %d decisions; there are %d and %d: lines are missing", e.End.Rounds, e.End.Decisions, r.result.Rounds, r.result.Decisions)
		}
	}
	return nil
}

func (r *replay) request(e *requestEvent) error {
	if len(r.requests) == maxRequests {
		return r.wrong("there are more than %d requests", maxRequests)
	}
	q, err := r.Compile(e.Source)
	if err != nil {
		return r.because(err)
	}
	r.requests[e.N] = q
	return nil
}

func (r *replay) job(e *jobEvent) (*policy.Job, error) {
	q := r.requests[e.Request]
	switch {
	case q == nil:
		return nil, r.wrong("there is no request %d", e.Request)
	case e.ID == "" || max(len(e.ID), len(e.Owner), len(e.VO), len(e.Room)) > maxName:
		return nil, r.wrong("a job's ID, owner, VO or room is empty or longer than %d bytes", maxName)
	case e.CPUs < 0 || e.CPUs > maxCPUs || e.Length < 0 || e.Length > maxLength || e.Class < 0 || e.Class > maxClass:
		return nil, r.wrong("a job's CPUs, length or class is out of bounds")
	case len(r.s.jobs)+len(r.s.given) >= maxEntries:
		return nil, r.wrong("there are more than %d jobs at once", maxEntries)
	}
	return &policy.Job{
		ID: e.ID, Owner: e.Owner, VO: e.VO, Submitted: e.Submitted, Class: e.Class, Priority: e.Priority,
		Deadline: e.Deadline, Length: e.Length, CPUs: e.CPUs, Room: e.Room, Request: q,
	}, nil
}

func (r *replay) add(e *entryEvent) error {
	j, err := r.job(&e.jobEvent)
	if err != nil {
		return err
	}
	r.s.Add(Entry{Job: j, Attempt: e.Attempt, Queue: e.Queue, NotBefore: e.NotBefore, Avoid: e.Avoid, Way: e.Way, Later: e.Later, Only: e.Only})
	return nil
}

func (r *replay) given(e *givenEvent) error {
	j, err := r.job(&e.Job)
	if err != nil {
		return err
	}
	r.s.left(j.ID)
	r.s.giveTo(j, e.Place, e.Far, e.Ahead && !e.Settled, e.Settled)
	return nil
}

// policies puts them in force; where policies are swapped, those take the shadow's
// place.
func (r *replay) policies(p *Policies) error {
	if len(r.swap) > 0 {
		swapped := *p
		swapped.Shadow = map[Scope]map[policy.Kind]policy.Setting{Gateway: maps.Clone(r.swap)}
		for scope, kinds := range p.InForce {
			for kind := range kinds {
				v, ok := r.swap[kind]
				if !ok {
					continue
				}
				if swapped.Shadow[scope] == nil {
					swapped.Shadow[scope] = map[policy.Kind]policy.Setting{}
				}
				swapped.Shadow[scope][kind] = v
			}
		}
		p = &swapped
	}
	if err := r.s.SetPolicies(p); err != nil {
		return r.because(err)
	}
	return nil
}

func (r *replay) usage(e *usageEvent) error {
	if len(e.Ledger) == 0 {
		r.s.SetUsage(nil)
		return nil
	}
	var parts [][]byte
	for _, p := range e.Ledger {
		parts = append(parts, p)
	}
	l, err := policy.DecodeLedger(parts...)
	if err != nil {
		return r.because(err)
	}
	l.SetShares(maps.Clone(r.shares))
	r.s.SetUsage(l)
	return nil
}

func (r *replay) snapshot(e *modelEvent) error {
	switch {
	case r.begun == nil && (e.Done || len(e.Changes) > 0):
		return r.wrong("a snapshot of the model was not begun")
	case r.begun == nil:
		r.begun, r.model = e, resourcemodel.Empty()
		return nil
	case e.Revision != r.begun.Revision || e.Done && len(e.Changes) > 0 || !e.Done && len(e.Changes) == 0:
		return r.wrong("a snapshot of the model is not complete yet")
	}
	r.begun.Changes = append(r.begun.Changes, e.Changes...)
	if len(r.begun.Changes) > resourcemodel.MaxChanges {
		return r.wrong("a snapshot has more than %d sites", resourcemodel.MaxChanges)
	}
	if !e.Done {
		return nil
	}
	m := resourcemodel.Empty()
	if d := (resourcemodel.Delta{Revision: r.begun.Revision, At: r.begun.At, Changes: r.begun.Changes}); d.Revision != 0 || len(d.Changes) > 0 {
		var err error
		if m, err = m.Apply(d); err != nil {
			return r.because(err)
		}
	}
	far := r.begun.Far
	r.begun = nil
	if far {
		r.s.ResetFar(m)
		return nil
	}
	r.s.Reset(m)
	return nil
}

func (r *replay) learn(answers []answer) {
	shares := false
	for _, a := range answers {
		if a.What == "share" {
			r.shares[a.Of] = a.Value
			shares = true
			continue
		}
		if len(r.known) < maxKnown {
			r.known[answer{What: a.What, Of: a.Of}] = a
		}
	}
	if shares && r.s.usage.base != nil {
		r.s.usage.base.SetShares(maps.Clone(r.shares))
	}
}

func (r *replay) ask(what, of string) (float64, bool) {
	a := r.known[answer{What: what, Of: of}]
	return a.Value, a.OK
}

// derived answers as was answered then.
func (r *replay) derived(now time.Time) resourcemodel.Derived {
	d := resourcemodel.Derived{Now: now}
	bits, _ := r.ask("has", "")
	there := int(min(max(bits, 0), math.MaxUint8))
	if there&hasWait != 0 {
		d.Wait = func(p resourcemodel.Place, n *resourcemodel.Need) (time.Duration, bool) {
			x, ok := r.ask("wait", p.String()+" "+needText(n))
			return time.Duration(x), ok
		}
	}
	if there&hasSuccess != 0 {
		d.SuccessRate = func(p resourcemodel.Place) (float64, bool) { return r.ask("success", p.String()) }
	}
	if there&hasDistance != 0 {
		d.Distance = func(p resourcemodel.Place, q *resourcemodel.Request) (float64, bool) {
			return r.ask("distance", p.String()+" "+dataText(q))
		}
	}
	if there&hasPerformance != 0 {
		d.Performance = func(p resourcemodel.Place) (float64, bool) { return r.ask("performance", p.String()) }
	}
	return d
}

// round decides again and compares.
func (r *replay) round(e *roundEvent) {
	r.s.seed = e.Seed
	var would map[string]resourcemodel.Place
	if r.result.Swapped != nil {
		r.s.tried = func(placed map[string]resourcemodel.Place) { would = maps.Clone(placed) }
	}
	got := r.s.Round(e.Now, e.Budget)
	r.result.Rounds++
	r.result.Decisions += len(e.Decisions)
	for i := range max(len(got), len(e.Decisions)) {
		switch {
		case i >= len(got):
			r.differ(e, e.Decisions[i].Job, &e.Decisions[i].Place, nil)
		case i >= len(e.Decisions):
			r.differ(e, got[i].Job, nil, &got[i].Place)
		case got[i].Job != e.Decisions[i].Job:
			r.differ(e, e.Decisions[i].Job, &e.Decisions[i].Place, nil)
			r.differ(e, got[i].Job, nil, &got[i].Place)
		case !r.alike(&got[i], &e.Decisions[i]):
			r.differ(e, got[i].Job, &e.Decisions[i].Place, &got[i].Place)
		default:
			r.result.Same++
		}
	}
	if r.result.Swapped == nil {
		return
	}
	for i := range got {
		shadow, ok := would[got[i].Job]
		delete(would, got[i].Job)
		if !ok {
			r.result.Swapped.add(got[i].Job, &got[i].Place, nil)
			continue
		}
		r.result.Swapped.add(got[i].Job, &got[i].Place, &shadow)
	}
	for _, id := range slices.Sorted(maps.Keys(would)) {
		p := would[id]
		r.result.Swapped.add(id, nil, &p)
	}
}

// alike compares every bit; where policies are swapped, the shadow is another than it
// was, and only the place is compared.
func (r *replay) alike(d *Decision, was *decided) bool {
	if r.result.Swapped != nil {
		return d.Place == was.Place
	}
	return digest(d) == was.Digest
}

func (r *replay) differ(e *roundEvent, job string, was, is *resourcemodel.Place) {
	if len(r.result.Differences) == MaxDifferences {
		r.result.More++
		return
	}
	r.result.Differences = append(r.result.Differences, Difference{r.result.Rounds, e.Now, job, was, is})
}
