package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// What was settled is told to whom it belongs, page by page; and all of it to who oversees.
func TestUsage(t *testing.T) {
	overseen := func(c *broker.Config, o *Options) {
		o.Settings.Penalty = 7500
		c.Authorise = func(who soap.Principal, p broker.Permission) error {
			if p == broker.Oversee && who.Name != "root" {
				return errors.New("only root does")
			}
			return nil
		}
	}
	alone(t, one(8), func(t *testing.T, g *gateway) {
		began := time.Now()
		make1 := func(who, script string) string {
			key := g.must(who, g.by(who, "finish-by@here/fake").say("job", job(script, time.Hour, 2)).say("finishBy", finishBy(time.Now().Add(3*time.Hour))))
			g.ends(key)
			time.Sleep(time.Minute)
			g.until("its account is closed", func() bool { n, err := noteOf(new(g.record(key))); return err == nil && n.Over })
			return key
		}
		first, second, theirs := make1("ada", "sleep 600"), make1("ada", "missing no such program"), make1("bob", "sleep 60")
		runs := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 3000", time.Hour, 1)).say("finishBy", finishBy(time.Now().Add(3*time.Hour))))
		all := func(who string, q ledger.Query) (keys []string, list []ledger.Settled) {
			t.Helper()
			for n := 0; ; n++ {
				p, err := g.Usage(as1(who), q)
				if err != nil || n > 20 || len(p.Agreements) > q.Most {
					t.Fatalf("%v, %+v", err, p)
				}
				for _, s := range p.Agreements {
					keys = append(keys, s.Agreement)
				}
				list = append(list, p.Agreements...)
				if p.Next == "" {
					return keys, list
				}
				q.Before = p.Next
			}
		}
		for _, most := range []int{1, 2, 100} {
			for who, want := range map[string][]string{"ada": {second, first}, "bob": {theirs}, "eve": nil, "root": {theirs, second, first}} {
				got, _ := all(who, ledger.Query{Most: most})
				if len(got) != len(want) {
					t.Errorf("%s sees %q, not %q (and %s runs)", who, got, want, runs)
					continue
				}
				for i := range want {
					if got[i] != want[i] {
						t.Errorf("%s sees %q, not %q", who, got, want)
					}
				}
			}
		}
		_, list := all("ada", ledger.Query{Most: 100})
		s := list[1]
		if s.User != "ada" || s.VO != "" || s.Status != "Completed" || len(s.Jobs) != 1 {
			t.Fatalf("%+v", s)
		}
		j := s.Jobs[0]
		if j.Status != "Completed" || j.Site != "here" || j.Share != "fake" || j.CPUs != 2 || j.Wall < 10*time.Minute || j.Wall > 11*time.Minute || j.Ended.Sub(j.Begun) < 10*time.Minute {
			t.Errorf("%+v", j)
		}
		used := false
		for _, x := range s.Amounts {
			used = used || x.Kind == ledger.Usage && x.Unit == "cpu-second" && x.Job == j.Job
		}
		if !used {
			t.Errorf("%+v", s.Amounts)
		}
		if _, err := s.Records(); err != nil {
			t.Error(err)
		}
		if j := list[0].Jobs[0]; j.Status != "Failed" {
			t.Errorf("%+v", j)
		}
		// When they ended, and for whom.
		ended := g.record(first).Ended
		for name, q := range map[string]ledger.Query{
			"from": {Most: 9, From: ended, Until: ended.Add(1)}, "until": {Most: 9, Until: ended.Add(1)},
		} {
			if got, _ := all("ada", q); len(got) != 1 || got[0] != first {
				t.Errorf("%s: %q", name, got)
			}
		}
		for name, q := range map[string]ledger.Query{"before": {Most: 9, Until: began}, "after": {Most: 9, From: time.Now().Add(time.Hour)}, "a VO": {Most: 9, VO: "bio"}} {
			if got, _ := all("root", q); len(got) != 0 {
				t.Errorf("%s: %q", name, got)
			}
		}
		if _, err := g.Usage(as1("ada"), ledger.Query{}); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v", err)
		}
	}, whole, overseen)
}

