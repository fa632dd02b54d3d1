package soap

import (
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestEnvelopeStructure: S stands for the version's namespace.
func TestEnvelopeStructure(t *testing.T) {
	const ok, sender = "", "Sender"
	for _, c := range []struct {
		name     string
		doc      string
		v11, v12 string // fault code in the words of SOAP 1.2; "" means a reply
	}{
		{"plain", `<s:Envelope xmlns:s="S"><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, ok},
		{"empty Header", `<s:Envelope xmlns:s="S"><s:Header/><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, ok},
		{"comments and space", "<s:Envelope xmlns:s='S'> <!-- a --> <s:Body>\n<!-- b --><t:Echo xmlns:t='urn:test'/>\t</s:Body></s:Envelope>", ok, ok},
		{"default namespace", `<Envelope xmlns="S"><Body><Echo xmlns="urn:test"/></Body></Envelope>`, ok, ok},
		{"nil operation (SOAP::Lite)", `<s:Envelope xmlns:s="S"><s:Body><t:Echo xmlns:t="urn:test" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true"/></s:Body></s:Envelope>`, ok, ok},
		{"no Body", `<s:Envelope xmlns:s="S"><s:Header/></s:Envelope>`, sender, sender},
		{"nothing", `<s:Envelope xmlns:s="S"/>`, sender, sender},
		{"two Bodies", `<s:Envelope xmlns:s="S"><s:Body/><s:Body/></s:Envelope>`, sender, sender},
		{"Header behind", `<s:Envelope xmlns:s="S"><s:Body/><s:Header/></s:Envelope>`, sender, sender},
		{"two Headers", `<s:Envelope xmlns:s="S"><s:Header/><s:Header/><s:Body/></s:Envelope>`, sender, sender},
		{"foreign before", `<s:Envelope xmlns:s="S"><x/><s:Body/></s:Envelope>`, sender, sender},
		{"foreign behind", `<s:Envelope xmlns:s="S"><s:Body><t:Echo xmlns:t="urn:test"/></s:Body><x xmlns="u"/></s:Envelope>`, ok, sender},
		{"text in the Envelope", `<s:Envelope xmlns:s="S">x<s:Body/></s:Envelope>`, sender, sender},
		{"text in the Header", `<s:Envelope xmlns:s="S"><s:Header>x</s:Header><s:Body/></s:Envelope>`, sender, sender},
		{"text in the Body", `<s:Envelope xmlns:s="S"><s:Body>x</s:Body></s:Envelope>`, sender, sender},
		{"CDATA in the Body", `<s:Envelope xmlns:s="S"><s:Body><![CDATA[x]]></s:Body></s:Envelope>`, sender, sender},
		{"two requests", `<s:Envelope xmlns:s="S"><s:Body><t:Echo xmlns:t="urn:test"/><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, sender, sender},
		{"Body of the other version", `<s:Envelope xmlns:s="S"><o:Body xmlns:o="O"/></s:Envelope>`, sender, sender},
		{"unknown operation", `<s:Envelope xmlns:s="S"><s:Body><x/></s:Body></s:Envelope>`, sender, sender},
		{"unqualified attribute", `<s:Envelope xmlns:s="S" a="1"><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, sender},
		{"unqualified attribute of the Body", `<s:Envelope xmlns:s="S"><s:Body a="1"><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, sender},
		{"qualified attribute", `<s:Envelope xmlns:s="S" xmlns:u="u" u:a="1"><s:Body u:Id="b"><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, ok},
		{"encoding on the Envelope (SOAP::Lite)", `<s:Envelope xmlns:s="S" s:encodingStyle="E"><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, ok},
		{"strange encoding on the Envelope", `<s:Envelope xmlns:s="S" s:encodingStyle="urn:x"><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, sender, "DataEncodingUnknown"},
		{"encoding on the Body", `<s:Envelope xmlns:s="S"><s:Body s:encodingStyle="E"><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, sender, sender},
		{"encoding on the request", `<s:Envelope xmlns:s="S"><s:Body><t:Echo xmlns:t="urn:test" s:encodingStyle="E"/></s:Body></s:Envelope>`, sender, "DataEncodingUnknown"},
		{"empty encoding", `<s:Envelope xmlns:s="S" s:encodingStyle=""><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, "DataEncodingUnknown"},
		{"DOCTYPE", `<!DOCTYPE x><s:Envelope xmlns:s="S"><s:Body/></s:Envelope>`, sender, sender},
		{"instruction before", `<?x y?><s:Envelope xmlns:s="S"><s:Body><t:Echo xmlns:t="urn:test"/></s:Body></s:Envelope>`, ok, ok},
		{"instruction inside", `<s:Envelope xmlns:s="S"><?x y?><s:Body/></s:Envelope>`, sender, sender},
		{"not closed", `<s:Envelope xmlns:s="S"><s:Body>`, sender, sender},
	} {
		for _, v := range []Version{V11, V12} {
			other := map[Version]string{V11: NS12, V12: NS11}[v]
			encoding := map[Version]string{V11: encoding11, V12: encoding12}[v]
			doc := strings.NewReplacer(`"S"`, `"`+v.Namespace()+`"`, `'S'`, `'`+v.Namespace()+`'`, `"O"`, `"`+other+`"`, `"E"`, `"`+encoding+`"`).Replace(c.doc)
			a := post(t, echoEndpoint(), "text/xml", doc)
			want := map[Version]string{V11: c.v11, V12: c.v12}[v]
			if want == "" {
				if a.status != 200 {
					t.Errorf("%s, SOAP %s: %d %s", c.name, v, a.status, a.body)
				}
				continue
			}
			status := 500
			if v == V12 && want == sender {
				status = 400
			}
			if v == V11 {
				want = "Client"
			}
			t.Run(c.name+" "+v.String(), func(t *testing.T) { a.wantFault(t, status, in(v.Namespace(), want)) })
		}
	}
}

func TestVersionMismatch(t *testing.T) {
	for _, doc := range []string{`<Envelope/>`, `<e:Envelope xmlns:e="urn:x"/>`, `<x/>`, `<e:Body xmlns:e="` + NS12 + `"/>`} {
		a := post(t, echoEndpoint(), "application/soap+xml", doc)
		a.wantFault(t, 500, in(NS11, "VersionMismatch"))
		up := a.block(NS12, "Upgrade")
		if up == nil {
			t.Fatalf("no Upgrade:\n%s", a.body)
		}
		var got []string
		for _, s := range up.ChildElements() {
			n, err := xmldoc.ResolveQName(s, s.SelectAttrValue("qname", ""))
			if err != nil || !xmldoc.Is(s, NS12, "SupportedEnvelope") {
				t.Error(err)
			}
			got = append(got, n.Space)
		}
		if strings.Join(got, " ") != NS12+" "+NS11 {
			t.Errorf("Upgrade offers %v", got)
		}
	}
}

// TestMustUnderstand: a header block x:H with these attributes; S is the
// version's namespace, O the other's.
func TestMustUnderstand(t *testing.T) {
	const none, must, sender = "", "MustUnderstand", "Sender"
	next := map[Version]string{V11: actorNext11, V12: roleNext12}
	for _, c := range []struct {
		attrs    string
		v11, v12 string
	}{
		{``, none, none},
		{`s:mustUnderstand="0"`, none, none},
		{`s:mustUnderstand="1"`, must, must},
		{`s:mustUnderstand=" 1 "`, must, must},
		{`s:mustUnderstand="true"`, sender, must},
		{`s:mustUnderstand="false"`, sender, none},
		{`s:mustUnderstand="9"`, sender, sender},
		{`s:mustUnderstand=""`, sender, sender},
		{`s:mustUnderstand="TRUE"`, sender, sender},
		{`o:mustUnderstand="1"`, none, none},
		{`mustUnderstand="1"`, none, none},
		{`s:mustUnderstand="1" s:ROLE=""`, must, must},
		{`s:mustUnderstand="1" s:ROLE="NEXT"`, must, must},
		{`s:mustUnderstand="1" s:ROLE="urn:other"`, none, none},
		{`s:mustUnderstand="9" s:ROLE="urn:other"`, none, none},
		{`s:mustUnderstand="1" s:ROLE="http://www.w3.org/2003/05/soap-envelope/role/none"`, none, none},
		{`s:mustUnderstand="1" s:ROLE="http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver"`, none, must},
		{`s:mustUnderstand="1" o:OROLE="urn:other"`, must, must},
	} {
		for _, v := range []Version{V11, V12} {
			role, other, ns := "actor", "role", NS12
			if v == V12 {
				role, other, ns = "role", "actor", NS11
			}
			attrs := strings.NewReplacer("OROLE", other, "ROLE", role, "NEXT", next[v]).Replace(c.attrs)
			a := post(t, echoEndpoint(), "text/xml", envelope(v, `<x:H xmlns:x="urn:x" xmlns:o="`+ns+`" `+attrs+`/>`, echoBody))
			want := map[Version]string{V11: c.v11, V12: c.v12}[v]
			t.Run(c.attrs+" "+v.String(), func(t *testing.T) {
				switch {
				case want == none:
					a.wantReply(t)
				case want == must:
					a.wantFault(t, 500, in(v.Namespace(), must))
					if v == V12 {
						a.wantNotUnderstood(t, "urn:x", "H")
					}
				case v == V11:
					a.wantFault(t, 500, in(NS11, "Client"))
				default:
					a.wantFault(t, 400, in(NS12, "Sender"))
				}
			})
		}
	}
	many := strings.Repeat(`<x:H s:mustUnderstand="1"/>`, 1000)
	a := post(t, echoEndpoint(), "text/xml", strings.Replace(envelope(V12, many, echoBody), "<s:Header>", `<s:Header xmlns:x="urn:`+strings.Repeat("x", 5000)+`">`, 1))
	a.wantFault(t, 500, in(NS12, "MustUnderstand"))
	if len(a.body) > 200_000 {
		t.Errorf("the answer has %d bytes", len(a.body))
	}
}

func TestSecurityHeaderInDev(t *testing.T) {
	sec := `<w:Security xmlns:w="` + NSWSSE + `" s:mustUnderstand="1"/>`
	post(t, echoEndpoint(), "text/xml", envelope(V11, sec, echoBody)).wantReply(t)
	post(t, echoEndpoint(), "text/xml", envelope(V11, sec+sec, echoBody)).wantFault(t, 500, in(NSWSSE, "InvalidSecurity"))
	post(t, echoEndpoint(), "text/xml", envelope(V12, sec+sec, echoBody)).wantFault(t, 400, in(NS12, "Sender"), in(NSWSSE, "InvalidSecurity"))
	e := echoEndpoint()
	e.Verifier = nil
	post(t, e, "text/xml", envelope(V11, "", echoBody)).wantFault(t, 500, in(NS11, "Server"))
}

func TestEPR(t *testing.T) {
	doc := mustRead(t, `<Envelope xmlns:p="urn:p" xmlns="urn:d"><ActivityIdentifier xmlns:a="`+NSWSA+`" a="1"><a:Address>
	 http://x/y?z=1
	</a:Address><a:ReferenceParameters><p:Id q="p:v">7</p:Id><Plain/></a:ReferenceParameters><a:Metadata><m xmlns=""/></a:Metadata><p:Ext/></ActivityIdentifier></Envelope>`)
	epr, err := DecodeEPR(doc.Root().ChildElements()[0])
	if err != nil {
		t.Fatal(err)
	}
	if epr.Address != "http://x/y?z=1" || len(epr.ReferenceParameters) != 2 || len(epr.Metadata) != 1 || len(epr.Extensions) != 1 {
		t.Errorf("%+v", epr)
	}
	if got, want := string(xmldoc.Marshal(epr.ReferenceParameters[0])), `<p:Id q="p:v" xmlns="urn:d" xmlns:p="urn:p">7</p:Id>`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, el := range []*etree.Element{epr.Element("b", xmldoc.Name{Space: "urn:b", Local: "Ref"}), epr.Echo("b", xmldoc.Name{Space: "urn:b", Local: "Ref"})} {
		again := mustRead(t, string(xmldoc.Marshal(el)))
		if !xmldoc.Is(again.Root(), "urn:b", "Ref") {
			t.Errorf("%s", xmldoc.Marshal(el))
		}
		back, err := DecodeEPR(again.Root())
		if err != nil || back.Address != epr.Address || len(back.ReferenceParameters) != 2 {
			t.Fatalf("%+v %v", back, err)
		}
		for i := range back.ReferenceParameters {
			if a, b := xmldoc.NameOf(back.ReferenceParameters[i]), xmldoc.NameOf(epr.ReferenceParameters[i]); a != b {
				t.Errorf("%s became %s", b, a)
			}
		}
	}
	// p is bound to another namespace in what came.
	if got := epr.Echo("p", xmldoc.Name{Space: "urn:b", Local: "Ref"}); !xmldoc.Is(got, "urn:b", "Ref") || !xmldoc.Is(got.ChildElements()[3], "urn:p", "Ext") {
		t.Errorf("%s", xmldoc.Marshal(got))
	}
	for _, bad := range []string{`<x/>`, `<x xmlns:a="` + NSWSA + `"><a:Address> </a:Address></x>`, `<x xmlns:a="` + NSWSA + `"><a:Address>urn:a</a:Address><a:Address>urn:b</a:Address></x>`} {
		if _, err := DecodeEPR(mustRead(t, bad).Root()); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestSampleEPRs(t *testing.T) {
	for file, address := range map[string]string{
		"epr-bespp-arc-xml.xml": "", "epr-bespp-gridsam-xml.xml": "", "epr-bespp-unicore-xml.xml": "res=default_bes_factory",
	} {
		epr, err := DecodeEPR(mustRead(t, sample(t, "soap", file)).Root())
		if err != nil || !absoluteIRI(epr.Address) || !strings.HasSuffix(epr.Address, address) || strings.ContainsAny(epr.Address, " \n") {
			t.Errorf("%s: %q %v", file, epr.Address, err)
		}
	}
	if _, err := xmldoc.ReadBytes([]byte(sample(t, "soap", "epr-bespp-sleep-epr.xml")), xmldoc.Limits{}); err == nil {
		t.Error("epr-bespp-sleep-epr.xml is not well-formed and was read")
	}
}

func mustRead(t testing.TB, s string) *xmldoc.Document {
	t.Helper()
	d, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}
