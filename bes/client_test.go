package bes_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// answering is a service that always says the same.
type answer func(*http.Request) (*http.Response, error)

func (f answer) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answering(status int, body string) answer {
	return func(r *http.Request) (*http.Response, error) {
		if r.Body != nil {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
		}
		return &http.Response{
			StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {"text/xml"}}, Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	}
}

func envelope(body string) string {
	return `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body>` + body + `</e:Body></e:Envelope>`
}

func client(status int, body string) *bes.Client {
	return bes.NewClient(&soap.Client{URL: "http://bes.example", Retries: -1, Transport: answering(status, envelope(body))})
}

func wantUnknown(t *testing.T, err error) {
	t.Helper()
	if !fail.Is(err, fail.NotFound) {
		t.Errorf("an unknown activity is %v", err)
	}
}

const bf = `xmlns:bf="http://schemas.ggf.org/bes/2006/08/bes-factory" xmlns:a="http://www.w3.org/2005/08/addressing"`

func TestTerminateOfOtherServices(t *testing.T) {
	const item = `<bf:TerminateActivitiesResponse ` + bf + `><bf:Response><bf:ActivityIdentifier><a:Address>x</a:Address></bf:ActivityIdentifier>%s</bf:Response></bf:TerminateActivitiesResponse>`
	fault := func(inner string) string {
		return `<bf:Fault xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><faultcode>s:Client</faultcode><faultstring>no</faultstring><detail>` + inner + `</detail></bf:Fault>`
	}
	for name, c := range map[string]struct {
		item string
		kind fail.Kind
		ok   bool
	}{
		"later lineage":         {item: `<bf:Terminated>true</bf:Terminated>`, ok: true},
		"published lineage":     {item: `<bf:Cancelled>1</bf:Cancelled>`, ok: true},
		"false without a fault": {item: `<bf:Terminated>false</bf:Terminated>`, kind: fail.Conflict},
		"nothing":               {kind: fail.Unavailable},
		"unknown, later":        {item: `<bf:Terminated>false</bf:Terminated>` + fault(`<bf:UnknownActivityIdentifierFault><bf:Message>m</bf:Message></bf:UnknownActivityIdentifierFault>`), kind: fail.NotFound},
		"unknown, published":    {item: `<bf:Cancelled>false</bf:Cancelled>` + fault(`<bf:InvalidActivityIdentifierFault><bf:Message>m</bf:Message></bf:InvalidActivityIdentifierFault>`), kind: fail.NotFound},
		"named by its type":     {item: fault(`<bf:InvalidRequestMessageFaultType/>`), kind: fail.Invalid},
		"denied":                {item: fault(`<bf:NotAuthorizedFault/>`), kind: fail.Denied},
		"eventually":            {item: `<bf:Terminated>false</bf:Terminated>` + fault(`<bf:OperationWillBeAppliedEventuallyFault><bf:ActivityStatus state="Running"/><bf:Message>m</bf:Message></bf:OperationWillBeAppliedEventuallyFault>`), ok: true},
		"can't apply":           {item: `<bf:Terminated>false</bf:Terminated>` + fault(`<bf:CantApplyOperationToCurrentStateFault><bf:ActivityStatus state="Finished"/><bf:Message>m</bf:Message></bf:CantApplyOperationToCurrentStateFault>`), kind: fail.Conflict},
		"text only":             {item: `<bf:Terminated>false</bf:Terminated>` + fault(``), kind: fail.Invalid},
	} {
		r, err := client(200, fmt.Sprintf(item, c.item)).TerminateActivities(t.Context(), []soap.EPR{{Address: "x"}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if (r[0].Err == nil) != c.ok || !c.ok && fail.KindOf(r[0].Err) != c.kind {
			t.Errorf("%s: %v, want %s", name, r[0].Err, c.kind)
		}
	}
}

func TestFactoryAttributesOfOtherServices(t *testing.T) {
	fa, err := client(200, `<bf:GetFactoryAttributesDocumentResponse `+bf+` xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><bf:FactoryResourceAttributesDocument>
<bf:OperatingSystem><j:OperatingSystemType><j:OperatingSystemName>LINUX</j:OperatingSystemName></j:OperatingSystemType></bf:OperatingSystem>
<bf:LocalResourceManagerType>fork</bf:LocalResourceManagerType><bf:IsAcceptingNewActivities> true </bf:IsAcceptingNewActivities>
<bf:TotalNumberOfActivities>32601</bf:TotalNumberOfActivities><bf:TotalNumberOfContainedResources>x</bf:TotalNumberOfContainedResources>
<bf:ContainedResource xsi:type="bf:BasicResourceAttributesDocumentType"><bf:ResourceName>a</bf:ResourceName><bf:CPUCount>2.0E0</bf:CPUCount></bf:ContainedResource>
<bf:ContainedResource><bf:BasicResourceAttributesDocument><bf:ResourceName>b</bf:ResourceName></bf:BasicResourceAttributesDocument></bf:ContainedResource>
<bf:ContainedResource><bf:FactoryResourceAttributesDocument><bf:BasicResourceAttributesDocument><bf:CPUCount>4</bf:CPUCount></bf:BasicResourceAttributesDocument><bf:CommonName>c</bf:CommonName></bf:FactoryResourceAttributesDocument></bf:ContainedResource>
</bf:FactoryResourceAttributesDocument></bf:GetFactoryAttributesDocumentResponse>`).GetFactoryAttributesDocument(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !fa.IsAcceptingNewActivities || fa.TotalNumberOfActivities != 32601 || fa.LocalResourceManagerType != "fork" || len(fa.ContainedResources) != 3 {
		t.Fatalf("the attributes are %+v", fa)
	}
	for i, want := range []bes.BasicResource{{ResourceName: "a", CPUCount: 2}, {ResourceName: "b"}, {ResourceName: "c", CPUCount: 4}} {
		if fa.ContainedResources[i] != want {
			t.Errorf("resource %d is %+v, want %+v", i, fa.ContainedResources[i], want)
		}
	}
}

// TestVectorIsRetriedSingly: the HPC Basic Profile lets a service refuse more
// than one activity in a request.
func TestVectorIsRetriedSingly(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V11)
	a, b := w.create(t), w.create(t)
	requests := 0
	c := bes.NewClient(&soap.Client{URL: address, Retries: -1, Transport: answer(func(r *http.Request) (*http.Response, error) {
		requests++
		body, _ := io.ReadAll(r.Body)
		if strings.Count(string(body), "<bf:ActivityIdentifier") > 1 {
			return answering(500, envelope(`<e:Fault><faultcode>e:Server</faultcode><faultstring>only one</faultstring></e:Fault>`))(r)
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		return w.wire.RoundTrip(r)
	})})
	r, err := c.GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: []soap.EPR{a, bes.NewEPR(address, "none"), b}})
	if err != nil {
		t.Fatal(err)
	}
	if r[0].Err != nil || r[2].Err != nil || r[2].Status.State != bes.Pending || requests != 4 {
		t.Errorf("%d requests gave %+v", requests, r)
	}
	wantUnknown(t, r[1].Err)
}

// TestReferencesOfOtherMakesAreSentBackAsTheyCame (GFD.108 §5: opaque).
func TestReferencesOfOtherMakesAreSentBackAsTheyCame(t *testing.T) {
	for _, epr := range []string{
		`<bf:ActivityIdentifier><a:Address>https://h/arex</a:Address><a:ReferenceParameters><q:JobID xmlns:q="http://www.nordugrid.org/schemas/a-rex">J1</q:JobID></a:ReferenceParameters></bf:ActivityIdentifier>`,
		`<bf:ActivityIdentifier xmlns:genii="urn:genii"><a:Address>https://h/axis?x=1&amp;y=2</a:Address><a:ReferenceParameters><k:resource-key xmlns:k="urn:k" t="genii:T">genii:1</k:resource-key></a:ReferenceParameters><a:Metadata><n:EndpointIdentifier xmlns:n="urn:n">urn:ws-naming:1</n:EndpointIdentifier></a:Metadata></bf:ActivityIdentifier>`,
		`<ActivityIdentifier xmlns="http://schemas.ggf.org/bes/2006/08/bes-factory"><Address xmlns="http://www.w3.org/2005/08/addressing">https://localhost/[fork://localhost]-[22380]</Address></ActivityIdentifier>`,
	} {
		res, err := client(200, `<bf:CreateActivityResponse `+bf+`>`+epr+`<bf:ActivityDocument><x/></bf:ActivityDocument></bf:CreateActivityResponse>`).
			CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(job)})
		if err != nil {
			t.Fatal(err)
		}
		var sent string
		c := bes.NewClient(&soap.Client{URL: address, Retries: -1, Transport: answer(func(r *http.Request) (*http.Response, error) {
			b, _ := io.ReadAll(r.Body)
			sent = string(b)
			return answering(500, envelope(``))(r)
		})})
		_, _ = c.GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: []soap.EPR{res.Activity}})
		doc, err := xmldoc.ReadBytes([]byte(sent), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		p := payload(t, doc)
		got, err := soap.DecodeEPR(p.Root().ChildElements()[0])
		if err != nil {
			t.Fatal(err)
		}
		if got.Address != res.Activity.Address || len(got.ReferenceParameters) != len(res.Activity.ReferenceParameters) || len(got.Metadata) != len(res.Activity.Metadata) {
			t.Errorf("sent back was %s", p.Raw(p.Root()))
		}
		for i, x := range got.ReferenceParameters {
			if xmldoc.NameOf(x) != xmldoc.NameOf(res.Activity.ReferenceParameters[i]) || x.Text() != res.Activity.ReferenceParameters[i].Text() {
				t.Errorf("a parameter became %s", xmldoc.Marshal(x))
			}
			if v := x.SelectAttrValue("t", ""); v != "" {
				if n, err := xmldoc.ResolveQName(x, v); err != nil || n.Space != "urn:genii" {
					t.Errorf("a prefix in content was lost: %v, %v", n, err)
				}
			}
		}
	}
}

