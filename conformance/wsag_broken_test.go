package conformance

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/soap"
)

// agreeing answers what was refused as if it had been asked for rightly.
func agreeing(r asked, a *answer) {
	if !a.isFault() && a.status < 400 || r.Method != http.MethodPost {
		return
	}
	content := `<rp:GetResourcePropertyResponse xmlns:rp="` + nsProperties + `"/>`
	for _, op := range []string{createInput, pendingInput} {
		if r.about(op) || strings.Contains(r.body, "<"+op) {
			content = `<w:` + responseOf(op) + ` xmlns:w="` + agreement.NS + `"><w:CreatedAgreementEPR>` + address("http://"+r.Host+"/agreement") + `</w:CreatedAgreementEPR></w:` + responseOf(op) + `>`
		}
	}
	switch {
	case r.about("TerminateInput"):
		content = `<w:TerminateResponse xmlns:w="` + agreement.NS + `"/>`
	case r.about(opMultiple):
		content = strings.ReplaceAll(content, "GetResourceProperty", opMultiple)
	}
	a.succeed(r.version())
	a.body = envelope(r.version(), `<s:Body>`+content+`</s:Body>`)
}

// declining refuses what was answered, in the way of a server that broke.
func declining(r asked, a *answer) {
	if r.Method == http.MethodPost && a.status < 400 {
		a.refuse(r.version())
	}
}

// decliningLater takes the first read of templates and the first agreement of a kind, so that
// the kit has something to ask about.
func decliningLater() func(asked, *answer) {
	var reads, creates atomic.Int64
	return func(r asked, a *answer) {
		switch {
		case r.about("GetResourceProperty") && strings.Contains(r.body, templates) && reads.Add(1) == 1:
		case r.about(createInput) && creates.Add(1) == 1:
		default:
			declining(r, a)
		}
	}
}

// property breaks the answer to a request for a property.
func property(local string, f func(asked, *answer)) func(asked, *answer) {
	return func(r asked, a *answer) {
		if strings.Contains(r.body, "wsag:"+local+"<") {
			f(r, a)
		}
	}
}

// wsagBroken lists, for the checks that the general servers do not fail, one that breaks what
// it proves.
var wsagBroken = map[string]func() func(asked, *answer){}

func wsagBreaks(f func(asked, *answer), ids ...string) {
	for _, id := range ids {
		wsagBroken[id] = func() func(asked, *answer) { return f }
	}
}

func wsagBreaksAfresh(f func() func(asked, *answer), ids ...string) {
	for _, id := range ids {
		wsagBroken[id] = f
	}
}

// inTemplates breaks what templates say.
func inTemplates(f func(asked, *answer)) func(asked, *answer) {
	return func(r asked, a *answer) {
		if strings.Contains(r.body, ":GetResourceProperty") {
			f(r, a)
		}
	}
}

// agreementStates answers every question for an agreement's state with the next of these.
func agreementStates(list ...string) func() func(asked, *answer) {
	return func() func(asked, *answer) {
		var n atomic.Int64
		re := regexp.MustCompile(`State>\w+</wsag:State`)
		return property("AgreementState", func(_ asked, a *answer) {
			i := min(int(n.Add(1))-1, len(list)-1)
			a.body = re.ReplaceAllString(a.body, `State>`+list[i]+`</wsag:State`)
		})
	}
}

