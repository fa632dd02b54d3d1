package agreement_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	wsagNS = `xmlns:wsag="http://schemas.ggf.org/graap/2007/03/ws-agreement"`
	rpNS   = `xmlns:rp="http://docs.oasis-open.org/wsrf/rp-2"`
)

func keyHeader(keys ...string) string {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, `<p:AgreementKey xmlns:p="%s">%s</p:AgreementKey>`, agreement.NSPortolan, k)
	}
	return b.String()
}

// post sends a header and a body of bytes and gives the answer's Body's child.
func post(t testing.TB, h http.Handler, header, body string) *xmldoc.Document {
	t.Helper()
	return postIn(t, h, soap.NS11, header, body)
}

// postIn is post in the version of SOAP that has the namespace ns.
func postIn(t testing.TB, h http.Handler, ns, header, body string) *xmldoc.Document {
	t.Helper()
	msg := `<e:Envelope xmlns:e="` + ns + `"><e:Header>` + header + `</e:Header><e:Body>` + body + `</e:Body></e:Envelope>`
	r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(msg))
	r.Header.Set("Content-Type", map[string]string{soap.NS11: "text/xml", soap.NS12: "application/soap+xml"}[ns])
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return payload(t, rec.Body.Bytes())
}

func payload(t testing.TB, envelope []byte) *xmldoc.Document {
	t.Helper()
	doc := read(t, string(envelope))
	body := xmldoc.Child(doc.Root(), doc.Name(doc.Root()).Space, "Body")
	if body == nil || len(body.ChildElements()) != 1 {
		t.Fatalf("no body: %s", envelope)
	}
	return read(t, string(doc.Standalone(body.ChildElements()[0])))
}

func offer() string {
	o := agreementtest.Offer(agreementtest.Template())
	return string(xmldoc.Marshal(o.Encode()))
}

func create(inner string) string {
	return `<wsag:CreateAgreementInput ` + wsagNS + `>` + inner + `</wsag:CreateAgreementInput>`
}

