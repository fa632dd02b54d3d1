package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/resourcemodel"
)

// promiser is a gateway that takes agreements and keeps them in memory: it runs the
// job of one at once, and scripts say how its promises stand.
type promiser struct {
	*agreementtest.Service
	jobs *bestest.Service
	busy time.Duration // from now on, for which nothing can be promised any more
	told sync.Map      // the sub-states of agreements, by their keys
}

func (p *promiser) Create(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	q, err := terms.Preferred(&req.Offer.Agreement)
	if err != nil || len(q.Services) == 0 || q.Services[0].Job == nil {
		return p.Service.Create(ctx, req) // one of another make, or capacity
	}
	if by := q.Services[0].FinishBy; !by.IsZero() && by.Before(time.Now().Add(p.busy)) {
		r := agreement.Refuse(agreement.NoCapacity, "all that there is has been promised until then")
		r.Earliest = agreementtest.Earliest
		return "", r
	}
	key, err := p.Service.Create(ctx, req)
	if err != nil {
		return "", err
	}
	act, err := p.jobs.CreateActivity(ctx, &bes.CreateActivityRequest{Document: q.Services[0].Document})
	if err != nil {
		return "", err
	}
	p.jobs.Advance(act.Activity, bes.Running, "", "started")
	p.jobs.Finish(act.Activity, 0, "done\n", "")
	detail := etree.NewElement("p:Job")
	detail.CreateAttr("xmlns:p", agreement.NSPortolan)
	detail.CreateElement("p:State").SetText("Finished")
	detail.AddChild(act.Activity.Element("wsa", eprName))
	p.Set(key, agreement.ServiceTermState{State: agreement.Completed, Detail: detail}, agreement.GuaranteeTermState{State: agreement.NotDetermined})
	return key, nil
}

// shares gives the templates of a gateway with sites of a share each.
func shares(sites ...string) ([]agreement.Template, error) {
	now := time.Now().UTC()
	d := resourcemodel.Delta{Revision: 1, At: now}
	for _, name := range sites {
		stamp := resourcemodel.Stamp{Version: 1, Changed: now, Source: "a test"}
		d.Changes = append(d.Changes, resourcemodel.Change{
			Key: resourcemodel.Key{Site: name},
			Static: &resourcemodel.Static{
				Stamp: stamp, Type: "slurm", Shares: []resourcemodel.Share{{ID: "batch", Default: true, Environments: []string{"n"}, Slots: 80}},
				Environments: []resourcemodel.Environment{{ID: "n", CPUs: 8, Memory: 32 << 30}},
			},
			Dynamic: &resourcemodel.Dynamic{
				Stamp: stamp, Up: true, Shares: map[string]resourcemodel.ShareState{"batch": {Open: true, FreeSlots: 80}},
				Environments: map[string]resourcemodel.EnvironmentState{"n": {Nodes: 10, Available: 10, FreeNodes: 10, FreeCPUs: 80}},
			},
		})
	}
	m, err := resourcemodel.Empty().Apply(d)
	if err != nil {
		return nil, err
	}
	return terms.Templates(m, resourcemodel.Subject{User: "ann"}, now, terms.Settings{Penalty: 5000, Unit: "credit"}), nil
}

// startPromiser serves agreements and the activities of their jobs: with no argument those of one
// template whose text never changes, and else those of sites with these names.
func startPromiser(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: promiser SITE…")
	}
	p := &promiser{Service: &agreementtest.Service{}, jobs: &bestest.Service{}, busy: time.Hour}
	if len(args) > 0 {
		list, err := shares(args...)
		ts.Check(err)
		p.Offered = list
	}
	var mux http.ServeMux
	s := httptest.NewServer(&mux)
	ts.Defer(s.Close)
	p.jobs.BaseURL = s.URL + "/bes"
	mux.Handle("/bes", bes.NewServer(p.jobs, bes.ServerOptions{Verifier: soap.DevVerifier{}}))
	mux.Handle(console.UsagePath, console.New(nil, console.Options{Agreements: settled{}}))
	mux.Handle("/agreement", agreement.NewServer(p, agreement.ServerOptions{Verifier: soap.DevVerifier{}}))
	ts.Setenv("PORTOLAN_ENDPOINT", s.URL+"/bes")
	ts.Setenv("TZ", "UTC")
	promisers.Store(ts, p)
}

