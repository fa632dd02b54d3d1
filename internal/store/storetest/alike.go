package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Alike drives two stores with the same random operations; what they answer and
// what can be seen afterwards must be the same, but for the numbers of revisions.
// Each run uses an owner of its own (and ids of its own), so that the stores need
// not be empty.
func Alike(t *testing.T, a, b store.Store) {
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		p := &pair{t: t, rt: rt, sides: [2]*side{{s: a}, {s: b}}, prefix: fmt.Sprintf("%s-%06d", time.Now().UTC().Format("20060102150405.000000000"), run)}
		for _, s := range p.sides {
			s.sess = map[string]store.Session{}
			s.revs = map[string][]int64{}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create":  p.create,
			"update":  p.update,
			"join":    p.join,
			"leave":   p.leave,
			"setting": p.setting,
			"records": p.records,
			"read":    p.read,
		})
		p.rt = rt
		p.compareAll(rt)
		for _, s := range p.sides {
			for _, sess := range s.sess {
				_ = sess.Close()
			}
		}
	})
}

type side struct {
	s    store.Store
	sess map[string]store.Session
	revs map[string][]int64 // revisions of each job, oldest first
}

type pair struct {
	t      *testing.T
	rt     *rapid.T
	prefix string
	sides  [2]*side
}

func (p *pair) id(n int) string       { return fmt.Sprintf("%s-%d", p.prefix, n) }
func (p *pair) owner(o string) string { return p.prefix + o }

// same compares two answers.
func same[T any](rt *rapid.T, what string, answers [2]T, errs [2]error) {
	ka, kb := kind(errs[0]), kind(errs[1])
	if ka != kb || !reflect.DeepEqual(answers[0], answers[1]) {
		rt.Fatalf("%s: one gave\n%+v, %v\nthe other\n%+v, %v", what, answers[0], errs[0], answers[1], errs[1])
	}
}

func kind(err error) string {
	if err == nil {
		return ""
	}
	return fail.KindOf(err).String()
}

func (s *side) note(j store.Job) store.Job {
	if j.ID != "" && !slices.Contains(s.revs[j.ID], j.Revision) {
		s.revs[j.ID] = append(s.revs[j.ID], j.Revision)
	}
	j.Revision = int64(slices.Index(s.revs[j.ID], j.Revision))
	return j
}

func (s *side) notes(jobs []store.Job) []store.Job {
	var out []store.Job
	for _, j := range jobs {
		out = append(out, s.note(j))
	}
	return out
}

var texts = rapid.SampledFrom([]string{"", "a", "b", "a/b", "\x00", "ü", "<&>"})

func drawStatus(rt *rapid.T) store.Status {
	st := store.Status{
		Phase: texts.Draw(rt, "phase"), Final: rapid.IntRange(0, 3).Draw(rt, "final") == 0,
		Reason: texts.Draw(rt, "reason"), Attempt: rapid.IntRange(0, 3).Draw(rt, "attempt"), Cancel: rapid.Bool().Draw(rt, "cancel"),
		Sequence: rapid.IntRange(0, 5).Draw(rt, "sequence"),
	}
	if rapid.Bool().Draw(rt, "placed") {
		st.Placement = &store.Placement{Tag: texts.Draw(rt, "tag"), Handle: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(rt, "handle")}
	}
	if rapid.Bool().Draw(rt, "exited") {
		st.ExitStatus = new(rapid.IntRange(0, 255).Draw(rt, "exit"))
	}
	return st
}

func drawEvent(rt *rapid.T) store.Event {
	return store.Event{Time: epoch.Add(time.Duration(rapid.Int64Range(0, 1e15).Draw(rt, "time"))), Phase: texts.Draw(rt, "phase"), Event: texts.Draw(rt, "event")}
}

func (p *pair) create(rt *rapid.T) {
	n := store.NewJob{
		ID: p.id(rapid.IntRange(0, 20).Draw(rt, "id")), Owner: p.owner(texts.Draw(rt, "owner")), Name: texts.Draw(rt, "name"),
		SubmissionID: texts.Draw(rt, "submission"), Document: rapid.SliceOfN(rapid.ByteRange('a', 'b'), 0, 2).Draw(rt, "document"),
		Submitted: epoch, Status: drawStatus(rt), Event: drawEvent(rt),
	}
	type answer struct {
		Job     store.Job
		Created bool
	}
	var out [2]answer
	var errs [2]error
	for i, s := range p.sides {
		var job store.Job
		job, out[i].Created, errs[i] = s.s.Create(p.t.Context(), n)
		out[i].Job = s.note(job)
	}
	same(rt, "Create", out, errs)
}

