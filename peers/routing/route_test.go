package routing

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/resourcemodel"
)

func TestOwnSitesComeFirstUntilTheyAreFull(t *testing.T) {
	p := policyFor(t)
	peers := []Peer{{Domain: "b", Role: Equal}, {Domain: "c", Role: Equal}}
	for _, c := range []struct {
		name   string
		own    size
		over   bool // it was overflowing before
		want   string
		wanted bool // overflowing after
	}{
		{"a free slot at home", size{site: "a", nodes: 4, cpus: 4, memory: 8, free: 1, running: 3}, false, "own c b ", false},
		{"a short queue at home", size{site: "a", nodes: 100, cpus: 4, memory: 8, running: 100}, false, "own c b ", false},
		{"a long queue at home", size{site: "a", nodes: 4, cpus: 4, memory: 8, running: 4, waiting: 40}, false, "c own b ", true},
		{"a queue that is shorter again, but not yet short", size{site: "a", nodes: 100, cpus: 4, memory: 8, running: 100}, true, "c own b ", true},
		{"a free slot again", size{site: "a", nodes: 100, cpus: 4, memory: 8, running: 99, free: 1}, true, "own c b ", false},
		{"nothing at home that fits", size{site: "a", nodes: 4, cpus: 1, memory: 1, free: 4}, false, "c b ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := model(t, c.own, size{domain: "b", site: "s", nodes: 1, cpus: 8, memory: 16, running: 1, waiting: 100}, size{domain: "c", site: "s", nodes: 8, cpus: 8, memory: 16, free: 5, running: 3})
			got := Route(Situation{Own: "a", Snapshot: s, Request: request(t, 2, 4), Derived: resourcemodel.Derived{Now: noon}, Peers: peers, Hops: 3, Overflowing: c.over}, p)
			if domains(got) != c.want || got.Overflowing != c.wanted {
				t.Errorf("%q, overflowing %t; want %q, %t\n%+v", domains(got), got.Overflowing, c.want, c.wanted, got)
			}
			for _, x := range got.Choices {
				if x.Why == "" {
					t.Errorf("the choice %q says no reason", x.Domain)
				}
			}
		})
	}
}

func TestWhoIsLeftOut(t *testing.T) {
	p := policyFor(t)
	p.MostGiven = 5
	s := model(t, size{domain: "b", site: "s", nodes: 4, cpus: 8, memory: 16, free: 4}, size{domain: "small", site: "s", nodes: 4, cpus: 1, memory: 1, free: 4})
	base := Situation{Own: "a", Snapshot: s, Request: request(t, 2, 4), Derived: resourcemodel.Derived{Now: noon}, Hops: 3}
	for _, c := range []struct {
		peer Peer
		edit func(*Situation)
		why  string
	}{
		{Peer{Domain: "b"}, func(s *Situation) { s.Path = []string{"o", "b"} }, "has come through"},
		{Peer{Domain: "a"}, nil, "has come through"},
		{Peer{Domain: "b"}, func(s *Situation) { s.Hops = 0 }, "all hops"},
		{Peer{Domain: "b", Away: "its session is lost"}, nil, "session is lost"},
		{Peer{Domain: "b"}, func(s *Situation) { s.Refused = map[string]string{"b": "it is full"} }, "it is full"},
		{Peer{Domain: "b", Given: 5}, nil, "as many"},
		{Peer{Domain: "small"}, nil, "asks for"},
		{Peer{Domain: "nothing"}, nil, "no resources"},
	} {
		x := base
		x.Peers = []Peer{c.peer}
		if c.edit != nil {
			c.edit(&x)
		}
		got := Route(x, p)
		if len(got.Choices) != 0 || len(got.Out) != 2 || !strings.Contains(got.Out[1].Why, c.why) {
			t.Errorf("%+v: %+v; want it left out because %q", c.peer, got, c.why)
		}
	}
	x := base
	x.Peers, x.Path = []Peer{{Domain: "b"}}, []string{"o"}
	if got := Route(x, p); domains(got) != "b " {
		t.Errorf("a job of another domain: %+v", got)
	}
	p.Keep = true
	if got := Route(x, p); len(got.Choices) != 0 {
		t.Errorf("a job of another domain is forwarded: %+v", got)
	}
}