// TestRequestsAreRefused: what is wrong with a request is said, and nothing is
// made.
func TestRequestsAreRefused(t *testing.T) {
	svc := &agreementtest.Service{}
	h := agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	post(t, h, "", create(offer()))
	const epr = `<wsag:InitiatorAgreementEPR><a:Address xmlns:a="http://www.w3.org/2005/08/addressing">urn:x</a:Address></wsag:InitiatorAgreementEPR>`
	const ext = `<wsag:NoncriticalExtension><x:e xmlns:x="urn:x"/></wsag:NoncriticalExtension>`
	for name, c := range map[string]struct{ header, body, fault, want string }{
		"a critical extension":        {"", create(offer() + `<x:e xmlns:x="urn:x"/>`), "ContinuingFault", `the extension "{urn:x}e" is critical`},
		"in the wrong place":          {"", create(`<x:e xmlns:x="urn:x"/>` + offer()), "ContinuingFault", "stands where AgreementOffer is expected"},
		"an EPR behind the offer":     {"", create(offer() + epr), "ContinuingFault", "wrong order"},
		"an EPR without an address":   {"", create(`<wsag:InitiatorAgreementEPR/>` + offer()), "ContinuingFault", "lacks its wsa:Address"},
		"an empty extension":          {"", create(offer() + `<wsag:NoncriticalExtension/>`), "ContinuingFault", "takes one element"},
		"an extension of two":         {"", create(offer() + strings.Replace(ext, "<x:e ", `<y:f xmlns:y="urn:y"/><x:e `, 1)), "ContinuingFault", "does not belong here"},
		"too many extensions":         {"", create(offer() + strings.Repeat(ext, 101)), "ContinuingFault", "more than the 100"},
		"no offer":                    {"", create(""), "ContinuingFault", "AgreementOffer is missing"},
		"an acceptance EPR":           {"", create(strings.ReplaceAll(epr, "InitiatorAgreementEPR", "AgreementAcceptanceEPR") + offer()), "ContinuingFault", "stands where AgreementOffer is expected"},
		"an offer in another tongue":  {"", create(strings.ReplaceAll(offer(), "2007/03", "2005/09")), "ContinuingFault", "the draft of September 2005"},
		"no agreement to end":         {"", `<wsag:TerminateInput ` + wsagNS + `/>`, "ContinuingFault", "names no agreement"},
		"two agreements":              {keyHeader("00000001", "00000001"), `<wsag:TerminateInput ` + wsagNS + `/>`, "ContinuingFault", "2 AgreementKey headers"},
		"an empty key":                {keyHeader(" "), `<wsag:TerminateInput ` + wsagNS + `/>`, "ContinuingFault", "is empty"},
		"a long key":                  {keyHeader(strings.Repeat("k", 1025)), `<wsag:TerminateInput ` + wsagNS + `/>`, "ResourceUnknownFault", "1025 bytes"},
		"a strange key":               {keyHeader("moon"), `<wsag:TerminateInput ` + wsagNS + `/>`, "ResourceUnknownFault", "no agreement with that key"},
		"two reasons":                 {keyHeader("00000001"), `<wsag:TerminateInput ` + wsagNS + `><a/><b/></wsag:TerminateInput>`, "ContinuingFault", "does not belong here"},
		"a reason of words":           {keyHeader("00000001"), `<wsag:TerminateInput ` + wsagNS + `>words</wsag:TerminateInput>`, "ContinuingFault", "takes elements only"},
		"a property of the agreement": {"", `<rp:GetResourceProperty ` + rpNS + ` ` + wsagNS + `>wsag:AgreementState</rp:GetResourceProperty>`, "InvalidResourcePropertyQNameFault", "AgreementFactoryProperties has Template"},
		"a property of the factory":   {keyHeader("00000001"), `<rp:GetResourceProperty ` + rpNS + ` ` + wsagNS + `>wsag:Template</rp:GetResourceProperty>`, "InvalidResourcePropertyQNameFault", "AgreementProperties has Name"},
		"in another namespace":        {"", `<rp:GetResourceProperty ` + rpNS + ` xmlns:wsag="urn:x">wsag:Template</rp:GetResourceProperty>`, "InvalidResourcePropertyQNameFault", "{urn:x}Template"},
		"without its prefix":          {"", `<rp:GetResourceProperty ` + rpNS + `>wsag:Template</rp:GetResourceProperty>`, "ContinuingFault", "not declared"},
		"no name at all":              {"", `<rp:GetResourceProperty ` + rpNS + `> </rp:GetResourceProperty>`, "ContinuingFault", "not a qualified name"},
		"an element":                  {"", `<rp:GetResourceProperty ` + rpNS + `><a/></rp:GetResourceProperty>`, "ContinuingFault", "takes text"},
		"no properties":               {"", `<rp:GetMultipleResourceProperties ` + rpNS + `/>`, "ContinuingFault", "names no ResourceProperty"},
		"too many properties":         {"", `<rp:GetMultipleResourceProperties ` + rpNS + ` ` + wsagNS + `>` + strings.Repeat(`<rp:ResourceProperty>wsag:Template</rp:ResourceProperty>`, 21) + `</rp:GetMultipleResourceProperties>`, "ContinuingFault", "more than 20"},
		"another element":             {"", `<rp:GetMultipleResourceProperties ` + rpNS + `><rp:Property/></rp:GetMultipleResourceProperties>`, "ContinuingFault", "expected ResourceProperty"},
		"a document of something":     {"", `<rp:GetResourcePropertyDocument ` + rpNS + `><a/></rp:GetResourcePropertyDocument>`, "ContinuingFault", "does not belong here"},
		"of a strange agreement":      {keyHeader("moon"), `<rp:GetResourcePropertyDocument ` + rpNS + `/>`, "ResourceUnknownFault", "no agreement"},
		"nothing to confirm":          {"", `<p:Confirm xmlns:p="` + agreement.NSPortolan + `"/>`, "ContinuingFault", "names no agreement"},
		"something to confirm":        {keyHeader("00000001"), `<p:Confirm xmlns:p="` + agreement.NSPortolan + `"><a/></p:Confirm>`, "ContinuingFault", "does not belong here"},
		"what was not prepared":       {keyHeader("00000001"), `<p:Confirm xmlns:p="` + agreement.NSPortolan + `"/>`, "ContinuingFault", "nothing to confirm"},
		"prepared at once":            {"", create(offer() + prepare("<p:Key>k</p:Key><p:Until>2100-01-01T00:00:00Z</p:Until>")), "ContinuingFault", "is critical where it stands"},
		"prepared without a key":      {"", pending(offer() + prepare("<p:Until>2100-01-01T00:00:00Z</p:Until>")), "ContinuingFault", "Key is missing"},
		"prepared by an empty key":    {"", pending(offer() + prepare("<p:Key> </p:Key><p:Until>2100-01-01T00:00:00Z</p:Until>")), "ContinuingFault", "is empty"},
		"prepared by a long key":      {"", pending(offer() + prepare("<p:Key>"+strings.Repeat("k", 257)+"</p:Key><p:Until>2100-01-01T00:00:00Z</p:Until>")), "ContinuingFault", "at most 256"},
		"prepared for ever":           {"", pending(offer() + prepare("<p:Key>k</p:Key>")), "ContinuingFault", "Until is missing"},
		"prepared until Friday":       {"", pending(offer() + prepare("<p:Key>k</p:Key><p:Until>Friday</p:Until>")), "ContinuingFault", "expected a time such as"},
		"prepared until yesterday":    {"", pending(offer() + prepare("<p:Key>k</p:Key><p:Until>2000-01-01T00:00:00Z</p:Until>")), "ContinuingFault", "later Until"},
		"prepared twice":              {"", pending(offer() + strings.Repeat(prepare("<p:Key>k</p:Key><p:Until>2100-01-01T00:00:00Z</p:Until>"), 2)), "ContinuingFault", "is critical where it stands"},
		"prepared with more":          {"", pending(offer() + prepare("<p:Key>k</p:Key><p:Until>2100-01-01T00:00:00Z</p:Until><p:Please/>")), "ContinuingFault", "does not belong here"},
		"a list of too few":           {"", `<p:ListAgreements xmlns:p="` + agreement.NSPortolan + `"><p:Limit>0</p:Limit></p:ListAgreements>`, "ContinuingFault", "1 or more"},
		"a list by something":         {"", `<p:ListAgreements xmlns:p="` + agreement.NSPortolan + `"><p:After>0</p:After></p:ListAgreements>`, "ContinuingFault", "does not belong here"},
		"a list, twice bounded":       {"", `<p:ListAgreements xmlns:p="` + agreement.NSPortolan + `"><p:Limit>1</p:Limit><p:Limit>1</p:Limit></p:ListAgreements>`, "ContinuingFault", "twice"},
	} {
		p := post(t, h, c.header, c.body)
		s := string(p.Raw(p.Root()))
		text := strings.NewReplacer("&quot;", `"`, "&amp;", "&").Replace(s)
		if !strings.Contains(s, ":"+c.fault+" ") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %s", name, s)
		}
	}
	if n := len(svc.Requests()); n != 1 {
		t.Errorf("%d offers reached the service", n)
	}
	p, err := svc.Agreement(soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"}), "00000001")
	if err != nil || p.State != agreement.Observed {
		t.Errorf("the one agreement is %v, %v", p, err)
	}
}

