package service

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/guarantee"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

// input is what is new of an agreement.
type input struct {
	evidence []broker.Evidence
	jobs     []named  // that were made
	refused  []named  // that never will be, and why
	usable   []usable // of capacities, at present
	cut      []int    // jobs that were told to end
	past     bool     // because their windows are over
	over     bool     // nothing more comes
	at       time.Time
}

// named is a text about a service.
type named struct {
	service int
	text    string
}

// usable is how much of a capacity there is.
type usable struct {
	service int
	amount  int64
}

// update takes in what is new of an agreement, and judges what it promises. Where nothing is to be
// written, it gives the record as it was.
func (s *Service) update(ctx context.Context, r *engine.Record, x *reading, in input) (engine.Record, error) {
	// Mostly there is nothing, and no transaction is needed to know that: what changes meanwhile is told.
	c := *r
	c.History, c.Jobs, c.Notes = slices.Clip(r.History), slices.Clip(r.Jobs), maps.Clone(r.Notes)
	if err := s.step(&c, x, in, s.now()); err == errSame { //nolint:errorlint // as below
		return *r, nil
	}
	out, err := s.e.Update(ctx, r.ID, func(r *engine.Record) error { return s.step(r, x, in, s.now()) })
	if err == errSame { //nolint:errorlint // it is given as it is
		return *r, nil
	}
	return out, err
}

// step is update of a record.
func (s *Service) step(r *engine.Record, x *reading, in input, now time.Time) error {
	n, err := noteOf(r)
	if err != nil {
		return err
	}
	j := &judging{s: s, r: r, x: x, n: n, now: now}
	if !in.at.IsZero() && in.at.Before(now) {
		j.now = in.at
	}
	if n.Over {
		return errSame
	}
	if len(n.Services) == 0 {
		n.Services = make([]served, len(x.request.Services))
	}
	if n.Guarantees == nil {
		n.Guarantees = map[string]guarantee.State{}
	}
	for _, g := range x.request.Guarantees {
		if _, ok := n.Guarantees[g.Name]; !ok {
			n.Guarantees[g.Name] = g.New(r.Created)
		}
	}
	for _, m := range in.jobs {
		j.job(m.service, m.text)
	}
	for i := range in.evidence {
		j.evidence(&in.evidence[i])
	}
	for _, m := range in.refused {
		j.refused(m.service, m.text)
	}
	for _, i := range in.cut {
		if v := &n.Services[i]; !v.Cut && !v.over() {
			v.Cut, j.changed = true, true
			why := "as the end of the agreement was asked for"
			if in.past {
				why = "as its window is over"
			}
			r.Tell(now, "ended", fmt.Sprintf("the job of the service %s is ended, %s", x.request.Services[i].Name, why))
		}
	}
	for _, u := range in.usable {
		j.capacity(u)
	}
	j.judge(j.now.Add(-s.o.Lag))
	if in.over {
		j.over()
	}
	if !j.changed {
		return errSame
	}
	owed := j.owed()
	r.Owed = &owed
	return n.encode(r)
}

// judging is an agreement of which something is new.
type judging struct {
	s       *Service
	r       *engine.Record
	x       *reading
	n       *note
	now     time.Time
	changed bool
}

// event has the guarantees hear of something.
func (j *judging) event(e guarantee.Event) {
	j.n.Events++
	e.Sequence = j.n.Events
	j.changed = true
	for _, g := range j.x.request.Guarantees {
		st, found := g.Apply(j.n.Guarantees[g.Name], e)
		j.n.Guarantees[g.Name] = st
		j.found(g, found)
	}
}

// judge judges what passes by itself up to a moment.
func (j *judging) judge(until time.Time) {
	for _, g := range j.x.request.Guarantees {
		for {
			st := j.n.Guarantees[g.Name]
			due := g.Due(st)
			if due.IsZero() || due.After(until) {
				break
			}
			st, found := g.At(st, until)
			j.n.Guarantees[g.Name], j.changed = st, true
			j.found(g, found)
		}
	}
}

