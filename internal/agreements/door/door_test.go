package door_test

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/agreements/door"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is one domain: who it is, what it says of others, and its door.
type side struct {
	t       *testing.T
	domain  string
	gateway *identity.Gateway
	users   *identity.Users
	door    *door.Door
	url     string

	mu      sync.Mutex
	members map[string]members.Member
	asked   []soap.Principal
	pad     *etree.Element // what is said beside; nil is nothing
}

func (s *side) pads(e *etree.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pad = e
}

// more gives what is said beside what was asked for.
func (s *side) more() []*etree.Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pad == nil {
		return nil
	}
	return []*etree.Element{s.pad.Copy()}
}

func (s *side) set(m members.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[m.Domain] = m
}

func (s *side) member(d string) (members.Member, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.members[d]
	return m, ok
}

func (s *side) drop(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, domain)
}

// spy notes who asks.
type spy struct {
	*agreementtest.Service
	s *side
}

func (y spy) Create(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	y.s.mu.Lock()
	y.s.asked = append(y.s.asked, soap.PrincipalFrom(ctx))
	y.s.mu.Unlock()
	return y.Service.Create(ctx, req)
}

func (y spy) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	p, err := y.Service.Agreement(ctx, key)
	if err == nil {
		p.Agreement.Context.Extensions = append(p.Agreement.Context.Extensions, y.s.more()...)
	}
	return p, err
}

func (y spy) Templates(ctx context.Context) ([]agreement.Template, error) {
	list, err := y.Service.Templates(ctx)
	for i := range list {
		list[i].Context.Extensions = append(list[i].Context.Extensions, y.s.more()...)
	}
	return list, err
}

func (s *side) last() soap.Principal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		return soap.Principal{}
	}
	p := s.asked[len(s.asked)-1]
	s.asked = nil
	return p
}

const (
	home = "home.example"
	away = "away.example"
)

func newSide(t *testing.T, domain string, signatures identity.Signatures) *side {
	t.Helper()
	id, err := identity.Open(identity.Options{Domain: domain, Dir: filepath.Join(t.TempDir(), "identity")})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := identity.NewTrust()
	if err != nil {
		t.Fatal(err)
	}
	s := &side{t: t, domain: domain, members: map[string]members.Member{}}
	s.gateway = &identity.Gateway{Identity: id, Trusted: tr, Signatures: signatures}
	s.users = identity.NewUsers(s.gateway)
	s.door = door.New(door.Options{Domain: domain, Trust: s.gateway, Users: s.users, Member: s.member, AtOnce: 4})
	t.Cleanup(s.door.Close)
	server := &http.Server{
		Handler: s.door.Handler(spy{&agreementtest.Service{Capacity: 1000}, s}, nil, door.ServeOptions{}), TLSConfig: s.gateway.ServerTLS(),
		ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "https://" + l.Addr().String() + "/peer"
	s.gateway.Endpoint = s.url
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s
}

func (s *side) trusts(others ...*side) {
	s.t.Helper()
	var list []identity.Anchor
	for _, o := range others {
		list = append(list, identity.Anchor{Domain: o.domain, CAs: []*x509.Certificate{o.gateway.CA()}})
	}
	if err := s.gateway.Trusted.Set(list); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) peer(o *side) members.Member {
	return members.Member{Peer: peers.Peer{Domain: o.domain, URL: o.url, Provides: true, Consumes: true}, Agreements: true}
}

func two(t *testing.T, signatures identity.Signatures) (h, a *side) {
	t.Helper()
	h, a = newSide(t, home, signatures), newSide(t, away, signatures)
	h.trusts(a)
	a.trusts(h)
	h.set(h.peer(a))
	a.set(a.peer(h))
	return h, a
}

// create makes an agreement at a peer.
func (s *side) create(at string, u *door.User) (string, error) {
	s.t.Helper()
	c, err := s.door.Dial(s.t.Context(), at, u)
	if err != nil {
		return "", err
	}
	return c.Create(s.t.Context(), &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())})
}