// TestAttributesOfTheMessage: what SOAP and WS-Security put on the child of the Body is none
// of the request's own; below it, or of another name, it is as unknown as ever.
func TestAttributesOfTheMessage(t *testing.T) {
	h := agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	const id = ` xmlns:u="` + soap.NSWSU + `" u:Id="r1"`
	requests := map[string]string{
		"CreateAgreementResponse":             create(offer()),
		"CreatePendingAgreementResponse":      pending(offer()),
		"TerminateResponse":                   `<wsag:TerminateInput ` + wsagNS + `/>`,
		"GetResourcePropertyResponse":         `<rp:GetResourceProperty ` + rpNS + ` ` + wsagNS + `>wsag:AgreementState</rp:GetResourceProperty>`,
		"GetResourcePropertyDocumentResponse": `<rp:GetResourcePropertyDocument ` + rpNS + `/>`,
		"GetMultipleResourcePropertiesResponse": `<rp:GetMultipleResourceProperties ` + rpNS + ` ` + wsagNS + `>` +
			`<rp:ResourceProperty>wsag:AgreementState</rp:ResourceProperty></rp:GetMultipleResourceProperties>`,
	}
	post(t, h, "", create(offer()))
	for ns, style := range map[string]string{soap.NS11: "", soap.NS12: soap.NS12 + "/encoding/none"} {
		with := ` xmlns:s="` + ns + `" s:encodingStyle="` + style + `"` + id
		for answer, body := range requests {
			header := ""
			if strings.HasPrefix(answer, "Get") || answer == "TerminateResponse" {
				header = keyHeader("00000001")
			}
			at := strings.IndexByte(body, ' ')
			p := postIn(t, h, ns, header, body[:at]+with+body[at:])
			if p.Root().Tag != answer {
				t.Errorf("%s in %s: %s", answer, ns, p.Raw(p.Root()))
			}
		}
		for name, body := range map[string]string{
			"on the offer":       create(strings.Replace(offer(), "<wsag:AgreementOffer", "<wsag:AgreementOffer"+id, 1)),
			"of another":         strings.Replace(create(offer()), " ", ` xmlns:o="urn:o" o:Id="r1" `, 1),
			"of another version": strings.Replace(create(offer()), " ", ` xmlns:o="`+map[string]string{soap.NS11: soap.NS12, soap.NS12: soap.NS11}[ns]+`" o:encodingStyle="" `, 1),
			"unqualified":        strings.Replace(create(offer()), " ", ` Id="r1" `, 1),
		} {
			p := postIn(t, h, ns, "", body)
			if s := string(p.Raw(p.Root())); !strings.Contains(s, "does not belong here") {
				t.Errorf("%s in %s: %s", name, ns, s)
			}
		}
	}
}

