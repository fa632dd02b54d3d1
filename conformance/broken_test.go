package conformance

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

// asked and answer are an exchange that a broken server spoils on its way back.
type asked struct {
	*http.Request
	body string
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a asked) about(operation string) bool { return strings.Contains(a.body, ":"+operation) }

func (a asked) version() soap.Version {
	if strings.Contains(a.body, soap.NS12) {
		return soap.V12
	}
	return soap.V11
}

// spoiled is our own server behind something that breaks one thing.
func spoiled(t testing.TB, breaks func(asked, *answer)) string {
	return ours(t, spoiling(breaks))
}

// spoiling puts that something in front of a server.
func spoiling(breaks func(asked, *answer)) func(http.Handler) http.Handler {
	return func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var sent bytes.Buffer
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, &sent), r.Body}
			rec := httptest.NewRecorder()
			inner.ServeHTTP(rec, r)
			a := &answer{rec.Code, rec.Header(), rec.Body.String()}
			breaks(asked{r, sent.String()}, a)
			maps.Copy(w.Header(), a.header)
			w.Header().Del("Content-Length")
			w.WriteHeader(a.status)
			_, _ = io.WriteString(w, a.body)
		})
	}
}

func (a *answer) isFault() bool { return strings.Contains(a.body, "Fault>") && a.status >= 400 }

// succeed makes the answer the one to an ordinary request.
func (a *answer) succeed(v soap.Version) {
	a.status = http.StatusOK
	a.header.Set("Content-Type", "text/xml; charset=utf-8")
	if v == soap.V12 {
		a.header.Set("Content-Type", "application/soap+xml; charset=utf-8")
	}
	a.body = envelope(v, `<s:Body><f:GetFactoryAttributesDocumentResponse xmlns:f="`+bes.NSFactory+`"><f:FactoryResourceAttributesDocument/></f:GetFactoryAttributesDocumentResponse></s:Body>`)
}

// refuse makes the answer a fault that blames the sender.
func (a *answer) refuse(v soap.Version) {
	if v == soap.V12 {
		a.status = http.StatusBadRequest
		a.header.Set("Content-Type", "application/soap+xml; charset=utf-8")
		a.body = envelope(v, `<s:Body><s:Fault><s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Reason><s:Text xml:lang="en">no</s:Text></s:Reason></s:Fault></s:Body>`)
		return
	}
	a.status = http.StatusInternalServerError
	a.header.Set("Content-Type", "text/xml; charset=utf-8")
	a.body = envelope(v, `<s:Body><s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring></s:Fault></s:Body>`)
}

// accepting takes what should be refused; refusing refuses what should be taken.
func accepting(r asked, a *answer) {
	if a.isFault() || a.status == http.StatusUnsupportedMediaType || a.status == http.StatusRequestEntityTooLarge {
		a.succeed(r.version())
	}
}

func refusing(r asked, a *answer) {
	if strings.Contains(a.body, plainResponse) || a.status == http.StatusAccepted {
		a.refuse(r.version())
	}
}

func replace(old, text string) func(asked, *answer) {
	return func(_ asked, a *answer) { a.body = strings.ReplaceAll(a.body, old, text) }
}

func rewrite(pattern, text string) func(asked, *answer) {
	re := regexp.MustCompile(pattern)
	return func(_ asked, a *answer) { a.body = re.ReplaceAllString(a.body, text) }
}

func only(operation string, f func(asked, *answer)) func(asked, *answer) {
	return func(r asked, a *answer) {
		if r.about(operation) {
			f(r, a)
		}
	}
}

var reResponse = regexp.MustCompile(`(?s)<(\w+):Response>.*?</\w+:Response>|<(\w+):Response .*?</\w+:Response>`)

// reversed turns the items of a vector's response round.
func reversed(_ asked, a *answer) {
	items := reResponse.FindAllString(a.body, -1)
	i := len(items)
	a.body = reResponse.ReplaceAllStringFunc(a.body, func(string) string { i--; return items[i] })
}