// promisers are those of the scripts that run.
var promisers sync.Map

// judge says how the guarantees of an agreement stand.
func judge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: judge KEY STATE [PENALTY]")
	}
	p, _ := promisers.Load(ts)
	g := agreement.GuaranteeTermState{State: agreement.GuaranteeState(args[1])}
	if len(args) == 3 {
		g.Detail = etree.NewElement("p:Guarantee")
		g.Detail.CreateAttr("xmlns:p", agreement.NSPortolan)
		g.Detail.CreateElement("p:Promise").SetText("it ends in time")
		e := g.Detail.CreateElement("p:Evidence")
		e.CreateAttr("at", "2030-01-02T03:04:05Z")
		e.SetText("it ended \u202e late")
		told := etree.NewElement("p:Agreement")
		told.CreateAttr("xmlns:p", agreement.NSPortolan)
		told.CreateElement("p:Created").SetText("2030-01-01T00:00:00Z")
		for _, x := range [][3]string{{"usage", "60", "cpu-second"}, {"price", "1.25", "credit"}, {"penalty", "-" + args[2], "credit"}} {
			e := told.CreateElement("p:Entry")
			e.CreateAttr("kind", x[0])
			e.CreateAttr("amount", x[1])
			e.CreateAttr("unit", x[2])
			if x[0] == "penalty" {
				e.SetText("it ended late")
			}
		}
		for _, x := range [][3]string{{"2030-01-01T00:00:00Z", "accepted", "by the plan slurm/batch"}, {"2030-01-02T03:04:05Z", "violated", ""}} {
			e := told.CreateElement("p:Event")
			e.CreateAttr("at", x[0])
			e.CreateAttr("name", x[1])
			e.SetText(x[2])
		}
		p.(*promiser).told.Store(args[0], told)
	}
	p.(*promiser).Set(args[0], agreement.ServiceTermState{State: agreement.Completed}, g)
}

// settled has three agreements that have ended, and tells of one in each answer.
type settled struct{}

func (settled) Usage(_ context.Context, q ledger.Query) (*ledger.Page, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	list := []ledger.Settled{
		{Agreement: "3", VO: "bio", User: "bob", Status: "Completed", Ended: at.Add(time.Hour), Amounts: []ledger.SettledAmount{{Kind: ledger.Price, Unit: "credit", Amount: "3"}}},
		{Agreement: "2", User: "ann", Status: "Aborted", Ended: at.Add(2 * time.Hour), Amounts: []ledger.SettledAmount{{Kind: ledger.Reward, Unit: "credit", Amount: "1"}}},
		{
			Agreement: "1", Name: "<mine>", VO: "bio", User: "ann", Status: "Completed", Ended: at,
			Jobs: []ledger.SettledJob{{Job: "j1", Status: "Completed", Site: "slurm", Share: "batch", CPUs: 4, Begun: at.Add(-time.Minute), Ended: at, Wall: time.Minute}},
			Amounts: []ledger.SettledAmount{
				{Kind: ledger.Usage, Unit: "cpu-second", Amount: "240", Job: "j1"}, {Kind: ledger.Price, Unit: "credit", Amount: "1.25"}, {Kind: ledger.Penalty, Unit: "credit", Amount: "-2.5", Job: "j1"},
			},
		},
	}
	p := &ledger.Page{Agreements: []ledger.Settled{}}
	for i := range list {
		s := &list[i]
		if q.Before != "" && s.Agreement >= q.Before {
			continue
		}
		if !s.Ended.Before(q.From) && (q.Until.IsZero() || s.Ended.Before(q.Until)) && (q.VO == "" || s.VO == q.VO) {
			p.Agreements = append(p.Agreements, *s)
		}
		if i+1 < len(list) {
			p.Next = s.Agreement
		}
		break
	}
	return p, nil
}

