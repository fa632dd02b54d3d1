package agreement_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// negotiable is a Service that one can negotiate with.
type negotiable struct {
	*agreementtest.Service
	*agreementtest.Negotiator
}

func newNegotiable() negotiable {
	return negotiable{&agreementtest.Service{}, &agreementtest.Negotiator{}}
}

func TestNegotiator(t *testing.T) {
	t.Run("in memory", func(t *testing.T) {
		agreementtest.RunNegotiator(t, func() agreement.Negotiator { return &agreementtest.Negotiator{} })
	})
	for _, v := range []soap.Version{soap.V11, soap.V12} {
		t.Run(v.String(), func(t *testing.T) {
			agreementtest.RunNegotiator(t, func() agreement.Negotiator {
				c, _ := onTheWire(newNegotiable(), v)
				return c
			})
		})
	}
	t.Run("twice on the wire", func(t *testing.T) {
		agreementtest.RunNegotiator(t, func() agreement.Negotiator {
			c, _ := onTheWire(newNegotiable(), soap.V11)
			c, _ = onTheWire(c, soap.V12)
			return c
		})
	})
}

// TestOfferStates walks every pair of states (N2).
func TestOfferStates(t *testing.T) {
	all := []agreement.OfferState{agreement.Advisory, agreement.Solicited, agreement.Acceptable, agreement.OfferRejected}
	let := 0
	for _, s := range all {
		for _, by := range append(all, "Moon") {
			err := s.Answer(by)
			firm := by == agreement.Acceptable || by == agreement.OfferRejected
			want := by.Valid() && s != agreement.OfferRejected && (s != agreement.Solicited || firm)
			if (err == nil) != want || err != nil && !fail.Is(err, fail.Conflict) {
				t.Errorf("%s answered by %s: %v", s, by, err)
			}
			if err == nil {
				let++
			}
		}
	}
	if let != 10 || agreement.OfferState("").Valid() {
		t.Errorf("%d pairs", let)
	}
}

const negNS = `xmlns:neg="http://schemas.ogf.org/graap/2009/11/ws-agreement-negotiation" xmlns:x="urn:x" xmlns:a="http://www.w3.org/2005/08/addressing" xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ` + wsagNS

const fullOffer = `<neg:NegotiationOffer ` + negNS + ` neg:OfferId="o" wsag:AgreementId="i"><wsag:Name>n</wsag:Name>
<wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context>
<wsag:Terms><wsag:All><wsag:ServiceDescriptionTerm wsag:Name="t" wsag:ServiceName="s"><x:e>5</x:e></wsag:ServiceDescriptionTerm></wsag:All></wsag:Terms>
<neg:NegotiationOfferContext><neg:CounterOfferTo>c</neg:CounterOfferTo><neg:ExpirationTime>2030-01-01T00:00:00Z</neg:ExpirationTime><neg:Creator>NegotiationInitiator</neg:Creator><neg:State><neg:Solicited><x:e/></neg:Solicited></neg:State><x:e>kept</x:e></neg:NegotiationOfferContext>
<neg:NegotiationConstraints><neg:Item wsag:Name="k" neg:Type="Optional" neg:Importance="-3"><wsag:Location>//x:e</wsag:Location><wsag:ItemConstraint><xs:minInclusive value="1"/></wsag:ItemConstraint></neg:Item><wsag:Constraint><x:e/></wsag:Constraint></neg:NegotiationConstraints></neg:NegotiationOffer>`

const fullContext = `<neg:NegotiationContext ` + negNS + `><neg:NegotiationType><neg:Renegotiation><neg:ResponderAgreementEPR><a:Address>urn:a</a:Address></neg:ResponderAgreementEPR><neg:InitiatorAgreementEPR><a:Address>urn:b</a:Address></neg:InitiatorAgreementEPR><x:e/></neg:Renegotiation></neg:NegotiationType><neg:ExpirationTime>2030-01-01T00:00:00Z</neg:ExpirationTime><neg:NegotiationInitiator>me</neg:NegotiationInitiator><neg:NegotiationResponder><x:e/></neg:NegotiationResponder><neg:AgreementResponder>NegotiationInitiator</neg:AgreementResponder><neg:AgreementFactoryEPR><a:Address>urn:f</a:Address></neg:AgreementFactoryEPR><x:e/></neg:NegotiationContext>`

