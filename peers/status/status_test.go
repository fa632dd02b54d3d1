package status_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/status"
	"github.com/portolan-project/portolan/peers/wire"
)

func TestOf(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := peers.Peer{Domain: "fiu.example", URL: "https://gw.fiu.example/peer", Role: wire.Peer, Shows: wire.Simple}
	up := peers.Status{
		Peer: p, Endpoint: p.URL, Session: "s1", Phase: session.Suspect, Reason: "nothing was heard\nfor 1m30s", Since: now.Add(-time.Minute),
		Agreement: session.Agreement{
			Session: "s1", Version: "1", Features: []string{"digests"}, Beat: 30 * time.Second, Lost: 5 * time.Minute, Opener: true, Dials: true,
			Terms: wire.Terms{Lease: 10 * time.Minute}, Theirs: wire.Party{Software: "x/1", Provides: true, Shows: wire.Full, VOs: []string{"bio"}},
		},
		Heard: now.Add(-90 * time.Second), Unacknowledged: 3, Oldest: now.Add(-2 * time.Second), Undone: 1,
		In: peers.Traffic{Messages: 1, Bytes: 2, Items: 3}, Out: peers.Traffic{Messages: 4, Bytes: 5, Items: 6},
		Clock: peers.Clock{Difference: -time.Second, Within: time.Millisecond, At: now},
	}
	got := status.Of(&up, now)
	since, heard := now.Add(-time.Minute), now.Add(-90*time.Second)
	want := status.Peer{
		Domain: "fiu.example", URL: p.URL, Source: status.Configured, State: status.Suspect, Reason: "nothing was heard for 1m30s", Since: &since, Role: wire.Peer,
		Session: &status.Session{
			ID: "s1", Version: "1", Software: "x/1", Features: []string{"digests"}, Ours: true, Provides: true, Shows: wire.Full, Shown: wire.Simple, VOs: []string{"bio"},
			Beat: 30, Lost: 300, Lease: 600, Heard: &heard, Lag: 2, Behind: 3, Owed: 1, Clock: &status.Clock{Ahead: -1, Within: 0.001},
			Out: status.Traffic{Messages: 4, Bytes: 5, Items: 6}, In: status.Traffic{Messages: 1, Bytes: 2, Items: 3},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v\n%+v", got, want)
	}
	troubled := up
	troubled.Trouble = "its host is not known"
	if got := status.Of(&troubled, now); got.Reason != "nothing was heard for 1m30s; the last request to it failed: its host is not known" {
		t.Errorf("%q", got.Reason)
	}
	for _, c := range []struct {
		s      peers.Status
		state  status.State
		reason string
	}{
		{peers.Status{Peer: p}, status.Opening, "no session was asked for yet"},
		{peers.Status{Peer: peers.Peer{Domain: "nat.example"}}, status.Opening, "it is waited for"},
		{peers.Status{Peer: p, Reason: "it refused: NotTrusted"}, status.Opening, "NotTrusted"},
		{peers.Status{Peer: p, Session: "s1", Phase: session.Closed, Reason: "drained"}, status.Closed, "drained"},
	} {
		if got := status.Of(&c.s, now); got.State != c.state || !strings.Contains(got.Reason, c.reason) || got.Session != nil || got.URL != c.s.Peer.URL {
			t.Errorf("%+v", got)
		}
	}
	for _, phase := range []session.Phase{session.Alive, session.Suspect, session.Lost, session.Closed} {
		if s := (peers.Status{Session: "x", Phase: phase}); !reflect.DeepEqual(status.Of(&s, now).State, status.State(phase)) {
			t.Errorf("%s is %s", phase, status.Of(&s, now).State)
		}
	}
}

// What is shown of the ledger gives the very statements that were signed.
func TestLedgerOf(t *testing.T) {
	mine, theirs := ledger.New("bsc.example"), ledger.New("fiu.example")
	p := ledger.Pair{Provider: "bsc.example", Consumer: "fiu.example"}
	for i := range uint32(5) {
		c := handover.Charge{Key: handover.Key{Origin: "fiu.example", ID: "j"}, Provider: p.Provider, Consumer: p.Consumer, Token: handover.Token("").Next(i + 1), Outcome: handover.Finished, Used: handover.CPUHour}
		if i > 0 {
			if err := theirs.Owe(c); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := mine.Earn(c, time.Unix(1, 234567891)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := mine.After(theirs.Head(p), 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Take(p, entries); err != nil {
		t.Fatal(err)
	}
	if err := mine.Hear(p, theirs.Verdicts(p, 0, 100)); err != nil {
		t.Fatal(err)
	}
	got := status.LedgerOf(mine, "bsc.example", "fiu.example", 2)
	const hour = 3600_000
	if got.Balance != (status.Balance{Did: 4 * hour, Contested: hour, Surplus: -4 * hour}) {
		t.Errorf("%+v", got.Balance)
	}
	if a := got.Accounts[0]; a.Number != 5 || a.Sum != 5*hour || !a.Before || len(a.Statements) != 2 || a.Statements[1].Digest != a.Digest || a.Statements[0].Digest != a.Statements[1].Previous {
		t.Errorf("%+v", a)
	}
	if a := got.Accounts[1]; a.Provider != "fiu.example" || a.Number != 0 || a.Before || a.Statements == nil {
		t.Errorf("%+v", a)
	}
	all := status.LedgerOf(mine, "bsc.example", "fiu.example", 0).Accounts[0]
	if all.Before || all.Statements[0].Verdict != ledger.Contested || all.Statements[0].Reason == "" || all.Statements[1].Verdict != ledger.Agreed {
		t.Errorf("%+v", all)
	}
	// Over JSON and back, the canonical bytes are those that the book has.
	b, err := json.Marshal(all.Statements[4])
	if err != nil {
		t.Fatal(err)
	}
	var s status.Statement
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	again := ledger.Statement{
		Pair: p, Number: s.Number, Key: handover.Key{Origin: s.Origin, ID: s.Job}, Token: handover.Token(s.Token), Outcome: s.Outcome,
		Used: handover.CPUTime(s.Used), Withdraws: s.Withdraws, Sum: handover.CPUTime(s.Sum), Issued: s.Issued,
	}
	if err := again.Previous.UnmarshalText([]byte(s.Previous)); err != nil || again.Digest().String() != s.Digest {
		t.Errorf("%v: %+v", err, again)
	}
}
