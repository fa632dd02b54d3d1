package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

func TestOwnersDoNotLearnOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{}, func(c *Config) {
			c.Authorise = func(p soap.Principal, what Permission) error {
				if what == Oversee && p.Name != "root" {
					return errors.New("no")
				}
				return nil
			}
		})
		live, ended := g.submit("hang"), g.submit("exit 0", "here")
		g.until(live, bes.Running, "Executing")
		bob, es := as("bob"), []soap.EPR{live, ended}
		check := func(what string, err error) {
			t.Helper()
			if !fail.Is(err, fail.NotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for i := range es {
			rs, err := g.GetActivityStatuses(bob, &bes.StatusRequest{Activities: es, Wait: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			check("status", rs[i].Err)
			ds, _ := g.GetActivityDocuments(bob, es)
			check("document", ds[i].Err)
			check("terminate", one1(g.TerminateActivities(bob, es[i:i+1])))
			check("suspend", one1(g.SuspendActivities(bob, es[i:i+1])))
			_, err = g.GetActivityHistory(bob, es[i])
			check("history", err)
			_, err = g.GetActivityOutput(bob, es[i], bes.Stdout, 0, 1)
			check("output", err)
		}
		if fa, err := g.GetFactoryAttributesDocument(bob); err != nil || fa.TotalNumberOfActivities != 0 || len(fa.Activities) != 0 {
			t.Errorf("attributes: %+v, %v", fa, err)
		}
		if fa, err := g.GetFactoryAttributesDocument(as("root")); err != nil || fa.TotalNumberOfActivities != 2 || len(fa.Activities) != 2 {
			t.Errorf("root's attributes: %+v, %v", fa, err)
		}
		if err := one1(g.TerminateActivities(as("root"), es[:1])); err != nil {
			t.Errorf("root may not terminate: %v", err)
		}
	})
}

func TestReferences(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{})
		e := g.submit("exit 0")
		bare := soap.EPR{Address: e.Address}
		g.until(bare, bes.Finished, "")
		g.until(soap.EPR{Address: "http://other.name/bes", ReferenceParameters: e.ReferenceParameters}, bes.Finished, "")
		for _, a := range []string{"", "x", "http://gw.example.org/bes", "http://gw.example.org/bes/7", "urn:uuid:00000000-0000-7000-8000-000000000000", "http://gw.example.org/bes/a/" + strings.Repeat("f", 36)} {
			rs, err := g.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: []soap.EPR{{Address: a}}})
			if err != nil || !fail.Is(rs[0].Err, fail.NotFound) {
				t.Errorf("%q: %v, %v", a, err, rs)
			}
		}
		if rs, err := g.GetActivityStatuses(as("ada"), &bes.StatusRequest{}); err != nil || len(rs) != 0 {
			t.Errorf("an empty request (V3): %v, %v", rs, err)
		}
		ds, err := g.GetActivityDocuments(as("ada"), []soap.EPR{e, e})
		if err != nil || len(ds) != 2 || string(ds[1].Document) != string(document("exit 0")) {
			t.Errorf("documents: %v, %v", ds, err)
		}
	})
}

func TestStopAccepting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		defer w.Close()
		create := func(g *gateway) error {
			_, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document("exit 0")})
			return err
		}
		for range 2 { // the second finds it in the store
			g := start(t, Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}})
			<-g.Ready()
			if err := g.StopAcceptingNewActivities(as("ada")); err != nil {
				t.Fatal(err)
			}
			if err := create(g); !fail.Is(err, fail.NotAccepting) {
				t.Errorf("stopped: %v", err)
			}
			g.stop()
		}
		g := start(t, Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}})
		<-g.Ready()
		defer g.stop()
		if err := create(g); !fail.Is(err, fail.NotAccepting) {
			t.Errorf("stopped before the restart: %v", err)
		}
		if fa, err := g.GetFactoryAttributesDocument(as("ada")); err != nil || fa.IsAcceptingNewActivities {
			t.Errorf("%+v, %v", fa, err)
		}
		if err := g.StartAcceptingNewActivities(as("ada")); err != nil {
			t.Fatal(err)
		}
		if err := create(g); err != nil {
			t.Errorf("started: %v", err)
		}
	})
}

func TestCreateRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, w2 := fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(w2.Close)
		g := here(t, w, fake.Options{}, func(c *Config) {
			c.Sites = append(c.Sites, Site{Name: "there", Adapter: w2.Open(fake.Options{})})
			c.Limits.LivePerOwner = 2
			c.Limits.Document = 4000
		})
		create := func(who string, doc []byte) error {
			_, err := g.CreateActivity(as(who), &bes.CreateActivityRequest{Document: doc})
			return err
		}
		for _, c := range []struct {
			name string
			doc  []byte
			kind fail.Kind
			says []string
		}{
			{"not XML", []byte("hello"), fail.Invalid, nil},
			{"not JSDL", []byte("<a/>"), fail.Invalid, nil},
			{"too long", document("out " + strings.Repeat("x", 4000)), fail.Invalid, []string{"4000"}},
			{"no site can", document("unsupported it needs a moon"), fail.Unsupported, []string{"site here", "site there"}},
			{"no such host", document("exit 0", "nowhere.example.org"), fail.Unsupported, []string{"nowhere.example.org"}},
		} {
			err := create("ada", c.doc)
			if !fail.Is(err, c.kind) {
				t.Errorf("%s: %v", c.name, err)
			}
			for _, s := range c.says {
				if !strings.Contains(fail.Sentence(err), s) {
					t.Errorf("%s: %q does not say %q", c.name, fail.Sentence(err), s)
				}
			}
		}
		for i := range 3 {
			err := create("ada", document("hang"))
			if want := i == 2; want != fail.Is(err, fail.NotAccepting) {
				t.Errorf("job %d of at most 2: %v", i+1, err)
			}
		}
		if err := create("bob", document("hang")); err != nil {
			t.Errorf("another's jobs count: %v", err)
		}
	})
}