const fullExtension = `<neg:RenegotiationExtension ` + negNS + `><neg:ResponderNegotiationEPR><a:Address>urn:a</a:Address></neg:ResponderNegotiationEPR><neg:InitiatorNegotiationEPR><a:Address>urn:b</a:Address></neg:InitiatorNegotiationEPR><neg:ResponderAgreementEPR><a:Address>urn:c</a:Address></neg:ResponderAgreementEPR><neg:NegotiationOfferContext><neg:CounterOfferTo/><neg:Creator>NegotiationInitiator</neg:Creator><neg:State><neg:Acceptable/></neg:State></neg:NegotiationOfferContext><x:e/></neg:RenegotiationExtension>`

// negotiationVerdicts asks libxml2 by the standard's schemas.
func negotiationVerdicts(t testing.TB, docs ...string) []string {
	t.Helper()
	schemas := filepath.Join(testenv.Shared(t), "schemas")
	return verdictsBy(t, `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:import namespace="http://schemas.ogf.org/graap/2009/11/ws-agreement-negotiation" schemaLocation="`+schemas+`/ws-agreement/wsag4j/ws-agreement-negotiation-wsdl-types.xsd"/>
<xs:import namespace="http://docs.oasis-open.org/wsrf/rp-2" schemaLocation="`+schemas+`/ws/rp-2.xsd"/>
<xs:import namespace="http://docs.oasis-open.org/wsrf/r-2" schemaLocation="`+schemas+`/ws/r-2.xsd"/>`+extra+`</xs:schema>`, docs...)
}

// negotiationRead reads a document of any of the three kinds, and checks that it survives.
func negotiationRead(t testing.TB, s string) error {
	root := read(t, s).Root()
	switch root.Tag {
	case "NegotiationContext":
		x, err := agreement.DecodeNegotiationContext(root)
		if err == nil {
			thereAndBack(t, x, agreement.DecodeNegotiationContext)
		}
		return err
	case "NegotiationExtension", "RenegotiationExtension":
		x, err := agreement.DecodeNegotiationExtension(root)
		if err == nil {
			thereAndBack(t, x, agreement.DecodeNegotiationExtension)
		}
		return err
	}
	x, err := agreement.DecodeNegotiationOffer(root)
	if err == nil {
		thereAndBack(t, x, agreement.DecodeNegotiationOffer)
	}
	return err
}