// Agreement adds what the gateway tells of an agreement as a whole. A pending one whose name says what
// becomes of it is decided once it was looked at.
func (p *promiser) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	a, err := p.Service.Agreement(ctx, key)
	if err == nil && a.State == agreement.Pending {
		switch a.Name {
		case "welcome":
			err = p.Turn(key, agreement.EventAccepted)
		case "unwelcome":
			told := etree.NewElement("p:Agreement")
			told.CreateAttr("xmlns:p", agreement.NSPortolan)
			told.CreateElement("p:Reason").SetText("the manager \u202e says no")
			p.told.Store(key, told)
			err = p.Turn(key, agreement.EventRejected)
		}
	}
	if told, ok := p.told.Load(key); ok && err == nil {
		a.SubState = told.(*etree.Element)
	}
	return a, err
}

// turn lets an event happen to an agreement.
func turn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: turn KEY EVENT")
	}
	p, _ := promisers.Load(ts)
	ts.Check(p.(*promiser).Turn(args[0], agreement.Event(args[1])))
}

// called looks where the decision on the last offer is to be told.
func called(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: called ADDRESS KEY")
	}
	p, _ := promisers.Load(ts)
	all := p.(*promiser).Requests()
	e := all[len(all)-1].AcceptanceEPR
	if e == nil || e.Address != args[0] {
		ts.Fatalf("it is told to %v", e)
	}
	if key, ok := agreement.KeyOf(*e); !ok || key != args[1] {
		ts.Fatalf("it is told with the key %q", key)
	}
}

// reason prints why an agreement was to end.
func reason(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reason KEY TEXT")
	}
	p, _ := promisers.Load(ts)
	if e := p.(*promiser).Reason(args[0]); e == nil || e.Text() != args[1] {
		ts.Fatalf("the reason is %v", e)
	}
}

// unfolding is an agreement that goes on with each look at it.
type unfolding struct {
	agreementtest.Service
	agreement.Coordinator       // it is none
	looks                 []any // *agreement.Properties or error; the last stays
	asked                 int
}

func (u *unfolding) Agreement(context.Context, string) (*agreement.Properties, error) {
	u.asked++
	look := u.looks[0]
	if len(u.looks) > 1 {
		u.looks = u.looks[1:]
	}
	if err, ok := look.(error); ok {
		return nil, err
	}
	return look.(*agreement.Properties), nil
}

func stage(state agreement.State, service agreement.ServiceState, guarantee agreement.GuaranteeState) *agreement.Properties {
	return &agreement.Properties{
		State:      state,
		Services:   []agreement.ServiceTermState{{Term: "job", State: service}},
		Guarantees: []agreement.GuaranteeTermState{{Term: "finish", State: guarantee}},
	}
}