// TestTerminateWithoutAReason: the schema wants one; a request without one is taken.
func TestTerminateWithoutAReason(t *testing.T) {
	svc := &agreementtest.Service{}
	h := agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
	for i, reason := range []string{"", "<why/>", `<wsag:Name>w</wsag:Name>`} {
		post(t, h, "", create(offer()))
		key := fmt.Sprintf("%08d", i+1)
		p := post(t, h, keyHeader(" "+key+" "), `<wsag:TerminateInput `+wsagNS+`>`+reason+`</wsag:TerminateInput>`)
		if !xmldoc.Is(p.Root(), agreement.NS, "TerminateResponse") || (svc.Reason(key) == nil) != (reason == "") {
			t.Errorf("%q: %s", reason, p.Raw(p.Root()))
		}
	}
}

// TestWhatIsReceivedIsKept: the service sees the offer's own bytes, EPRs and
// extensions.
func TestWhatIsReceivedIsKept(t *testing.T) {
	svc := &agreementtest.Service{}
	c, _ := onTheWire(svc, soap.V12)
	x := etree.NewElement("x:e")
	x.CreateAttr("xmlns:x", "urn:x")
	epr, acceptance := agreement.NewEPR("urn:here", "mine"), agreement.NewEPR("urn:there", "told")
	req := &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template()), InitiatorEPR: &epr, AcceptanceEPR: &acceptance, Noncritical: []*etree.Element{x}}
	if _, err := c.CreatePending(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for i, got := range svc.Requests() {
		if again, err := agreement.ParseOffer(got.Received); err != nil || !same(again.Element, got.Offer.Element) {
			t.Errorf("received: %v", err)
		}
		if key, _ := agreement.KeyOf(*got.InitiatorEPR); key != "mine" || got.InitiatorEPR.Address != "urn:here" {
			t.Errorf("the initiator's EPR is %+v", got.InitiatorEPR)
		}
		if len(got.Noncritical) != 1 || !same(got.Noncritical[0], x) {
			t.Errorf("the extensions are %v", got.Noncritical)
		}
		if (got.AcceptanceEPR != nil) != (i == 0) {
			t.Errorf("request %d: the acceptance EPR is %v", i, got.AcceptanceEPR)
		}
	}
}

// acceptor remembers what it is told.
type acceptor struct {
	told []string
	why  []*etree.Element
	err  error
}