func init() {
	described := func(f func(asked, *answer)) func(asked, *answer) {
		return func(r asked, a *answer) {
			if r.Method == http.MethodGet {
				f(r, a)
			}
		}
	}
	wsagBreaks(described(func(_ asked, a *answer) { a.status, a.body = 200, "<html/>" }), "WSAG-WSDL-1")
	wsagBreaks(described(rewrite(`(<(\w+:)?definitions[^>]*>)`, `$1<w:import xmlns:w="`+nsWSDL+`" namespace="urn:x" location="?wsdl=gone"/>`)), "WSAG-WSDL-2")
	wsagBreaks(described(replace(`element="wsag:CreateAgreementInput"`, `element="wsag:CreateAgreement"`)), "WSAG-WSDL-3")
	wsagBreaks(described(replace(`element="wsag:CreatePendingAgreementResponse"`, `element="wsag:CreateAgreementResponse"`)), "WSAG-WSDL-4")
	wsagBreaks(described(replace(`element="wsag:TerminateInput"`, `element="wsag:Terminate"`)), "WSAG-WSDL-5")
	wsagBreaks(described(replace(`element="wsrf-rp:GetResourceProperty"`, `element="wsrf-rp:Get"`)), "WSAG-WSDL-6")
	wsagBreaks(described(replace(`element="wsag:ContinuingFault"`, `element="wsag:Fault"`)), "WSAG-WSDL-7")
	wsagBreaks(described(replace(`use="literal"`, `use="encoded"`)), "WSAG-WSDL-8")
	wsagBreaks(described(rewrite(`<\w+:address [^>]*>`, "")), "WSAG-WSDL-9")

	wsagBreaks(func(_ asked, a *answer) { a.header.Set("Content-Type", "text/plain") }, "WSAG-SOAP-3")
	wsagBreaks(rewrite(`(<faultcode.*</faultcode>)(<faultstring.*</faultstring>)`, "$2$1"), "WSAG-SOAP-20")
	wsagBreaks(rewrite(`(<\w+:Code>.*</\w+:Code>)(<\w+:Reason>.*</\w+:Reason>)`, "$2$1"), "WSAG-SOAP-21")
	wsagBreaks(replace(":MustUnderstand<", ":Client<"), "WSAG-SOAP-5", "WSAG-SOAP-8")

	wsagBreaks(rewrite(`(RelatesTo[^>]*>)[^<]*<`, "${1}urn:other<"), "WSAG-WSA-1", "WSAG-WSA-2", "WSAG-WSA-3", "WSAG-FLT-10")
	wsagBreaks(rewrite(`(Action[^>]*>)http[^<]*<`, "${1}http://docs.oasis-open.org/wsrf/rpw-2/GetResourceProperty/GetResourcePropertyRequest<"), "WSAG-WSA-4")
	wsagBreaks(func(_ asked, a *answer) {
		a.body = regexp.MustCompile(`<(\w+):Body>`).ReplaceAllString(a.body, `<$1:Header><x:y xmlns:x="urn:x" $1:mustUnderstand="1"/></$1:Header><$1:Body>`)
	}, "WSAG-WSA-5")
	wsagBreaks(replace("IsReferenceParameter", "IsParameter"), "WSAG-WSA-7")
	wsagBreaks(only(createInput, rewrite(`(Address>)http[^<]*<`, "${1}relative<")), "WSAG-WSA-10")
	wsagBreaks(property("AgreementId", rewrite(`(?s)<wsag:AgreementId.*</wsag:AgreementId>`, "")), "WSAG-WSA-11", "WSAG-WSA-12", "WSAG-PRO-1", "WSAG-TRM-5")
	wsagBreaks(only(createInput, rewrite(`0000000\d`, "00000001")), "WSAG-WSA-14", "WSAG-CRE-5")

	wsagBreaks(inTemplates(rewrite(`(</?wsag:Template)( |>)`, "${1}s$2")), "WSAG-TPL-1")
	wsagBreaks(inTemplates(rewrite(`(?s)<wsag:Context>.*?</wsag:Context>`, "")), "WSAG-TPL-2", "WSAG-TPL-6")
	wsagBreaks(inTemplates(replace(` wsag:ServiceName=`, ` ServiceName=`)), "WSAG-TPL-3")
	wsagBreaks(inTemplates(rewrite(` wsag:TemplateId="\d"`, "")), "WSAG-TPL-4")
	wsagBreaks(inTemplates(rewrite(`<wsag:TemplateId>\d`, "<wsag:TemplateId>another")), "WSAG-TPL-5")
	wsagBreaks(inTemplates(rewrite(`(?s)<wsag:ServiceDescriptionTerm.*?</wsag:ServiceDescriptionTerm>`, "")), "WSAG-TPL-7")
	wsagBreaks(inTemplates(replace(`wsag:Name="soon"`, `wsag:Name="job"`)), "WSAG-TPL-8")
	wsagBreaks(inTemplates(replace(`</wsag:ServiceDescriptionTerm>`, `<x xmlns="urn:x"/></wsag:ServiceDescriptionTerm>`)), "WSAG-TPL-9")
	wsagBreaks(inTemplates(rewrite(`(<wsag:ServiceScope wsag:ServiceName=)"run"`, `$1"walk"`)), "WSAG-TPL-10")
	wsagBreaks(inTemplates(rewrite(`(?s)<wsag:BusinessValueList>.*?</wsag:BusinessValueList>`, "")), "WSAG-TPL-11")
	wsagBreaks(inTemplates(rewrite(`</wsag:Penalty></wsag:BusinessValueList>`, `</wsag:Penalty><wsag:Preference><wsag:ServiceTermReference>nothing</wsag:ServiceTermReference><wsag:Utility>1</wsag:Utility></wsag:Preference></wsag:BusinessValueList>`)), "WSAG-TPL-12")
	wsagBreaks(inTemplates(replace(`<wsag:GuaranteeTerm `, `<wsag:ServiceProperties wsag:Name="v" wsag:ServiceName="run"><wsag:VariableSet><wsag:Variable wsag:Name="x"><wsag:Location>//nowhere:x</wsag:Location></wsag:Variable></wsag:VariableSet></wsag:ServiceProperties><wsag:GuaranteeTerm `)), "WSAG-TPL-13")
	wsagBreaks(inTemplates(rewrite(`(<wsag:Location[^>]*>)[^<]*<`, "${1}count(//x)<")), "WSAG-TPL-14")
	wsagBreaks(inTemplates(replace(`xs:minInclusive value="1"`, `xs:minInclusive value="many" other="x"`)), "WSAG-TPL-15")
	wsagBreaks(inTemplates(rewrite(`(?s)<wsag:Constraint( [^>]*)?>.*?</wsag:Constraint>`, "<wsag:Constraint/>")), "WSAG-TPL-16")
	wsagBreaks(inTemplates(rewrite(`(?s)<\w+:Assert( [^>]*)>.*?</\w+:Assert>`, `<p:Assert xmlns:p="`+agreement.NSPortolan+`" message="no">false()</p:Assert>`)), "WSAG-TPL-17")
	wsagBreaks(func(r asked, a *answer) {
		if r.version() == soap.V12 {
			a.body = regexp.MustCompile(`(?s)<wsag:Template .*</wsag:Template>`).ReplaceAllString(a.body, "")
		}
	}, "WSAG-TPL-18")

	wsagBreaks(only(createInput, declining), "WSAG-CRE-1", "WSAG-CRE-2")
	wsagBreaksAfresh(agreementStates("Pending"), "WSAG-CRE-3", "WSAG-PEN-3", "WSAG-TRM-3")
	wsagBreaks(only(createInput, replace("</wsag:CreateAgreementResponse>", `<wsag:Name/></wsag:CreateAgreementResponse>`)), "WSAG-CRE-4")
	wsagBreaks(property("Context", rewrite(`(TemplateName>)\w+<`, "${1}other<")), "WSAG-CRE-6")
	wsagBreaks(property("Terms", rewrite(`wsag:Name="\w+"`, `wsag:Name="other"`)), "WSAG-CRE-7")
	wsagBreaks(property("Terms", replace("wsag:All>", "wsag:OneOrMore>")), "WSAG-CRE-8")
	wsagBreaks(replace("ContinuingFault", "OtherFault"), "WSAG-CRE-18")
	wsagBreaks(property("Context", rewrite(`(?s)<wsag:ExpirationTime>.*</wsag:ExpirationTime>`, "")), "WSAG-CRE-12")

	wsagBreaks(func(_ asked, a *answer) {
		if a.isFault() {
			a.body = regexp.MustCompile(`(?s)<bf:Description[^>]*>.*</bf:Description>`).ReplaceAllString(a.body, "")
		}
	}, "WSAG-CON-17", "WSAG-FLT-3")
	described18 := rewrite(`(?s)(<bf:Description[^>]*>).*</bf:Description>`, "${1}no</bf:Description>")
	said18 := rewrite(`(?s)<faultstring>.*</faultstring>`, "<faultstring>no</faultstring>")
	wsagBreaks(func(r asked, a *answer) { described18(r, a); said18(r, a) }, "WSAG-CON-18")
	wsagBreaks(only(createInput, declining), "WSAG-CON-16")
	wsagBreaksAfresh(func() func(asked, *answer) {
		re := regexp.MustCompile(`State>\w+</wsag:State`)
		return func(r asked, a *answer) {
			if r.about(pendingInput) {
				agreeing(r, a)
			}
			if strings.Contains(r.body, "wsag:AgreementState<") {
				agreeing(r, a)
				a.body = re.ReplaceAllString(a.body, `State>Observed</wsag:State`)
				if !strings.Contains(a.body, "Observed") {
					a.body = strings.Replace(a.body, `<rp:GetResourcePropertyResponse xmlns:rp="`+nsProperties+`"/>`,
						`<rp:GetResourcePropertyResponse xmlns:rp="`+nsProperties+`"><wsag:AgreementState`+declareWSAG+`><wsag:State>Observed</wsag:State></wsag:AgreementState></rp:GetResourcePropertyResponse>`, 1)
				}
			}
		}
	}, "WSAG-CON-19")

	wsagBreaks(property("Name", rewrite(`(?s)(<wsag:Name.*</wsag:Name>)`, "$1$1")), "WSAG-PRO-2")
	wsagBreaks(replace("InvalidResourcePropertyQNameFault", "NoSuchPropertyFault"), "WSAG-PRO-11", "WSAG-PRO-12", "WSAG-PRO-13", "WSAG-PRO-14", "WSAG-PRO-15", "WSAG-PRO-21", "WSAG-PRO-25")
	wsagBreaks(only(opMultiple, rewrite(`(?s)(<wsag:AgreementState.*</wsag:AgreementState>)(<wsag:AgreementId.*</wsag:AgreementId>)`, "$2$1")), "WSAG-PRO-20")
	wsagBreaks(only(opDocument, rewrite(`(?s)(<wsag:AgreementId.*</wsag:AgreementId>)(<wsag:Context.*</wsag:Context>)`, "$2$1")), "WSAG-PRO-22")
	wsagBreaks(only(opDocument, rewrite(`(?s)<wsag:AgreementId.*</wsag:AgreementId>`, "")), "WSAG-PRO-23")
	wsagBreaks(only(opDocument, rewrite(`(?s)<wsag:Template .*</wsag:Template>`, "")), "WSAG-PRO-24")

	state := func(pattern, text string) func(asked, *answer) {
		return func(r asked, a *answer) {
			if strings.Contains(r.body, "TermState<") || strings.Contains(r.body, "wsag:AgreementState<") {
				a.body = regexp.MustCompile(pattern).ReplaceAllString(a.body, text)
			}
		}
	}
	wsagBreaks(state(`(<wsag:State>\w+</wsag:State>)`, `$1<x xmlns="urn:x"/>`), "WSAG-STA-1")
	wsagBreaks(state(`<wsag:State>\w+<`, `<wsag:State>Sleeping<`), "WSAG-STA-2", "WSAG-STA-4", "WSAG-STA-7")
	wsagBreaks(state(`(?s)(<wsag:State>\w+</wsag:State>)(<wsag:Processing>.*?</wsag:Processing>)`, `$2$1`), "WSAG-STA-3")
	wsagBreaks(state(`(?s)<wsag:Processing>.*?</wsag:Processing>`, `<wsag:Processing/>`), "WSAG-STA-5")
	wsagBreaks(state(`(<wsag:State>\w+</wsag:State>)`, `<x xmlns="urn:x"/>$1`), "WSAG-STA-6")
	wsagBreaks(state(` wsag:termName=`, ` termName=`), "WSAG-STA-8")
	wsagBreaks(state(` wsag:termName="\w+"`, ` wsag:termName="other"`), "WSAG-STA-9", "WSAG-STA-10")
	wsagBreaks(state(`(?s)<wsag:(Service|Guarantee)TermState.*</wsag:(Service|Guarantee)TermState>`, ""), "WSAG-STA-11", "WSAG-STA-12")
	wsagBreaksAfresh(agreementStates("Observed", "Complete", "Observed"), "WSAG-STA-13")

	wsagBreaks(only("TerminateInput", rewrite(`(<wsag:TerminateResponse[^>]*)/>`, `$1><x xmlns="urn:x"/></wsag:TerminateResponse>`)), "WSAG-TRM-1")
	wsagBreaks(only("TerminateInput", declining), "WSAG-TRM-8", "WSAG-TRM-9", "WSAG-TRM-15")
	wsagBreaksAfresh(agreementStates("Observed"), "WSAG-TRM-2")
	wsagBreaksAfresh(agreementStates("ObservedAndTerminating", "Observed"), "WSAG-TRM-6")
	wsagBreaksAfresh(agreementStates("Observed", "Terminated"), "WSAG-TRM-7", "WSAG-TRM-10", "WSAG-TRM-11")

	wsagBreaksAfresh(agreementStates("Terminated"), "WSAG-PEN-2")
	wsagBreaksAfresh(agreementStates("Observed", "Pending", "Rejected"), "WSAG-PEN-4")
	wsagBreaks(property("Context", rewrite(`(?s)<wsag:Context.*</wsag:Context>`, "")), "WSAG-PEN-5")
	wsagBreaksAfresh(agreementStates("Pending"), "WSAG-PEN-12")

	fault := func(pattern, text string) func(asked, *answer) {
		return func(_ asked, a *answer) {
			if a.isFault() {
				a.body = regexp.MustCompile(pattern).ReplaceAllString(a.body, text)
			}
		}
	}
	wsagBreaks(fault(`(<bf:Timestamp>.*</bf:Timestamp>)(<bf:ErrorCode.*</bf:ErrorCode>)`, "$2$1"), "WSAG-FLT-1", "WSAG-FLT-6")
	wsagBreaks(fault(`<bf:Timestamp>.*</bf:Timestamp>`, "<bf:Timestamp>just now</bf:Timestamp>"), "WSAG-FLT-2", "WSAG-FLT-7", "WSAG-FLT-8")
	wsagBreaks(fault(` dialect="[^"]*"`, ""), "WSAG-FLT-4")
	wsagBreaks(fault(`(?s)(<wsag:ContinuingFault.*</wsag:ContinuingFault>)`, "$1$1"), "WSAG-FLT-5")

	large := func(r asked, a *answer) {
		if r.ContentLength > 100_000 || strings.Count(r.body, ":All>") > 1000 {
			a.status, a.body = http.StatusInternalServerError, "out of memory"
		}
	}
	wsagBreaks(large, "WSAG-HOST-9", "WSAG-HOST-10", "WSAG-HOST-11", "WSAG-HOST-12")
}