// found writes down what was found of a guarantee, and what is due.
func (j *judging) found(g *guarantee.Guarantee, list []guarantee.Assessment) {
	for i := range list {
		a := &list[i]
		var b strings.Builder
		fmt.Fprintf(&b, "the guarantee %s: %s", a.Guarantee, a.Evidence)
		for k, d := range a.Due {
			kind, unit := ledger.Penalty, cmp.Or(d.Unit, j.s.o.Settings.Unit)
			if d.Sort == guarantee.Reward {
				kind = ledger.Reward
			}
			fmt.Fprintf(&b, "; a %s of %s %s is due", d.Sort, d.Value, unit)
			j.entry(ledger.Entry{
				ID:     fmt.Sprintf("%s/%s/%d/%d", j.r.ID, short(a.Guarantee), a.Number, k),
				Time:   a.At,
				Kind:   kind,
				Unit:   unit,
				Amount: ledger.Signed(g.Obligated, kind, d.Value),
				Job:    j.jobOf(a.Service), Evidence: clean(b.String(), 4000),
			})
		}
		j.r.Tell(j.now, strings.ToLower(string(a.State)), b.String())
		j.changed = true
	}
}

func (j *judging) jobOf(service string) string {
	for i := range j.n.Services {
		if j.x.request.Services[i].Name == service || service == "" && len(j.n.Services) == 1 {
			return j.n.Services[i].Job
		}
	}
	return ""
}

// mostEntries bounds the entries of one agreement; what is due beyond is in its history.
const mostEntries = 400

// entry adds one of the ledger.
func (j *judging) entry(e ledger.Entry) {
	if len(j.n.Entries) >= mostEntries || slices.ContainsFunc(j.n.Entries, func(o ledger.Entry) bool { return o.ID == e.ID }) {
		return
	}
	e.Agreement, e.User = j.r.ID, clean(j.r.Owner, 255)
	// What is not a VO's is its user's own.
	e.VO = clean(cmp.Or(j.r.VO, "user:"+j.r.Owner), 255)
	j.n.Entries = append(j.n.Entries, e)
	j.changed = true
}

// short keeps a name within what an id of an entry may have.
func short(s string) string { return clean(s, 150) }

// clean gives a text that the ledger takes.
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || r >= 0x80 && r < 0xA0 || r == 0xFFFE || r == 0xFFFF {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return s
}

// job notes which job a service has.
func (j *judging) job(i int, id string) {
	v := &j.n.Services[i]
	if v.Job != "" {
		return
	}
	v.Job, j.changed = id, true
	if !slices.Contains(j.r.Jobs, id) {
		j.r.Jobs = append(j.r.Jobs, id)
	}
	if v.State == "" {
		v.State = bes.Pending
	}
}

// refused notes that a service will have no job.
func (j *judging) refused(i int, why string) {
	v := &j.n.Services[i]
	if v.over() || v.Job != "" {
		return
	}
	name := j.x.request.Services[i].Name
	v.Refused, v.Ended, v.Outcome, v.State = why, j.now, guarantee.Failed, bes.Failed
	j.event(guarantee.Event{Time: j.r.Created, Service: name, Kind: guarantee.Submitted})
	j.event(guarantee.Event{Time: j.now, Service: name, Kind: guarantee.Ended, Outcome: guarantee.Failed})
	j.r.Tell(j.now, "failed", fmt.Sprintf("the service %s has no job: %s", name, why))
}

// outcomes are those of jobs as guarantees have them.
var outcomes = map[bes.State]guarantee.Outcome{bes.Finished: guarantee.Finished, bes.Failed: guarantee.Failed, bes.Cancelled: guarantee.Cancelled}