func TestNegotiationRefusedAsTheSchemaHasIt(t *testing.T) {
	var docs []string
	var changes []change
	for doc, list := range map[string][]change{
		fullOffer: {
			{},
			{old: ` neg:OfferId="o"`},
			{old: ` neg:OfferId="o"`, new: ` OfferId="o"`, want: "write neg:OfferId"},
			{old: ` neg:OfferId="o"`, new: ` wsag:OfferId="o"`, want: "does not belong here"},
			{old: ` wsag:AgreementId="i"`, new: ` neg:AgreementId="i"`, want: "does not belong here"},
			{old: `neg:OfferId="o"`, new: `xsi:type="neg:NegotiationOfferType"`},
			{old: `neg:OfferId="o"`, new: `xsi:type="wsag:AgreementType"`, want: "xsi:type"},
			{old: `<wsag:Name>n</wsag:Name>`, new: `<neg:Name>n</neg:Name>`, want: "stands where Context is expected"},
			{old: `<neg:CounterOfferTo>c</neg:CounterOfferTo>`, new: ``, want: "CounterOfferTo is expected"},
			{old: `<neg:CounterOfferTo>c</neg:CounterOfferTo>`, new: `<neg:CounterOfferTo/>`},
			{old: `<neg:CounterOfferTo>c</neg:CounterOfferTo>`, new: `<wsag:CounterOfferTo/>`, want: "CounterOfferTo is expected"},
			{old: `2030-01-01T00:00:00Z`, new: `soon`, want: "expected a time"},
			{old: `>NegotiationInitiator<`, new: `>NegotiationResponder<`},
			{old: `>NegotiationInitiator<`, new: `>AgreementInitiator<`, want: "expected NegotiationInitiator or NegotiationResponder"},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Advisory/>`},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Acceptable/>`},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Rejected/>`},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: ``, want: "holds no state"},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Pending/>`, want: "does not belong here"},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Advisory/><neg:Rejected/>`, want: "does not belong here"},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Solicited><x:e/><x:e/></neg:Solicited>`, want: "does not belong here"},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Solicited><wsag:Name>n</wsag:Name></neg:Solicited>`},
			{old: `<neg:Solicited><x:e/></neg:Solicited>`, new: `<neg:Solicited><neg:Advisory/></neg:Solicited>`, want: "does not belong here"},
			{old: `<x:e>kept</x:e>`, new: `<wsag:Name>n</wsag:Name><x:e/>`},
			{old: `<x:e>kept</x:e>`, new: `<f/>`, want: "does not belong here"},
			{old: ` neg:Type="Optional"`, new: ` neg:Type="Required"`},
			{old: ` neg:Type="Optional"`, new: ``, want: "neg:Type is missing"},
			{old: ` neg:Type="Optional"`, new: ` neg:Type="Wanted"`, want: "expected Required or Optional"},
			{old: ` neg:Type="Optional"`, new: ` wsag:Type="Optional"`, want: "does not belong here"},
			{old: ` neg:Importance="-3"`, new: ``},
			{old: ` neg:Importance="-3"`, new: ` neg:Importance="much"`, want: "expected a whole number"},
			{old: ` neg:Importance="-3"`, new: ` neg:Importance="9223372036854775808"`, want: "within 64 bits", ours: "nothing is that important"},
			{old: `<wsag:Location>//x:e</wsag:Location>`, new: ``, want: "Location is expected"},
			{old: `<wsag:Constraint><x:e/></wsag:Constraint>`, new: `<neg:Constraint/>`, want: "does not belong here"},
			{old: `<wsag:Constraint><x:e/></wsag:Constraint>`, new: ``},
			{old: `<neg:Item `, new: `<wsag:Constraint/><neg:Item `, want: "wrong order"},
			{old: `</neg:NegotiationConstraints>`, new: `</neg:NegotiationConstraints><x:e/>`, want: "does not belong here"},
			{old: `<wsag:ServiceDescriptionTerm wsag:Name="t" wsag:ServiceName="s"><x:e>5</x:e></wsag:ServiceDescriptionTerm>`, new: `<wsag:ServiceReference wsag:Name="t" wsag:ServiceName="s"><x:e/></wsag:ServiceReference>`},
			{old: `<wsag:All><wsag:ServiceDescriptionTerm wsag:Name="t" wsag:ServiceName="s"><x:e>5</x:e></wsag:ServiceDescriptionTerm></wsag:All>`, new: ``},
		},
		fullContext: {
			{},
			{old: `<neg:ResponderAgreementEPR><a:Address>urn:a</a:Address></neg:ResponderAgreementEPR>`, new: ``, want: "ResponderAgreementEPR is expected"},
			{old: `<neg:InitiatorAgreementEPR><a:Address>urn:b</a:Address></neg:InitiatorAgreementEPR>`, new: ``},
			{old: `<a:Address>urn:b</a:Address>`, new: ``, want: "lacks its wsa:Address"},
			{old: `</neg:NegotiationType>`, new: `<neg:Negotiation/></neg:NegotiationType>`, want: "does not belong here"},
			{old: `<neg:ExpirationTime>2030-01-01T00:00:00Z</neg:ExpirationTime>`, new: ``},
			{old: `<neg:NegotiationInitiator>me</neg:NegotiationInitiator>`, new: ``},
			{old: `<neg:AgreementResponder>NegotiationInitiator</neg:AgreementResponder>`, new: ``, want: "AgreementResponder is expected"},
			{old: `>NegotiationInitiator</neg:A`, new: `>AgreementInitiator</neg:A`, want: "expected NegotiationInitiator or NegotiationResponder"},
			{old: `<neg:AgreementFactoryEPR><a:Address>urn:f</a:Address></neg:AgreementFactoryEPR>`, new: ``},
			{old: `</neg:NegotiationContext>`, new: `<neg:More/></neg:NegotiationContext>`, want: "does not belong here"},
			{old: `<neg:NegotiationContext `, new: `<neg:NegotiationContext neg:a="b" `, want: "does not belong here"},
		},
		fullExtension: {
			{},
			{old: `<neg:ResponderNegotiationEPR><a:Address>urn:a</a:Address></neg:ResponderNegotiationEPR>`, new: ``, want: "ResponderNegotiationEPR is expected"},
			{old: `<neg:InitiatorNegotiationEPR><a:Address>urn:b</a:Address></neg:InitiatorNegotiationEPR>`, new: ``},
			{old: `<neg:ResponderAgreementEPR><a:Address>urn:c</a:Address></neg:ResponderAgreementEPR>`, new: ``, want: "ResponderAgreementEPR is expected"},
			{old: `<x:e/></neg:R`, new: `<x:e/><x:e/></neg:R`, want: "does not belong here"},
			{old: `<x:e/></neg:R`, new: `</neg:R`},
		},
		strings.NewReplacer("RenegotiationExtension", "NegotiationExtension", `<neg:ResponderAgreementEPR><a:Address>urn:c</a:Address></neg:ResponderAgreementEPR>`, "").Replace(fullExtension): {
			{},
			{old: `<neg:ResponderNegotiationEPR><a:Address>urn:a</a:Address></neg:ResponderNegotiationEPR>`, new: ``},
			{old: `<neg:NegotiationOfferContext>`, new: `<neg:ResponderAgreementEPR><a:Address>urn:c</a:Address></neg:ResponderAgreementEPR><neg:NegotiationOfferContext>`, want: "NegotiationOfferContext is expected"},
		},
	} {
		for _, c := range list {
			changed := strings.Replace(doc, c.old, c.new, 1)
			if changed == doc && c.old != "" {
				t.Fatalf("%s is not in the document", c.old)
			}
			docs, changes = append(docs, changed), append(changes, c)
		}
	}
	for i, v := range negotiationVerdicts(t, docs...) {
		c := changes[i]
		err := negotiationRead(t, docs[i])
		name := c.old + " → " + c.new
		if (v == "") != (err == nil || c.ours != "") {
			t.Errorf("%s: %v; libxml2 says %q", name, err, v)
		}
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(fail.Sentence(err), c.want) || !fail.Is(err, fail.Invalid)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// TestNegotiationBounds: each bound lets as much as it says, and no more.
func TestNegotiationBounds(t *testing.T) {
	item := fullOffer[strings.Index(fullOffer, "<neg:Item "):strings.Index(fullOffer, "<wsag:Constraint>")]
	for name, c := range map[string]struct {
		most int
		doc  func(n int) string
	}{
		"items": {agreement.MaxItems, func(n int) string { return strings.Replace(fullOffer, item, strings.Repeat(item, n), 1) }},
		"free": {agreement.MaxItems, func(n int) string {
			return strings.Replace(fullOffer, "<wsag:Constraint><x:e/></wsag:Constraint>", strings.Repeat("<wsag:Constraint/>", n), 1)
		}},
		"id": {agreement.MaxName, func(n int) string {
			return strings.Replace(fullOffer, `neg:OfferId="o"`, `neg:OfferId="`+strings.Repeat("o", n)+`"`, 1)
		}},
		"extensions": {100, func(n int) string {
			return strings.Replace(fullOffer, "<x:e>kept</x:e>", strings.Repeat("<x:e/>", n), 1)
		}},
	} {
		if _, err := agreement.ParseNegotiationOffer([]byte(c.doc(c.most))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := agreement.ParseNegotiationOffer([]byte(c.doc(c.most + 1))); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %d are taken: %v", name, c.most+1, err)
		}
	}
	n := newNegotiable()
	h := agreement.NewServer(n, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	key, err := n.Initiate(soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"}), &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder}})
	if err != nil {
		t.Fatal(err)
	}
	header := `<p:NegotiationKey xmlns:p="` + agreement.NSPortolan + `">` + key + `</p:NegotiationKey>`
	offer := agreementtest.NegotiationOffer(agreementtest.Template(), "", agreement.Advisory)
	one := string(xmldoc.Marshal(offer.Encode()))
	for count, want := range map[int]string{agreement.MaxOffers: "AdvertiseOutput", agreement.MaxOffers + 1: "more than the 50 offers", 0: "NegotiationOffer is missing"} {
		p := post(t, h, header, `<neg:AdvertiseInput `+negNS+`>`+strings.Repeat(one, count)+`</neg:AdvertiseInput>`)
		if s := string(p.Raw(p.Root())); !strings.Contains(s, want) {
			t.Errorf("%d offers: %s", count, s)
		}
	}
	for name, c := range map[string]struct{ header, body, want string }{
		"no key":             {"", `<neg:TerminateInput ` + negNS + `/>`, "names no negotiation"},
		"two keys":           {header + header, `<neg:TerminateInput ` + negNS + `/>`, "2 NegotiationKey headers"},
		"a critical one":     {header, `<neg:NegotiateInput ` + negNS + `>` + one + `<x:e/></neg:NegotiateInput>`, "is critical"},
		"a reason of ours":   {header, `<neg:TerminateInput ` + negNS + `><neg:Why/></neg:TerminateInput>`, "does not belong here"},
		"an agreement's key": {keyHeader(key), `<wsag:TerminateInput ` + wsagNS + `/>`, "ResourceUnknownFault"},
		"a wsag property":    {header, `<rp:GetResourceProperty ` + rpNS + ` ` + negNS + `>wsag:Template</rp:GetResourceProperty>`, "NegotiationProperties has NegotiationContext"},
	} {
		p := post(t, h, c.header, c.body)
		if s := string(p.Raw(p.Root())); !strings.Contains(s, c.want) {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// TestNegotiationMessagesAreValid: whatever is sent is as the standard's schema has it, and
// as our own has.
func TestNegotiationMessagesAreValid(t *testing.T) {
	n := newNegotiable()
	c, w := onTheWire(n, soap.V11)
	ctx := t.Context()
	x := etree.NewElement("x:e")
	x.CreateAttr("xmlns:x", "urn:x")
	mine := agreement.NewNegotiationEPR("urn:here", "mine")
	req := &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder, Initiator: x, Extensions: []*etree.Element{x}}, InitiatorEPR: &mine, Noncritical: []*etree.Element{x}}
	key, err := c.Initiate(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	req.Context.ExpirationTime = time.Unix(1e9, 0)
	if _, err := c.Initiate(ctx, req); err == nil {
		t.Error("one that is over is opened")
	}
	tpl := agreementtest.Template()
	other := agreementtest.NegotiationOffer(tpl, "c", agreement.Solicited)
	other.Context.TemplateName = "moon"
	for _, a := range must(c.Negotiate(ctx, key, []agreement.NegotiationOffer{agreementtest.NegotiationOffer(tpl, "a", agreement.Solicited), agreementtest.NegotiationOffer(tpl, "b", agreement.Advisory), other}))(t) {
		q, quoted := a.OfferContext.Quoted()
		if s := a.OfferContext.State; quoted != (s == agreement.Acceptable) || quoted && q != (agreement.Quote{Price: "2.5"}) || (a.OfferContext.Reason() != "") != (s == agreement.OfferRejected) {
			t.Errorf("%+v", a.OfferContext)
		}
	}
	if err := c.Advertise(ctx, key, []agreement.NegotiationOffer{agreementtest.NegotiationOffer(tpl, "d", agreement.Advisory)}); err != nil {
		t.Error(err)
	}
	p, err := c.Negotiation(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	thereAndBack(t, p, agreement.DecodeNegotiationProperties)
	if err := c.TerminateNegotiation(ctx, key, []*etree.Element{x}); err != nil || len(n.WhyEnded()) != 1 {
		t.Error(err)
	}
	if _, err := c.Negotiation(ctx, key); !fail.Is(err, fail.NotFound) {
		t.Error(err)
	}
	q := agreement.Quote{Price: "1", Unit: "credit", Start: time.Unix(2e9, 0).UTC(), End: time.Unix(2e9, 5).UTC(), Held: true}
	quoted := agreementtest.NegotiationOffer(tpl, "e", agreement.Acceptable)
	quoted.OfferContext.Detail = q.Element()
	if got, ok := quoted.OfferContext.Quoted(); !ok || got != q {
		t.Errorf("%+v", got)
	}
	bodies := []string{string(xmldoc.Marshal(quoted.Encode())), fullOffer, fullContext, fullExtension}
	for i := range w.requests {
		for _, envelope := range [][]byte{w.requests[i], w.answers[i]} {
			p := payload(t, envelope)
			e := p.Root()
			if e.Tag == "Fault" {
				e = e.FindElement("detail").ChildElements()[0]
			}
			bodies = append(bodies, string(p.Standalone(e)))
		}
	}
	for i, v := range negotiationVerdicts(t, bodies...) {
		if v != "" {
			t.Errorf("%s\n%s", v, bodies[i])
		}
	}
	dir := t.TempDir()
	files, err := filepath.Glob("wsdl/*.xsd")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var imports strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		imports.WriteString(`<xs:import namespace="` + read(t, string(b)).Root().SelectAttrValue("targetNamespace", "") + `" schemaLocation="` + filepath.Join(dir, filepath.Base(f)) + `"/>`)
	}
	for i, v := range verdictsBy(t, `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">`+imports.String()+extra+`</xs:schema>`, bodies...) {
		if v != "" {
			t.Errorf("our own schema: %s\n%s", v, bodies[i])
		}
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestNegotiationIsDescribed: the second description has what is served, in its own
// namespace, and there is none where nobody negotiates.
func TestNegotiationIsDescribed(t *testing.T) {
	h := agreement.NewServer(newNegotiable(), agreement.ServerOptions{})
	get := func(h http.Handler, query string) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, address+query, nil))
		return rec.Code, rec.Body.String()
	}
	code, second := get(h, "?wsdl=negotiation")
	if code != http.StatusOK || !strings.Contains(second, `targetNamespace="`+agreement.NSNegotiation+`"`) || regexp.MustCompile(`schemaLocation|@ADDRESS@|<no value>`).MatchString(second) {
		t.Fatalf("%d: %.2000s", code, second)
	}
	_, first := get(h, "?wsdl")
	if strings.Contains(first, "NegotiateInput") || strings.Contains(second, `portType name="AgreementFactory"`) {
		t.Error("the descriptions are mixed")
	}
	described := map[string]bool{}
	for _, doc := range []string{first, second} {
		for _, op := range read(t, doc).Root().FindElements("//binding/operation/operation") {
			described[op.SelectAttrValue("soapAction", "")] = true
		}
	}
	for _, op := range h.Operations {
		if !described[op.Action] || !strings.Contains(first+second, `wsam:Action="`+op.ReplyAction+`"`) || !strings.Contains(first+second, `wsam:Action="`+op.FaultAction+`"`) {
			t.Errorf("%s is not described", op.Action)
		}
		delete(described, op.Action)
	}
	// The list is the Lister's, which a Negotiator beside it does not hide.
	if len(described) > 0 {
		t.Errorf("%v are described and not served", described)
	}
	if code, _ := get(agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{}), "?wsdl=negotiation"); code != http.StatusNotFound {
		t.Errorf("without a negotiator: %d", code)
	}
	if code, _ := get(agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{Negotiator: &agreementtest.Negotiator{}}), "?wsdl=negotiation"); code != http.StatusOK {
		t.Errorf("with a negotiator apart: %d", code)
	}
}

// TestNegotiated: the extension of a request is found, once.
func TestNegotiated(t *testing.T) {
	ours := read(t, fullExtension).Root()
	other := etree.NewElement("x:e")
	other.CreateAttr("xmlns:x", "urn:x")
	req := &agreement.CreateRequest{Noncritical: []*etree.Element{other}}
	if x, err := req.Negotiated(); x != nil || err != nil {
		t.Error(x, err)
	}
	req.Noncritical = append(req.Noncritical, ours)
	x, err := req.Negotiated()
	if err != nil || x.AgreementEPR == nil || x.AgreementEPR.Address != "urn:c" || x.ResponderEPR.Address != "urn:a" || x.OfferContext.State != agreement.Acceptable {
		t.Errorf("%+v, %v", x, err)
	}
	svc := &agreementtest.Service{}
	c, _ := onTheWire(svc, soap.V11)
	if _, err := c.Create(t.Context(), &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template()), Noncritical: []*etree.Element{x.Encode()}}); err != nil {
		t.Fatal(err)
	}
	came := svc.Requests()[0]
	if again, err := came.Negotiated(); err != nil || again == nil || !same(again.Encode(), x.Encode()) {
		t.Errorf("%+v, %v", again, err)
	}
	req.Noncritical = append(req.Noncritical, ours)
	if _, err := req.Negotiated(); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
	req.Noncritical = []*etree.Element{read(t, `<neg:NegotiationExtension `+negNS+`/>`).Root()}
	if _, err := req.Negotiated(); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
}

