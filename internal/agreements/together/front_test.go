package together_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/mem"
)

// asUser is a domain's service as a user asks it.
type asUser struct {
	*agreementtest.Service
	who  string
	fail error // of all that is asked
	pad  int   // bytes that its agreements have beside
}

func (a asUser) ctx(ctx context.Context) context.Context {
	return soap.WithPrincipal(ctx, soap.Principal{Name: a.who})
}

func (a asUser) Prepare(ctx context.Context, req *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	if a.fail != nil {
		return "", a.fail
	}
	o, err := agreement.DecodeOffer(req.Offer.Encode())
	if err != nil {
		return "", err
	}
	return a.Service.Prepare(a.ctx(ctx), &agreement.CreateRequest{Offer: *o}, p)
}

func (a asUser) Confirm(ctx context.Context, key string) error {
	return a.Service.Confirm(a.ctx(ctx), key)
}

func (a asUser) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	if a.fail != nil {
		return nil, a.fail
	}
	p, err := a.Service.Agreement(a.ctx(ctx), key)
	if err == nil && a.pad > 0 {
		long := etree.NewElement("x:pad")
		long.CreateAttr("xmlns:x", "urn:example")
		long.SetText(strings.Repeat("x", a.pad))
		p.Agreement.Context.Extensions = append(p.Agreement.Context.Extensions, long)
	}
	return p, err
}

func (a asUser) Templates(ctx context.Context) ([]agreement.Template, error) {
	if a.fail != nil {
		return nil, a.fail
	}
	return a.Service.Templates(a.ctx(ctx))
}

func (a asUser) Terminate(ctx context.Context, key string, reason *etree.Element) error {
	if a.fail != nil {
		return a.fail
	}
	return a.Service.Terminate(a.ctx(ctx), key, reason)
}

// fronted is a gateway home.example with a peer, on the wire.
type fronted struct {
	*agreement.Client
	home, away *agreementtest.Service
	coord      *together.Coordinator

	mu     sync.Mutex
	broken map[string]error // by domain
	pad    int
	dialed []string
}

func (f *fronted) breaks(domain string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[domain] = why
}

// direct carries messages to a handler.
type direct struct{ h http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.Host = r.URL.RequestURI(), r.URL.Host
	rec := httptest.NewRecorder()
	d.h.ServeHTTP(rec, in)
	return rec.Result(), nil
}

func refusalOf(err error) (*agreement.Refusal, bool) { return errors.AsType[*agreement.Refusal](err) }

