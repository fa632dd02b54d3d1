package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Maker says how to get a store and how to do to it what the world would.
type Maker struct {
	// Open gives an empty store, closed when the test ends.
	Open func(t testing.TB) store.Store
	// Reopen closes the store and opens what it left; the result is closed when the
	// test ends.
	Reopen func(t testing.TB, s store.Store) store.Store
	// Compact makes the store forget all changes so far.
	Compact func(t testing.TB, s store.Store)
	// Expire ends a session's lease behind its holder's back.
	Expire func(t testing.TB, s store.Store, sess store.Session, replica string)
	// MaxDocument is the largest document in bytes that the store must take.
	MaxDocument int
}

// Run judges a store.
func Run(t *testing.T, m Maker) {
	for name, test := range map[string]func(*testing.T, Maker){
		"CreateAndRead":        createAndRead,
		"CreateIsIdempotent":   createIsIdempotent,
		"CreateAtOnce":         createAtOnce,
		"CreateRefuses":        createRefuses,
		"CreateCancelled":      createCancelled,
		"Documents":            documents,
		"UpdateCompares":       updateCompares,
		"UpdateManyAtOnce":     updateManyAtOnce,
		"UpdateWith":           updateWith,
		"UpdateNotes":          updateNotes,
		"UpdateRaces":          updateRaces,
		"HistoryIsComplete":    historyIsComplete,
		"FinalAndBack":         finalAndBack,
		"LiveLeavesOutFinal":   liveLeavesOutFinal,
		"ListPages":            listPages,
		"SessionLost":          sessionLost,
		"SessionClosed":        sessionClosed,
		"SessionTakeover":      sessionTakeover,
		"WatchInOrder":         watchInOrder,
		"WatchResumes":         watchResumes,
		"WatchSlowConsumer":    watchSlowConsumer,
		"WatchCompacted":       watchCompacted,
		"WatchEndsWithStore":   watchEndsWithStore,
		"Settings":             settings,
		"Health":               health,
		"SurvivesReopening":    survivesReopening,
		"ClosedIsUnavailable":  closedIsUnavailable,
		"HostileNames":         hostileNames,
		"GivenBackUnshared":    givenBackUnshared,
		"StatusComesBackWhole": statusComesBackWhole,

		"RecordsAllOrNothing":     recordsAllOrNothing,
		"RecordsCompare":          recordsCompare,
		"RecordsEqualCostNothing": recordsEqualCostNothing,
		"RecordsBound":            recordsBound,
		"RecordsGuarded":          recordsGuarded,
		"RecordsListing":          recordsListing,
		"RecordsRefuses":          recordsRefuses,
		"RecordsRace":             recordsRace,
		"RecordsUnshared":         recordsUnshared,
		"RecordsWatch":            recordsWatch,
		"RecordsSlowConsumer":     recordsSlowConsumer,
		"RecordsWatchCompacted":   recordsWatchCompacted,
		"RecordsReopen":           recordsReopen,
		"RecordsClosed":           recordsClosed,
	} {
		t.Run(name, func(t *testing.T) { test(t, m) })
	}
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// id gives ids that are ordered by n, as UUIDv7 are by time.
func id(n int) string { return fmt.Sprintf("0190a000-0000-7000-8000-%012x", n) }

func newJob(n int, owner string) store.NewJob {
	return store.NewJob{
		ID: id(n), Owner: owner, Name: fmt.Sprintf("job %d", n),
		Document:  []byte(fmt.Sprintf("<JobDefinition>%d</JobDefinition>", n)),
		Submitted: epoch.Add(time.Duration(n) * time.Second),
		Status:    store.Status{Phase: "queued"},
		Event:     store.Event{Time: epoch, Phase: "queued", Event: "accepted"},
	}
}

// create fails the test unless the job is new.
func create(t testing.TB, s store.Store, n store.NewJob) store.Job {
	t.Helper()
	job, created, err := s.Create(t.Context(), n)
	if err != nil || !created {
		t.Fatalf("Create(%s): created %v, error %v", n.ID, created, err)
	}
	return job
}

func join(t testing.TB, s store.Store, replica string) store.Session {
	t.Helper()
	sess, err := s.Join(t.Context(), replica)
	if err != nil {
		t.Fatalf("Join: %v", err)
	}
	t.Cleanup(func() { _ = sess.Close() })
	return sess
}

// change gives a change of job to a phase with one line.
func change(job store.Job, phase string, final bool) store.Change {
	st := job.Status
	st.Phase, st.Final = phase, final
	return store.Change{
		ID: job.ID, Revision: job.Revision, Status: st,
		Events: []store.Event{{Time: epoch, Phase: phase, Event: "to " + phase}},
	}
}

// update makes one change and gives the job as it is then.
func update(t testing.TB, s store.Store, sess store.Session, c store.Change) store.Job {
	t.Helper()
	out := s.Update(t.Context(), sess, c)
	if len(out) != 1 || out[0].Err != nil {
		t.Fatalf("Update(%s): %+v", c.ID, out)
	}
	job := get(t, s, c.ID)
	if job.Revision != out[0].Revision {
		t.Fatalf("Update(%s) gave revision %d, Get gives %d", c.ID, out[0].Revision, job.Revision)
	}
	return job
}

func get(t testing.TB, s store.Store, id string) store.Job {
	t.Helper()
	jobs, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	job, ok := jobs[id]
	if !ok {
		t.Fatalf("Get: %s is not there", id)
	}
	return job
}

func history(t testing.TB, s store.Store, id string) []store.Event {
	t.Helper()
	events, err := s.History(t.Context(), id, 0)
	if err != nil {
		t.Fatalf("History(%s): %v", id, err)
	}
	return events
}

func wantKind(t testing.TB, err error, kind fail.Kind) {
	t.Helper()
	if e, ok := errors.AsType[*fail.Error](err); !ok || e.Kind != kind {
		t.Fatalf("the error is %v; want one of kind %q", err, kind)
	}
}

// await waits for a channel for a while that only a broken store exceeds.
func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	select {
	case v := <-c:
		return v
	case <-ctx.Done():
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func ids(jobs []store.Job) []string {
	out := make([]string, len(jobs))
	for i, j := range jobs {
		out[i] = j.ID
	}
	return out
}