func (a *acceptor) Accept(_ context.Context, key string) error {
	a.told = append(a.told, "accepted "+key)
	return a.err
}

func (a *acceptor) Reject(_ context.Context, key string, why []*etree.Element) error {
	a.told, a.why = append(a.told, "rejected "+key), why
	return a.err
}

func TestAcceptance(t *testing.T) {
	a := new(acceptor)
	w := &wire{h: agreement.NewAcceptanceServer(a, agreement.ServerOptions{Verifier: soap.DevVerifier{}})}
	c := agreement.NewAcceptance(&soap.Client{URL: address, Transport: w, Retries: -1}, agreement.NewEPR(address, "k1"))
	x := etree.NewElement("x:e")
	x.CreateAttr("xmlns:x", "urn:x")
	if err := errors.Join(c.Accept(t.Context()), c.Reject(t.Context(), []*etree.Element{x})); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.told, []string{"accepted k1", "rejected k1"}) || len(a.why) != 1 || !same(a.why[0], x) {
		t.Errorf("%v, %v", a.told, a.why)
	}
	a.err = fail.Errorf("test", fail.NotFound, "", "there is no such agreement of ours")
	if err := c.Accept(t.Context()); !fail.Is(err, fail.NotFound) || fail.Sentence(err) != "there is no such agreement of ours" {
		t.Error(err)
	}
	for want, body := range map[string]string{
		"names no agreement": `<wsag:AcceptAgreementInput ` + wsagNS + `/>`,
		"is critical":        `<wsag:RejectAgreementInput ` + wsagNS + `><x:e xmlns:x="urn:x"/></wsag:RejectAgreementInput>`,
	} {
		p := post(t, w.h, "", body)
		if s := string(p.Raw(p.Root())); !strings.Contains(s, want) {
			t.Errorf("%s: %s", want, s)
		}
	}
	var sent []string
	for i := range w.requests {
		sent = append(sent, string(rawPayload(t, w.requests[i])))
		if p := payload(t, w.answers[i]); p.Name(p.Root()).Space == agreement.NS {
			sent = append(sent, string(p.Raw(p.Root())))
		}
	}
	for i, v := range verdicts(t, sent...) {
		if v != "" {
			t.Errorf("%s\n%s", v, sent[i])
		}
	}
}

func rawPayload(t testing.TB, envelope []byte) []byte {
	p := payload(t, envelope)
	return p.Raw(p.Root())
}

// everything drives each operation over the wire, refusals too, and gives the
// bodies that went to and fro.
func everything(t *testing.T) []string {
	svc := &agreementtest.Service{}
	c, w := onTheWire(svc, soap.V11)
	ctx := t.Context()
	req := &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}
	if _, err := c.Templates(ctx); err != nil {
		t.Fatal(err)
	}
	key, err := c.Create(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreatePending(ctx, req); err != nil {
		t.Fatal(err)
	}
	detail := etree.NewElement("x:e")
	detail.CreateAttr("xmlns:x", "urn:x")
	for _, s := range []agreement.ServiceTermState{
		{State: agreement.NotReady}, {State: agreement.Ready}, {State: agreement.Ready, Activity: agreement.Processing}, {State: agreement.Ready, Activity: agreement.Idle, Detail: detail}, {State: agreement.Completed, Detail: detail},
	} {
		svc.Set(key, s, agreement.GuaranteeTermState{State: agreement.Violated, Detail: s.Detail})
		p, err := c.Agreement(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		got := p.Services[0]
		if got.State != s.State || got.Activity != s.Activity || !same(got.Detail, s.Detail) || p.Guarantees[0].State != agreement.Violated {
			t.Errorf("%+v came back as %+v", s, got)
		}
		thereAndBack(t, p, agreement.DecodeProperties)
	}
	epr, err := c.EPR(key)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.State(ctx, epr); err != nil || s != agreement.Observed {
		t.Error(s, err)
	}
	if _, err := c.List(ctx, key, 3); err != nil {
		t.Error(err)
	}
	if err := c.Terminate(ctx, key, nil); err != nil {
		t.Error(err)
	}
	if _, err := c.Agreement(ctx, "moon"); !fail.Is(err, fail.NotFound) {
		t.Error(err)
	}
	req.Offer.Context.TemplateID = "77"
	if _, err := c.Create(ctx, req); !fail.Is(err, fail.NotFound) {
		t.Error(err)
	}
	var bodies []string
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
	return bodies
}

// TestMessagesAreValid: whatever is sent is as the standards' schemas have it, and
// as the schemas of our own description do.
func TestMessagesAreValid(t *testing.T) {
	bodies := everything(t)
	var normative []string
	for _, b := range bodies {
		switch root := read(t, b); root.Name(root.Root()).Space {
		case agreement.NSPortolan: // ours
		default:
			normative = append(normative, b)
		}
	}
	for i, v := range verdicts(t, normative...) {
		if v != "" {
			t.Errorf("%s\n%s", v, normative[i])
		}
	}
	dir := t.TempDir()
	h := agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{})
	location := regexp.MustCompile(`schemaLocation="[^"]*\?xsd=`)
	files, err := filepath.Glob("wsdl/*.xsd")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var imports strings.Builder
	for _, f := range files {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, address+"?xsd="+filepath.Base(f), nil))
		b := location.ReplaceAll(rec.Body.Bytes(), []byte(`schemaLocation="`))
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&imports, `<xs:import namespace="%s" schemaLocation="%s"/>`, read(t, string(b)).Root().SelectAttrValue("targetNamespace", ""), filepath.Join(dir, filepath.Base(f)))
	}
	for i, v := range verdictsBy(t, `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">`+imports.String()+extra+`</xs:schema>`, bodies...) {
		if v != "" {
			t.Errorf("our own schema: %s\n%s", v, bodies[i])
		}
	}
}