func TestWatchFollowsAnAgreementToItsEnd(t *testing.T) {
	away := fail.Errorf("x", fail.Unavailable, "", "it restarts")
	for name, x := range map[string]struct {
		looks []any
		kept  bool
		says  string
		err   fail.Kind // zero is none
	}{
		"kept": {
			looks: []any{
				stage(agreement.Observed, agreement.NotReady, agreement.NotDetermined), stage(agreement.Observed, agreement.NotReady, agreement.NotDetermined),
				stage(agreement.Observed, agreement.Ready, agreement.NotDetermined), stage(agreement.Complete, agreement.Completed, agreement.Fulfilled),
			},
			kept: true, says: "agreement: Observed; job: NotReady; finish: NotDetermined; job: Ready; job: Completed; finish: Fulfilled; agreement: Complete",
		},
		"broken": {
			looks: []any{stage(agreement.Complete, agreement.Completed, agreement.Violated)},
			says:  "job: Completed; finish: Violated; agreement: Complete",
		},
		"broken once": {
			looks: []any{stage(agreement.Observed, agreement.Ready, agreement.Violated), stage(agreement.Complete, agreement.Ready, agreement.Fulfilled)},
			says:  "agreement: Observed; job: Ready; finish: Violated; finish: Fulfilled; agreement: Complete",
		},
		"rejected": {
			looks: []any{stage(agreement.Pending, agreement.NotReady, agreement.NotDetermined), stage(agreement.Rejected, agreement.NotReady, agreement.NotDetermined)},
			says:  "agreement: Pending; job: NotReady; finish: NotDetermined; agreement: Rejected",
		},
		"ended early": {
			looks: []any{stage(agreement.Terminated, agreement.Completed, agreement.NotDetermined)},
			says:  "job: Completed; finish: NotDetermined; agreement: Terminated",
		},
		"a service that restarts": {
			looks: []any{stage(agreement.Observed, agreement.Ready, agreement.NotDetermined), away, away, away, stage(agreement.Complete, agreement.Ready, agreement.Fulfilled)},
			kept:  true, says: "agreement: Observed; job: Ready; finish: NotDetermined; away; finish: Fulfilled; agreement: Complete",
		},
		"a service that stays away": {
			looks: []any{stage(agreement.Observed, agreement.Ready, agreement.NotDetermined), away},
			says:  "agreement: Observed; job: Ready; finish: NotDetermined; away", err: fail.Unavailable,
		},
		"unknown": {looks: []any{fail.Errorf("x", fail.NotFound, "", "what agreement?")}, err: fail.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &unfolding{looks: x.looks}
				s := &agreementClient{service: u}
				var said []string
				kept, err := s.follow(t.Context(), "k", func(line string) { said = append(said, line) }, func(error) { said = append(said, "away") })
				if kept != x.kept || strings.Join(said, "; ") != x.says || (err != nil) != (x.err != 0) || err != nil && !fail.Is(err, x.err) {
					t.Errorf("kept %t, %q, %v", kept, said, err)
				}
			})
		})
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		u := &unfolding{looks: []any{stage(agreement.Observed, agreement.Ready, agreement.NotDetermined)}}
		_, err := (&agreementClient{service: u}).follow(ctx, "k", func(string) {}, func(error) {})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// It is asked less often while nothing happens.
		if u.asked > int(time.Hour/longPause)+10 {
			t.Errorf("it was asked %d times in an hour", u.asked)
		}
	})
}

// An activity that is made some time after its agreement is waited for, but not for ever.
func TestTheActivityOfAnAgreementIsWaitedFor(t *testing.T) {
	with := stage(agreement.Observed, agreement.Ready, agreement.NotDetermined)
	with.Services[0].Detail = etree.NewElement("x")
	epr := bes.NewEPR("http://h/bes", "7")
	with.Services[0].Detail.AddChild(epr.Element("wsa", eprName))
	without := stage(agreement.Observed, agreement.NotReady, agreement.NotDetermined)
	for name, x := range map[string]struct {
		looks []any
		id    string
		says  string
	}{
		"late":  {[]any{without, fail.Errorf("x", fail.Unavailable, "", "away"), without, with}, "7", ""},
		"never": {[]any{without}, "", "is not known yet"},
		"over":  {[]any{without, stage(agreement.Terminated, agreement.Completed, agreement.NotDetermined)}, "", "was never made: it is Terminated"},
		"gone":  {[]any{fail.Errorf("x", fail.NotFound, "", "what agreement?")}, "", "can't be asked for (what agreement?)"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &app{env: func(string) string { return "" }}
				s := &agreementClient{client: &client{app: a}, service: &unfolding{looks: x.looks}}
				act, err := s.activity(t.Context(), "k", "k")
				if act.id != x.id || (err == nil) != (x.says == "") || err != nil && !strings.Contains(err.Error(), x.says) {
					t.Errorf("%q, %v", act.id, err)
				}
			})
		})
	}
}

