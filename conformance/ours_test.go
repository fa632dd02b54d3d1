package conformance

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/jsdl"
)

// runner is the service in memory, with activities that run: what sleeps stays
// Running, what is not there ends Failed, everything else ends Finished.
type runner struct{ *bestest.Service }

func (r runner) CreateActivity(ctx context.Context, req *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	if res := req.Job.Description.Resources; res != nil && (len(res.CandidateHosts) > 0 || res.TotalCPUCount != nil && res.TotalCPUCount.Lower != nil) {
		return nil, fail.Errorf("runner", fail.Unsupported, "Resources", "nothing here has such resources")
	}
	out, err := r.Service.CreateActivity(ctx, req)
	if err != nil {
		return nil, err
	}
	if st, err := r.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: []soap.EPR{out.Activity}}); err != nil || st[0].Status.State != bes.Pending {
		return out, err // a submission id that was here before
	}
	switch req.Job.Program().Executable.Value {
	case "/bin/sleep":
		r.Advance(out.Activity, bes.Running, "", "started")
	case "/no/such/program":
		r.Advance(out.Activity, bes.Failed, "", "no such program")
	default:
		r.Advance(out.Activity, bes.Running, "", "started")
		r.Finish(out.Activity, 0, "", "")
	}
	return out, nil
}

// ours puts our own server on loopback, in front of a service in memory.
func ours(t testing.TB, around func(http.Handler) http.Handler) string {
	svc := runner{new(bestest.Service)}
	var h http.Handler = soap.NewRouter(map[string]http.Handler{
		"/bes":        bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}, JSDL: jsdl.Options{}}),
		"/bes/a/{id}": bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}}),
	})
	if around != nil {
		h = around(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL + "/bes"
}

// TestOurOwn: our own server passes wholly.
func TestOurOwn(t *testing.T) {
	rep := judge(t, Options{Endpoint: ours(t, nil), Settle: 5 * time.Second})
	for _, c := range rep.Checks {
		if c.Result != Pass {
			t.Errorf("%s %s: %s (%s)", c.Result, c.ID, c.Saw, c.Clause)
		}
	}
	t.Logf("%+v", rep.Summary)
}