// What was quoted in a negotiation is bound by CreatePendingAgreement too: it is decided already, and
// that is told; the request may come again.
func TestPendingOfANegotiation(t *testing.T) {
	who := &initiator{}
	door := agreement.NewAcceptanceServer(who, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	calls := func(_ *broker.Config, o *Options) {
		o.Callbacks, o.Transport = []string{"initiator.example"}, inside{door}
	}
	alone(t, one(4), func(t *testing.T, g *gateway) {
		o := g.by("ada", "finish-by@here/fake").say("job", job("sleep 60", time.Hour, 1)).say("finishBy", finishBy(time.Now().Add(3*time.Hour)))
		made, bound := g.must("ada", o), 0
		var refuse error
		handles := true
		g.Bind(func(_ context.Context, x *agreement.NegotiationExtension, _ *agreement.CreateRequest) (string, bool, error) {
			bound++
			if x.OfferContext.CounterOfferTo != "counter-2" {
				t.Errorf("%+v", x)
			}
			if refuse != nil || !handles {
				return "", false, refuse
			}
			return made, true, nil
		})
		negotiation := agreement.NewNegotiationEPR("urn:here", "n1")
		x := &agreement.NegotiationExtension{ResponderEPR: &negotiation, OfferContext: agreement.OfferContext{CounterOfferTo: "counter-2", Creator: agreement.NegotiationInitiator, State: agreement.Acceptable}}
		req := &agreement.CreateRequest{Offer: *o.Offer, Noncritical: []*etree.Element{x.Encode()}}
		if key, err := g.CreatePending(as1("ada"), req); key != made || err != nil {
			t.Fatalf("%q, %v", key, err)
		}
		// Where it is critical too, and then not in one that is to be confirmed by another.
		critical := &agreement.CreateRequest{Offer: *o.Offer, Critical: req.Noncritical}
		if key, err := g.Create(as1("ada"), critical); key != made || err != nil {
			t.Fatalf("%q, %v", key, err)
		}
		bound--
		_, err := g.Prepare(as1("ada"), critical, agreement.Preparation{Key: "k", Until: time.Now().Add(time.Minute)})
		if r := refusal(t, err, agreement.UnsupportedTerm); !strings.Contains(r.Sentences[0], "leave Prepare out") {
			t.Errorf("%q", r.Sentences)
		}
		req.AcceptanceEPR = new(agreement.NewEPR("http://initiator.example/", "mine"))
		for range 2 {
			if key, err := g.CreatePending(as1("ada"), req); key != made || err != nil {
				t.Fatalf("%q, %v", key, err)
			}
			g.until("it is told", func() bool { who.mu.Lock(); defer who.mu.Unlock(); return len(who.told) >= 1 })
		}
		if len(who.told) != 1 || who.told[0] != "accept mine" || bound != 3 {
			t.Errorf("%q, bound %d times", who.told, bound)
		}
		refuse = agreement.Refuse(agreement.Expired, "it is over")
		if _, err := g.CreatePending(as1("ada"), req); !errors.Is(err, refuse) {
			t.Errorf("%v", err)
		}
		// What the negotiation leaves to us is an offer like others.
		refuse, handles = nil, false
		key, err := g.CreatePending(as1("ada"), req)
		if err != nil || key == made {
			t.Fatalf("%q, %v", key, err)
		}
		g.until("that is told too", func() bool { who.mu.Lock(); defer who.mu.Unlock(); return len(who.told) == 2 })
		if r := g.ends(made); r.State != agreement.Complete {
			t.Errorf("%s", g.story(made))
		}
	}, calls, whole)
}

// Which VO an offer is for: its jobs say, or extensions; a critical one must agree with them.
func TestTheVOOfAnOffer(t *testing.T) {
	ext := func(names ...string) (list []*etree.Element) {
		for _, n := range names {
			e := etree.NewElement("p:VO")
			e.CreateAttr("xmlns:p", agreement.NSPortolan)
			e.SetText(n)
			list = append(list, e)
		}
		return list
	}
	capacity := agreement.NewElement("none") // describes no job
	job := func(vo string) *etree.Element {
		doc, err := xmldoc.ReadBytes([]byte(`<j:JobDescription xmlns:j="`+jsdl.NS+`"><j:Resources><p:Placement xmlns:p="`+jsdl.NSPortolan+`">`+vo+`</p:Placement></j:Resources></j:JobDescription>`), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return doc.Root()
	}
	for name, c := range map[string]struct {
		of                    *etree.Element
		noncritical, critical []string
		want, refused         string
	}{
		"nobody says":            {of: capacity},
		"an extension":           {of: capacity, noncritical: []string{"bio"}, want: "bio"},
		"a critical one":         {of: capacity, critical: []string{" bio "}, want: "bio"},
		"both":                   {of: capacity, noncritical: []string{"bio"}, critical: []string{"chem"}, want: "chem"},
		"two that are critical":  {of: capacity, critical: []string{"bio", "chem"}, refused: `"chem"`},
		"one twice":              {of: capacity, critical: []string{"bio", "bio"}, want: "bio"},
		"the job":                {of: job("<p:VO>bio</p:VO>"), noncritical: []string{"chem"}, want: "bio"},
		"the job and a critical": {of: job("<p:VO>bio</p:VO>"), critical: []string{"bio"}, want: "bio"},
		"a critical other":       {of: job("<p:VO>bio</p:VO>"), critical: []string{"chem"}, refused: "make them alike"},
		"a job of nobody":        {of: job(""), critical: []string{"chem"}, refused: "make them alike"},
		"a long name":            {of: capacity, critical: []string{strings.Repeat("v", 10_000)}, refused: "it may have"},
	} {
		req := &agreement.CreateRequest{Noncritical: ext(c.noncritical...), Critical: ext(c.critical...)}
		req.Offer.Terms = &agreement.Compositor{Kind: agreement.All, Terms: []agreement.Term{&agreement.ServiceDescription{Name: "t", ServiceName: "s", Description: c.of}}}
		vo, err := VO(req)
		if vo != c.want || (err != nil) != (c.refused != "") || err != nil && (!fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), c.refused)) {
			t.Errorf("%s: %q, %v", name, vo, err)
		}
	}
	for n, want := range map[xmldoc.Name]bool{
		{Space: agreement.NSPortolan, Local: "VO"}: true, {Space: agreement.NSPortolan, Local: "Prepare"}: false, {Space: "urn:x", Local: "VO"}: false,
		{Space: agreement.NSNegotiation, Local: "NegotiationExtension"}: false, {Space: agreement.NSNegotiation, Local: "NegotiationOffer"}: false,
	} {
		s := &Service{}
		if s.Understands(n) != want {
			t.Errorf("without a negotiator: %s", n)
		}
		s.Bind(func(context.Context, *agreement.NegotiationExtension, *agreement.CreateRequest) (string, bool, error) {
			return "", false, nil
		})
		if got := s.Understands(n); got != (want || n.Local == "NegotiationExtension") {
			t.Errorf("with a negotiator: %s", n)
		}
	}
}