// TestFollows: an offer that answers another keeps to what that one lets (N3).
func TestFollows(t *testing.T) {
	first := must(agreement.ParseNegotiationOffer([]byte(strings.NewReplacer(
		`<wsag:Constraint><x:e/></wsag:Constraint>`, `<neg:Item wsag:Name="d" neg:Type="Required"><wsag:Location>//wsag:ServiceDescriptionTerm/x:e</wsag:Location><wsag:ItemConstraint><xs:maxInclusive value="9"/></wsag:ItemConstraint></neg:Item>`,
		`//x:e<`, `/neg:NegotiationOffer//wsag:ServiceDescriptionTerm/x:e<`, ` neg:Importance="-3"`, ` neg:Importance="5"`, `<neg:Solicited>`, `<neg:Advisory>`, `</neg:Solicited>`, `</neg:Advisory>`).Replace(fullOffer))))(t)
	free := must(first.Negotiable())(t)
	for name, c := range map[string]struct {
		change func(*agreement.NegotiationOffer)
		want   string
		lost   int64
	}{
		"as it is":        {func(*agreement.NegotiationOffer) {}, "", 0},
		"within":          {func(o *agreement.NegotiationOffer) { term(o).SetText("7") }, "", 0},
		"below, optional": {func(o *agreement.NegotiationOffer) { term(o).SetText("0") }, "", 6},
		"above, required": {func(o *agreement.NegotiationOffer) { term(o).SetText("10") }, `the item "d"`, 0},
		"another service": {func(o *agreement.NegotiationOffer) { o.Services()[0].Descriptions[0].ServiceName = "u" }, "lets nothing else", 0},
		"another term": {func(o *agreement.NegotiationOffer) {
			o.Terms.Terms = append(o.Terms.Terms, &agreement.ServiceReference{Name: "r", ServiceName: "s", Reference: term(o).Copy()})
		}, "lets nothing else", 0},
		"another name": {func(o *agreement.NegotiationOffer) { o.Name = "other" }, "", 0},
	} {
		next := must(agreement.DecodeNegotiationOffer(first.Encode()))(t)
		next.OfferContext.State = agreement.Acceptable
		c.change(next)
		err := next.Follows(first)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(fail.Sentence(err), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		o := next.Offer()
		if got := free.Lost(&o); got != c.lost {
			t.Errorf("%s: %d is lost, not %d", name, got, c.lost)
		}
	}
	o := first.Offer()
	list := must(free.Changeables(o.Encode()))(t)
	if len(list) != 1 || list[0].Element.Text() != "5" || list[0].Item.Type != agreement.Optional {
		t.Errorf("%+v", list)
	}
	first.Constraints.Items[0].Location = "count(//x:e)"
	if _, err := first.Negotiable(); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), `"k"`) {
		t.Error(err)
	}
}