func front(t *testing.T, test func(t *testing.T, f *fronted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fronted{home: &agreementtest.Service{}, away: &agreementtest.Service{Capacity: 1}, broken: map[string]error{}}
		st := mem.New()
		defer func() { _ = st.Close() }()
		var err error
		f.coord, err = together.New(st, together.Options{Dial: func(_ context.Context, owner, provider, vo string) (together.Provider, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.dialed = append(f.dialed, owner+" "+provider+" "+vo)
			svc := map[string]*agreementtest.Service{"home.example": f.home, "away.example": f.away}[provider]
			if svc == nil {
				return nil, fail.Errorf("test", fail.NotFound, provider, "the domain %s is no peer of home.example", provider)
			}
			return asUser{svc, owner, f.broken[provider], f.pad}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		x, err := together.NewFront(together.FrontOptions{
			Coordinator: f.coord, Domain: "home.example", Owner: caller,
			VO: func(req *agreement.CreateRequest) (string, error) {
				if req.Offer.Name == "odd" {
					return "", fail.Errorf("test", fail.Invalid, "", "two VOs")
				}
				return req.Offer.Name, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		server := agreement.NewServer(f.home, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Coordinator: x})
		f.Client = agreement.NewClient(&soap.Client{URL: "http://home.example/agreement", Transport: direct{server}, Retries: -1})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = f.coord.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
		}()
		test(t, f)
	})
}

func offers(parts ...string) *agreement.TogetherRequest {
	q := &agreement.TogetherRequest{}
	for _, p := range parts {
		name, domain, _ := strings.Cut(p, "@")
		q.Parts = append(q.Parts, agreement.TogetherOffer{Name: name, Domain: domain, Offer: agreementtest.Offer(agreementtest.Template())})
	}
	return q
}

func TestFrontMakesAllOrNone(t *testing.T) {
	front(t, func(t *testing.T, f *fronted) {
		q := offers("", "@away.example", "@home.example", "mine@home.example")
		q.Parts[1].Offer.Name = "bio"
		g, err := f.CreateTogether(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var names, domains []string
		for _, p := range g.Parts {
			names, domains = append(names, p.Name), append(domains, p.Domain)
			if p.State != string(together.PartConfirmed) || p.Key == "" {
				t.Errorf("%+v", p)
			}
		}
		if g.State != string(together.Committed) || g.ID == "" || g.Created.IsZero() ||
			!slices.Equal(names, []string{"home.example", "away.example", "home.example (2)", "mine"}) ||
			!slices.Equal(domains, []string{"home.example", "away.example", "home.example", "home.example"}) {
			t.Errorf("%+v", g)
		}
		f.mu.Lock()
		if !slices.Contains(f.dialed, "anonymous away.example bio") {
			t.Errorf("dialed were %q", f.dialed)
		}
		f.mu.Unlock()
		shown, err := f.Together(t.Context(), g.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range shown.Parts {
			if p.Agreement == nil || p.Agreement.State != agreement.Observed {
				t.Errorf("%+v", p)
			}
		}

		// There is no further room at the peer.
		_, err = f.CreateTogether(t.Context(), offers("here@", "there@away.example"))
		r, ok := refusalOf(err)
		if !ok || r.Code != agreement.NoCapacity || !r.Earliest.Equal(agreementtest.Earliest) || !strings.Contains(fail.Sentence(err), `away.example refuses the part "there": `) || !strings.Contains(fail.Sentence(err), "nothing is held") {
			t.Errorf("%v", err)
		}
		_, err = f.CreateTogether(t.Context(), offers("here@", "@nowhere.example"))
		if !fail.Is(err, fail.NotFound) || !strings.Contains(fail.Sentence(err), "nowhere.example refuses: the domain nowhere.example is no peer") {
			t.Errorf("%v", err)
		}
		f.breaks("away.example", fail.Errorf("test", fail.Unavailable, "", "it is off"))
		_, err = f.CreateTogether(t.Context(), offers("here@", "@away.example"))
		if !fail.Is(err, fail.NotAccepting) && !fail.Is(err, fail.Exhausted) || !strings.Contains(fail.Sentence(err), "it is off") {
			t.Errorf("out of reach: %v", err)
		}
		shown, err = f.Together(t.Context(), g.ID)
		if err != nil || shown.Parts[1].Agreement != nil || !strings.Contains(shown.Parts[1].Reason, "it is off") || shown.Parts[0].Agreement == nil {
			t.Errorf("%+v %v", shown, err)
		}
		f.breaks("away.example", nil)
		time.Sleep(20 * time.Minute)
		observed := 0
		keys, _ := asUser{f.home, owner, nil, 0}.List(soap.WithPrincipal(t.Context(), soap.Principal{Name: owner}), "", 100)
		for _, k := range keys {
			if p, err := (asUser{f.home, owner, nil, 0}).Agreement(t.Context(), k); err == nil && !p.State.Final() {
				observed++
			}
		}
		if observed != 3 {
			t.Errorf("%d agreements are left at home of which 3 were made", observed)
		}
		ids, err := f.ListTogether(t.Context(), "", 10)
		if err != nil || len(ids) != 4 || ids[3] != g.ID {
			t.Errorf("%v %v", ids, err)
		}
		if rest, err := f.ListTogether(t.Context(), ids[1], 1); err != nil || !slices.Equal(rest, ids[2:3]) {
			t.Errorf("%v %v", rest, err)
		}
	})
}

func TestFrontIsAskedAgain(t *testing.T) {
	front(t, func(t *testing.T, f *fronted) {
		q := offers("", "@away.example")
		q.ID = "mine"
		for range 3 {
			if g, err := f.CreateTogether(t.Context(), q); err != nil || g.ID != "mine" || g.State != string(together.Committed) {
				t.Fatalf("%+v %v", g, err)
			}
		}
		if n := len(f.away.Requests()); n != 1 {
			t.Errorf("the peer was offered to %d times", n)
		}
		other := offers("")
		other.ID = "mine"
		if _, err := f.CreateTogether(t.Context(), other); !fail.Is(err, fail.Conflict) {
			t.Errorf("another by the same ID: %v", err)
		}
		odd := offers("x@")
		odd.Parts[0].Offer.Name = "odd"
		if _, err := f.CreateTogether(t.Context(), odd); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), `the part "x": two VOs`) {
			t.Errorf("%v", err)
		}
		late := offers("")
		late.Deadline = time.Now().Add(-time.Hour)
		if _, err := f.CreateTogether(t.Context(), late); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v", err)
		}
		if _, err := f.CreateTogether(t.Context(), offers("x@", "x@")); !fail.Is(err, fail.Invalid) {
			t.Errorf("two of one name: %v", err)
		}
		if _, err := f.Together(t.Context(), "no such"); !fail.Is(err, fail.NotFound) {
			t.Errorf("%v", err)
		}
		if _, err := f.ListTogether(t.Context(), "no such", 1); !fail.Is(err, fail.NotFound) {
			t.Errorf("%v", err)
		}
		list, err := f.TemplatesOf(t.Context(), "away.example", "")
		if err != nil || len(list) != 1 || list[0].Name != "batch" {
			t.Errorf("%+v %v", list, err)
		}
		if list, err := f.TemplatesOf(t.Context(), "", ""); err != nil || len(list) != 1 {
			t.Errorf("%+v %v", list, err)
		}
		if _, err := f.TemplatesOf(t.Context(), "nowhere.example", ""); !fail.Is(err, fail.NotFound) {
			t.Errorf("%v", err)
		}
	})
}

// TestFrontIsAskedAgainLate: who asks again after the time by which it was to be decided learns what was decided.
func TestFrontIsAskedAgainLate(t *testing.T) {
	front(t, func(t *testing.T, f *fronted) {
		q := offers("", "@away.example")
		q.ID, q.Deadline = "mine", time.Now().Add(time.Minute)
		for range 2 {
			if g, err := f.CreateTogether(t.Context(), q); err != nil || g.ID != "mine" || g.State != string(together.Committed) {
				t.Fatalf("%+v %v", g, err)
			}
			time.Sleep(time.Hour)
		}
		q.ID = "another"
		if _, err := f.CreateTogether(t.Context(), q); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "which has passed") {
			t.Errorf("%v", err)
		}
	})
}

// TestFrontShowsWhatItCan: agreements that are too long to be told of together are left out.
func TestFrontShowsWhatItCan(t *testing.T) {
	front(t, func(t *testing.T, f *fronted) {
		g, err := f.CreateTogether(t.Context(), offers("a@", "b@", "c@", "d@", "e@"))
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.pad = 1 << 20
		f.mu.Unlock()
		g, err = f.Together(t.Context(), g.ID)
		if err != nil {
			t.Fatal(err)
		}
		shown := 0
		for _, p := range g.Parts {
			if p.Agreement != nil {
				shown++
			} else if p.State != string(together.PartConfirmed) || !strings.Contains(p.Reason, "too long to be told of together; ask home.example") {
				t.Errorf("%+v", p)
			}
		}
		if shown != 3 {
			t.Errorf("%d of 5 are shown", shown)
		}
	})
}

// TestFrontIsNotKnown: that a peer does not know the gateway is not told to users as if it was about them.
func TestFrontIsNotKnown(t *testing.T) {
	front(t, func(t *testing.T, f *fronted) {
		f.breaks("away.example", fail.Errorf("test", fail.Unauthenticated, "", "the message is not signed"))
		const words = "away.example does not take this gateway for who it is, or its word for whom it asks: the message is not signed"
		if _, err := f.CreateTogether(t.Context(), offers("", "@away.example")); !fail.Is(err, fail.Denied) || !strings.Contains(fail.Sentence(err), words) {
			t.Errorf("%v", err)
		}
		if _, err := f.TemplatesOf(t.Context(), "away.example", ""); !fail.Is(err, fail.Denied) || !strings.Contains(fail.Sentence(err), words) {
			t.Errorf("%v", err)
		}
	})
}

func TestFrontEndsAll(t *testing.T) {
	front(t, func(t *testing.T, f *fronted) {
		g, err := f.CreateTogether(t.Context(), offers("", "@away.example"))
		if err != nil {
			t.Fatal(err)
		}
		// One that is out of reach for hours is told when it is back.
		f.breaks("away.example", fail.Errorf("test", fail.Unavailable, "", "it is off"))
		reason := etree.NewElement("x")
		reason.SetText("it is done")
		for range 2 {
			if err := f.TerminateTogether(t.Context(), g.ID, reason); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Hour)
		shown, err := f.Together(t.Context(), g.ID)
		if err != nil || shown.State != string(together.Dissolving) || !strings.Contains(shown.Reason, "anonymous asked for its end: it is done") || shown.Parts[0].State != string(together.PartGone) {
			t.Errorf("%+v %v", shown, err)
		}
		f.breaks("away.example", nil)
		time.Sleep(time.Minute)
		if shown, err = f.Together(t.Context(), g.ID); err != nil || shown.State != string(together.Dissolved) {
			t.Errorf("%+v %v", shown, err)
		}
		for _, p := range shown.Parts {
			if p.State != string(together.PartGone) || p.Agreement == nil || p.Agreement.State == agreement.Observed {
				t.Errorf("%+v", p)
			}
		}
		if err := f.TerminateTogether(t.Context(), g.ID, nil); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := f.TerminateTogether(t.Context(), "no such", nil); !fail.Is(err, fail.NotFound) {
			t.Errorf("%v", err)
		}
		if err := f.away.Turn(shown.Parts[1].Key, agreement.EventTerminated); err != nil {
			t.Fatal(err)
		}
		// There is room again; of what was never agreed on there is nothing to end.
		f.breaks("away.example", fail.Errorf("test", fail.Denied, "", "no"))
		q := offers("", "@away.example")
		q.ID = "none"
		if _, err := f.CreateTogether(t.Context(), q); !fail.Is(err, fail.Denied) || !strings.Contains(fail.Sentence(err), "away.example refuses: no") {
			t.Errorf("%v", err)
		}
		if err := f.TerminateTogether(t.Context(), "none", nil); !fail.Is(err, fail.Conflict) || !strings.Contains(fail.Sentence(err), "nothing to end") {
			t.Errorf("%v", err)
		}
		// One that never comes back is given up after a day.
		f.breaks("away.example", nil)
		if g, err = f.CreateTogether(t.Context(), offers("", "@away.example")); err != nil {
			t.Fatal(err)
		}
		f.breaks("away.example", fail.Errorf("test", fail.Unavailable, "", "it is off"))
		if err := f.TerminateTogether(t.Context(), g.ID, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		if shown, err = f.Together(t.Context(), g.ID); err != nil || shown.State != string(together.Unsettled) || shown.Parts[1].State != string(together.PartUnknown) {
			t.Errorf("%+v %v", shown, err)
		}
	})
}