// TestDescriptionAgreesWithTheServer: what is described is answered, with the same
// actions, and what is answered is described.
func TestDescriptionAgreesWithTheServer(t *testing.T) {
	for name, h := range map[string]*soap.Endpoint{
		"a lister": agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{}),
		"a preparer": agreement.NewServer(struct {
			agreement.Service
			agreement.Preparer
		}{&agreementtest.Service{}, &agreementtest.Service{}}, agreement.ServerOptions{}),
		"a service":   agreement.NewServer(struct{ agreement.Service }{&agreementtest.Service{}}, agreement.ServerOptions{ExternalURL: "https://g.example/a?b=\"&"}),
		"an acceptor": agreement.NewAcceptanceServer(new(acceptor), agreement.ServerOptions{}),
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, address+"?wsdl", nil))
		b, err := io.ReadAll(rec.Body)
		if err != nil || rec.Code != http.StatusOK {
			t.Fatal(rec.Code, err)
		}
		doc := read(t, string(b))
		if s := string(b); strings.Contains(s, "schemaLocation") || strings.Contains(s, "@ADDRESS@") || strings.Contains(s, "<no value>") {
			t.Errorf("%s: the description is not flat or not filled in", name)
		}
		want := address
		if h.ExternalURL != "" {
			want = h.ExternalURL
		}
		for _, a := range doc.Root().FindElements("//address") {
			if got := a.SelectAttrValue("location", ""); got != want {
				t.Errorf("%s: a port is at %q", name, got)
			}
		}
		described := map[string]bool{}
		for _, op := range doc.Root().FindElements("//binding/operation/operation") {
			described[op.SelectAttrValue("soapAction", "")] = true
		}
		for _, op := range h.Operations {
			if !described[op.Action] || !strings.Contains(string(b), `wsam:Action="`+op.ReplyAction+`"`) || !strings.Contains(string(b), `wsam:Action="`+op.FaultAction+`"`) {
				t.Errorf("%s: %s is not described", name, op.Action)
			}
			delete(described, op.Action)
		}
		if len(described) > 0 {
			t.Errorf("%s: %v are described and not served", name, described)
		}
		for _, query := range []string{"?xsd=moon.xsd", "?xsd=../wsdl.go", "?xsd=agreement.wsdl"} {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, address+query, nil))
			if rec.Code != http.StatusNotFound {
				t.Errorf("%s%s: %d", name, query, rec.Code)
			}
		}
	}
}