// unseen are the ends of jobs that no site told of: how long they ran before is not known, and none of it
// counts as used.
var unseen = map[broker.Event]bool{
	broker.Vanished: true, broker.Abandon: true, broker.Absent: true, broker.Unrun: true, broker.Rerun: true, broker.Returned: true,
}

// evidence takes in a line of a job's history.
func (j *judging) evidence(e *broker.Evidence) {
	i, err := strconv.Atoi(e.Name)
	if err != nil || i < 0 || i >= len(j.n.Services) {
		return
	}
	v, name := &j.n.Services[i], j.x.request.Services[i].Name
	if e.Sequence <= v.Sequence || v.over() {
		return
	}
	j.job(i, e.Job)
	g := guarantee.Event{Time: e.At, Service: name}
	at := ""
	if e.Site != "" {
		at = " at " + e.Site
	}
	switch e.Kind {
	case broker.EvidenceSubmitted:
		g.Kind, v.State = guarantee.Submitted, bes.Pending
		// The wait counts from the agreement on, not from when its job was made.
		if g.Time.After(j.r.Created) {
			g.Time = j.r.Created
		}
		j.r.Tell(j.now, "submitted", fmt.Sprintf("the job of the service %s is %s", name, e.Job))
	case broker.EvidenceStarted:
		g.Kind = guarantee.Started
		if v.Ran {
			g.Kind = guarantee.Restarted
		} else {
			v.Begun = e.At
		}
		v.State, v.Ran, v.Site, v.Since = bes.Running, true, e.Site, e.At
		j.r.Tell(j.now, "started", fmt.Sprintf("the job of the service %s runs%s since %s", name, at, e.At.UTC().Format(time.RFC3339)))
	case broker.EvidenceSuspended:
		g.Kind = guarantee.Suspended
		v.stop(e.At)
	case broker.EvidenceResumed:
		g.Kind = guarantee.Resumed
		v.Since = e.At
	case broker.EvidenceLost:
		g.Kind, v.State = guarantee.Lost, bes.Pending
		v.Since = time.Time{} // nobody tells how long it ran there
		j.r.Tell(j.now, "lost", fmt.Sprintf("the job of the service %s lost its place%s: %s", name, at, e.Reason))
	case broker.EvidenceEnded:
		g.Kind, g.Outcome = guarantee.Ended, outcomes[e.Outcome]
		switch event := broker.Event(e.Event); {
		case unseen[event]:
			v.Since = time.Time{}
		case e.Started.After(v.Since) && (!v.Since.IsZero() || !v.Ran || event == broker.Won):
			v.Since = e.Started // of the run that has ended; what became of one before it nobody tells
		}
		v.stop(e.At)
		v.State, v.Ended, v.Outcome, v.Site = e.Outcome, e.At, g.Outcome, cmp.Or(e.Site, v.Site)
		j.r.Tell(j.now, "job ended", fmt.Sprintf("the job of the service %s is %s%s since %s: %s", name, e.Outcome, at, e.At.UTC().Format(time.RFC3339), e.Reason))
	case broker.EvidenceDanger:
		j.r.Tell(j.now, "danger", fmt.Sprintf("the job of the service %s: %s", name, e.Reason))
	case broker.EvidenceOther:
		return // what follows it says that it was heard of, too
	}
	v.Sequence, j.changed = e.Sequence, true
	if g.Kind != "" {
		j.event(g)
	}
}