// tellers break what a provider tells to an AgreementAcceptanceEPR.
var tellers = map[string]func(string) string{
	"WSAG-PEN-13": func(s string) string { return strings.ReplaceAll(s, "AcceptAgreementInput", "RejectAgreementInput") },
	"WSAG-PEN-14": func(s string) string { return strings.ReplaceAll(s, ">deal-", ">other-") },
	"WSAG-PEN-15": func(s string) string {
		return regexp.MustCompile(`(<wsag:AcceptAgreementInput[^>]*)/>`).ReplaceAllString(s, `$1><wsag:Name/></wsag:AcceptAgreementInput>`)
	},
}

// TestEveryAgreementCheckCanFail: each check fails against a server that breaks what it
// proves, and against that one the kit does not break.
func TestEveryAgreementCheckCanFail(t *testing.T) {
	for _, c := range List(WSAG) {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			servers := map[string]func(asked, *answer){}
			if f := wsagBroken[c.ID]; f != nil {
				servers["own"] = f()
			} else if tellers[c.ID] != nil {
				servers["own"] = nil
			} else {
				servers["agreeing"], servers["declining"], servers["declining later"] = agreeing, declining, decliningLater()
			}
			failed := false
			for name, f := range servers {
				if failed {
					break
				}
				svc := carefully(t)
				if svc.spoil = tellers[c.ID]; svc.spoil != nil {
					f = func(asked, *answer) {}
				}
				o := wsagOptions(provided(t, svc, spoiling(f)))
				o.Filter, o.Settle = []string{c.ID}, 300*time.Millisecond
				rep := judge(t, o)
				for _, got := range rep.Checks {
					if got.ID == c.ID {
						failed = failed || got.Result == Fail
						t.Logf("%s server: %s: %s", name, got.Result, got.Saw)
					}
				}
			}
			if !failed {
				t.Errorf("%s (%s) passes against a server that breaks it", c.ID, c.Title)
			}
		})
	}
}

