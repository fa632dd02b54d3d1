package schedule

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// A trace is what a Scheduler was told, and what it decided, as lines of JSON: a head,
// then events. What is long and comes again is given once and then named by its number:
// requests, by the document that they were compiled of. Of a decision it has the place
// and a digest of the record, so that every bit is compared and few are kept.

// TraceVersion is that of the form.
const TraceVersion = 1

// traceHead is a trace's first line.
type traceHead struct {
	Trace   string `json:"trace"` // traceName
	Version int    `json:"version"`
	Seed    uint64 `json:"seed"`
	Window  int    `json:"window"`
}

const traceName = "portolan schedule"

// Source is what a request is compiled of.
type Source struct {
	Document []byte                `json:"document"`           // JSDL
	Criteria []byte                `json:"criteria,omitempty"` // from a file of their own
	Subject  resourcemodel.Subject `json:"subject"`
}

// event is one line; exactly one part is there.
type event struct {
	Request  *requestEvent        `json:"request,omitempty"`
	Add      *entryEvent          `json:"add,omitempty"`
	Remove   string               `json:"remove,omitempty"`
	Policies *Policies            `json:"policies,omitempty"`
	Usage    *usageEvent          `json:"usage,omitempty"`
	Charge   *chargeEvent         `json:"charge,omitempty"`
	Model    *modelEvent          `json:"model,omitempty"`
	Delta    *resourcemodel.Delta `json:"delta,omitempty"`
	Peers    *Peers               `json:"peers,omitempty"`
	Far      *resourcemodel.Delta `json:"far,omitempty"` // of what peers have
	Touched  *resourcemodel.Key   `json:"touched,omitempty"`
	Site     *siteEvent           `json:"site,omitempty"`
	Limits   *Limits              `json:"limits,omitempty"`
	Given    *givenEvent          `json:"given,omitempty"`
	Settled  string               `json:"settled,omitempty"`
	Left     string               `json:"left,omitempty"`
	Holds    *holdsEvent          `json:"holds,omitempty"`
	Held     *heldEvent           `json:"held,omitempty"`
	Began    *beganEvent          `json:"began,omitempty"`
	Known    []answer             `json:"known,omitempty"`
	Round    *roundEvent          `json:"round,omitempty"`
	End      *endEvent            `json:"end,omitempty"`
}

type requestEvent struct {
	N int `json:"n"`
	Source
}

type jobEvent struct {
	ID        string        `json:"id"`
	Owner     string        `json:"owner,omitempty"`
	VO        string        `json:"vo,omitempty"`
	Submitted time.Time     `json:"submitted"`
	Class     int           `json:"class,omitempty"`
	Priority  int           `json:"priority,omitempty"`
	Deadline  time.Time     `json:"deadline,omitzero"`
	Length    time.Duration `json:"length,omitempty"`
	CPUs      int           `json:"cpus,omitempty"`
	Room      string        `json:"room,omitempty"`
	Request   int           `json:"request"`
}

type entryEvent struct {
	jobEvent
	Attempt   int                 `json:"attempt,omitempty"`
	Queue     string              `json:"queue,omitempty"`
	NotBefore time.Time           `json:"notBefore,omitzero"`
	Avoid     []resourcemodel.Key `json:"avoid,omitempty"`
	Way       *Way                `json:"way,omitempty"`
	Later     map[string]string   `json:"later,omitempty"`
	Only      *Pin                `json:"only,omitempty"`
}

// holdsEvent has all the room that is promised.
type holdsEvent struct {
	Holds []Hold `json:"holds"`
}

// heldEvent has what one agreement promises.
type heldEvent struct {
	Agreement string `json:"agreement"`
	Holds     []Hold `json:"holds,omitempty"`
}

type beganEvent struct {
	Job string    `json:"job"`
	At  time.Time `json:"at"`
}

// usageEvent has a ledger; no parts is none.
type usageEvent struct {
	Ledger []json.RawMessage `json:"ledger,omitempty"`
}