func term(o *agreement.NegotiationOffer) *etree.Element {
	return o.Services()[0].Descriptions[0].Description
}

func FuzzNegotiationOffer(f *testing.F) {
	for _, s := range []string{fullOffer, fullContext, fullExtension, strings.Replace(fullOffer, "<x:e>5</x:e>", "<j:JobDefinition xmlns:j='http://schemas.ggf.org/jsdl/2005/11/jsdl'/>", 1)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{Bytes: 1 << 16})
		if err != nil {
			return
		}
		root := doc.Root()
		for _, decode := range []func() (interface{ Encode() *etree.Element }, error){
			func() (interface{ Encode() *etree.Element }, error) { return agreement.DecodeNegotiationOffer(root) },
			func() (interface{ Encode() *etree.Element }, error) { return agreement.DecodeNegotiationContext(root) },
			func() (interface{ Encode() *etree.Element }, error) {
				return agreement.DecodeNegotiationExtension(root)
			},
		} {
			x, err := decode()
			if err != nil {
				if !fail.Is(err, fail.Invalid) || fail.Sentence(err) == "" {
					t.Fatal(err)
				}
				continue
			}
			if err := negotiationRead(t, string(xmldoc.Marshal(x.Encode()))); err != nil {
				t.Fatal(err)
			}
			if o, ok := x.(*agreement.NegotiationOffer); ok {
				if n, err := o.Negotiable(); err == nil {
					a := o.Offer()
					_, _ = n.Check(&a), n.Lost(&a)
					_, _ = n.Changeables(a.Encode())
				}
			}
		}
	})
}