func TestSubmissionID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{})
		create := func(who, id, script string) (soap.EPR, error) {
			r, err := g.CreateActivity(as(who), &bes.CreateActivityRequest{Document: document(script), SubmissionID: id})
			if err != nil {
				return soap.EPR{}, err
			}
			return r.Activity, nil
		}
		a, err := create("ada", "urn:1", "exit 0")
		if err != nil {
			t.Fatal(err)
		}
		g.until(a, bes.Finished, "")
		if b, err := create("ada", "urn:1", "exit 0"); err != nil || b.Address != a.Address {
			t.Errorf("again: %v, %v", b.Address, err)
		}
		if _, err := create("ada", "urn:1", "exit 1"); !fail.Is(err, fail.Invalid) {
			t.Errorf("with another document: %v", err)
		}
		if b, err := create("bob", "urn:1", "exit 0"); err != nil || b.Address == a.Address {
			t.Errorf("another's: %v, %v", b.Address, err)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.live > 1 {
			t.Errorf("%d live", g.live)
		}
	})
}

func TestPinnedToASite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w2 := fake.NewWorld(1)
		t.Cleanup(w2.Close)
		g := here(t, fake.NewWorld(1), fake.Options{}, func(c *Config) {
			c.Sites = append(c.Sites, Site{Name: "there", Adapter: w2.Open(fake.Options{})})
		})
		for _, site := range []string{"there", "here"} {
			if s := g.until(g.submit("exit 0", site), bes.Finished, ""); s.Details.Site != site {
				t.Errorf("pinned to %s, ran at %s", site, s.Details.Site)
			}
		}
	})
}

func TestWaitForNews(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{})
		e, other := g.submit("sleep 30; exit 0"), g.submit("hang")
		s := g.until(e, bes.Running, "Executing")
		wait := func(ctx context.Context, d time.Duration, es ...soap.EPR) (time.Duration, error) {
			began := time.Now()
			_, err := g.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: es, Wait: d, After: 1 << 40})
			return time.Since(began), err
		}
		if d, err := wait(as("ada"), 5*time.Second, e); err != nil || d != 5*time.Second {
			t.Errorf("no news: %v, %v", d, err)
		}
		ctx, cancel := context.WithTimeout(as("ada"), time.Second)
		defer cancel()
		if d, err := wait(ctx, time.Hour, e); err == nil || d != time.Second {
			t.Errorf("the client left: %v, %v", d, err)
		}
		if d, err := wait(as("ada"), time.Hour, other, e); err != nil || d > 30*time.Second {
			t.Errorf("the end of one of two: %v, %v", d, err)
		}
		if d, err := wait(as("ada"), time.Hour, e); err != nil || d != 0 {
			t.Errorf("one that ended: %v, %v", d, err)
		}
		if g.waiters != 0 || s.Details.Revision == 0 {
			t.Errorf("%d waiters are left; revision %d", g.waiters, s.Details.Revision)
		}
		g.cfg.Limits.Waiters = 0
		if d, err := wait(as("ada"), time.Hour, other); err != nil || d != 0 {
			t.Errorf("too many wait: %v, %v", d, err)
		}
	})
}

func TestFactoryAttributes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{}, func(c *Config) { c.Limits.Listed = 2 })
		var es []soap.EPR
		for i := range 3 {
			es = append(es, g.submit(fmt.Sprintf("exit %d", i)))
		}
		fa, err := g.GetFactoryAttributesDocument(as("ada"))
		if err != nil {
			t.Fatal(err)
		}
		if fa.TotalNumberOfActivities != 3 || len(fa.Activities) != 2 || fa.Activities[0].Address != es[2].Address {
			t.Errorf("activities: %+v", fa)
		}
		if !fa.IsAcceptingNewActivities || fa.TotalContainedResources != 1 || fa.ContainedResources[0].ResourceName != "here" ||
			fa.LocalResourceManagerType != ManagerGateway || fa.Basic.CPUCount == 0 || len(fa.NamingProfiles) == 0 {
			t.Errorf("%+v", fa)
		}
	})
}

func TestRetention(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Retention = 24 * time.Hour })
		e := g.submit("out x")
		g.until(e, bes.Finished, "")
		// The age is that of the id, and ids of one process go up, whatever its clock does: other tests may have been ahead.
		id, err := idOf(e)
		if err != nil {
			t.Fatal(err)
		}
		s, ns := uuid.MustParse(id).Time().UnixTime()
		time.Sleep(time.Until(time.Unix(s, ns).Add(23 * time.Hour)))
		if n := len(w.Tags()); n != 1 {
			t.Fatalf("%d are kept a day long", n)
		}
		time.Sleep(3 * time.Hour)
		if n := len(w.Tags()); n != 0 {
			t.Fatalf("%d are kept for ever", n)
		}
		if _, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 9); !fail.Is(err, fail.NotFound) {
			t.Errorf("output: %v", err)
		}
	})
}