type chargeEvent struct {
	Group string    `json:"group"`
	Used  float64   `json:"used"`
	At    time.Time `json:"at"`
}

// modelEvent begins a snapshot, or has some of its sites, or ends it.
type modelEvent struct {
	Revision int64                  `json:"revision"`
	At       time.Time              `json:"at"`
	Changes  []resourcemodel.Change `json:"changes,omitempty"`
	Done     bool                   `json:"done,omitempty"`
	Far      bool                   `json:"far,omitempty"` // it is of what peers have
}

type siteEvent struct {
	Key  resourcemodel.Key `json:"key"`
	Site Site              `json:"site"`
}

type givenEvent struct {
	Job     jobEvent             `json:"job"`
	Place   resourcemodel.Place  `json:"place"`
	Far     *resourcemodel.Place `json:"far,omitempty"`
	Ahead   bool                 `json:"ahead,omitempty"`
	Settled bool                 `json:"settled,omitempty"`
}

type roundEvent struct {
	Now       time.Time `json:"now"`
	Budget    int       `json:"budget,omitempty"`
	Seed      uint64    `json:"seed"`
	Decisions []decided `json:"decisions,omitempty"`
}

// decided is a decision in short.
type decided struct {
	Job    string              `json:"job"`
	Place  resourcemodel.Place `json:"place"`
	Digest string              `json:"digest"`
}

type endEvent struct {
	Rounds    int `json:"rounds"`
	Decisions int `json:"decisions"`
}

// answer is what was known of a place beside the model when it was asked.
type answer struct {
	What  string  `json:"what"` // "wait", "success", "distance", "performance", "share" of a group; "has" with the bits of those that there are
	Of    string  `json:"of,omitempty"`
	Value float64 `json:"value"`
	OK    bool    `json:"ok"`
}

