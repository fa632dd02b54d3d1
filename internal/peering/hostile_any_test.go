package peering

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// madman makes up what a peer could say that keeps to the form of each message and to nothing else.
type madman struct {
	rng *rand.Rand
	w   *world
}

func one[T any](m *madman, of ...T) T { return of[m.rng.IntN(len(of))] }

func (m *madman) number() uint64 { return one(m, 0, 1, 2, m.rng.Uint64N(100), wire.MaxSeq) }

func (m *madman) text(most int) string {
	return strings.Repeat(one(m, "x", "<", `"`, `\`, "&", "%"), one(m, 0, 1, m.rng.IntN(most+1), most))
}

func (m *madman) domain() string { return one(m, "a", "b", "c", "d", "x"+m.text(wire.MaxDomain-1)) }

func (m *madman) about() wire.About {
	longest := strings.TrimSuffix(strings.Repeat("4294967295.", wire.MaxPath), ".")
	return wire.About{
		Origin: m.domain(), ID: one(m, fmt.Sprint("m", m.rng.IntN(5)), "j1", "x"+m.text(wire.MaxID-1)), Token: one(m, "1", "2", "1.1", "4294967295", longest),
	}
}

func (m *madman) moment() time.Time {
	return time.Now().Add(one(m, -time.Hour, 0, time.Second, time.Minute, m.w.terms.Lease, m.w.terms.Lease+time.Hour, 7*24*time.Hour, 1000*24*time.Hour)).UTC()
}

func (m *madman) path(origin string) []string {
	way := []string{origin}
	for range one(m, 0, 1, 2, wire.MaxPath-2) {
		way = append(way, m.domain())
	}
	return one(m, append(way, "a"), way, []string{"a"})
}

func (m *madman) item() wire.Message {
	about := m.about()
	if about.Origin == "c" && about.ID == "j1" {
		about.ID = "j2" // whose names nobody can guess are not asked about
	}
	switch m.rng.IntN(9) {
	case 0:
		r := m.w.route(about.Origin, about.ID, one(m, "sleep 1m", "hang", "no such thing"))
		r.About, r.RecallBy, r.Path, r.Hops = about, m.moment(), m.path(about.Origin), m.rng.IntN(17)
		r.VO, r.Assertion = m.text(20), make([]byte, one(m, 0, 1, wire.MaxAssertion))
		if m.rng.IntN(20) == 0 {
			r.Document = strings.Repeat("<", wire.MaxDocument)
		}
		if r.Digest = digestOf(r.Document, r.VO, time.Time{}); m.rng.IntN(5) == 0 {
			r.Digest = "sha-256:0"
		}
		return r
	case 1:
		return &wire.Answer{About: about, Accepted: m.rng.IntN(2) == 0, Kind: one(m, "", wire.Internal), Reason: m.text(wire.MaxReason)}
	case 2:
		r := &wire.Report{
			About: about, Revision: m.number(), Heeded: m.number(), Status: one(m, wire.IsWaiting, wire.IsRunning, wire.IsEnded, wire.IsReturned), Site: m.text(wire.MaxID), At: m.moment(),
			Used: time.Duration(m.rng.Int64N(1 << 40)), Reason: m.text(wire.MaxReason), Where: m.path("a")[:1],
		}
		if r.Status == wire.IsEnded {
			r.Result = &wire.Result{Outcome: wire.Finished, Reason: m.text(wire.MaxReason)}
		}
		return r
	case 3:
		return &wire.Grant{About: about, RecallBy: m.moment()}
	case 4:
		return &wire.Control{About: about, Number: m.number(), Want: one(m, wire.Run, wire.Suspend, wire.Cancel), Recall: one(m, "", wire.RecallIdle, wire.RecallRunning), RecallBy: m.moment()}
	case 5:
		return &wire.Settle{About: about, Taken: m.rng.IntN(2) == 0}
	case 6:
		return &wire.Query{About: about}
	case 7:
		return &wire.Read{About: about, Request: 1 + m.number()/2, Stream: wire.Stdout, Offset: m.number(), Most: one(m, 0, 1, wire.MaxOutput), Follow: m.rng.IntN(2) == 0}
	}
	return &wire.Output{About: about, Request: 1 + m.number()/2, Offset: m.number(), Last: m.rng.IntN(2) == 0, Data: make([]byte, one(m, 0, 1, wire.MaxOutput))}
}

// rant has a peer say so many things, in batches, and looks at what that leaves.
func rant(t *testing.T, seed uint64, times int) {
	pair(t, func(t *testing.T, w *world) {
		a, b, c := w.gates["a"], w.gates["b"], w.gates["c"]
		m := &madman{rng: rand.New(rand.NewPCG(seed, 7)), w: w}
		theirs := c.give("b", "j1-1", "sleep 5m;exit 3") // another peer's, all the while
		ours := b.give("a", "j9-1", "sleep 5m")          // and one of our own at the peer
		w.links[[2]string{"b", "a"}].mu.Lock()
		w.links[[2]string{"b", "a"}].busy = func() bool { return seed%2 == 0 && time.Now().Second() < 50 } // it takes little of what it is told
		w.links[[2]string{"b", "a"}].mu.Unlock()
		e := b.engine()
		for range times {
			var items []wire.Message
			for range m.rng.IntN(30) {
				if x := m.item(); wire.Sendable(x) == nil { // else it is refused before anybody heeds it
					items = append(items, x)
				}
			}
			e.Deliver("a", items, nil)
			time.Sleep(time.Duration(m.rng.Int64N(int64(2 * time.Second))))
			e.mu.Lock()
			here, past := 0, 0
			for _, x := range e.jobs {
				switch {
				case !x.taken() || x.job.Taken.From != "a":
				case live(x.job):
					here++
				default:
					past++
				}
			}
			output := 0
			for _, l := range e.peers["a"].outbox {
				if o, ok := l.item.(*wire.Output); ok {
					output += len(o.Data)
				}
			}
			if here != e.here["a"] || past != e.past["a"] || len(e.peers["a"].outbox) > limits.Letters+1 || output > limits.OutputBytes {
				t.Errorf("%d and %d jobs, counted as %d and %d; %d letters, %d bytes of output", here, past, e.here["a"], e.past["a"], len(e.peers["a"].outbox), output)
			}
			e.mu.Unlock()
		}
		if x := c.until(theirs.Handle, adapters.Exited); x.ExitStatus == nil || *x.ExitStatus != 3 {
			t.Errorf("the other peer's job: %+v", x)
		}
		if n := b.jobs.runs(handover.Key{Origin: "c", ID: "j1"}); n != 1 {
			t.Errorf("the other peer's job ran %d times", n)
		}
		_ = ours // what becomes of it is the peer's to say
		_ = a
		// All that it had written can be read again.
		b.stop()
		b.start()
		w.open("c", "b")
		again := c.give("b", "j7-1", "sleep 1m")
		c.until(again.Handle, adapters.Exited)
	}, "a", "b", "c")
}

// TestPeerOutOfItsMind: a trusted peer that says anything at all, in any order, makes nothing grow beyond its bounds, harms no
// other peer, and leaves nothing that a gateway could not begin with again.
func TestPeerOutOfItsMind(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { rant(t, seed, 60) })
	}
}

// FuzzPeer is the same with seeds that nobody chose.
func FuzzPeer(f *testing.F) {
	f.Add(uint64(100))
	f.Fuzz(func(t *testing.T, seed uint64) { rant(t, seed, 20) })
}
