package storetest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

func updateCompares(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	first := create(t, s, newJob(1, "alice"))
	second := update(t, s, sess, change(first, "running", false))
	if second.Revision <= first.Revision || second.Status.Phase != "running" || second.Status.Sequence != 2 {
		t.Errorf("after an update the job is %+v", second)
	}
	out := s.Update(t.Context(), sess, change(first, "late", false))
	wantKind(t, out[0].Err, fail.Conflict)
	future := second
	future.Revision += 1000
	out = s.Update(t.Context(), sess, change(future, "early", false))
	wantKind(t, out[0].Err, fail.Conflict)
	out = s.Update(t.Context(), sess, store.Change{ID: id(9), Revision: first.Revision})
	wantKind(t, out[0].Err, fail.NotFound)
	if got := get(t, s, first.ID); !reflect.DeepEqual(got, second) {
		t.Errorf("refused updates changed the job to %+v", got)
	}
	if got := history(t, s, first.ID); len(got) != 2 {
		t.Errorf("refused updates changed the history to %+v", got)
	}
	if out := s.Update(t.Context(), sess); len(out) != 0 {
		t.Errorf("an update of nothing gave %v", out)
	}
	// A sequence that the caller made up is not believed.
	c := change(second, "running", false)
	c.Status.Sequence, c.Events[0].Sequence = 77, 99
	third := update(t, s, sess, c)
	if h := history(t, s, first.ID); third.Status.Sequence != 3 || h[len(h)-1].Sequence != 3 {
		t.Errorf("the sequence is %d, the history %+v", third.Status.Sequence, h)
	}
}

// updateWith proves that a change with another is made with it or not at all.
func updateWith(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	a, b, c := create(t, s, newJob(1, "alice")), create(t, s, newJob(2, "bob")), create(t, s, newJob(3, "alice"))
	with := func(one, two store.Change) store.Change { one.With = &two; return one }
	out := s.Update(t.Context(), sess, with(change(a, "won", true), change(b, "ended", false)), change(c, "running", false))
	if len(out) != 2 || out[0].Err != nil || out[1].Err != nil {
		t.Fatalf("%+v", out)
	}
	a2, b2 := get(t, s, a.ID), get(t, s, b.ID)
	if a2.Status.Phase != "won" || b2.Status.Phase != "ended" || a2.Revision != out[0].Revision || b2.Revision != out[0].With || out[1].With != 0 {
		t.Errorf("%+v\n%+v\n%+v", out, a2, b2)
	}
	if x, y := history(t, s, a.ID), history(t, s, b.ID); len(x) != 2 || len(y) != 2 || a2.Status.Sequence != 2 || b2.Status.Sequence != 2 {
		t.Errorf("the histories are %+v and %+v", x, y)
	}
	live, err := s.Live(t.Context())
	if err != nil || len(live) != 2 {
		t.Errorf("live are %+v, %v", live, err)
	}
	// When one of the two can't be, neither is, whichever it is.
	c2 := get(t, s, c.ID)
	gone := store.Change{ID: id(9), Revision: 1}
	for _, bad := range []struct {
		c    store.Change
		kind fail.Kind
	}{
		{with(change(c2, "x", false), change(b, "x", false)), fail.Conflict}, // b moved on
		{with(change(b, "x", false), change(c2, "x", false)), fail.Conflict},
		{with(change(c2, "x", false), gone), fail.NotFound},
		{with(gone, change(c2, "x", false)), fail.NotFound},
		{with(change(c2, "x", false), change(c2, "x", false)), fail.Invalid},
		{with(change(c2, "x", false), with(change(b2, "x", false), gone)), fail.Invalid},
	} {
		out := s.Update(t.Context(), sess, bad.c)
		wantKind(t, out[0].Err, bad.kind)
		if x, y := get(t, s, c.ID), get(t, s, b.ID); !reflect.DeepEqual(x, c2) || !reflect.DeepEqual(y, b2) {
			t.Fatalf("%+v was done by half: %+v, %+v", bad.c, x, y)
		}
	}
	// Of several changes of one job the first is applied, as part of a pair too.
	out = s.Update(t.Context(), sess, with(change(b2, "first", true), change(c2, "first", true)), change(c2, "second", false))
	if out[0].Err != nil {
		t.Errorf("%+v", out)
	}
	wantKind(t, out[1].Err, fail.Conflict)
	if live, err = s.Live(t.Context()); err != nil || len(live) != 0 {
		t.Errorf("live are %+v, %v", live, err)
	}
	expired := join(t, s, "r")
	out = s.Update(t.Context(), sess, with(change(get(t, s, b.ID), "x", false), change(get(t, s, c.ID), "x", false)))
	wantKind(t, out[0].Err, fail.Conflict)
	_ = expired
}

