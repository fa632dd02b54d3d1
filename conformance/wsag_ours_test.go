package conformance

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/soap"
)

// kindsTemplate has an Item of every kind of constraint, and free constraints.
const kindsTemplate = `<wsag:Template xmlns:wsag="` + agreement.NS + `" wsag:TemplateId="7">
 <wsag:Name>kinds</wsag:Name>
 <wsag:Context>
  <wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider>
  <wsag:TemplateId>7</wsag:TemplateId>
  <wsag:TemplateName>kinds</wsag:TemplateName>
 </wsag:Context>
 <wsag:Terms><wsag:All>
  <wsag:ServiceDescriptionTerm wsag:Name="what" wsag:ServiceName="run"><v:Values xmlns:v="urn:values" kind="small">
   <v:least>5</v:least><v:most>5</v:most><v:above>5</v:above><v:below>5</v:below><v:one>red</v:one><v:like>ab12</v:like>
   <v:code>abcd</v:code><v:long>abc</v:long><v:short>abc</v:short><v:digits>123</v:digits><v:fraction>1.25</v:fraction>
   <v:flag>true</v:flag><v:parts><v:a>1</v:a><v:b>2</v:b></v:parts><v:from>1</v:from><v:to>2</v:to><v:unset>0</v:unset>
   <v:until>2030-01-01T00:00:00Z</v:until><v:while>PT1H</v:while>
  </v:Values></wsag:ServiceDescriptionTerm>
  <wsag:ExactlyOne>
   <wsag:ServiceDescriptionTerm wsag:Name="here" wsag:ServiceName="run"><v:Place xmlns:v="urn:values">here</v:Place></wsag:ServiceDescriptionTerm>
   <wsag:ServiceDescriptionTerm wsag:Name="there" wsag:ServiceName="run"><v:Place xmlns:v="urn:values">there</v:Place></wsag:ServiceDescriptionTerm>
  </wsag:ExactlyOne>
 </wsag:All></wsag:Terms>
 <wsag:CreationConstraints xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:v="urn:values">
  ITEMS
  <wsag:Constraint><p:Assert xmlns:p="` + agreement.NSPortolan + `" message="from must be less than to">//v:Values/v:from &lt; //v:Values/v:to</p:Assert></wsag:Constraint>
 </wsag:CreationConstraints>
</wsag:Template>`

// manyKinds gives that template.
func manyKinds(t testing.TB) agreement.Template {
	t.Helper()
	var b strings.Builder
	for _, i := range [][2]string{
		{"least", `<xs:minInclusive value="1"/>`},
		{"most", `<xs:maxInclusive value="9"/>`},
		{"above", `<xs:minExclusive value="1"/>`},
		{"below", `<xs:maxExclusive value="9"/>`},
		{"one", `<xs:enumeration value="red"/><xs:enumeration value="blue"/>`},
		{"like", `<xs:pattern value="[a-z]{2}[0-9]{2}"/>`},
		{"code", `<xs:length value="4"/>`},
		{"long", `<xs:minLength value="2"/>`},
		{"short", `<xs:maxLength value="5"/>`},
		{"digits", `<xs:simpleType><xs:restriction base="xs:decimal"/></xs:simpleType><xs:totalDigits value="3"/>`},
		{"fraction", `<xs:simpleType><xs:restriction base="xs:decimal"/></xs:simpleType><xs:fractionDigits value="2"/>`},
		{"flag", `<xs:simpleType><xs:restriction base="xs:boolean"/></xs:simpleType>`},
		{"parts", `<xs:sequence><xs:element name="a"/><xs:element name="b"/></xs:sequence>`},
		{"unset", `<xs:minInclusive value="10"/><xs:maxInclusive value="20"/>`},
		{"until", `<xs:minInclusive value="2029-01-01T00:00:00Z"/><xs:maxInclusive value="2031-01-01T00:00:00Z"/>`},
		{"while", `<xs:minInclusive value="PT1M"/><xs:maxInclusive value="P1D"/>`},
		{"from", ``},
		{"to", ``},
	} {
		constraint := i[1]
		constraint = strings.ReplaceAll(constraint, `<xs:element name="a"/>`, `<xs:element ref="v:a"/>`)
		constraint = strings.ReplaceAll(constraint, `<xs:element name="b"/>`, `<xs:element ref="v:b"/>`)
		b.WriteString(`<wsag:Item wsag:Name="` + i[0] + `"><wsag:Location>/wsag:AgreementOffer/wsag:Terms//v:Values/v:` + i[0] + `</wsag:Location><wsag:ItemConstraint>` + constraint + `</wsag:ItemConstraint></wsag:Item>`)
	}
	b.WriteString(`<wsag:Item wsag:Name="kind"><wsag:Location>//v:Values/@kind</wsag:Location><wsag:ItemConstraint><xs:enumeration value="small"/><xs:enumeration value="large"/></wsag:ItemConstraint></wsag:Item>`)
	tpl, err := agreement.ParseTemplate([]byte(strings.Replace(kindsTemplate, "ITEMS", b.String(), 1)))
	if err != nil {
		t.Fatal(err)
	}
	return *tpl
}

