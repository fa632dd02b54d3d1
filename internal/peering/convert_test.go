package peering

import (
	"reflect"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// TestConvert: what is said comes over the wire as it was.
func TestConvert(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	k := handover.Key{Origin: "fiu.example", ID: "00000007"}
	full := cargo{VO: "bio", Deadline: at, Agreement: "0198c0de-7000", Trace: traceOf(k, "", "fiu.example", "2.1"), Document: "<a>\r\n&\t</a>", Assertion: []byte{1, 2}, Site: "big", At: at}
	messages := []handover.Message{
		handover.Route{Key: k, Token: "2.1", RecallBy: at, Path: []string{"fiu.example", "bsc.example"}, Hops: 2, Digest: digestOf("x", "y", at)},
		handover.Answer{Key: k, Token: "1", Accepted: true},
		handover.Report{Key: k, Token: "1", Revision: 7, Seq: 3, Status: handover.IsSuspended, Where: []string{"a", "b"}, Used: 77},
		handover.Report{Key: k, Token: "1", Revision: 8, Status: handover.IsEnded, Result: &handover.Result{Outcome: handover.Failed, ExitCode: -3, Reason: "it broke", Token: "1.1"}, Used: maxUsed},
		handover.Report{Key: k, Token: "1", Status: handover.IsReturned, Reason: "no room"},
		handover.Report{Key: k, Token: "1", Status: handover.IsReturned, Reason: "no such account", Kind: fail.Denied},
		handover.Granted{Key: k, Token: "1", RecallBy: at},
		handover.Settle{Key: k, Token: "1", Taken: true},
		handover.Settle{Key: k, Token: "1"},
		handover.Query{Key: k, Token: "1"},
	}
	for _, kind := range fail.Kinds() {
		messages = append(messages, handover.Answer{Key: k, Token: "1", Kind: kind, Reason: "no"})
	}
	for _, want := range []handover.Want{handover.Run, handover.Suspend, handover.Cancel} {
		for recall := handover.Keep; recall <= handover.Running; recall++ {
			messages = append(messages, handover.Control{Key: k, Token: "1", Seq: 9, Want: want, Recall: recall, RecallBy: at})
		}
	}
	for _, m := range messages {
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		e := &wire.Exchange{Frame: wire.Frame{Session: "s", Number: 1, Sent: 1, Clock: at, First: 1, Items: []wire.Message{toWire(m, full)}}}
		b, err := wire.Encode(e)
		if err != nil {
			t.Errorf("%#v: %v", m, err)
			continue
		}
		doc, err := xmldoc.ReadBytes(xmldoc.Marshal(b), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		back, err := wire.Decode(doc, doc.Root())
		if err != nil {
			t.Errorf("%#v: %v", m, err)
			continue
		}
		got, c, ok := fromWire(back.(*wire.Exchange).Items[0])
		if !ok || !reflect.DeepEqual(got, m) {
			t.Errorf("%#v\ncame as\n%#v", m, got)
		}
		if _, ok := m.(handover.Route); ok {
			want := full
			want.Site, want.At = "", time.Time{}
			if !reflect.DeepEqual(c, want) {
				t.Errorf("with %#v, want %#v", c, want)
			}
		}
	}
	for _, m := range []wire.Message{&wire.Pull{}, &wire.Read{}, &wire.Output{}} {
		if _, _, ok := fromWire(m); ok {
			t.Errorf("%T is taken for one of handover's", m)
		}
	}
	if toWire(handover.Report{Key: k, Token: "1", Status: handover.IsEnded, Used: handover.MaxUsed, Result: &handover.Result{Outcome: handover.Finished}}, cargo{}).(*wire.Report).Used != 100*366*24*time.Hour {
		t.Error("what can't be told is not bounded")
	}
}