// updateNotes proves that a record which goes with a change is written with it or not at all.
func updateNotes(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	a, b := create(t, s, newJob(1, "alice")), create(t, s, newJob(2, "bob"))
	_, before := list(t, s, "why/", store.RecordOptions{})
	w := watchRecords(t, s, "why/", before)
	noted := func(c store.Change, key, value string) store.Change {
		c.Note = &store.Note{Key: key, Value: []byte(value)}
		return c
	}
	pair := noted(change(a, "running", false), "why/a", "1")
	with := noted(change(b, "running", false), "why/b", "1")
	pair.With = &with
	out := s.Update(t.Context(), sess, pair)
	if out[0].Err != nil {
		t.Fatal(out[0].Err)
	}
	told := w.next(t, "the record of a change")
	if !slices.ContainsFunc(told, func(r store.Record) bool { return r.Key == "why/a" && r.Revision == out[0].Revision }) {
		t.Errorf("told are %+v of the change %+v", told, out[0])
	}
	a, b = get(t, s, a.ID), get(t, s, b.ID)
	wantRecords(t, s, "why/", "why/a=1", "why/b=1")
	// In place of what is there, whatever that is, and beside changes that can't be made.
	late := noted(change(b, "late", false), "why/b", "lost")
	late.Revision--
	out = s.Update(t.Context(), sess, noted(change(a, "held", false), "why/a", "2"), late)
	if out[0].Err != nil {
		t.Fatal(out[0].Err)
	}
	wantKind(t, out[1].Err, fail.Conflict)
	wantRecords(t, s, "why/", "why/a=2", "why/b=1")
	if got := get(t, s, b.ID); !reflect.DeepEqual(got, b) {
		t.Errorf("a change that can't be made made %+v", got)
	}
	a = get(t, s, a.ID)
	for _, bad := range []store.Change{noted(change(a, "x", false), "why//a", "3"), noted(change(a, "x", false), "", "3")} {
		wantKind(t, s.Update(t.Context(), sess, bad)[0].Err, fail.Invalid)
	}
	wantKind(t, s.Update(t.Context(), sess, noted(change(a, "x", false), "why/a", strings.Repeat("x", store.MaxRecord+1)))[0].Err, fail.Exhausted)
	put(t, s, sess, store.RecordChange{Key: "why/b", If: -1})
	wantRecords(t, s, "why/", "why/a=2")
	// Who has lost the session writes neither.
	_ = join(t, s, "r")
	wantKind(t, s.Update(t.Context(), sess, noted(change(a, "x", false), "why/a", "3"))[0].Err, fail.Conflict)
	wantRecords(t, s, "why/", "why/a=2")
}

func updateManyAtOnce(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	const n = 300
	jobs := make([]store.Job, n)
	var changes []store.Change
	for i := range jobs {
		jobs[i] = create(t, s, newJob(i, "alice"))
		c := change(jobs[i], "running", false)
		switch i % 5 {
		case 1:
			c.Revision-- // a conflict
		case 2:
			c.ID = id(10000 + i) // not there
		case 3:
			c.Status.Final = true
		}
		changes = append(changes, c)
		if i%5 == 4 { // twice
			twice := change(jobs[i], "second", false)
			changes = append(changes, twice)
		}
	}
	out := s.Update(t.Context(), sess, changes...)
	if len(out) != len(changes) {
		t.Fatalf("%d outcomes of %d changes", len(out), len(changes))
	}
	k := 0
	for i, job := range jobs {
		got := get(t, s, job.ID)
		switch i % 5 {
		case 1:
			wantKind(t, out[k].Err, fail.Conflict)
		case 2:
			wantKind(t, out[k].Err, fail.NotFound)
		default:
			if out[k].Err != nil || out[k].Revision != got.Revision || got.Status.Phase != "running" {
				t.Fatalf("change %d: %+v, the job is %+v", i, out[k], got)
			}
		}
		if i%5 == 1 || i%5 == 2 {
			if !reflect.DeepEqual(got, job) {
				t.Fatalf("change %d was refused and did something: %+v", i, got)
			}
		}
		k++
		if i%5 == 4 {
			wantKind(t, out[k].Err, fail.Conflict)
			k++
		}
	}
}