// careful is the provider in memory, with time that goes by: it checks what is offered by
// the constraints, chooses among alternatives, decides on a pending agreement when that is
// looked at a second time, and ends one that is to end when it is looked at again.
type careful struct {
	*agreementtest.Service

	mu     sync.Mutex
	looked map[string]int
	told   map[string]*soap.EPR

	spoil func(string) string // what is told, on its way; nil leaves it
}

// spoiledTelling changes what is told.
type spoiledTelling struct {
	http.RoundTripper
	spoil func(string) string
}

func (s spoiledTelling) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	text := s.spoil(string(b))
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return s.RoundTripper.RoundTrip(r)
}

func carefully(t testing.TB) *careful {
	return &careful{
		Service: &agreementtest.Service{Offered: []agreement.Template{agreementtest.Template(), manyKinds(t)}},
		looked:  map[string]int{}, told: map[string]*soap.EPR{},
	}
}

func (c *careful) check(req *agreement.CreateRequest) error {
	for _, t := range c.Offered {
		if t.Name != req.Offer.Context.TemplateName || t.TemplateID != req.Offer.Context.TemplateID {
			continue
		}
		k, err := t.Compile()
		if err != nil {
			return err
		}
		var sentences []string
		for _, b := range k.Check(&req.Offer) {
			sentences = append(sentences, b.Sentence)
		}
		if len(sentences) > 0 {
			return agreement.Refuse(agreement.NotCompliant, sentences...)
		}
	}
	return nil
}

// chosen takes the first of each choice.
func chosen(c *agreement.Compositor) []agreement.Term {
	var list []agreement.Term
	for _, t := range c.Terms {
		if inner, ok := t.(*agreement.Compositor); ok {
			more := chosen(inner)
			if inner.Kind != agreement.All {
				more = more[:1]
			}
			list = append(list, more...)
			continue
		}
		list = append(list, t)
	}
	return list
}

func (c *careful) ready(req *agreement.CreateRequest) error {
	if err := c.check(req); err != nil {
		return err
	}
	req.Offer.Terms = &agreement.Compositor{Kind: agreement.All, Terms: chosen(req.Offer.Terms)}
	return nil
}

func (c *careful) Create(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	if err := c.ready(req); err != nil {
		return "", err
	}
	key, err := c.Service.Create(ctx, req)
	if err == nil {
		detail := etree.NewElement("x:Detail")
		detail.CreateAttr("xmlns:x", "urn:detail")
		c.Set(key, agreement.ServiceTermState{State: agreement.Ready, Activity: agreement.Processing, Detail: detail},
			agreement.GuaranteeTermState{State: agreement.NotDetermined, Detail: detail})
	}
	return key, err
}

func (c *careful) CreatePending(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	if err := c.ready(req); err != nil {
		return "", err
	}
	key, err := c.Service.CreatePending(ctx, req)
	if err == nil {
		c.mu.Lock()
		c.told[key] = req.AcceptanceEPR
		c.mu.Unlock()
	}
	return key, err
}