// TestBrokenAgreementServersAreOfChecks: no entry of the table is left over.
func TestBrokenAgreementServersAreOfChecks(t *testing.T) {
	known := map[string]bool{}
	for _, c := range List(WSAG) {
		known[c.ID] = true
	}
	for _, id := range slices.Concat(slices.Collect(maps.Keys(wsagBroken)), slices.Collect(maps.Keys(tellers))) {
		if !known[id] {
			t.Errorf("there is no check %s", id)
		}
	}
}

// TestAgreementGarbage: servers that answer nonsense are not judged conforming, in bounded
// time, and break nothing.
func TestAgreementGarbage(t *testing.T) {
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
			w.Header().Set("Content-Type", "text/xml; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const ns = ` xmlns:wsag="` + agreement.NS + `"`
	properties := func(content string) string {
		return envelope(soap.V11, `<s:Body><rp:GetResourcePropertyResponse xmlns:rp="`+nsProperties+`"`+ns+`>`+content+`</rp:GetResourcePropertyResponse></s:Body>`)
	}
	bare := `<wsag:Template wsag:TemplateId="1"><wsag:Name>n</wsag:Name><wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context><wsag:Terms/><wsag:CreationConstraints/></wsag:Template>`
	for name, h := range map[string]http.HandlerFunc{
		"nothing":          func(http.ResponseWriter, *http.Request) {},
		"html":             say(200, "<html><body/></html>"),
		"silent":           func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"empty bodies":     say(200, envelope(soap.V11, "<s:Body/>")),
		"empty faults":     say(500, envelope(soap.V11, "<s:Body><s:Fault/></s:Body>")),
		"hollow templates": say(200, properties("<wsag:Template/>")),
		"strange words":    say(200, properties("words")),
		"bare templates":   say(200, properties(bare)),
		"agreements only":  say(200, envelope(soap.V11, `<s:Body><wsag:CreateAgreementResponse`+ns+`><wsag:CreatedAgreementEPR>`+address("urn:nowhere")+`</wsag:CreatedAgreementEPR></wsag:CreateAgreementResponse></s:Body>`)),
		"agreements elsewhere": func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
			if strings.Contains(string(b), "GetResourceProperty") {
				say(200, properties(bare))(w, r)
				return
			}
			say(200, envelope(soap.V11, `<s:Body><wsag:CreateAgreementResponse`+ns+`><wsag:CreatedAgreementEPR>`+address("http://elsewhere.invalid/")+`</wsag:CreatedAgreementEPR></wsag:CreateAgreementResponse></s:Body>`))(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(h)
			// A handler that has not read the body does not learn that the client left.
			base, over := context.WithCancel(context.Background())
			srv.Config.BaseContext = func(net.Listener) context.Context { return base }
			srv.Start()
			defer srv.Close()
			defer over()
			o := quick(srv.URL)
			o.Profile = WSAG
			if rep := judge(t, o); rep.OK() {
				t.Error("a server of garbage is judged conforming")
			}
		})
	}
}