func (p *pair) update(rt *rapid.T) {
	replica := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "replica")
	type plan struct {
		id  string
		ago int
		c   store.Change
		// with is the other job of the change; "" for none.
		with string
	}
	var plans []plan
	for range rapid.IntRange(1, 6).Draw(rt, "changes") {
		c := store.Change{Status: drawStatus(rt)}
		for range rapid.IntRange(0, 3).Draw(rt, "events") {
			c.Events = append(c.Events, drawEvent(rt))
		}
		plans = append(plans, plan{p.id(rapid.IntRange(0, 20).Draw(rt, "id")), rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "ago"), c, ""})
		if rapid.IntRange(0, 2).Draw(rt, "with") == 0 {
			plans[len(plans)-1].with = p.id(rapid.IntRange(0, 20).Draw(rt, "with id"))
		}
	}
	var out [2][]string
	for i, s := range p.sides {
		var changes []store.Change
		for _, q := range plans {
			c := q.c
			c.ID = q.id
			if revs := s.revs[q.id]; len(revs) > q.ago {
				c.Revision = revs[len(revs)-1-q.ago]
			}
			if q.with != "" {
				w := store.Change{ID: q.with, Status: q.c.Status, Events: q.c.Events}
				if revs := s.revs[q.with]; len(revs) > 0 {
					w.Revision = revs[len(revs)-1]
				}
				c.With = &w
			}
			changes = append(changes, c)
		}
		for k, r := range s.s.Update(p.t.Context(), s.sess[replica], changes...) {
			if r.Err == nil {
				s.note(store.Job{ID: changes[k].ID, Revision: r.Revision})
				if w := changes[k].With; w != nil {
					s.note(store.Job{ID: w.ID, Revision: r.With})
				}
			}
			out[i] = append(out[i], kind(r.Err))
		}
	}
	same(rt, "Update", out, [2]error{})
}

func (p *pair) join(rt *rapid.T) {
	replica := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "replica")
	for _, s := range p.sides {
		sess, err := s.s.Join(p.t.Context(), replica)
		if err != nil {
			rt.Fatalf("Join: %v", err)
		}
		if old := s.sess[replica]; old != nil {
			await(p.t, old.Lost(), "the older session to be lost")
			_ = old.Close()
		}
		s.sess[replica] = sess
	}
}

func (p *pair) leave(rt *rapid.T) {
	replica := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "replica")
	for _, s := range p.sides {
		if sess := s.sess[replica]; sess != nil {
			if err := sess.Close(); err != nil {
				rt.Fatalf("Close: %v", err)
			}
		}
	}
}

func (p *pair) setting(rt *rapid.T) {
	name, value := p.prefix+texts.Draw(rt, "name"), texts.Draw(rt, "value")
	set := rapid.Bool().Draw(rt, "set")
	var out [2]string
	var errs [2]error
	for i, s := range p.sides {
		if set {
			errs[i] = s.s.SetSetting(p.t.Context(), name, []byte(value))
			continue
		}
		v, ok, err := s.s.Setting(p.t.Context(), name)
		out[i], errs[i] = fmt.Sprintf("%q %v", v, ok), err
	}
	same(rt, "Setting", out, errs)
}

func (p *pair) read(rt *rapid.T) {
	o := store.ListOptions{Owner: p.owner(texts.Draw(rt, "owner")), Limit: rapid.IntRange(0, 5).Draw(rt, "limit")}
	if rapid.Bool().Draw(rt, "page") {
		o.Before = p.id(rapid.IntRange(0, 20).Draw(rt, "before"))
	}
	id := p.id(rapid.IntRange(0, 20).Draw(rt, "id"))
	after := rapid.IntRange(-1, 6).Draw(rt, "after")
	var lists [2][]store.Job
	var counts [2]int64
	var docs [2]string
	var lines [2][]store.Event
	var errs [2]error
	for i, s := range p.sides {
		jobs, err := s.s.List(p.t.Context(), o)
		lists[i], errs[i] = s.notes(jobs), err
	}
	same(rt, "List", lists, errs)
	for i, s := range p.sides {
		counts[i], errs[i] = s.s.Count(p.t.Context(), o.Owner)
	}
	same(rt, "Count", counts, errs)
	for i, s := range p.sides {
		doc, err := s.s.Document(p.t.Context(), id)
		docs[i], errs[i] = string(doc), err
	}
	same(rt, "Document", docs, errs)
	for i, s := range p.sides {
		lines[i], errs[i] = s.s.History(p.t.Context(), id, after)
		if len(lines[i]) == 0 {
			lines[i] = nil
		}
	}
	same(rt, "History", lines, errs)
}

// compareAll compares everything of this run.
func (p *pair) compareAll(rt *rapid.T) {
	var jobs [2]map[string]store.Job
	var lines [2]map[string][]store.Event
	var live [2][]store.Job
	var errs [2]error
	for i, s := range p.sides {
		var all []string
		for n := range 21 {
			all = append(all, p.id(n))
		}
		var err error
		if jobs[i], err = s.s.Get(p.t.Context(), all...); err != nil {
			rt.Fatalf("Get: %v", err)
		}
		lines[i] = map[string][]store.Event{}
		for id, j := range jobs[i] {
			jobs[i][id] = s.note(j)
			if lines[i][id], err = s.s.History(p.t.Context(), id, 0); err != nil || len(lines[i][id]) != j.Status.Sequence {
				rt.Fatalf("History gave %d lines, %v; the sequence is %d", len(lines[i][id]), err, j.Status.Sequence)
			}
		}
		l, err := s.s.Live(p.t.Context())
		errs[i] = err
		for _, j := range l {
			if _, ok := jobs[i][j.ID]; ok {
				live[i] = append(live[i], s.note(j))
			}
		}
	}
	same(rt, "Get", jobs, errs)
	same(rt, "History", lines, errs)
	same(rt, "Live", live, errs)
}
