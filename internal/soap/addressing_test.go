package soap

import (
	"context"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

func wsa(local, content string) string {
	return "<wsa:" + local + ">" + content + "</wsa:" + local + ">"
}

func wsaEPR(local, address, more string) string {
	return wsa(local, wsa("Address", address)+more)
}

const action = `<wsa:Action>urn:test/Echo</wsa:Action>`

// TestAddressingReply: WS-Addressing 1.0 core §3.4.
func TestAddressingReply(t *testing.T) {
	for _, v := range []Version{V11, V12} {
		id := wsa("MessageID", "\n uuid:1-2-3 \n")
		for _, header := range []string{
			action + id,
			action + id + wsaEPR("ReplyTo", "\n"+Anonymous+"\n", ""),
			action + id + wsaEPR("ReplyTo", Anonymous, "") + wsaEPR("FaultTo", Anonymous, "") + wsa("To", "http://elsewhere.example/"),
			wsa("Action", "urn:of/another/operation") + id, // stale, from a gSOAP client
			wsa("Action", "") + id,
			strings.ReplaceAll(action+id+wsa("To", "urn:x"), "<wsa:To>", `<wsa:To s:mustUnderstand="1">`),
			id + action + wsa("RelatesTo", "urn:whatever"),
			id + action + wsa("Action", "urn:x") + id + action, // replaced below: all but the first are for another role
		} {
			if strings.Count(header, "<wsa:Action>") > 1 {
				role := map[Version]string{V11: "actor", V12: "role"}[v]
				first, rest, _ := strings.Cut(header, "</wsa:Action>")
				header = first + "</wsa:Action>" + strings.NewReplacer("<wsa:Action>", `<wsa:Action s:`+role+`="urn:other">`, "<wsa:MessageID>", `<wsa:MessageID s:`+role+`="urn:other">`).Replace(rest)
			}
			a := post(t, echoEndpoint(), "text/xml", envelope(v, header, echoBody))
			a.wantReply(t)
			for local, want := range map[string]string{"Action": "urn:test/EchoResponse", "RelatesTo": "uuid:1-2-3", "To": Anonymous, "MessageID": "urn:uuid:00000000-0000-4000-8000-000000000000"} {
				if b := a.block(NSWSA, local); b == nil || xmldoc.Text(b) != want {
					t.Errorf("%s: wsa:%s is not %s:\n%s", header, local, want, a.body)
				}
			}
		}
		// Without a MessageID there is nothing to relate to (ARC, BES++).
		a := post(t, echoEndpoint(), "text/xml", envelope(v, action+wsa("To", "urn:x"), echoBody))
		a.wantReply(t)
		if a.block(NSWSA, "RelatesTo") != nil || a.block(NSWSA, "Action") == nil {
			t.Error(a.body)
		}
	}
}

func TestAddressingFaults(t *testing.T) {
	id := wsa("MessageID", "urn:1")
	for _, c := range []struct {
		name, header, body string
		codes              []string // in NSWSA, general to specific
		problem            string
	}{
		{"no Action", wsa("To", "urn:x") + id, echoBody, []string{"MessageAddressingHeaderRequired"}, "Action"},
		{"two MessageIDs", action + id + id, echoBody, []string{"InvalidAddressingHeader", "InvalidCardinality"}, "MessageID"},
		{"two Actions", action + action, echoBody, []string{"InvalidAddressingHeader", "InvalidCardinality"}, "Action"},
		{"two From", action + id + wsaEPR("From", "urn:a", "") + wsaEPR("From", "urn:a", ""), echoBody, []string{"InvalidAddressingHeader", "InvalidCardinality"}, "From"},
		{"no Address", action + id + wsa("ReplyTo", ""), echoBody, []string{"InvalidAddressingHeader", "MissingAddressInEPR"}, "ReplyTo"},
		{"empty Address", action + id + wsaEPR("FaultTo", " ", ""), echoBody, []string{"InvalidAddressingHeader", "MissingAddressInEPR"}, "FaultTo"},
		{"relative Address", action + id + wsaEPR("ReplyTo", "reply/here", ""), echoBody, []string{"InvalidAddressingHeader", "InvalidAddress"}, "ReplyTo"},
		{"two Addresses", action + id + wsaEPR("ReplyTo", Anonymous, wsa("Address", Anonymous)), echoBody, []string{"InvalidAddressingHeader", "InvalidEPR"}, "ReplyTo"},
		{"reply elsewhere", action + id + wsaEPR("ReplyTo", "http://victim.example/", ""), echoBody, []string{"InvalidAddressingHeader", "OnlyAnonymousAddressSupported"}, "ReplyTo"},
		{"faults elsewhere", action + id + wsaEPR("FaultTo", "mailto:a@b.example", ""), echoBody, []string{"InvalidAddressingHeader", "OnlyAnonymousAddressSupported"}, "FaultTo"},
		{"unknown operation", action + id, "<x/>", []string{"ActionNotSupported"}, ""},
		{"forged To", action + id + wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", wsa("To", "urn:x"))), echoBody, []string{"InvalidAddressingHeader", "InvalidEPR"}, "ReplyTo"},
		{"forged Security", action + id + wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", `<w:Security xmlns:w="`+NSWSSE+`"/>`)), echoBody, []string{"InvalidAddressingHeader", "InvalidEPR"}, "ReplyTo"},
		{"demanding parameter", action + id + wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", `<x s:mustUnderstand="1"/>`)), echoBody, []string{"InvalidAddressingHeader", "InvalidEPR"}, "ReplyTo"},
		{"many parameters", action + id + wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", strings.Repeat("<x/>", 33))), echoBody, []string{"InvalidAddressingHeader", "InvalidEPR"}, "ReplyTo"},
		{"large parameter", action + id + wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", "<x>"+strings.Repeat("x", 70_000)+"</x>")), echoBody, []string{"InvalidAddressingHeader", "InvalidEPR"}, "ReplyTo"},
		{
			"large scope", action + id + strings.Replace(wsaEPR("ReplyTo", Anonymous, wsa("ReferenceParameters", strings.Repeat("<x/>", 20))), "<wsa:ReplyTo>", `<wsa:ReplyTo xmlns="urn:`+strings.Repeat("x", 10_000)+`">`, 1),
			echoBody,
			[]string{"InvalidAddressingHeader", "InvalidEPR"},
			"ReplyTo",
		},
	} {
		for _, v := range []Version{V11, V12} {
			t.Run(c.name+" "+v.String(), func(t *testing.T) {
				e := echoEndpoint()
				e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}].Handle = func(context.Context, *Verified) (*etree.Element, error) {
					t.Error("the operation was called")
					return nil, nil
				}
				a := post(t, e, "text/xml", envelope(v, c.header, c.body), "SOAPAction", `"urn:sa"`)
				if v == V11 {
					a.wantFault(t, 500, wsaCode(c.codes[len(c.codes)-1]))
				} else {
					want := []string{in(NS12, "Sender")}
					for _, s := range c.codes {
						want = append(want, wsaCode(s))
					}
					a.wantFault(t, 400, want...)
				}
				if c.problem != "" {
					a.wantProblem(t, c.problem)
				} else if !strings.Contains(a.body, "<wsa:Action>urn:test/Echo</wsa:Action><wsa:SoapAction>urn:sa</wsa:SoapAction>") {
					t.Errorf("no ProblemAction:\n%s", a.body)
				}
				if b := a.block(NSWSA, "Action"); b == nil || xmldoc.Text(b) != ActionWSAFault {
					t.Errorf("the action is not that of addressing faults:\n%s", a.body)
				}
				if c.problem != "MessageID" {
					if b := a.block(NSWSA, "RelatesTo"); b == nil || xmldoc.Text(b) != "urn:1" {
						if c.name != "two Actions" {
							t.Errorf("the fault relates to nothing:\n%s", a.body)
						}
					}
				}
			})
		}
	}
}

// TestDraftAddressing: headers of a draft are unknown ones.
func TestDraftAddressing(t *testing.T) {
	draft := `<d:To xmlns:d="http://schemas.xmlsoap.org/ws/2004/08/addressing" ATTR>urn:x</d:To>`
	a := post(t, echoEndpoint(), "text/xml", envelope(V11, strings.ReplaceAll(draft, "ATTR", ""), echoBody))
	a.wantReply(t)
	if a.block(NSWSA, "Action") != nil {
		t.Error("a draft's header engages addressing")
	}
	post(t, echoEndpoint(), "text/xml", envelope(V11, strings.ReplaceAll(draft, "ATTR", `s:mustUnderstand="1"`), echoBody)).wantFault(t, 500, in(NS11, "MustUnderstand"))
}

func TestReplyToNone(t *testing.T) {
	called := 0
	e := echoEndpoint()
	op := e.Operations[xmldoc.Name{Space: testNS, Local: "Echo"}]
	inner := op.Handle
	op.Handle = func(ctx context.Context, m *Verified) (*etree.Element, error) {
		called++
		if strings.Contains(xmldoc.Text(m.Payload), "fail") {
			return nil, &Fault{Code: Sender, Reason: "r"}
		}
		return inner(ctx, m)
	}
	bad := `<t:Echo>fail</t:Echo>`
	for _, c := range []struct {
		header, body string
		status       int
	}{
		{wsaEPR("ReplyTo", None, ""), echoBody, 202},
		{wsaEPR("ReplyTo", None, ""), bad, 202},
		{wsaEPR("FaultTo", None, ""), echoBody, 200},
		{wsaEPR("FaultTo", None, ""), bad, 202},
		{wsaEPR("ReplyTo", None, "") + wsaEPR("FaultTo", Anonymous, ""), bad, 500},
	} {
		called = 0
		a := post(t, e, "text/xml", envelope(V11, action+c.header, c.body))
		if a.status != c.status || called != 1 || c.status == 202 && a.body != "" {
			t.Errorf("%s %s: %d, called %d times, %q", c.header, c.body, a.status, called, a.body)
		}
	}
}

// TestReferenceParametersComeBack: WS-Addressing 1.0 SOAP binding §2.3.
func TestReferenceParametersComeBack(t *testing.T) {
	params := wsa("ReferenceParameters", `<p:Key xmlns:q="urn:q" q:a="1">p:v <b>2</b></p:Key><wsa1:K xmlns:wsa1="urn:w1"/><u:K xmlns:wsa="urn:not-addressing" xmlns:u="urn:u"/>`)
	header := action + wsa("MessageID", "urn:1") + `<wsa:ReplyTo xmlns:p="urn:p" xmlns="urn:d">` + wsa("Address", Anonymous) + params + `</wsa:ReplyTo>`
	check := func(a answer) {
		t.Helper()
		k := a.block("urn:p", "Key")
		if k == nil {
			t.Fatalf("lost:\n%s", a.body)
		}
		if v, _ := xmldoc.Attr(k, "urn:q", "a"); v != "1" || xmldoc.Child(k, "urn:d", "b") == nil {
			t.Errorf("changed:\n%s", a.body)
		}
		if n, err := xmldoc.ResolveQName(k, "p:v"); err != nil || n.Space != "urn:p" {
			t.Errorf("the prefix in its text is lost:\n%s", a.body)
		}
		for _, b := range []*etree.Element{k, a.block("urn:w1", "K"), a.block("urn:u", "K")} {
			if b == nil {
				t.Fatalf("lost:\n%s", a.body)
			}
			if v, _ := xmldoc.Attr(b, NSWSA, "IsReferenceParameter"); v != "true" {
				t.Errorf("not marked:\n%s", a.body)
			}
		}
	}
	for _, v := range []Version{V11, V12} {
		check(post(t, echoEndpoint(), "text/xml", envelope(v, header, echoBody)))
		check(post(t, echoEndpoint(), "text/xml", envelope(v, header, `<x/>`))) // faults too
	}
}

func TestStrict(t *testing.T) {
	e := echoEndpoint()
	e.Strict = true
	id := wsa("MessageID", "urn:1")
	post(t, e, "text/xml", envelope(V11, "", echoBody)).wantReply(t)
	post(t, e, "text/xml", envelope(V11, action+id, echoBody)).wantReply(t)
	post(t, e, "text/xml", envelope(V11, action, echoBody)).wantFault(t, 500, wsaCode("MessageAddressingHeaderRequired"))
	post(t, e, "text/xml", envelope(V11, action+id, echoBody), "SOAPAction", `"urn:other"`).wantFault(t, 500, wsaCode("ActionMismatch"))
	post(t, e, "text/xml", envelope(V11, wsa("Action", "urn:x")+id, echoBody)).wantFault(t, 500, wsaCode("ActionMismatch"))
}

func TestSOAPActionNeverDecides(t *testing.T) {
	for _, a := range []string{`""`, ``, `"urn:other"`, `urn:test#Echo`, `"`} {
		post(t, echoEndpoint(), "text/xml", envelope(V11, "", echoBody), "SOAPAction", a).wantReply(t)
	}
}