// digest is what two records have in common only if they are alike in every bit.
func digest(d *Decision) string {
	text, err := json.Marshal(d)
	if err != nil { // no time beyond the year 9999 comes this far
		return "unwritable: " + err.Error()
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// Recorder writes a trace. An error of the writer ends it: see Close.
type Recorder struct {
	s         *Scheduler
	w         *bufio.Writer
	source    func(*policy.Job) (Source, error)
	err       error
	requests  map[*resourcemodel.Request]int
	texts     map[string]int // number by the source's text
	last      int
	known     map[answer]answer // by question
	fresh     []answer
	derived   Derived
	rounds    int
	decisions int
}

// Record begins a trace of what the Scheduler is told from now on. Source gives the
// document of a job. Sleeping jobs are looked at anew, since a replay does not know that
// they slept. One trace is written at a time: fail.Conflict.
func (s *Scheduler) Record(w io.Writer, source func(*policy.Job) (Source, error)) (*Recorder, error) {
	if s.recorder != nil {
		return nil, fail.Errorf("schedule.Record", fail.Conflict, "", "a trace is being written already; end it first")
	}
	r := &Recorder{
		s: s, w: bufio.NewWriterSize(w, 1<<16), source: source, derived: s.derived,
		requests: map[*resourcemodel.Request]int{}, texts: map[string]int{}, known: map[answer]answer{},
	}
	r.line(&traceHead{Trace: traceName, Version: TraceVersion, Seed: s.seed, Window: s.window})
	r.model(s.places.Snapshot(), false)
	s.recordFar(r)
	r.write(&event{Policies: s.policies})
	r.usage(s.usage.base)
	for _, k := range slices.SortedFunc(maps.Keys(s.sites), resourcemodel.Key.Compare) {
		if v := s.sites[k]; v.Site != (Site{}) {
			r.write(&event{Site: &siteEvent{k, v.Site}})
		}
	}
	r.write(&event{Limits: &s.bounds})
	for _, id := range slices.Sorted(maps.Keys(s.given)) {
		g := s.given[id]
		r.given(g.job, g.place, g.far, g.ahead, !g.unsettled)
		if !g.began.IsZero() {
			r.write(&event{Began: &beganEvent{id, g.began}})
		}
	}
	if len(s.holds) > 0 {
		r.write(&event{Holds: &holdsEvent{s.Holds()}})
	}
	s.refile(func() {})
	for _, id := range slices.Sorted(maps.Keys(s.jobs)) {
		r.add(&s.jobs[id].Entry)
	}
	s.epoch++
	if r.Flush(); r.err != nil {
		return nil, r.err
	}
	s.recorder = r
	s.derived = r.listen
	s.usage.asked = func(group string, share float64) { r.learn(answer{"share", group, share, true}) }
	return r, nil
}

// recordFar begins with what is known of peers. What is only remembered of before is
// forgotten, since a replay does not know it.
func (s *Scheduler) recordFar(r *Recorder) {
	f := s.far
	if f == nil {
		return
	}
	for _, k := range slices.SortedFunc(maps.Keys(f.lagging), resourcemodel.Key.Compare) {
		for _, id := range slices.Sorted(maps.Keys(f.lagging[k])) {
			f.give(f.lagging[k][id])
		}
	}
	clear(f.lagging)
	clear(f.views)
	clear(f.overflow)
	f.dirty, f.backlog = true, 0
	r.write(&event{Peers: f.peers})
	r.model(f.model, true)
}

// Flush writes what was recorded so far. Its error is told by Close.
func (r *Recorder) Flush() {
	if err := r.w.Flush(); r.err == nil && err != nil {
		r.err = fail.E("schedule.Record", fail.Unavailable, "", err)
	}
}

// Close ends the trace and tells the first error that there was.
func (r *Recorder) Close() error {
	if r.s.recorder == r {
		r.s.recorder, r.s.derived, r.s.usage.asked = nil, r.derived, nil
		r.s.epoch++
	}
	r.write(&event{End: &endEvent{r.rounds, r.decisions}})
	r.Flush()
	return r.err
}

func (r *Recorder) write(e *event) { r.line(e) }

func (r *Recorder) line(v any) {
	if r.err != nil {
		return
	}
	text, err := json.Marshal(v)
	if err == nil && len(text) >= MaxTraceLine {
		err = fail.Errorf("schedule.Record", fail.Exhausted, "", "a line of the trace would have %d bytes; at most %d are read again", len(text), MaxTraceLine)
	}
	if err == nil {
		_, err = r.w.Write(append(text, '\n'))
	}
	if err != nil {
		r.err = fail.E("schedule.Record", fail.Unavailable, "", err)
	}
}

// model writes a snapshot, some sites a line.
func (r *Recorder) model(m *resourcemodel.Snapshot, far bool) {
	head := modelEvent{Revision: m.Revision(), At: m.At(), Far: far}
	r.write(&event{Model: &head})
	for site := range m.Sites() {
		r.write(&event{Model: &modelEvent{Revision: head.Revision, At: head.At, Far: far, Changes: []resourcemodel.Change{{Key: site.Key, Static: site.Static, Dynamic: site.Dynamic}}}})
	}
	head.Done = true
	r.write(&event{Model: &head})
}

func (r *Recorder) usage(l *policy.Ledger) {
	e := usageEvent{}
	if l != nil {
		parts, err := l.Encode(MaxTraceLine / 2)
		if err != nil {
			r.err = err
			return
		}
		for _, p := range parts {
			e.Ledger = append(e.Ledger, p)
		}
	}
	r.write(&event{Usage: &e})
}

// request gives the number of a job's request, and writes what it is compiled of when
// that is new.
func (r *Recorder) request(j *policy.Job) int {
	if n, ok := r.requests[j.Request]; ok {
		return n
	}
	src, err := r.source(j)
	if err != nil {
		if r.err == nil {
			r.err = fail.E("schedule.Record", fail.KindOf(err), j.ID, err)
		}
		return 0
	}
	text, err := json.Marshal(&src)
	if err != nil {
		r.err = fail.E("schedule.Record", fail.Internal, j.ID, err)
		return 0
	}
	n, ok := r.texts[string(text)]
	if !ok {
		r.last++
		n = r.last
		r.texts[string(text)] = n
		r.write(&event{Request: &requestEvent{n, src}})
	}
	if len(r.requests) < maxRequests {
		r.requests[j.Request] = n
	}
	return n
}

func (r *Recorder) job(j *policy.Job) jobEvent {
	return jobEvent{
		ID: j.ID, Owner: j.Owner, VO: j.VO, Submitted: j.Submitted, Class: j.Class, Priority: j.Priority,
		Deadline: j.Deadline, Length: j.Length, CPUs: j.CPUs, Room: j.Room, Request: r.request(j),
	}
}

func (r *Recorder) add(e *Entry) {
	r.write(&event{Add: &entryEvent{r.job(e.Job), e.Attempt, e.Queue, e.NotBefore, e.Avoid, e.Way, e.Later, e.Only}})
}

func (r *Recorder) given(j *policy.Job, p resourcemodel.Place, far *resourcemodel.Place, ahead, settled bool) {
	r.write(&event{Given: &givenEvent{r.job(j), p, far, ahead, settled}})
}

func (r *Recorder) round(now time.Time, budget int, seed uint64, ds []Decision) {
	if len(r.fresh) > 0 {
		r.write(&event{Known: r.fresh})
		r.fresh = nil
	}
	e := roundEvent{Now: now, Budget: budget, Seed: seed}
	for i := range ds {
		e.Decisions = append(e.Decisions, decided{ds[i].Job, ds[i].Place, digest(&ds[i])})
	}
	r.rounds++
	r.decisions += len(ds)
	r.write(&event{Round: &e})
}

// learn notes an answer, if it is another than the last time.
func (r *Recorder) learn(a answer) {
	question := answer{What: a.What, Of: a.Of}
	if last, ok := r.known[question]; ok && last == a || len(r.known) >= maxKnown {
		return
	}
	r.known[question] = a
	r.fresh = append(r.fresh, a)
}

// listen gives what is known beside the model, and notes what is asked.
func (r *Recorder) listen(now time.Time) resourcemodel.Derived {
	d := r.derived(now)
	d.Now = now
	r.learn(answer{What: "has", Value: float64(has(&d)), OK: true})
	if wait := d.Wait; wait != nil {
		d.Wait = func(p resourcemodel.Place, n *resourcemodel.Need) (time.Duration, bool) {
			t, ok := wait(p, n)
			r.learn(answer{"wait", p.String() + " " + needText(n), float64(t), ok})
			return time.Duration(float64(t)), ok
		}
	}
	if rate := d.SuccessRate; rate != nil {
		d.SuccessRate = func(p resourcemodel.Place) (float64, bool) {
			x, ok := rate(p)
			r.learn(answer{"success", p.String(), x, ok})
			return x, ok
		}
	}
	if distance := d.Distance; distance != nil {
		d.Distance = func(p resourcemodel.Place, q *resourcemodel.Request) (float64, bool) {
			x, ok := distance(p, q)
			r.learn(answer{"distance", p.String() + " " + dataText(q), x, ok})
			return x, ok
		}
	}
	if performance := d.Performance; performance != nil {
		d.Performance = func(p resourcemodel.Place) (float64, bool) {
			x, ok := performance(p)
			r.learn(answer{"performance", p.String(), x, ok})
			return x, ok
		}
	}
	return d
}

const (
	hasWait = 1 << iota
	hasSuccess
	hasDistance
	hasPerformance
)

func has(d *resourcemodel.Derived) (bits int) {
	for i, there := range []bool{d.Wait != nil, d.SuccessRate != nil, d.Distance != nil, d.Performance != nil} {
		if there {
			bits |= 1 << i
		}
	}
	return bits
}

// needText names a need in a question.
func needText(n *resourcemodel.Need) string {
	text, _ := json.Marshal(n) // numbers and names: nothing that could fail
	return string(text)
}

// dataText names the data of a request in a question.
func dataText(q *resourcemodel.Request) string {
	return strings.Join(q.Data(), " ")
}
