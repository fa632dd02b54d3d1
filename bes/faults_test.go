package bes_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// everywhere lists each kind with the fault that a foreign client sees, for
// CreateActivity and for another operation; "" is a fault that BES does not define.
var everywhere = map[fail.Kind][2]string{
	fail.Internal:        {"", ""},
	fail.Invalid:         {"InvalidRequestMessageFault", "InvalidRequestMessageFault"},
	fail.Unsupported:     {"UnsupportedFeatureFault", "UnsupportedFeatureFault"},
	fail.Unauthenticated: {"", ""},
	fail.Denied:          {"NotAuthorizedFault", "NotAuthorizedFault"},
	fail.NotFound:        {"", "UnknownActivityIdentifierFault"},
	fail.Conflict:        {"InvalidRequestMessageFault", ""},
	fail.NotAccepting:    {"NotAcceptingNewActivitiesFault", ""},
	fail.Unavailable:     {"", ""},
	fail.Exhausted:       {"NotAcceptingNewActivitiesFault", ""},
	fail.Uncertain:       {"", ""},
}

// TestEveryKindIsAFaultAndBack proves that each kind has its fault, that the
// fault is valid, and that a client gets the kind and the sentence back.
func TestEveryKindIsAFaultAndBack(t *testing.T) {
	if len(everywhere) != len(fail.Kinds()) {
		t.Fatalf("%d kinds are listed, there are %d", len(everywhere), len(fail.Kinds()))
	}
	var details [][]byte
	for _, v := range []soap.Version{soap.V11, soap.V12} {
		for _, kind := range fail.Kinds() {
			w := newWorld(t, bes.ServerOptions{}, v)
			w.svc.Fail = func(string) error {
				return fail.Errorf("test", kind, "", "because of %s", kind).Because(errors.New("a secret"))
			}
			unknown := []soap.EPR{bes.NewEPR(address, "1")}
			_, create := w.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(job)})
			_, factory := w.GetFactoryAttributesDocument(t.Context())
			_, history := w.GetActivityHistory(t.Context(), unknown[0])
			for op, err := range map[string]error{"create": create, "factory": factory, "start": w.StartAcceptingNewActivities(t.Context()), "history": history} {
				want := kind
				if !fail.Is(err, want) {
					t.Errorf("SOAP %s, %s: %s comes back as %v", v, op, kind, err)
				}
				if !strings.HasPrefix(fail.Sentence(err), "because of "+kind.String()) {
					t.Errorf("SOAP %s, %s: the sentence of %s comes back as %q", v, op, kind, fail.Sentence(err))
				}
				f, ok := errors.AsType[*soap.Fault](err)
				if !ok {
					t.Fatalf("SOAP %s, %s: %v has no fault", v, op, err)
				}
				name := everywhere[kind][1]
				if op == "create" {
					name = everywhere[kind][0]
				}
				got := ""
				for _, d := range f.Detail {
					details = append(details, xmldoc.Marshal(d))
					if n := xmldoc.NameOf(d); n.Space == bes.NSFactory {
						got = n.Local
					}
				}
				if got != name || len(f.Detail) > 1 {
					t.Errorf("SOAP %s, %s: %s is sent as %q with %d details, want %q", v, op, kind, got, len(f.Detail), name)
				}
				if code := f.Code == soap.Receiver; code != (kind == fail.Internal || kind == fail.NotAccepting || kind == fail.Unavailable || kind == fail.Exhausted || kind == fail.Uncertain) {
					t.Errorf("%s is the fault of %s", kind, f.Code)
				}
			}
			for _, a := range w.wire.answers {
				if strings.Contains(string(a), "secret") {
					t.Errorf("the cause went out: %s", a)
				}
			}
		}
	}
	var standard, own [][]byte
	for _, d := range details {
		if strings.HasPrefix(string(d), "<bf:") {
			standard = append(standard, d)
		} else {
			own = append(own, d)
		}
	}
	validate(t, "bes/gfd108-gridsam/bes-factory.xsd", standard...)
	validate(t, "wsdl/bes-factory.xsd", standard...)
	validate(t, "wsdl/portolan-bes.xsd", own...)
}

// TestJobProblemsAreNamed: one element for each thing that is wrong.
func TestJobProblemsAreNamed(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V11)
	const jsdl = `xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:x="urn:x"`
	create := func(job string) *soap.Fault {
		_, err := w.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(job)})
		f, _ := errors.AsType[*soap.Fault](err)
		if f == nil || len(f.Detail) != 1 {
			t.Fatalf("%s gives %v", job, err)
		}
		return f
	}
	f := create(`<j:JobDefinition ` + jsdl + `><j:JobDescription><j:Application><x:One/><x:Two/></j:Application></j:JobDescription></j:JobDefinition>`)
	if !xmldoc.Is(f.Detail[0], bes.NSFactory, "UnsupportedFeatureFault") {
		t.Fatalf("the fault is %s", xmldoc.Marshal(f.Detail[0]))
	}
	var features []string
	for _, c := range f.Detail[0].ChildElements() {
		features = append(features, c.Text())
	}
	if len(features) < 2 || !strings.Contains(features[0], "/JobDefinition/JobDescription/Application/One: ") || !strings.Contains(features[1], "/Application/Two: ") {
		t.Errorf("the features are %q", features)
	}
	f = create(`<j:JobDefinition ` + jsdl + `><j:JobDescription><j:Bad/></j:JobDescription></j:JobDefinition>`)
	text := string(xmldoc.Marshal(f.Detail[0]))
	if !xmldoc.Is(f.Detail[0], bes.NSFactory, "InvalidRequestMessageFault") || !strings.Contains(text, "InvalidElement>/JobDefinition/JobDescription/Bad: ") ||
		!strings.Contains(text, "Message>1:") {
		t.Errorf("the fault is %s", text)
	}
}

func TestSubmissionID(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V12)
	req := &bes.CreateActivityRequest{Document: []byte(job), SubmissionID: "urn:uuid:1"}
	first, err := w.CreateActivity(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.CreateActivity(t.Context(), req)
	if err != nil || again.Activity.Address != first.Activity.Address {
		t.Errorf("the second time gives %v, %v", again, err)
	}
	other := &bes.CreateActivityRequest{Document: []byte(strings.Replace(job, "hello", "other", 1)), SubmissionID: "urn:uuid:1"}
	_, err = w.CreateActivity(t.Context(), other)
	f, ok := errors.AsType[*soap.Fault](err)
	if !ok || !fail.Is(err, fail.Conflict) || !xmldoc.Is(f.Detail[0], bes.NSFactory, "InvalidRequestMessageFault") || !strings.Contains(string(xmldoc.Marshal(f.Detail[0])), "SubmissionId") {
		t.Errorf("another document under the same id gives %v", err)
	}
}

func TestStrictTerminate(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{StrictTerminate: true}, soap.V11)
	a := w.create(t)
	for i, want := range []bool{true, false} {
		r, err := w.TerminateActivities(t.Context(), []soap.EPR{a})
		if err != nil || (r[0].Err == nil) != want {
			t.Errorf("terminating for the %d. time gives %v, %v", i+1, err, r)
		}
		if st, ok := errors.AsType[*bes.StateError](r[0].Err); !want && (!ok || st.Status.State != bes.Cancelled) {
			t.Errorf("the fault is %v", r[0].Err)
		}
	}
}