// TestNegotiationKeys: a reference of ours is known by its key, one of another make is
// kept whole.
func TestNegotiationKeys(t *testing.T) {
	c := agreement.NewClient(&soap.Client{URL: address})
	for _, epr := range []soap.EPR{agreement.NewNegotiationEPR(address, "k"), agreement.NewEPR("urn:other", "k"), {Address: "urn:moon"}} {
		key := agreement.NegotiationKey(epr)
		back, err := c.NegotiationEPR(key)
		if err != nil || back.Address != epr.Address || len(back.ReferenceParameters) != len(epr.ReferenceParameters) {
			t.Errorf("%q: %+v, %v", key, back, err)
		}
	}
	if _, err := c.NegotiationEPR(""); !fail.Is(err, fail.NotFound) {
		t.Error(err)
	}
	if !slices.Contains([]string{"k"}, agreement.NegotiationKey(agreement.NewNegotiationEPR("urn:elsewhere", "k"))) {
		t.Error("the key is another")
	}
}

// TestDocumentedMessages: what the documentation shows is read, and is valid.
func TestDocumentedMessages(t *testing.T) {
	b, err := os.ReadFile("../docs/agreement-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, m := range regexp.MustCompile("(?s)```xml\n(<neg:.*?)```").FindAllStringSubmatch(string(b), -1) {
		docs = append(docs, m[1])
		if err := negotiationRead(t, m[1]); err != nil {
			t.Error(err)
		}
	}
	if len(docs) != 2 {
		t.Fatalf("%d messages", len(docs))
	}
	o, err := agreement.ParseNegotiationOffer([]byte(docs[0]))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := o.Negotiable(); err != nil {
		t.Error(err)
	} else if a := o.Offer(); len(n.Check(&a)) != 0 || n.Lost(&a) != 0 || len(must(n.Changeables(a.Encode()))(t)) != 3 {
		t.Error("its constraints do not let it")
	}
}