func wants(t *testing.T, err error, kind fail.Kind, words string) {
	t.Helper()
	if !fail.Is(err, kind) || !strings.Contains(fail.Sentence(err), words) {
		t.Errorf("%v, which is %v: it should be %v and say %q", err, fail.KindOf(err), kind, words)
	}
}

func TestDomainComesIn(t *testing.T) {
	for _, signatures := range []identity.Signatures{identity.Required, identity.Offered, identity.Off} {
		t.Run(string(signatures), func(t *testing.T) {
			h, a := two(t, signatures)
			key, err := h.create(away, nil)
			if err != nil {
				t.Fatal(err)
			}
			who := a.last()
			if who.Name != "@"+home || who.Domain != home || who.Account != "" || who.VO != "" || !strings.HasPrefix(who.Method, "tls") {
				t.Errorf("it was asked by %+v", who)
			}
			if identity.OwnerDomain(who.Name) != home || identity.DomainOwner(home) != who.Name {
				t.Errorf("%q is not the domain", who.Name)
			}
			c, err := h.door.Dial(t.Context(), away, nil)
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Agreement(t.Context(), key)
			if err != nil || p.State != agreement.Observed {
				t.Fatalf("%+v %v", p, err)
			}
			if list, err := c.Templates(t.Context()); err != nil || len(list) == 0 {
				t.Errorf("%v %v", list, err)
			}
			if err := c.Terminate(t.Context(), key, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAnswersAreBounded: no peer has the gateway read more than an agreement is, or templates are.
func TestAnswersAreBounded(t *testing.T) {
	h, a := two(t, identity.Off)
	key, err := h.create(away, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.door.Dial(t.Context(), away, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string]struct {
		bytes, elements      int
		agreement, templates bool
	}{
		"an agreement":  {bytes: 900 << 10, agreement: true, templates: true},
		"templates":     {bytes: 1100 << 10, templates: true},
		"too much":      {bytes: 4200 << 10},
		"elements":      {elements: 19_000, agreement: true, templates: true},
		"many elements": {elements: 21_000, templates: true},
		"too many":      {elements: 101_000},
	} {
		pad := etree.NewElement("x:pad")
		pad.CreateAttr("xmlns:x", "urn:example")
		for part := 64 << 10; x.bytes > 0; x.bytes -= part {
			pad.CreateElement("x:y").SetText(strings.Repeat("y", part))
		}
		for range x.elements {
			pad.CreateElement("x:y")
		}
		a.pads(pad)
		if p, err := c.Agreement(t.Context(), key); (err == nil) != x.agreement || err != nil && !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: the agreement is %v, %v", what, p != nil, err)
		}
		if list, err := c.Templates(t.Context()); (err == nil) != x.templates || err != nil && !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: there are %d templates, %v", what, len(list), err)
		}
	}
}

func TestUserComesIn(t *testing.T) {
	h, a := two(t, identity.Required)
	_, err := h.create(away, &door.User{Name: "ada"})
	wants(t, err, fail.Denied, "no rule says")
	if err := a.users.SetMapping(identity.Mapping{
		{User: "eve", Refuse: "eve is not wanted here"},
		{Origin: home, VO: "bio", Account: "bio1", As: "biology"},
		{Origin: home, VO: identity.NoVO, Account: "guest"},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		user, vo string
		want     soap.Principal
	}{
		{"ada", "", soap.Principal{Name: "ada@" + home, Account: "guest"}},
		{"ada", "bio", soap.Principal{Name: "ada@" + home, Account: "bio1", VO: "biology"}},
		{"@" + away, "", soap.Principal{Name: "@" + away + "@" + home, Account: "guest"}},
	} {
		if _, err := h.create(away, &door.User{Name: c.user, VO: c.vo}); err != nil {
			t.Fatal(err)
		}
		who := a.last()
		c.want.Domain, c.want.Method = home, "tls+signature"
		if who != c.want {
			t.Errorf("it was asked by %+v and not by %+v", who, c.want)
		}
		if identity.OwnerDomain(who.Name) != "" {
			t.Errorf("the user %q counts as a domain", who.Name)
		}
	}
	_, err = h.create(away, &door.User{Name: "eve"})
	wants(t, err, fail.Denied, "eve is not wanted here")
	_, err = h.create(away, &door.User{Name: "ada", VO: "physics"})
	wants(t, err, fail.Denied, "no rule takes")
	_, err = h.create(away, &door.User{Name: ""})
	wants(t, err, fail.Invalid, "no user")
}

func TestWhoIsNotLetIn(t *testing.T) {
	h, a := two(t, identity.Required)
	stranger := newSide(t, "stranger.example", identity.Required)
	for name, c := range map[string]struct {
		do    func()
		as    *door.User
		from  *side
		kind  fail.Kind
		words string
	}{
		"not allowed":   {do: func() { m := a.peer(h); m.Agreements = false; a.set(m) }, kind: fail.Denied, words: "agreements: true"},
		"no peer":       {do: func() { a.drop(home) }, kind: fail.Denied, words: "no peer of"},
		"gives nothing": {do: func() { m := h.peer(a); m.Consumes = false; h.set(m) }, kind: fail.Denied, words: "consumes"},
		"out of reach":  {do: func() { m := h.peer(a); m.URL = ""; h.set(m) }, kind: fail.Unsupported, words: "can't be reached"},
		"unknown here":  {do: func() { h.drop(away) }, kind: fail.NotFound, words: "no peer"},
		"not trusted":   {do: func() { a.trusts() }},
		"a stranger":    {do: func() { stranger.trusts(a); stranger.set(stranger.peer(a)) }, from: stranger},
		"an impostor": {do: func() {
			if err := h.gateway.Trusted.Set([]identity.Anchor{{Domain: away, CAs: []*x509.Certificate{stranger.gateway.CA()}}}); err != nil {
				t.Fatal(err)
			}
		}, kind: fail.Unavailable, words: "could not be reached"},
		"unsigned":        {do: func() { h.gateway.Signatures = identity.Off }, kind: fail.Unauthenticated, words: "not signed"},
		"not a user here": {do: func() {}, as: &door.User{Name: "ada"}, kind: fail.Denied, words: "no rule"},
	} {
		t.Run(name, func(t *testing.T) {
			h.trusts(a)
			a.trusts(h)
			h.gateway.Signatures = identity.Required
			h.set(h.peer(a))
			a.set(a.peer(h))
			h.door.Close()
			a.last()
			c.do()
			from := h
			if c.from != nil {
				from = c.from
			}
			_, err := from.create(away, c.as)
			switch {
			case c.words != "":
				wants(t, err, c.kind, c.words)
			case !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.Uncertain): // TLS tells one side only that the other does not want it
				t.Errorf("%v", err)
			}
			if who := a.last(); who.Name != "" {
				t.Errorf("it came in as %+v", who)
			}
		})
	}
}

// TestAssertionsOfOthers: what was made for another domain, by another or for another purpose says nothing.
func TestAssertionsOfOthers(t *testing.T) {
	h, a := two(t, identity.Required)
	third := newSide(t, "third.example", identity.Required)
	a.trusts(h, third)
	if err := a.users.SetMapping(identity.Mapping{{Account: "guest"}}); err != nil {
		t.Fatal(err)
	}
	good, err := h.users.VouchAsking(away, "ada", "bio")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.users.TakeAsking(home, "bio", good); err != nil {
		t.Fatal(err)
	}
	forThird, err := h.users.VouchAsking("third.example", "ada", "bio")
	if err != nil {
		t.Fatal(err)
	}
	ofThird, err := third.users.VouchAsking(away, "ada", "bio")
	if err != nil {
		t.Fatal(err)
	}
	job, err := h.gateway.Vouch(identity.Claims{Audience: away, Job: "agreement", User: "ada", VOs: []string{"bio"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	old, err := h.gateway.Vouch(identity.Claims{Audience: away, Job: "agreement", User: "ada", NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		by, vo string
		token  []byte
	}{
		"another audience": {home, "bio", forThird},
		"another issuer":   {home, "bio", ofThird},
		"another peer":     {"third.example", "bio", good},
		"another purpose":  {home, "bio", job},
		"another VO":       {home, "physics", good},
		"too old":          {home, "", old},
		"passed on":        {home, "bio", append(append([]byte{}, good...), append([]byte("~"), good...)...)},
		"nothing":          {home, "", nil},
		"altered":          {home, "bio", []byte(strings.ToUpper(string(good)))},
	} {
		if l, err := a.users.TakeAsking(c.by, c.vo, c.token); !fail.Is(err, fail.Unauthenticated) {
			t.Errorf("%s: %+v %v", name, l, err)
		}
	}
}

// TestHeaders: what is said of the user twice, or by too much, is refused.
func TestHeaders(t *testing.T) {
	h, a := two(t, identity.Required)
	way := &http.Transport{}
	defer way.CloseIdleConnections()
	var err error
	if way.TLSClientConfig, err = h.gateway.ClientTLS(away); err != nil {
		t.Fatal(err)
	}
	at, err := door.URL(a.url)
	if err != nil {
		t.Fatal(err)
	}
	block := func(text string) *etree.Element {
		e := etree.NewElement("p:OnBehalf")
		e.CreateAttr("xmlns:p", agreement.NSPortolan)
		e.SetText(text)
		return e
	}
	for words, headers := range map[string][]*etree.Element{
		"2 OnBehalf":      {block("a"), block("b")},
		"longer than":     {block(strings.Repeat("x", 20<<10))},
		"assertion about": {block("no assertion")},
	} {
		c := agreement.NewClient(&soap.Client{
			URL: at, Addressing: true, Transport: way, Headers: headers,
			Signer: func() func(context.Context, *etree.Element) error { return h.gateway.Signer(away) },
		})
		if _, err := c.Templates(t.Context()); err == nil || !strings.Contains(fail.Sentence(err), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

func TestAtOnce(t *testing.T) {
	d := door.New(door.Options{Domain: home, AtOnce: 2, Trust: &identity.Gateway{}, Member: func(string) (members.Member, bool) { return members.Member{}, false }})
	hold, in := make(chan struct{}), make(chan struct{}, 2)
	h := d.Handler(&agreementtest.Service{}, nil, door.ServeOptions{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "/agreement", body{hold, in})
			r.Header.Set("Content-Type", "text/xml")
			h.ServeHTTP(httptest.NewRecorder(), r)
		})
		<-in
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/agreement?wsdl", nil))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	close(hold)
	wg.Wait()
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/agreement?wsdl", nil))
	if w.Code != http.StatusOK {
		t.Errorf("%d", w.Code)
	}
}

// body is one that does not come.
type body struct{ hold, in chan struct{} }

func (b body) Read([]byte) (int, error) {
	b.in <- struct{}{}
	<-b.hold
	return 0, context.Canceled
}

func TestView(t *testing.T) {
	h, _ := two(t, identity.Required)
	m := resourcemodel.Empty()
	var changes []resourcemodel.Change
	for _, k := range []resourcemodel.Key{{Site: "a"}, {Site: "b"}, {Domain: "other.example", Site: "a"}} {
		changes = append(changes, resourcemodel.Change{Key: k, Static: &resourcemodel.Static{
			Stamp: resourcemodel.Stamp{Version: 1, Changed: time.Now(), Source: "a test"}, Type: "slurm", Shares: []resourcemodel.Share{{ID: "batch", Default: true, Environments: []string{"n"}, Slots: 8}},
			Environments: []resourcemodel.Environment{{ID: "n", CPUs: 8, Memory: 32 << 30}},
		}})
	}
	m, err := m.Apply(resourcemodel.Delta{Revision: 1, At: time.Now(), Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	names := func() (out []string) {
		v, err := h.door.View(soap.Principal{Domain: away}, m)
		if err != nil {
			return []string{fail.KindOf(err).String()}
		}
		for s := range v.Sites() {
			out = append(out, s.Domain+s.Site)
		}
		return out
	}
	if got := strings.Join(names(), " "); got != "a b" {
		t.Errorf("of all sites it is shown %q", got)
	}
	p, _ := h.member(away)
	p.Export = routing.Exporting{Sites: []string{"b", "other.example~a"}}
	h.set(p)
	if got := strings.Join(names(), " "); got != "b" {
		t.Errorf("of one site it is shown %q", got)
	}
	p.Agreements = false
	h.set(p)
	if got := strings.Join(names(), " "); got != fail.Denied.String() {
		t.Errorf("not allowed any more, it is shown %q", got)
	}
}

func TestAdmit(t *testing.T) {
	h, a := two(t, identity.Required)
	domain := soap.Principal{Name: identity.DomainOwner(away), Domain: away}
	ada := soap.Principal{Name: "ada@" + away, Domain: away, Account: "guest", VO: "bio"}
	for name, c := range map[string]struct {
		edit  func(*members.Member)
		who   soap.Principal
		vo    string
		job   bool
		cpus  int64
		wall  time.Duration
		kind  fail.Kind
		words string
	}{
		"capacity":            {who: domain, cpus: 64},
		"capacity for a VO":   {who: domain, vo: "bio", cpus: 64, edit: func(m *members.Member) { m.VOs = []string{"bio"} }},
		"no VO is named":      {who: domain, vo: "bio", kind: fail.Denied, words: "does not act for"},
		"capacity for others": {who: domain, vo: "bio", edit: func(m *members.Member) { m.VOs = []string{"physics"} }, kind: fail.Denied, words: "does not act for"},
		"a job of nobody":     {who: domain, job: true, kind: fail.Denied, words: "a job runs for a user"},
		"a job":               {who: ada, vo: "bio", job: true, cpus: 1},
		"a job, another VO":   {who: ada, vo: "", job: true, kind: fail.Denied, words: "have to be the same"},
		"without an account":  {who: soap.Principal{Name: "ada@" + away, Domain: away}, job: true, kind: fail.Denied, words: "a job runs for a user"},
		"closed":              {who: domain, edit: func(m *members.Member) { m.Admission.Closed = "we are on holiday" }, kind: fail.NotAccepting, words: "holiday"},
		"too many CPUs":       {who: domain, cpus: 65, edit: func(m *members.Member) { m.Admission.MostCPUs = 64 }, kind: fail.Unsupported, words: "65 CPUs"},
		"too long":            {who: domain, wall: 2 * time.Hour, edit: func(m *members.Member) { m.Admission.MostWall = time.Hour }, kind: fail.Unsupported, words: "2h0m0s"},
		"provides nothing":    {who: domain, edit: func(m *members.Member) { m.Provides = false }, kind: fail.Denied, words: "promises nothing"},
		"not allowed":         {who: domain, edit: func(m *members.Member) { m.Agreements = false }, kind: fail.Denied, words: "promises nothing"},
	} {
		m := h.peer(a)
		if c.edit != nil {
			c.edit(&m)
		}
		h.set(m)
		err := h.door.Admit(c.who, c.vo, c.job, c.cpus, c.wall)
		if c.words == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestURL(t *testing.T) {
	for peer, want := range map[string]string{
		"https://gw.example:9443/peer":      "https://gw.example:9443/agreement",
		"https://gw.example/portolan/peer":  "https://gw.example/portolan/agreement",
		"https://gw.example/portolan/peer/": "https://gw.example/portolan/agreement",
		"https://gw.example":                "https://gw.example/agreement",
		"peer":                              "",
	} {
		got, err := door.URL(peer)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s %v, not %s", peer, got, err, want)
		}
	}
}