func TestTheAgreementServiceStandsBesideTheBESService(t *testing.T) {
	for in, want := range map[string]string{
		"http://h/bes":             "http://h/agreement",
		"http://h/bes/":            "http://h/agreement",
		"https://h:1/gw/bes":       "https://h:1/gw/agreement",
		"https://h/gw/agreement":   "https://h/gw/agreement",
		"https://other/wsag/bes4j": "https://other/wsag/bes4j",
	} {
		if got, err := agreementURL(in); err != nil || got != want {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
}

// foreign is an agreement service of another make: its references are its own affair, its
// agreements are elsewhere, and it lists none.
type foreign struct {
	agreement.Service
}

func TestAgreementsOfOtherMakesAreFoundAgain(t *testing.T) {
	var told []string // the Authorization of each request to where the agreements are
	memory := &agreementtest.Service{}
	inner := agreement.NewServer(foreign{memory}, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told = append(told, r.Header.Get("Authorization"))
		inner.ServeHTTP(w, r)
	}))
	defer there.Close()
	// It answers with references of its own make: what we would send back is the same parameter,
	// and one more.
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		body := rec.Body.String()
		body = strings.ReplaceAll(body, "AgreementKey", "OtherKey")
		body = strings.ReplaceAll(body, ":Address>http://"+r.Host, ":Address>"+there.URL)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(rec.Code)
		_, _ = w.Write([]byte(body))
	}))
	defer front.Close()
	dir := t.TempDir()
	run := func(code int, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		env := map[string]string{"HOME": dir, "PORTOLAN_TOKEN": "secret"}
		a := &app{in: strings.NewReader(""), out: &out, err: &errs, env: func(k string) string { return env[k] }}
		if got := a.execute(t.Context(), args); got != code {
			t.Fatalf("%v: exit code %d, not %d\n%s%s", args, got, code, out.String(), errs.String())
		}
		return out.String() + errs.String()
	}
	out := run(exitDone, "agreement", "offer", "--endpoint", front.URL+"/wsag", "--template", "batch", "-o", "name")
	id := strings.TrimSpace(out)
	if !strings.HasPrefix(id, "epr-") {
		t.Fatalf("the id is %q", id)
	}
	if out = run(exitRefused, "agreement", "show", "--endpoint", front.URL+"/wsag"); !strings.Contains(out, "does not list agreements") {
		t.Error(out)
	}
	// The id alone leads to where the agreement is, and without the token, which is for no other place.
	run(exitRefused, "agreement", "show", id)
	if len(told) != 1 || told[0] != "" {
		t.Errorf("it was asked %d times, %q", len(told), told)
	}
	run(exitUsage, "agreement", "show", "epr-0000000000000000")
}

// TestTemplatesMeant: the name of a kind means the templates of the kind where none has that name.
func TestTemplatesMeant(t *testing.T) {
	list := func(names ...string) []agreement.Template {
		out := make([]agreement.Template, len(names))
		for i, n := range names {
			out[i].Name = n
		}
		return out
	}
	for _, c := range []struct {
		list []agreement.Template
		name string
		want []string
	}{
		{list("capacity@a/b"), "capacity", []string{"capacity@a/b"}},
		{list("capacity@a/b", "capacity@a/c", "start-by@a/b"), "capacity", []string{"capacity@a/b", "capacity@a/c"}},
		{list("capacity", "capacity@a/b", "capacity@a/c"), "capacity", []string{"capacity"}},
		{list("capacity@a/b"), "capacity@a/b", []string{"capacity@a/b"}},
		{list("capacity@a/b"), "capacity@a", nil},
		{list("capacity@a/b"), "", nil},
		{list("@a"), "", nil},
	} {
		var got []string
		for _, f := range templatesMeant(c.list, c.name) {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q means %q", c.name, got)
		}
	}
}