func dropped(_ asked, a *answer) {
	first := true
	a.body = reResponse.ReplaceAllStringFunc(a.body, func(s string) string {
		if first {
			first = false
			return ""
		}
		return s
	})
}

// statesInTurn answers every question for a state with the next of these.
func statesInTurn(list ...string) func(asked, *answer) {
	var n atomic.Int64
	re := regexp.MustCompile(`state="\w+"`)
	return only("GetActivityStatuses", func(_ asked, a *answer) {
		i := min(int(n.Add(1))-1, len(list)-1)
		a.body = re.ReplaceAllString(a.body, `state="`+list[i]+`"`)
	})
}

// brokenServers lists, for each check, a server that breaks what it proves.
var brokenServers = map[string]func() func(asked, *answer){}

func breaks(f func(asked, *answer), ids ...string) {
	for _, id := range ids {
		brokenServers[id] = func() func(asked, *answer) { return f }
	}
}

func breaksAfresh(f func() func(asked, *answer), ids ...string) {
	for _, id := range ids {
		brokenServers[id] = f
	}
}

func init() {
	status := func(from, to int) func(asked, *answer) {
		return func(_ asked, a *answer) {
			if a.status == from {
				a.status = to
			}
		}
	}
	breaks(func(_ asked, a *answer) { a.header.Del("Allow") }, "HTTP-GET-1")
	breaks(status(http.StatusMethodNotAllowed, http.StatusOK), "HTTP-PUT-1", "HTTP-DEL-1")
	breaks(status(http.StatusNotFound, http.StatusOK), "HTTP-PATH-1")
	breaks(func(r asked, a *answer) {
		if r.Header.Get("Expect") != "" || len(r.TransferEncoding) > 0 || r.RequestURI[0] != '/' {
			a.refuse(soap.V11)
		}
	}, "HTTP-CHK-1", "HTTP-EXP-1", "HTTP-ABS-1")

	described := func(f func(asked, *answer)) func(asked, *answer) {
		return func(r asked, a *answer) {
			if r.Method == http.MethodGet {
				f(r, a)
			}
		}
	}
	breaks(described(func(_ asked, a *answer) { a.status, a.body = 200, "<html/>" }), "WSDL-GET-1")
	breaks(described(rewrite(`(<(\w+:)?definitions[^>]*>)`, `$1<w:import xmlns:w="`+nsWSDL+`" namespace="urn:x" location="?wsdl=gone"/>`)), "WSDL-IMP-1")
	breaks(described(replace("BESFactoryPortType/TerminateActivities\"", "BESFactoryPort/TerminateActivities\"")), "WSDL-OPS-1")
	breaks(described(rewrite(`<\w+:address [^>]*>`, "")), "WSDL-ADR-1")

	breaks(func(_ asked, a *answer) { a.header.Set("Content-Type", "text/plain") }, "SOAP11-CT-1", "SOAP12-CT-1")
	breaks(replace(":VersionMismatch<", ":Client<"), "SOAP11-VM-1")
	breaks(replace("SupportedEnvelope", "Supported"), "SOAP11-VM-2")
	breaks(replace(":MustUnderstand<", ":Client<"), "SOAP11-MU-1", "SOAP11-MU-5", "SOAP11-MU-6")
	breaks(replace(":MustUnderstand<", ":Sender<"), "SOAP12-MU-1", "SOAP12-MU-2", "SOAP12-MU-5", "SOAP12-MU-6")
	breaks(replace(":Client<", ":Server<"), "SOAP11-MU-3", "SOAP11-STR-1", "SOAP11-STR-2", "SOAP11-STR-3", "SOAP11-STR-4",
		"SOAP11-STR-5", "SOAP11-STR-6", "SOAP11-STR-7", "SOAP11-DIS-4", "SOAP11-DIS-5")
	breaks(replace(":Sender<", ":Receiver<"), "SOAP12-MU-9", "SOAP12-STR-1", "SOAP12-STR-2", "SOAP12-STR-3", "SOAP12-STR-4", "SOAP12-STR-6", "SOAP12-DIS-1")
	// A server that goes by the action, whatever the body holds.
	breaks(func(r asked, a *answer) {
		if r.about("GetActivityStatuses") {
			a.succeed(r.version())
		}
	}, "SOAP11-DIS-1", "SOAP12-ACT-2", "WSA-ACT-2")
	breaksAfresh(func() func(asked, *answer) {
		var n atomic.Int64
		re := regexp.MustCompile(`(TotalNumberOfActivities>)\d+`)
		return func(_ asked, a *answer) { a.body = re.ReplaceAllString(a.body, fmt.Sprintf("${1}%d", n.Add(1))) }
	}, "SOAP11-MU-7")
	breaks(rewrite(`(<faultcode.*</faultcode>)(<faultstring.*</faultstring>)`, "$2$1"), "SOAP11-FLT-1")
	breaks(replace("</faultstring>", "</faultstring><detail/>"), "SOAP11-FLT-2")
	breaks(rewrite(` \w+:qname="[^"]*"| qname="[^"]*"`, ` qname="zz:Unknown"`), "SOAP12-MU-3")
	breaks(replace(`xml:lang="en"`, ""), "SOAP12-FLT-1")
	breaks(status(http.StatusBadRequest, http.StatusInternalServerError), "SOAP12-FLT-2")

	breaks(rewrite(`(Action[^>]*>)[^<]*<`, "${1}urn:other<"), "WSA-REP-1", "WSA-REP-3")
	breaks(rewrite(`(RelatesTo[^>]*>)[^<]*<`, "${1}urn:other<"), "WSA-REP-2", "WSA-REP-4", "WSA-REP-5", "WSA-REP-6", "WSA-WS-1")
	breaks(func(_ asked, a *answer) {
		a.body = regexp.MustCompile(`<(\w+):Body>`).ReplaceAllString(a.body, `<$1:Header><x:y xmlns:x="urn:x" $1:mustUnderstand="1"/></$1:Header><$1:Body>`)
	}, "WSA-REP-7")
	breaks(replace(":InvalidCardinality<", ":MessageAddressingHeaderRequired<"), "WSA-CARD-1", "WSA-CARD-2", "WSA-CARD-3", "WSA-CARD-4", "WSA-CARD-5")
	breaks(replace(":OnlyAnonymousAddressSupported<", ":EndpointUnavailable<"), "WSA-ANON-1", "WSA-ANON-2")
	breaks(replace("IsReferenceParameter", "IsParameter"), "WSA-RP-1")
	breaks(func(r asked, a *answer) {
		if strings.Contains(r.body, "urn:forged") {
			a.succeed(soap.V11)
			a.body = strings.Replace(a.body, `<s:Body>`, `<s:Header>`+wsaHeader("Action", "", "urn:forged")+wsaHeader("RelatesTo", "", "urn:forged")+`</s:Header><s:Body>`, 1)
		}
	}, "WSA-RP-2")

	breaks(replace("IsAcceptingNewActivities", "IsAccepting"), "BES-GFA-1")
	breaks(rewrite(`(IsAcceptingNewActivities>)\w+<`, "${1}yes<"), "BES-GFA-2")
	breaks(rewrite(`(LocalResourceManagerType>)[^<]*<`, "${1}lsf<"), "BES-GFA-3")
	breaks(rewrite(`(TotalNumberOfContainedResources>)\d+<`, "${1}0<"), "BES-GFA-4")
	breaks(func(r asked, a *answer) {
		if strings.Contains(r.body, "filter") {
			a.refuse(soap.V11)
		}
	}, "BES-GFA-5")
	breaks(rewrite(`<\w+:NamingProfile>[^<]*</\w+:NamingProfile>`, ""), "BES-GFA-6")

	breaks(only("CreateActivity", rewrite(`(Address>)http[^<]*<`, "${1}relative<")), "BES-CA-1")
	breaks(only("CreateActivity", func(_ asked, a *answer) {
		a.body = regexp.MustCompile(`0000000\d`).ReplaceAllString(a.body, "00000001")
	}), "BES-CA-2")
	breaksAfresh(func() func(asked, *answer) {
		var n atomic.Int64
		return only("CreateActivity", func(_ asked, a *answer) {
			a.body = regexp.MustCompile(`0000000\d`).ReplaceAllString(a.body, fmt.Sprintf("%08d", n.Add(1)))
		})
	}, "BES-SUB-1")
	breaksAfresh(func() func(asked, *answer) {
		var first atomic.Pointer[string]
		return only("CreateActivity", func(_ asked, a *answer) {
			body := a.body
			if !first.CompareAndSwap(nil, &body) {
				a.status, a.body = http.StatusOK, *first.Load()
			}
		})
	}, "BES-SUB-2")
	breaks(only("CreateActivity", func(r asked, a *answer) { a.refuse(r.version()) }), "BES-CA-3", "BES-CA-7", "BES-CA-9", "JSDL-OK-1", "JSDL-OK-2", "JSDL-OK-3")
	breaks(replace("InvalidRequestMessageFault", "UnsupportedFeatureFault"), "BES-CA-4", "BES-CA-5", "BES-CA-6", "BES-CA-8",
		"JSDL-INV-1", "JSDL-INV-2", "JSDL-INV-3", "JSDL-INV-4", "JSDL-INV-5", "JSDL-INV-6", "JSDL-INV-7", "JSDL-INV-8", "JSDL-INV-9")
	breaks(replace("UnsupportedFeatureFault", "InvalidRequestMessageFault"), "JSDL-UNS-1", "JSDL-UNS-2", "JSDL-UNS-3", "JSDL-UNS-4", "JSDL-UNS-5")
	breaks(only("CreateActivity", func(_ asked, a *answer) { a.refuse(soap.V11) }), "JSDL-OK-4", "JSDL-OK-5", "JSDL-OK-6", "JSDL-OK-7", "JSDL-OK-8")

	breaks(rewrite(`state="\w+"`, `state="Sleeping"`), "BES-GAS-1", "BES-GAS-6", "BES-GAS-7", "BES-GAS-8")
	breaks(only("GetActivityStatuses", reversed), "BES-GAS-2")
	breaks(func(r asked, a *answer) {
		a.body = regexp.MustCompile(`<(\w+):(\w+Response)( [^>]*)?/>`).ReplaceAllString(a.body, `<$1:$2$3><$1:Response/></$1:$2>`)
	}, "BES-GAS-3", "BES-TA-2", "BES-GAD-7")
	breaks(replace(">no<", "><"), "BES-GAS-9")
	breaks(replace("UnknownActivityIdentifierFault", "NoSuchActivityFault"), "BES-GAS-4", "BES-GAD-5")
	breaks(rewrite(`<faultcode[^>]*>[^<]*<`, "<faultcode>zz:Client<"), "BES-GAS-5")
	breaks(rewrite(`<\w+:Terminated>\w+</\w+:Terminated>`, ""), "BES-TA-1", "BES-TA-4", "BES-TA-6")
	breaks(rewrite(`(Terminated>)\w+<`, "${1}maybe<"), "BES-TA-3")
	breaksAfresh(func() func(asked, *answer) { return statesInTurn("Finished", "Cancelled") }, "BES-TA-5")
	breaks(only("GetActivityStatuses", func(r asked, a *answer) {
		if !r.about("Address>") && strings.Contains(r.body, "ActivityIdentifier/>") {
			a.succeed(soap.V11)
		}
	}), "BES-GAS-9")
	breaks(only("GetActivityDocuments", replace(":JobDefinition", ":JobDefinitions")), "BES-GAD-1", "BES-GAD-8")
	breaks(only("GetActivityDocuments", replace("blanks ", "blanks")), "BES-GAD-2")
	breaks(only("GetActivityDocuments", replace("世", "?")), "BES-GAD-3")
	breaks(only("GetActivityDocuments", replace("first", "second")), "BES-GAD-4")
	breaks(only("GetActivityDocuments", dropped), "BES-GAD-6")
	breaks(only("GetActivityDocuments", replace("Executable", "Executables")), "BES-GAD-9")

	breaksAfresh(func() func(asked, *answer) { return statesInTurn("Running", "Pending", "Finished") }, "BES-ST-1")
	breaksAfresh(func() func(asked, *answer) { return statesInTurn("Pending", "Finished") }, "BES-ST-2")
	breaksAfresh(func() func(asked, *answer) { return statesInTurn("Finished", "Finished", "Failed") }, "BES-ST-3")
	breaksAfresh(func() func(asked, *answer) { return statesInTurn("Finished") }, "BES-ST-4")
	breaks(rewrite(`(TotalNumberOfActivities>)\d+<`, "${1}7<"), "BES-ST-5")

	breaks(only("StartAcceptingNewActivities", replace("StartAcceptingNewActivitiesResponse", "StartResponse")), "BES-MGT-1")
	breaks(rewrite(`(IsAcceptingNewActivities>)\w+<`, "${1}true<"), "BES-MGT-2")
	breaks(replace("NotAcceptingNewActivitiesFault", "NotAuthorizedFault"), "BES-MGT-3")
	breaksAfresh(func() func(asked, *answer) {
		var stopped, second atomic.Bool
		return func(r asked, a *answer) {
			switch {
			case r.about("StopAccepting"):
				second.Store(stopped.Swap(true))
				if second.Load() {
					a.refuse(soap.V11)
				}
			case r.about("StartAccepting"):
				stopped.Store(false)
			case r.about("GetActivityStatuses") && stopped.Load():
				a.refuse(soap.V11)
			}
		}
	}, "BES-MGT-4", "BES-MGT-5")
	breaksAfresh(func() func(asked, *answer) {
		var started atomic.Bool
		return func(r asked, a *answer) {
			if r.about("StopAccepting") {
				started.Store(true)
			}
			if r.about("CreateActivity") && started.Load() {
				a.refuse(soap.V11)
			}
		}
	}, "BES-MGT-6")
	breaks(func(r asked, a *answer) {
		if r.ContentLength > 500_000 {
			a.status, a.body = http.StatusInternalServerError, "out of memory"
		}
	}, "HOST-ATT-1", "HOST-NS-1", "HOST-VEC-1")
	breaks(func(r asked, a *answer) {
		if strings.Count(r.body, "<x:h") > 1000 || strings.Contains(r.body, "<?do") {
			a.status, a.body = http.StatusInternalServerError, "out of memory"
		}
	}, "HOST-HDR-1", "HOST-PI-1")
}

// TestEveryCheckCanFail: each check fails against a server that breaks what it
// proves, and against that one the kit does not break.
func TestEveryCheckCanFail(t *testing.T) {
	for _, c := range List(BES) {
		t.Run(c.ID, func(t *testing.T) {
			servers := map[string]func(asked, *answer){}
			if f := brokenServers[c.ID]; f != nil {
				servers["own"] = f()
			} else {
				servers["accepting"], servers["refusing"] = accepting, refusing
			}
			failed := false
			for name, f := range servers {
				rep := judge(t, Options{Endpoint: spoiled(t, f), Filter: []string{c.ID}, Settle: time.Second})
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

// TestBrokenServersAreOfChecks: no entry of the table is left over.
func TestBrokenServersAreOfChecks(t *testing.T) {
	known := map[string]bool{}
	for _, c := range List(BES) {
		known[c.ID] = true
	}
	for id := range brokenServers {
		if !known[id] {
			t.Errorf("there is no check %s", id)
		}
	}
}