// Agreement lets time go by.
func (c *careful) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	p, err := c.Service.Agreement(ctx, key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.looked[key]++
	first, epr := c.looked[key] == 1, c.told[key]
	if first && p.State == agreement.Pending {
		epr = nil
	}
	c.mu.Unlock()
	switch p.State {
	case agreement.Pending:
		if first {
			return p, nil
		}
		if err := c.Turn(key, agreement.EventAccepted); err != nil {
			return nil, err
		}
		if epr != nil && !strings.Contains(epr.Address, "invalid") {
			client := &soap.Client{URL: epr.Address, Addressing: true, Transport: &http.Transport{DisableKeepAlives: true}}
			if c.spoil != nil {
				client.Transport = spoiledTelling{client.Transport, c.spoil}
			}
			if err := agreement.NewAcceptance(client, *epr).Accept(ctx); err != nil {
				return nil, err
			}
		}
	case agreement.PendingAndTerminating, agreement.ObservedAndTerminating:
		if err := c.Turn(key, agreement.EventTerminated); err != nil {
			return nil, err
		}
		return p, nil // as it was when it was asked for
	case agreement.Observed, agreement.Rejected, agreement.Complete, agreement.Terminated:
	}
	return c.Service.Agreement(ctx, key)
}

// provided puts a provider on loopback, behind what is around it.
func provided(t testing.TB, svc agreement.Service, around func(http.Handler) http.Handler) string {
	var h http.Handler = soap.NewRouter(map[string]http.Handler{
		"/agreement": agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}}),
	})
	if around != nil {
		h = around(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL + "/agreement"
}

func wsagOptions(endpoint string) Options {
	return Options{Profile: WSAG, Endpoint: endpoint, Settle: 5 * time.Second, Listen: "127.0.0.1:0"}
}

// TestOurAgreements: our own server passes wholly, and nothing is left behind.
func TestOurAgreements(t *testing.T) {
	svc := carefully(t)
	rep := judge(t, wsagOptions(provided(t, svc, nil)))
	for _, c := range rep.Checks {
		if c.Result != Pass {
			t.Errorf("%s %s: %s (%s)", c.Result, c.ID, c.Saw, c.Clause)
		}
	}
	t.Logf("%+v", rep.Summary)
	ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous", Method: "none"})
	keys, err := svc.List(ctx, "", 1000)
	if err != nil || len(keys) == 0 {
		t.Fatal(keys, err)
	}
	for _, k := range keys {
		if p, err := svc.Service.Agreement(ctx, k); err != nil || p.State == agreement.Observed || p.State == agreement.Pending {
			t.Errorf("the agreement %s was left %v, %v", k, p.State, err)
		}
	}
}

// TestPlainProvider: one with a template and little else is judged conforming; what it does
// not have is skipped with a sentence.
func TestPlainProvider(t *testing.T) {
	svc := carefully(t)
	svc.Offered = svc.Offered[:1]
	o := wsagOptions(provided(t, svc, nil))
	o.Listen = ""
	rep := judge(t, o)
	if !rep.OK() {
		for _, c := range rep.Checks {
			if c.Result == Fail {
				t.Errorf("%s: %s", c.ID, c.Saw)
			}
		}
	}
	if rep.Summary.Skipped < 10 {
		t.Errorf("%+v", rep.Summary)
	}
}

// TestNoTemplates: an endpoint without templates has nothing to be judged by, and nothing
// breaks.
func TestNoTemplates(t *testing.T) {
	svc := carefully(t)
	svc.Offered = []agreement.Template{}
	rep := judge(t, wsagOptions(provided(t, svc, nil)))
	for _, c := range rep.Checks {
		if c.Result == Fail {
			t.Errorf("%s: %s", c.ID, c.Saw)
		}
	}
}

// TestWSAGIDs: ids are unique, and no check lacks its clause.
func TestWSAGIDs(t *testing.T) {
	list := List(WSAG)
	if len(list) < 120 {
		t.Errorf("%d checks: wanted 120 or more", len(list))
	}
	seen := map[string]bool{}
	for _, c := range list {
		if seen[c.ID] || c.Clause == "" || c.Title == "" || !strings.HasPrefix(c.ID, "WSAG-") {
			t.Errorf("%+v", c)
		}
		seen[c.ID] = true
	}
	if !slices.Contains(slices.Collect(maps.Keys(seen)), "WSAG-TPL-1") {
		t.Error("no templates are looked at")
	}
}