// capacity takes in how much of a capacity is there.
func (j *judging) capacity(u usable) {
	v, of := &j.n.Services[u.service], &j.x.request.Services[u.service]
	if of.Capacity == nil || j.now.Before(of.Window.Start) || v.over() {
		return
	}
	all := amountOf(of)
	if !v.Opened {
		v.Opened, v.Usable = true, all
		j.event(guarantee.Event{Time: of.Window.Start, Service: of.Name, Kind: guarantee.WindowOpened, Slots: all, Until: of.Window.End})
		j.r.Tell(j.now, "opened", fmt.Sprintf("the window of the service %s is open until %s", of.Name, of.Window.End.UTC().Format(time.RFC3339)))
	}
	switch have := min(u.amount, all); {
	case !j.now.Before(of.Window.End) || have == v.Usable:
	case have < v.Usable:
		j.event(guarantee.Event{Time: j.now, Service: of.Name, Kind: guarantee.CapacityDown, Slots: have})
		j.r.Tell(j.now, "capacity down", fmt.Sprintf("of the service %s there are %d of %d", of.Name, have, all))
		v.Usable = have
	default:
		j.event(guarantee.Event{Time: j.now, Service: of.Name, Kind: guarantee.CapacityUp, Slots: have})
		j.r.Tell(j.now, "capacity up", fmt.Sprintf("of the service %s there are %d of %d again", of.Name, have, all))
		v.Usable = have
	}
}

// amountOf gives how many of what it counts a capacity has.
func amountOf(v *terms.Service) int64 {
	a := v.Capacity.Amount
	return max(a.CPUs, a.Slots, a.Nodes, 1)
}

// over ends what is watched: what is not known by now stays so.
func (j *judging) over() {
	for i := range j.n.Services {
		j.n.Services[i].stop(j.now)
	}
	j.event(guarantee.Event{Time: j.now, Kind: guarantee.Completed})
	j.judge(j.now)
	j.bill()
	j.n.Over, j.changed = true, true
}

// bill makes the entries of what was used, and what it costs.
func (j *judging) bill() {
	placed, err := terms.Placements(j.r.Plan)
	if err != nil {
		return
	}
	for i := range j.n.Services {
		v := &j.n.Services[i]
		if v.Used <= 0 || i >= len(placed) {
			continue
		}
		used, ok := decimal.Seconds(v.Used).Mul(decimal.New(max(1, placed[i].CPUs)))
		if !ok || used.Sign() <= 0 {
			continue
		}
		j.entry(ledger.Entry{
			ID: fmt.Sprintf("%s/usage/%d", j.r.ID, i), Job: v.Job, Time: j.now, Kind: ledger.Usage, Unit: "cpu-second", Amount: used,
			Evidence: clean(fmt.Sprintf("the job of the service %s ran for %s on %d CPUs", j.x.request.Services[i].Name, v.Used, max(1, placed[i].CPUs)), 4000),
		})
	}
	if p := j.price(); p > 0 {
		amount, err := thousandths(p)
		if err != nil {
			return
		}
		say := fmt.Sprintf("for the agreement, which could cost %s", shown(j.r.Plan.Price))
		j.entry(ledger.Entry{ID: j.r.ID + "/price", Time: j.now, Kind: ledger.Price, Unit: j.s.o.Settings.Unit, Amount: amount, Evidence: say})
	}
}

func thousandths(n int64) (decimal.Decimal, error) { return decimal.Parse(shown(n)) }

// Amount writes an amount of an account for people: "12.5 credit".
func Amount(thousandths int64, unit string) string {
	s := shown(thousandths)
	if s = strings.TrimRight(strings.TrimRight(s, "0"), "."); s == "" {
		s = "0"
	}
	return s + " " + unit
}

// shown writes thousandths as a decimal.
func shown(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	return fmt.Sprintf("%s%d.%03d", sign, n/1000, n%1000)
}

