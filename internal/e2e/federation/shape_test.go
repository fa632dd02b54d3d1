package federation

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/peers/status"
)

// TestPeerState: what the experiment reads of GET /api/v1/peers is what gateways write.
func TestPeerState(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	all := console.PeerList{Peers: []status.Peer{
		{Domain: "fiu.example", State: status.Opening, Reason: "it is waited for"},
		{
			Domain: "ibm.example", State: status.Alive, Reason: "opened", Since: &since, Session: &status.Session{Out: status.Traffic{Messages: 1, Bytes: 2, Items: 3}},
			Jobs: status.Jobs{Given: status.Count{Live: 4, Total: 5}, Taken: status.Count{Live: 6, Total: 7}}, Ledger: status.Balance{Did: 8, Got: 9, Contested: 10},
		},
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != console.PeersPath {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(all)
	}))
	defer s.Close()
	got, err := (&gateway{endpoint: s.URL + "/bes", http: s.Client()}).peers(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%v %+v", err, got)
	}
	if p := got[0]; p.Domain != "fiu.example" || p.State == "alive" || p.Reason == "" || p.Since != nil || p.Session != nil {
		t.Errorf("%+v", p)
	}
	p := got[1]
	if p.State != "alive" || p.Since == nil || !p.Since.Equal(since) || p.Session == nil || p.Session.Out.Messages != 1 || p.Session.Out.Bytes != 2 || p.Session.Out.Items != 3 {
		t.Errorf("%+v", p)
	}
	if p.Jobs.Given.Live != 4 || p.Jobs.Given.Total != 5 || p.Jobs.Taken.Live != 6 || p.Jobs.Taken.Total != 7 || p.Ledger.Did != 8 || p.Ledger.Got != 9 || p.Ledger.Contested != 10 {
		t.Errorf("%+v", p)
	}
}
