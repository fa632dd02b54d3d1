package agreementtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Run judges an agreement.Service. Each call of open gives one with a template
// that an offer may be made from as it is, and room for three agreements or more;
// whoever asks is the anonymous principal, or nobody is told apart.
func Run(t *testing.T, open func() agreement.Service) {
	ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous", Method: "none"})
	first := func(t *testing.T, s agreement.Service) agreement.Template {
		t.Helper()
		list, err := s.Templates(ctx)
		if err != nil || len(list) == 0 {
			t.Fatalf("%d templates, %v", len(list), err)
		}
		return list[0]
	}
	create := func(t *testing.T, s agreement.Service, make func(context.Context, *agreement.CreateRequest) (string, error)) string {
		t.Helper()
		key, err := make(ctx, &agreement.CreateRequest{Offer: Offer(first(t, s))})
		if err != nil || key == "" {
			t.Fatalf("the key is %q, %v", key, err)
		}
		return key
	}
	state := func(t *testing.T, s agreement.Service, key string) *agreement.Properties {
		t.Helper()
		p, err := s.Agreement(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}

	t.Run("templates say what offers refer to", func(t *testing.T) {
		list, err := open().Templates(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, tpl := range list {
			id := tpl.Name + "\x00" + tpl.TemplateID
			if tpl.Name == "" || tpl.TemplateID == "" || seen[id] {
				t.Errorf("the template %q with the id %q can't be referred to", tpl.Name, tpl.TemplateID)
			}
			seen[id] = true
			if tpl.Terms == nil || len(tpl.Services()) == 0 {
				t.Errorf("the template %q describes no service", tpl.Name)
			}
		}
	})

	t.Run("an accepted offer is observed", func(t *testing.T) {
		s := open()
		tpl := first(t, s)
		key := create(t, s, s.Create)
		p := state(t, s, key)
		if !p.State.Watched() {
			t.Errorf("it is %s", p.State)
		}
		if p.ID == "" || p.Context.TemplateName != tpl.Name || p.Context.TemplateID != tpl.TemplateID {
			t.Errorf("its id is %q and its context %+v", p.ID, p.Context)
		}
		p.Terms.Walk(func(term agreement.Term) bool {
			if c, ok := term.(*agreement.Compositor); ok && c != p.Terms {
				t.Errorf("a compositor %s is left in an agreement", c.Kind)
			}
			return true
		})
		states(t, p)
	})

	t.Run("each agreement is another", func(t *testing.T) {
		s := open()
		a, b := create(t, s, s.Create), create(t, s, s.Create)
		if a == b {
			t.Fatalf("two agreements have the key %q", a)
		}
		if err := s.Terminate(ctx, a, nil); err != nil {
			t.Fatal(err)
		}
		if p := state(t, s, b); p.State != agreement.Observed {
			t.Errorf("the end of another made it %s", p.State)
		}
	})

	t.Run("a pending agreement is there at once", func(t *testing.T) {
		s := open()
		p := state(t, s, create(t, s, s.CreatePending))
		if p.State != agreement.Pending && p.State != agreement.Observed && p.State != agreement.Rejected {
			t.Errorf("it is %s", p.State)
		}
		states(t, p)
	})

	t.Run("an end that is asked for comes", func(t *testing.T) {
		s := open()
		for _, make := range []func(context.Context, *agreement.CreateRequest) (string, error){s.Create, s.CreatePending} {
			key := create(t, s, make)
			reason := etree.NewElement("r:Why")
			reason.CreateAttr("xmlns:r", "urn:test")
			reason.SetText("plans <changed>")
			if err := s.Terminate(ctx, key, reason); err != nil {
				t.Fatal(err)
			}
			p := state(t, s, key)
			switch p.State {
			case agreement.ObservedAndTerminating, agreement.PendingAndTerminating, agreement.Terminated, agreement.Rejected, agreement.Complete:
			case agreement.Pending, agreement.Observed:
				t.Errorf("it is %s", p.State)
			}
			// Asked again, it is on its way still, or there already.
			err := s.Terminate(ctx, key, nil)
			if final := state(t, s, key).State.Final(); err != nil && !(final && fail.Is(err, fail.Conflict)) || err == nil && p.State.Final() {
				t.Errorf("asked for the end of one that is %s again: %v", p.State, err)
			}
		}
	})

	t.Run("offers are refused with a code and a sentence", func(t *testing.T) {
		s := open()
		tpl := first(t, s)
		for name, x := range map[string]struct {
			change func(*agreement.Offer)
			code   agreement.Code
			kind   fail.Kind
		}{
			"another id":   {func(o *agreement.Offer) { o.Context.TemplateID = "no such id" }, agreement.NoSuchTemplate, fail.NotFound},
			"another name": {func(o *agreement.Offer) { o.Context.TemplateName = "no such name" }, agreement.NoSuchTemplate, fail.NotFound},
			"over":         {func(o *agreement.Offer) { o.Context.ExpirationTime = time.Unix(1e9, 0).UTC() }, agreement.Expired, fail.Invalid},
		} {
			o := Offer(tpl)
			x.change(&o)
			for _, make := range []func(context.Context, *agreement.CreateRequest) (string, error){s.Create, s.CreatePending} {
				key, err := make(ctx, &agreement.CreateRequest{Offer: o})
				r, ok := errors.AsType[*agreement.Refusal](err)
				if !ok || r.Code != x.code || len(r.Sentences) == 0 || r.Sentences[0] == "" || !fail.Is(err, x.kind) {
					t.Errorf("%s: %q, %v", name, key, err)
				}
			}
		}
	})

	t.Run("what is not there is not found", func(t *testing.T) {
		s := open()
		if _, err := s.Agreement(ctx, "no-such-key"); !fail.Is(err, fail.NotFound) {
			t.Errorf("its properties: %v", err)
		}
		if err := s.Terminate(ctx, "no-such-key", nil); !fail.Is(err, fail.NotFound) {
			t.Errorf("its end: %v", err)
		}
	})

	t.Run("agreements are listed, the newest first", func(t *testing.T) {
		s := open()
		l, ok := s.(agreement.Lister)
		if !ok {
			t.Skip("the service does not list agreements")
		}
		var made []string
		for range 3 {
			made = append(made, create(t, s, s.Create))
		}
		slices.Reverse(made)
		all, err := l.List(ctx, "", 100)
		if err != nil || !slices.Equal(all, made) {
			t.Errorf("%v, %v; made were %v", all, err, made)
		}
		var paged []string
		for before := ""; ; before = paged[len(paged)-1] {
			page, err := l.List(ctx, before, 2)
			if err != nil || len(page) > 2 {
				t.Fatalf("%v, %v", page, err)
			}
			if len(page) == 0 {
				break
			}
			paged = append(paged, page...)
		}
		if !slices.Equal(paged, made) {
			t.Errorf("by pages %v; made were %v", paged, made)
		}
	})

	t.Run("what is prepared waits to be confirmed", func(t *testing.T) {
		s := open()
		p, ok := s.(agreement.Preparer)
		if !ok {
			t.Skip("the service prepares nothing")
		}
		req := &agreement.CreateRequest{Offer: Offer(first(t, s))}
		until := time.Now().Add(time.Minute).UTC().Truncate(time.Millisecond)
		prepare := func(key string) (string, error) {
			return p.Prepare(ctx, req, agreement.Preparation{Key: key, Until: until})
		}
		state := func(key string, want agreement.State) {
			t.Helper()
			if a, err := s.Agreement(ctx, key); err != nil || a.State != want {
				t.Fatalf("the agreement %s is %+v, %v; want %s", key, a, err, want)
			}
		}
		a, err := prepare("one")
		if fail.Is(err, fail.Unsupported) {
			t.Skip("the service prepares nothing")
		}
		if err != nil {
			t.Fatal(err)
		}
		state(a, agreement.Pending)
		if again, err := prepare("one"); err != nil || again != a {
			t.Fatalf("again it is %q, %v; want %q", again, err, a)
		}
		b, err := prepare("two")
		if err != nil || b == a {
			t.Fatalf("another is %q, %v", b, err)
		}
		for range 2 {
			if err := p.Confirm(ctx, a); err != nil {
				t.Fatal(err)
			}
			state(a, agreement.Observed)
		}
		if again, err := prepare("one"); err != nil || again != a {
			t.Fatalf("again it is %q, %v; want %q", again, err, a)
		}
		if err := s.Terminate(ctx, b, nil); err != nil {
			t.Fatal(err)
		}
		state(b, agreement.Rejected)
		if err := p.Confirm(ctx, b); !fail.Is(err, fail.Conflict) {
			t.Errorf("what was let go is confirmed: %v", err)
		}
		if again, err := prepare("two"); !fail.Is(err, fail.Conflict) {
			t.Errorf("what was let go is prepared again: %q, %v", again, err)
		}
		plain, err := s.CreatePending(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Confirm(ctx, plain); !fail.Is(err, fail.Conflict) {
			t.Errorf("what was not prepared is confirmed: %v", err)
		}
		if err := p.Confirm(ctx, "moon"); !fail.Is(err, fail.NotFound) {
			t.Errorf("what is not there is confirmed: %v", err)
		}
		if _, err := p.Prepare(ctx, req, agreement.Preparation{Key: "three", Until: time.Now().Add(-time.Minute)}); !fail.Is(err, fail.Invalid) {
			t.Errorf("what has passed is prepared: %v", err)
		}
	})
	t.Run("foreign content of an offer is kept", func(t *testing.T) {
		s := open()
		o := Offer(first(t, s))
		x := etree.NewElement("x:Note")
		x.CreateAttr("xmlns:x", "urn:test")
		x.CreateElement("x:Text").SetText("a < b & c")
		o.Context.Extensions = append(o.Context.Extensions, x)
		key, err := s.Create(ctx, &agreement.CreateRequest{Offer: o, Noncritical: []*etree.Element{x.Copy()}})
		if err != nil {
			t.Fatal(err)
		}
		var found string
		for _, e := range state(t, s, key).Context.Extensions {
			if xmldoc.Is(e, "urn:test", "Note") {
				found = fmt.Sprint(xmldoc.Text(xmldoc.Child(e, "urn:test", "Text")))
			}
		}
		if found != "a < b & c" {
			t.Errorf("the note came back as %q", found)
		}
	})
}

// states checks that each state is one, and of a term that there is.
func states(t *testing.T, p *agreement.Properties) {
	t.Helper()
	if !p.State.Valid() {
		t.Errorf("the agreement's state is %q", p.State)
	}
	guarantees := map[string]bool{}
	for _, g := range p.Guarantees {
		if _, ok := p.Term(g.Term).(*agreement.Guarantee); !ok || guarantees[g.Term] || !g.State.Valid() {
			t.Errorf("a state of the guarantee %q: %q", g.Term, g.State)
		}
		guarantees[g.Term] = true
	}
	services := map[string]bool{}
	for _, s := range p.Services {
		if p.Term(s.Term) == nil || services[s.Term] || !(agreement.ServicePoint{State: s.State, Activity: s.Activity}).Valid() {
			t.Errorf("a state of the service term %q: %q %q", s.Term, s.State, s.Activity)
		}
		services[s.Term] = true
	}
	if want := len(p.Agreement.Guarantees()); len(guarantees) != want {
		t.Errorf("%d of %d guarantees have a state", len(guarantees), want)
	}
}