// price gives what is to be paid, in thousandths: of jobs for as long as they ran, and of a window
// all of it once it has begun.
func (j *judging) price() int64 {
	whole := j.r.Plan.Price
	if whole == 0 {
		return 0
	}
	placed, err := terms.Placements(j.r.Plan)
	if err != nil {
		return whole
	}
	var had, used float64
	for i := range j.x.request.Services {
		v := &j.x.request.Services[i]
		weight := 1.0
		if i < len(placed) {
			weight = float64(max(1, placed[i].CPUs))
		}
		length := v.Duration
		if !v.Window.IsZero() {
			length = v.Window.Length()
		}
		had += weight * length.Seconds()
		switch {
		case !v.Window.IsZero():
			if !j.now.Before(v.Window.Start) {
				used += weight * length.Seconds()
			}
		case i < len(j.n.Services):
			ran := j.n.Services[i].Used
			if since := j.n.Services[i].Since; !since.IsZero() {
				ran += max(0, j.now.Sub(since))
			}
			used += weight * min(ran, length).Seconds()
		}
	}
	if had <= 0 {
		return whole
	}
	return min(whole, int64(float64(whole)*used/had+0.5))
}

// owed gives what would be due if the agreement ended now, in thousandths of the unit: at most its
// price, and below zero where the provider pays.
func (j *judging) owed() int64 {
	due := decimal.Decimal{}
	for i := range j.n.Entries {
		e := &j.n.Entries[i]
		if e.Unit == j.s.o.Settings.Unit && (e.Kind == ledger.Penalty || e.Kind == ledger.Reward) {
			due, _ = due.Add(e.Amount)
		}
	}
	whole := int64(0)
	if j.r.Plan != nil {
		whole = j.r.Plan.Price
	}
	price := j.price()
	if p, err := thousandths(price); err == nil {
		due, _ = due.Add(p)
	}
	scaled, ok := due.Mul(decimal.New(1000))
	n, err := strconv.ParseInt(strings.SplitN(scaled.String(), ".", 2)[0], 10, 64)
	if !ok || err != nil {
		n = price
	}
	return max(-engine.MaxPrice, min(n, whole))
}

// resume has done what is left of the agreements that there are, and gives of the jobs whose end was not heard of how
// much was: those of the live ones, and of those that ended while nobody was here.
func (s *Service) resume(ctx context.Context) (heard map[string]int, err error) {
	heard = map[string]int{}
	jobs := func(r *engine.Record) {
		n, err := noteOf(r)
		if err != nil {
			return
		}
		for i := range n.Services {
			if v := &n.Services[i]; v.Job != "" && !v.over() {
				heard[v.Job] = v.Sequence
			}
		}
	}
	for _, r := range s.e.Live() { // before those that have ended, as some of them end meanwhile
		jobs(&r)
	}
	return heard, s.insist(ctx, "what is left of agreements that have ended", func() error {
		return s.e.Ended(ctx, func(r *engine.Record) {
			if unbilled(r) {
				jobs(r)
			} else if !untold(r) { // by the gateway before this one
				return
			}
			s.work.add(r.ID, time.Time{})
		})
	})
}

// take writes down what is heard of jobs. What can't be written now is tried until it can.
func (s *Service) take(ctx context.Context, list []broker.Evidence) error {
	var order []string
	of := map[string][]broker.Evidence{}
	for _, e := range list {
		id := e.Promise.Agreement
		if of[id] == nil {
			order = append(order, id)
		}
		of[id] = append(of[id], e)
	}
	for _, id := range order {
		err := s.insist(ctx, "the agreement "+id, func() error {
			r, err := s.e.Get(ctx, id)
			if fail.Is(err, fail.NotFound) {
				return nil // it is kept no more, or was never one of ours
			}
			if err != nil || r.Plan == nil {
				return err
			}
			x, err := s.read(ctx, &r)
			if err != nil || x.request == nil {
				return err
			}
			list := of[id]
			if r.Final() { // what its jobs did later is not for it
				list = slices.DeleteFunc(slices.Clone(list), func(e broker.Evidence) bool { return e.At.After(r.Ended) })
			}
			_, err = s.update(ctx, &r, x, input{evidence: list})
			return err
		})
		if err != nil {
			s.o.Log.Error("what is heard of a job can't be written down", "agreement", id, "cause", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.work.add(id, time.Time{})
	}
	return nil
}