// TestFavours: of two alike peers the one that owes us is asked first; one that we owe more
// than is borne is asked last, however good it is.
func TestFavours(t *testing.T) {
	p := policyFor(t)
	p.MostOwed = 100 * handover.CPUHour
	s := model(t, size{domain: "b", site: "s", nodes: 4, cpus: 8, memory: 16, free: 4}, size{domain: "c", site: "s", nodes: 4, cpus: 8, memory: 16, free: 4})
	at := func(b, c ledger.Balance) string {
		return domains(Route(Situation{
			Own: "a", Snapshot: s, Request: request(t, 2, 4), Derived: resourcemodel.Derived{Now: noon}, Hops: 3,
			Peers: []Peer{{Domain: "b", Balance: b}, {Domain: "c", Balance: c, Measured: Measured{Jobs: 100, Success: 1, Speed: 1}}},
		}, p))
	}
	hours := func(n int) handover.CPUTime { return handover.CPUTime(n) * handover.CPUHour }
	if got := at(ledger.Balance{}, ledger.Balance{}); got != "c b " {
		t.Errorf("strangers: %q", got)
	}
	if got := at(ledger.Balance{Did: hours(50)}, ledger.Balance{Got: hours(50)}); got != "b c " {
		t.Errorf("b owes us, and we owe c: %q", got)
	}
	if got := at(ledger.Balance{}, ledger.Balance{Got: hours(101)}); got != "b c " {
		t.Errorf("we owe c too much: %q", got)
	}
}

// TestCoarseness: what one aggregate leaves open and another says for sure.
func TestCoarseness(t *testing.T) {
	p := policyFor(t)
	// The memory is at one environment, the CPUs at another.
	unlike := []resourcemodel.Environment{{ID: "e1", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 2, Memory: 256 << 30}}
	for _, c := range []struct {
		detail resourcemodel.Detail
		fits   bool // as the peer is seen
		sure   bool
	}{{resourcemodel.Full, false, false}, {resourcemodel.Categorized, false, false}, {resourcemodel.Simple, true, false}} {
		s := model(t, size{domain: "b", site: "s", nodes: 4, cpus: 32, memory: 8, free: 4, more: unlike, detail: c.detail})
		got := Route(Situation{Own: "a", Snapshot: s, Request: request(t, 16, 128), Derived: resourcemodel.Derived{Now: noon}, Hops: 3, Peers: []Peer{{Domain: "b"}}}, p)
		if (len(got.Choices) == 1) != c.fits || c.fits && got.Choices[0].Sure != c.sure {
			t.Errorf("%s: %+v", c.detail, got)
		}
	}
	// Whichever coarseness, what a peer has is never ruled out.
	for _, detail := range []resourcemodel.Detail{resourcemodel.Full, resourcemodel.Categorized, resourcemodel.Simple} {
		s := model(t, size{domain: "b", site: "s", nodes: 4, cpus: 32, memory: 8, free: 4, more: unlike, detail: detail})
		for _, r := range []*resourcemodel.Request{request(t, 32, 8), request(t, 2, 256)} {
			got := Route(Situation{Own: "a", Snapshot: s, Request: r, Derived: resourcemodel.Derived{Now: noon}, Hops: 3, Peers: []Peer{{Domain: "b"}}}, p)
			if len(got.Choices) != 1 {
				t.Errorf("%s: %+v", detail, got)
			}
		}
	}
}

func TestMeasuredWaitsCorrectPromises(t *testing.T) {
	p := policyFor(t)
	s := model(t, size{site: "a", nodes: 4, cpus: 8, memory: 16, running: 4, waiting: 4}, size{domain: "b", site: "s", nodes: 4, cpus: 8, memory: 16, free: 4})
	at := func(m Measured) string {
		return domains(Route(Situation{Own: "a", Snapshot: s, Request: request(t, 2, 4), Derived: resourcemodel.Derived{Now: noon}, Hops: 3, Peers: []Peer{{Domain: "b", Measured: m}}}, p))
	}
	if got := at(Measured{}); got != "b own " {
		t.Errorf("a promise: %q", got)
	}
	if got := at(Measured{Jobs: 50, Success: 1, Speed: 1, Wait: 2 * time.Hour}); got != "own b " {
		t.Errorf("a promise that was never kept: %q", got)
	}
}