// updateRaces: of those who saw the same revision one wins, and what was written
// is what the winners wrote.
func updateRaces(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	const jobs, workers, rounds = 5, 8, 20
	for i := range jobs {
		create(t, s, newJob(i, "alice"))
	}
	var mu sync.Mutex
	won := map[string]int{}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for r := range rounds {
				all := make([]string, jobs)
				for i := range jobs {
					all[i] = id((i + w) % jobs)
				}
				seen, err := s.Get(t.Context(), all...)
				if err != nil {
					t.Error(err)
					return
				}
				var changes []store.Change
				for _, i := range all {
					changes = append(changes, change(seen[i], fmt.Sprintf("%d.%d", w, r), false))
				}
				for i, out := range s.Update(t.Context(), sess, changes...) {
					switch {
					case out.Err == nil:
						mu.Lock()
						won[changes[i].ID]++
						mu.Unlock()
					case !fail.Is(out.Err, fail.Conflict):
						t.Error(out.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	for i := range jobs {
		job, lines := get(t, s, id(i)), history(t, s, id(i))
		if won[job.ID] == 0 || len(lines) != won[job.ID]+1 || job.Status.Sequence != len(lines) || lines[len(lines)-1].Phase != job.Status.Phase {
			t.Errorf("%d updates of %s succeeded; its history has %d lines, the last %+v; it is %+v",
				won[job.ID], job.ID, len(lines), lines[len(lines)-1], job.Status)
		}
	}
}

func historyIsComplete(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	n := newJob(1, "alice")
	job := create(t, s, n)
	create(t, s, newJob(2, "alice"))
	n.Event.Sequence = 1
	want := []store.Event{n.Event}
	for i := range 150 {
		c := change(job, fmt.Sprint("phase ", i), false)
		c.Events = nil
		for k := range i % 4 {
			c.Events = append(c.Events, store.Event{
				Time: epoch.Add(time.Duration(i) * time.Minute), Phase: c.Status.Phase, Event: fmt.Sprint("event ", k),
				Site: "shell", Attempt: i, Reason: "because of <&>\"\n" + fmt.Sprint(i),
			})
		}
		for _, e := range c.Events {
			e.Sequence = len(want) + 1
			want = append(want, e)
		}
		job = update(t, s, sess, c)
		if job.Status.Sequence != len(want) {
			t.Fatalf("the sequence is %d after %d lines", job.Status.Sequence, len(want))
		}
	}
	if got := history(t, s, job.ID); !reflect.DeepEqual(got, want) {
		t.Fatalf("History gave\n%+v, want\n%+v", got, want)
	}
	for _, after := range []int{-1, 0, 1, 2, 57, 58, 100, len(want) - 1, len(want), len(want) + 5} {
		got, err := s.History(t.Context(), job.ID, after)
		rest := want[min(max(after, 0), len(want)):]
		if err != nil || len(got) != len(rest) || (len(rest) > 0 && !reflect.DeepEqual(got, rest)) {
			t.Errorf("History after %d gave %d lines, %v; want %d", after, len(got), err, len(rest))
		}
	}
	if got := history(t, s, id(2)); len(got) != 1 {
		t.Errorf("another job's history has %d lines", len(got))
	}
}

// finalAndBack: Final decides only whether Live gives the job.
func finalAndBack(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	job := create(t, s, newJob(1, "alice"))
	for i, final := range []bool{true, true, false, false, true, false} {
		old := job
		job = update(t, s, sess, change(job, fmt.Sprint(i), final))
		live, err := s.Live(t.Context())
		if err != nil || (len(live) == 0) != final {
			t.Fatalf("final %v: Live gave %v, %v", final, live, err)
		}
		out := s.Update(t.Context(), sess, change(old, "late", !final))
		wantKind(t, out[0].Err, fail.Conflict)
	}
	if h := history(t, s, job.ID); len(h) != 7 {
		t.Errorf("the history has %d lines; want 7", len(h))
	}
}

func sessionLost(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	job := update(t, s, sess, change(create(t, s, newJob(1, "alice")), "running", false))
	select {
	case <-sess.Lost():
		t.Fatal("a new session is lost")
	default:
	}
	m.Expire(t, s, sess, "r")
	out := s.Update(t.Context(), sess, change(job, "late", false), change(get(t, s, job.ID), "late", false))
	wantKind(t, out[0].Err, fail.Conflict)
	wantKind(t, out[1].Err, fail.Conflict)
	await(t, sess.Lost(), "the session to be lost")
	if got := get(t, s, job.ID); !reflect.DeepEqual(got, job) {
		t.Errorf("a lost session wrote %+v", got)
	}
	// Creating needs no session, and a new session works.
	create(t, s, newJob(2, "alice"))
	update(t, s, join(t, s, "r"), change(job, "again", false))
	wantKind(t, s.Update(t.Context(), sess, change(get(t, s, job.ID), "late", false))[0].Err, fail.Conflict)
	wantKind(t, s.Update(t.Context(), nil, change(get(t, s, job.ID), "nobody", false))[0].Err, fail.Conflict)
}

func sessionClosed(t *testing.T, m Maker) {
	s := m.Open(t)
	job := create(t, s, newJob(1, "alice"))
	sess := join(t, s, "r")
	for range 2 {
		if err := sess.Close(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, sess.Lost(), "the session to be lost")
	wantKind(t, s.Update(t.Context(), sess, change(job, "late", false))[0].Err, fail.Conflict)
	_, err := s.Join(t.Context(), "")
	wantKind(t, err, fail.Invalid)
}

func sessionTakeover(t *testing.T, m Maker) {
	s := m.Open(t)
	job := create(t, s, newJob(1, "alice"))
	old := join(t, s, "r")
	other := join(t, s, "another")
	job = update(t, s, old, change(job, "a", false))
	young := join(t, s, "r")
	wantKind(t, s.Update(t.Context(), old, change(job, "late", false))[0].Err, fail.Conflict)
	await(t, old.Lost(), "the older session to be lost")
	job = update(t, s, young, change(job, "b", false))
	if err := old.Close(); err != nil { // what it closes is not the younger one
		t.Fatal(err)
	}
	job = update(t, s, young, change(job, "c", false))
	update(t, s, other, change(job, "d", false))
	select {
	case <-young.Lost():
		t.Error("the younger session is lost")
	case <-other.Lost():
		t.Error("a session of another name is lost")
	default:
	}
}

// statusComesBackWhole: nothing of a status is lost or invented.
func statusComesBackWhole(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	three := 3
	zero := 0
	full := store.Status{
		Phase: "p", Reason: "r\u2028<>&", Attempt: 2, Lost: 1, Refused: []string{"a", ""},
		Placement: &store.Placement{Tag: "t", Site: "s", Handle: []byte{0, 255}}, ExitStatus: &three, Signal: "SIGKILL",
		Started: epoch, Ended: epoch.Add(1), NotBefore: epoch.Add(2), Cancel: true, Suspend: true,
		Verdict: &store.Verdict{Event: "exited", Reason: "v", Ended: epoch.Add(3)},
		Aside:   []store.Aside{{Site: "a", Until: epoch.Add(4), Times: 2}},
		Foreign: &store.Foreign{From: "f", Origin: "o", ID: "i", Path: []string{"o", "f"}, Hops: 2, Account: "a", Trace: "t"}, NotAfter: epoch.Add(5),
		Promise: &store.Promise{
			Agreement: "urn:a", StartBy: epoch.Add(6), FinishBy: epoch.Add(7), NotBefore: epoch.Add(8), Site: "s", Share: "h", Room: "r", Reservation: []byte{0, 0xff},
			Pressed: true, Loose: true, Noted: true,
		},
		Told: &store.Told{Progress: 0.25, Hosts: []string{"a", "b"}, CPU: time.Second, Memory: 1 << 40, Attributes: map[string]string{"k": "v\u2028"}},
	}
	set(t, reflect.ValueOf(&full).Elem(), "Final", "Sequence")
	set(t, reflect.ValueOf(full.Placement).Elem())
	empty := full
	empty.Placement, empty.ExitStatus = &store.Placement{Handle: []byte{}}, &zero
	unanswered := full
	unanswered.Placement = &store.Placement{Tag: "t"}
	n := newJob(1, "alice")
	n.Status = full
	job := create(t, s, n)
	for _, st := range []store.Status{full, {}, empty, unanswered} {
		job = update(t, s, sess, store.Change{ID: job.ID, Revision: job.Revision, Status: st})
		st.Sequence = 1
		if !reflect.DeepEqual(job.Status, st) {
			t.Errorf("the status came back as\n%+v, want\n%+v", job.Status, st)
		}
	}
}

// set gives each field that is zero, but for some, a value of its own; one of a kind that
// it does not know must be set by the test.
func set(t testing.TB, v reflect.Value, but ...string) {
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if !f.IsZero() || slices.Contains(but, name) {
			continue
		}
		switch {
		case f.Kind() == reflect.String:
			f.SetString("of " + name)
		case f.CanInt():
			f.SetInt(int64(i + 7))
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		default:
			t.Fatalf("this test must set %s", name)
		}
	}
}
