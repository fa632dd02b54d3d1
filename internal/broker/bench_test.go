package broker

import (
	"context"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// BenchmarkSubmit is a submission that is durable, beside the store's own part
// of it (BenchmarkCreate).
func BenchmarkSubmit(b *testing.B) {
	w := fake.NewWorld(0)
	defer w.Close()
	g := start(b, Config{
		Store: newStore(b), Alone: true, Limits: Limits{LivePerOwner: 1 << 30},
		Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}},
	})
	<-g.Ready()
	doc := document("hang")
	def, problems := jsdl.Parse(doc, jsdl.Options{})
	if err := problems.Err(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: doc, Job: def}); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	g.stop()
}

func BenchmarkCreate(b *testing.B) {
	st, doc := newStore(b), document("hang")
	b.ReportAllocs()
	for b.Loop() {
		id, _ := newID()
		now := time.Now()
		s, line, _, _ := step(store.Status{}, fact{event: Accepted, at: now, reason: "accepted from ada"})
		if _, _, err := st.Create(context.Background(), store.NewJob{ID: id, Owner: "ada", Document: doc, Submitted: now, Status: s, Event: *line}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLife is a short job from its submission to its end, many at once.
func BenchmarkLife(b *testing.B) {
	w := fake.NewWorld(0)
	defer w.Close()
	ended := make(chan struct{}, 1<<20)
	g := start(b, Config{
		Store: newStore(b), Alone: true, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}},
		Hooks: Hooks{Ended: func(string, string, time.Duration, time.Duration) { ended <- struct{}{} }},
	})
	<-g.Ready()
	doc := document("exit 0")
	def, _ := jsdl.Parse(doc, jsdl.Options{})
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: doc, Job: def}); err != nil {
			b.Fatal(err)
		}
		if n++; n > 64 { // so many are on their way
			<-ended
		}
	}
	b.StopTimer()
	g.stop()
}