func TestBack(t *testing.T) {
	p := policyFor(t)
	for _, c := range []struct {
		name  string
		own   size
		left  time.Duration
		known bool
		want  bool
	}{
		{"free at home, long there", size{site: "a", nodes: 4, cpus: 8, memory: 16, free: 2}, time.Hour, true, true},
		{"free at home, unknown there", size{site: "a", nodes: 4, cpus: 8, memory: 16, free: 2}, 0, false, true},
		{"free at home, about to start there", size{site: "a", nodes: 4, cpus: 8, memory: 16, free: 2}, 5 * time.Second, true, false},
		{"still full at home", size{site: "a", nodes: 4, cpus: 8, memory: 16, running: 4, waiting: 1}, time.Hour, true, false},
		{"does not fit at home", size{site: "a", nodes: 4, cpus: 1, memory: 1, free: 4}, time.Hour, true, false},
	} {
		why, got := Back(Situation{Own: "a", Snapshot: model(t, c.own), Request: request(t, 2, 4), Derived: resourcemodel.Derived{Now: noon}}, p, c.left, c.known)
		if got != c.want || got == (why == "") {
			t.Errorf("%s: %t %q", c.name, got, why)
		}
	}
}

// TestOverloadFlowsOutAndBack goes through a day: the queue at home grows, jobs flow out;
// it empties, and they are kept again. Between the two thresholds nothing changes its mind.
func TestOverloadFlowsOutAndBack(t *testing.T) {
	p := policyFor(t)
	r := request(t, 2, 4)
	over := false
	var log strings.Builder
	for _, waiting := range []int{0, 10, 40, 80, 40, 10, 3, 0} {
		own := size{site: "a", nodes: 100, cpus: 4, memory: 8, running: 100, waiting: waiting * 2}
		if waiting == 0 {
			own.running, own.free = 99, 1
		}
		d := Route(Situation{
			Own: "a", Snapshot: model(t, own, size{domain: "b", site: "s", nodes: 8, cpus: 8, memory: 16, free: 5, running: 3}), Request: r,
			Derived: resourcemodel.Derived{Now: noon}, Peers: []Peer{{Domain: "b"}}, Hops: 3, Overflowing: over,
		}, p)
		over = d.Overflowing
		log.WriteString(strings.Fields(domains(d))[0] + " ")
	}
	if got, want := log.String(), "own b b b b b b own "; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestAdmit(t *testing.T) {
	full := Asking{Peer: "b", Origin: "b", VO: "bio", CPUs: 4, WallTime: time.Hour, Here: 3, Waiting: 1, Free: 2, Slots: 10, Balance: ledger.Balance{Did: 10 * handover.CPUHour}}
	for _, c := range []struct {
		to   Admission
		kind fail.Kind
		says string
	}{
		{Admission{}, 0, ""},
		{Admission{VOs: []string{"chem", "bio"}, MostJobs: 4, MostCPUs: 4, MostWall: time.Hour, MostDebt: 10 * handover.CPUHour, Reserve: 0.1, OwnOnly: true}, 0, ""},
		{Admission{Closed: "the gateway is drained"}, fail.NotAccepting, "drained"},
		{Admission{VOs: []string{"chem"}}, fail.Denied, "VO"},
		{Admission{MostJobs: 3}, fail.Exhausted, "3 jobs"},
		{Admission{MostCPUs: 3}, fail.Unsupported, "CPUs"},
		{Admission{MostWall: time.Minute}, fail.Unsupported, "run for"},
		{Admission{MostDebt: handover.CPUHour}, fail.NotAccepting, "owes"},
		{Admission{Reserve: 0.2}, fail.NotAccepting, "kept for own"},
	} {
		err := Admit(full, c.to)
		if (err == nil) != (c.says == "") || err != nil && (fail.KindOf(err) != c.kind || !strings.Contains(fail.Sentence(err), c.says)) {
			t.Errorf("%+v: %v", c.to, err)
		}
	}
	relayed := full
	relayed.Origin = "o"
	if err := Admit(relayed, Admission{OwnOnly: true}); !fail.Is(err, fail.Denied) {
		t.Errorf("a forwarded job: %v", err)
	}
	idle := full
	idle.Waiting = 0
	if err := Admit(idle, Admission{MostDebt: handover.CPUHour}); err != nil {
		t.Errorf("a debtor is refused while nothing waits: %v", err)
	}
	if (Admission{Reserve: 2}).Check() == nil || (Admission{MostJobs: -1}).Check() == nil || (Admission{}).Check() != nil {
		t.Error("Admission.Check")
	}
	if (Policy{Overload: time.Minute, Recover: time.Hour}.EnsureDefaults()).Check() == nil || (Policy{Gain: 2}.EnsureDefaults()).Check() == nil || (Policy{Room: -1}.EnsureDefaults()).Check() == nil {
		t.Error("Policy.Check")
	}
}

func sites(s *resourcemodel.Snapshot) string {
	var out []string
	for site := range s.Sites() {
		out = append(out, site.Key.String())
	}
	return strings.Join(out, " ")
}

// TestExport: parents show what children have, nobody shows what peers have, and nobody is
// shown itself.
func TestExport(t *testing.T) {
	s := model(t,
		size{site: "own", nodes: 4, cpus: 8, memory: 16, free: 4},
		size{site: "bioonly", nodes: 4, cpus: 8, memory: 16, free: 4, allow: []string{"vo:bio"}},
		size{domain: "kid", site: "k", nodes: 4, cpus: 8, memory: 16, free: 4},
		size{domain: "kid", site: "grandkid" + resourcemodel.Via + "g", nodes: 4, cpus: 8, memory: 16, free: 4},
		size{domain: "kid", site: "top" + resourcemodel.Via + "x", nodes: 4, cpus: 8, memory: 16, free: 4},
		size{domain: "friend", site: "f", nodes: 4, cpus: 8, memory: 16, free: 4},
	)
	for _, c := range []struct {
		to   Peer
		e    Exporting
		want string
	}{
		{Peer{Domain: "top", Role: Parent}, Exporting{}, "me/bioonly me/kid~grandkid~g me/kid~k me/own"},
		{Peer{Domain: "kid", Role: Child}, Exporting{}, "me/bioonly me/own"},
		{Peer{Domain: "friend"}, Exporting{VOs: []string{"chem"}}, "me/kid~grandkid~g me/kid~k me/kid~top~x me/own"},
		{Peer{Domain: "friend"}, Exporting{Sites: []string{"own", "kid~k"}}, "me/kid~k me/own"},
		{Peer{Domain: "friend"}, Exporting{Detail: resourcemodel.None}, ""},
	} {
		for _, detail := range []resourcemodel.Detail{c.e.Detail, max(c.e.Detail, resourcemodel.Categorized), max(c.e.Detail, resourcemodel.Simple)} {
			c.e.Detail = detail
			got, err := Export(s, "me", []string{"kid"}, c.to, c.e)
			if err != nil {
				t.Fatal(err)
			}
			if sites(got) != c.want || got.Revision() != s.Revision() {
				t.Errorf("%+v to %s: %q at %d; want %q", c.e, c.to.Domain, sites(got), got.Revision(), c.want)
			}
			for site := range got.Sites() {
				if site.Static.Detail != detail {
					t.Errorf("%s is shown %s, not %s", site.Key, site.Static.Detail, detail)
				}
			}
		}
	}
}

// TestExportHidesWhatIsNotForThePeer: of a share that the peer's VOs can't use, nothing is
// told, nor of the nodes that only it uses.
func TestExportHidesWhatIsNotForThePeer(t *testing.T) {
	c := size{site: "own", nodes: 4, cpus: 8, memory: 16, free: 4}.change(t)
	static, dynamic := *c.Static, *c.Dynamic
	static.Environments = append(static.Environments, resourcemodel.Environment{ID: "secret", CPUs: 99})
	static.Shares = append(static.Shares, resourcemodel.Share{ID: "hidden", Environments: []string{"secret"}, Policy: resourcemodel.Policy{Allow: []string{"vo:army"}}})
	static.Applications = []resourcemodel.Application{{Name: "decoder", Environments: []string{"secret"}}, {Name: "blast"}}
	dynamic.Environments["secret"] = resourcemodel.EnvironmentState{Nodes: 1}
	dynamic.Shares["hidden"] = resourcemodel.ShareState{Open: true}
	s, err := resourcemodel.Empty().Apply(resourcemodel.Delta{Revision: 1, At: noon, Changes: []resourcemodel.Change{{Key: c.Key, Static: &static, Dynamic: &dynamic}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Export(s, "me", nil, Peer{Domain: "b"}, Exporting{VOs: []string{"bio"}})
	if err != nil {
		t.Fatal(err)
	}
	site := got.Site(resourcemodel.Key{Domain: "me", Site: "own"})
	if site == nil || site.Static.Share("hidden") != nil || site.Static.Environment("secret") != nil || len(site.Static.Applications) != 1 || len(site.Dynamic.Shares) != 1 || len(site.Dynamic.Environments) != 1 {
		t.Errorf("%+v", site)
	}
	if s.Site(resourcemodel.Key{Site: "own"}).Static.Share("hidden") == nil {
		t.Error("the model was changed")
	}
}

// TestBought: a peer of whom room was bought comes first when the own sites would not start the job at
// once, whatever else stands for others; not if it can't run it, or is away.
func TestBought(t *testing.T) {
	p := policyFor(t)
	p.MostGiven, p.MostOwed = 5, handover.CPUHour
	full, free := size{site: "a", nodes: 100, cpus: 4, memory: 8, running: 100}, size{site: "a", nodes: 100, cpus: 4, memory: 8, running: 99, free: 1}
	bought := Peer{Domain: "b", Bought: "room is bought of the domain b"}
	for _, c := range []struct {
		name string
		own  size
		b    Peer
		want string
	}{
		{"nothing is bought", full, Peer{Domain: "b"}, "own c b "},
		{"free at home", free, bought, "own b c "},
		{"a short queue at home", full, bought, "b own c "},
		{"nothing at home that fits", size{site: "a", nodes: 4, cpus: 1, memory: 1}, bought, "b c "},
		{"it has many of ours, and we owe it", full, Peer{Domain: "b", Bought: "bought", Given: 9, Balance: ledger.Balance{Got: 99 * handover.CPUHour}}, "b own c "},
		{"it is away", full, Peer{Domain: "b", Bought: "bought", Away: "its session is lost"}, "own c "},
		{"it refused", full, Peer{Domain: "refused", Bought: "bought"}, "own c "},
	} {
		s := model(t, c.own, size{domain: "b", site: "s", nodes: 1, cpus: 8, memory: 16, running: 1, waiting: 100}, size{domain: "c", site: "s", nodes: 8, cpus: 8, memory: 16, free: 5, running: 3})
		got := Route(Situation{
			Own: "a", Snapshot: s, Request: request(t, 2, 4), Derived: resourcemodel.Derived{Now: noon}, Peers: []Peer{c.b, {Domain: "c"}}, Hops: 3,
			Refused: map[string]string{"refused": "it is full"},
		}, p)
		if domains(got) != c.want {
			t.Errorf("%s: %q; want %q\n%+v", c.name, domains(got), c.want, got)
		}
		for _, x := range got.Choices {
			if x.Bought && (!x.Now || !strings.Contains(x.Why, "bought")) {
				t.Errorf("%s: %+v", c.name, x)
			}
		}
	}
}

// TestAgreed: what a peer bought is taken whatever it owes, and whatever stays for own jobs; other bounds hold.
func TestAgreed(t *testing.T) {
	a := Asking{Peer: "b", Origin: "b", CPUs: 4, Waiting: 1, Free: 1, Slots: 10, Balance: ledger.Balance{Did: 10 * handover.CPUHour}, Agreement: "x"}
	to := Admission{MostDebt: handover.CPUHour, Reserve: 0.5}
	if err := Admit(a, to); !fail.Is(err, fail.NotAccepting) {
		t.Error(err)
	}
	a.Agreed = true
	if err := Admit(a, to); err != nil {
		t.Error(err)
	}
	to.MostCPUs = 3
	if err := Admit(a, to); !fail.Is(err, fail.Unsupported) {
		t.Error(err)
	}
}