func TestControlOfAServiceWithout(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V11)
	a := w.create(t)
	w.wire.h = bes.NewServer(struct{ bes.Service }{w.svc}, bes.ServerOptions{Verifier: soap.DevVerifier{}})
	if _, err := w.GetActivityHistory(t.Context(), a); !fail.Is(err, fail.Unsupported) {
		t.Errorf("history gives %v", err)
	}
	if r, err := w.SuspendActivities(t.Context(), []soap.EPR{a}); err != nil || !fail.Is(r[0].Err, fail.Unsupported) {
		t.Errorf("suspend gives %v, %v", r, err)
	}
}

// TestLostAnswerOfIdempotentCreation: with a SubmissionId, a lost answer is
// settled by asking again; without, the caller is told.
func TestLostAnswerOfIdempotentCreation(t *testing.T) {
	for _, id := range []string{"", "urn:uuid:2"} {
		w := newWorld(t, bes.ServerOptions{}, soap.V11)
		lost := false
		c := bes.NewClient(&soap.Client{URL: address, Retries: -1, Transport: answer(func(r *http.Request) (*http.Response, error) {
			res, err := w.wire.RoundTrip(r)
			if !lost {
				lost = true
				return answering(502, "")(r)
			}
			return res, err
		})})
		r, err := c.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(job), SubmissionID: id})
		switch {
		case id == "" && !fail.Is(err, fail.Uncertain):
			t.Errorf("without an id: %v", err)
		case id != "" && (err != nil || !strings.HasSuffix(r.Activity.Address, "/00000001")):
			t.Errorf("with an id: %v, %v", r, err)
		}
	}
}

// TestSkeletonAnswer is a real answer with a document echoed that is no JSDL.
func TestSkeletonAnswer(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(testenv.Shared(t), "samples", "soap", "bes-arc-createactivityresponse-gsoap-skeleton.xml"))
	if err != nil {
		t.Fatal(err)
	}
	c := bes.NewClient(&soap.Client{URL: "http://bes.example", Retries: -1, Transport: answering(200, string(b))})
	r, err := c.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(job)})
	if err != nil || r.Activity.Address == "" {
		t.Errorf("%+v, %v", r, err)
	}
}
