package bes_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

const (
	jobInside = `<j:JobDefinition xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl"><j:JobDescription/></j:JobDefinition>`
	ns        = ` xmlns:bf="http://schemas.ggf.org/bes/2006/08/bes-factory" xmlns:bm="http://schemas.ggf.org/bes/2006/08/bes-management"` +
		` xmlns:p="http://portolan-project.org/ns/2026/bes" xmlns:a="http://www.w3.org/2005/08/addressing" xmlns:x="urn:x" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"`
	id = `<bf:ActivityIdentifier><a:Address>http://g/bes/a/1</a:Address></bf:ActivityIdentifier>`
)

func newServer(o bes.ServerOptions) (*bestest.Service, http.Handler) {
	svc := &bestest.Service{BaseURL: address}
	o.Verifier = soap.DevVerifier{}
	return svc, bes.NewServer(svc, o)
}

// TestDefectsOfRequests: what is really wrong is an InvalidRequestMessageFault
// that names the element and its line; what is only odd is taken.
func TestDefectsOfRequests(t *testing.T) {
	create := func(inner string) string { return `<bf:CreateActivity` + ns + `>` + inner + `</bf:CreateActivity>` }
	document := func(inner string) string { return `<bf:ActivityDocument>` + inner + `</bf:ActivityDocument>` }
	good := document(jobInside)
	statuses := func(inner string) string {
		return `<bf:GetActivityStatuses` + ns + `>` + inner + `</bf:GetActivityStatuses>`
	}
	output := func(inner string) string {
		return `<p:GetActivityOutput` + ns + `>` + inner + `</p:GetActivityOutput>`
	}
	const invalid, unsupported, fine = "InvalidRequestMessageFault", "UnsupportedFeatureFault", ""
	for name, c := range map[string]struct{ body, fault, says string }{
		"good":                        {create(good), fine, ""},
		"good with white space":       {create("\n " + document("\n"+jobInside+"\n") + "\n"), fine, ""},
		"comments":                    {create("<!-- c -->" + document("<!-- c -->"+jobInside)), fine, ""},
		"no document":                 {create(""), invalid, "ActivityDocument is missing"},
		"nil":                         {`<bf:CreateActivity` + ns + ` xsi:nil="true"/>`, invalid, "ActivityDocument is missing"},
		"two documents":               {create(good + good), invalid, "second ActivityDocument"},
		"empty document":              {create(document("")), invalid, "JobDefinition"},
		"two jobs":                    {create(document(jobInside + jobInside)), invalid, "second JobDefinition"},
		"job of another namespace":    {create(document(`<bf:JobDefinition/>`)), invalid, "JobDefinition"},
		"job without a document":      {create(jobInside), invalid, "ActivityDocument is missing"},
		"text":                        {create(good + "text"), invalid, "text"},
		"text in the document":        {create(document("text" + jobInside)), invalid, "text"},
		"own element in the wildcard": {create(good + `<bf:Extra/>`), invalid, "Extra"},
		"element of no namespace":     {create(good + `<Extra/>`), invalid, "Extra"},
		"extension first":             {create(`<x:Extra/>` + good), invalid, "behind the extension"},
		"extension":                   {create(good + `<x:Extra/><x:More><bf:Deep/></x:More>`), fine, ""},
		"extension in the document":   {create(document(jobInside + `<x:Extra/>`)), fine, ""},
		"insisting extension":         {create(good + `<x:Extra p:mustUnderstand="true"/>`), unsupported, "Extra"},
		"insisting inside":            {create(document(jobInside + `<x:Extra p:mustUnderstand="1"/>`)), unsupported, "Extra"},
		"not insisting":               {create(good + `<x:Extra p:mustUnderstand="false"/>`), fine, ""},
		"submission id":               {create(good + `<p:SubmissionId p:mustUnderstand="1"> urn:1 </p:SubmissionId>`), fine, ""},
		"empty submission id":         {create(good + `<p:SubmissionId> </p:SubmissionId>`), invalid, "SubmissionId"},
		"two submission ids":          {create(good + `<p:SubmissionId>a</p:SubmissionId><p:SubmissionId>b</p:SubmissionId>`), invalid, "second SubmissionId"},
		"long submission id":          {create(good + `<p:SubmissionId>` + strings.Repeat("x", 2000) + `</p:SubmissionId>`), invalid, "SubmissionId"},
		"no activities":               {statuses(""), fine, ""},
		"one activity":                {statuses(id), fine, ""},
		"activity of no namespace":    {statuses(`<ActivityIdentifier><a:Address>x</a:Address></ActivityIdentifier>`), fine, ""},
		"no address":                  {statuses(`<bf:ActivityIdentifier/>`), invalid, "Address"},
		"two addresses":               {statuses(`<bf:ActivityIdentifier><a:Address>x</a:Address><a:Address>x</a:Address></bf:ActivityIdentifier>`), invalid, "Address"},
		"wrong element":               {statuses(`<bf:Activity/>`), invalid, "Activity"},
		"foreign before activities":   {statuses(`<x:Filter/>` + id), invalid, "behind the extension"},
		"foreign after activities":    {statuses(id + `<x:Filter/>`), fine, ""},
		"wait":                        {statuses(id + `<p:WaitForChange timeout="0.001" after="7"/>`), fine, ""},
		"wait without a timeout":      {statuses(id + `<p:WaitForChange/>`), invalid, "timeout"},
		"wait of NaN":                 {statuses(id + `<p:WaitForChange timeout="NaN"/>`), invalid, "timeout"},
		"negative wait":               {statuses(id + `<p:WaitForChange timeout="-1"/>`), invalid, "timeout"},
		"wait after nothing":          {statuses(id + `<p:WaitForChange timeout="0" after="x"/>`), invalid, "after"},
		"two waits":                   {statuses(id + `<p:WaitForChange timeout="0"/><p:WaitForChange timeout="0"/>`), invalid, "second"},
		"too many activities":         {statuses(strings.Repeat(id, bes.MaxActivities+1)), invalid, "10000"},
		"factory":                     {`<bf:GetFactoryAttributesDocument` + ns + `/>`, fine, ""},
		"factory with a filter":       {`<bf:GetFactoryAttributesDocument` + ns + `><x:Filter/></bf:GetFactoryAttributesDocument>`, fine, ""},
		"factory, nil":                {`<bf:GetFactoryAttributesDocument` + ns + ` xsi:nil="true"/>`, fine, ""},
		"factory with own element":    {`<bf:GetFactoryAttributesDocument` + ns + `><bf:X/></bf:GetFactoryAttributesDocument>`, invalid, "X"},
		"stop with own element":       {`<bm:StopAcceptingNewActivities` + ns + `><bm:X/></bm:StopAcceptingNewActivities>`, invalid, "X"},
		"stop with an extension":      {`<bm:StopAcceptingNewActivities` + ns + `><x:X/></bm:StopAcceptingNewActivities>`, fine, ""},
		"output":                      {output(id + `<p:Stream>stderr</p:Stream><p:Offset>1</p:Offset><p:MaxBytes>5</p:MaxBytes>`), fine, ""},
		"output of nothing":           {output(``), invalid, "ActivityIdentifier is missing"},
		"output of two":               {output(id + id), invalid, "second"},
		"output of no stream":         {output(id + `<p:Stream>stdlog</p:Stream>`), invalid, "Stream"},
		"output before the start":     {output(id + `<p:Offset>-1</p:Offset>`), invalid, "Offset"},
		"output of no bytes":          {output(id + `<p:MaxBytes>0</p:MaxBytes>`), invalid, "MaxBytes"},
		"output, unknown part":        {output(id + `<p:Colour>red</p:Colour>`), invalid, "Colour"},
		"output, twice":               {output(id + `<p:Offset>1</p:Offset><p:Offset>1</p:Offset>`), invalid, "Offset"},
	} {
		for _, v := range []soap.Version{soap.V11, soap.V12} {
			svc, h := newServer(bes.ServerOptions{})
			ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"})
			if _, err := svc.CreateActivity(ctx, &bes.CreateActivityRequest{Document: []byte(job)}); err != nil {
				t.Fatal(err)
			}
			svc.Advance(bes.NewEPR(address, "00000001"), bes.Failed, "", "")
			status, doc := post(t, h, v, strings.ReplaceAll(c.body, "/a/1<", "/a/00000001<"))
			p := payload(t, doc)
			text := string(p.Raw(p.Root()))
			if c.fault == "" {
				if status != http.StatusOK || !strings.HasSuffix(p.Root().Tag, "Response") {
					t.Errorf("%s, SOAP %s: status %d: %s", name, v, status, text)
				}
				continue
			}
			want := map[soap.Version]int{soap.V11: 500, soap.V12: 400}[v]
			e := p.Root().FindElement("//" + c.fault)
			if status != want || e == nil || !strings.Contains(string(xmldoc.Marshal(e)), c.says) {
				t.Errorf("%s, SOAP %s: status %d: %s", name, v, status, text)
				continue
			}
			if c.fault == invalid && (e.FindElement("InvalidElement") == nil || !strings.Contains(e.FindElement("Message").Text(), "line 1:")) {
				t.Errorf("%s: the fault does not say where: %s", name, text)
			}
		}
	}
}

// TestIgnoredExtensionsAreTold to the service, for the history.
func TestIgnoredExtensionsAreTold(t *testing.T) {
	var got *bes.CreateActivityRequest
	svc := &catcher{Service: &bestest.Service{}, got: &got}
	h := bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}, JSDL: jsdl.Options{}})
	post(t, h, soap.V11, `<bf:CreateActivity`+ns+`><bf:ActivityDocument>`+jobInside+`<x:A/></bf:ActivityDocument><x:B/><x:B/><p:SubmissionId>urn:1</p:SubmissionId></bf:CreateActivity>`)
	if got == nil || fmt.Sprint(got.Ignored) != "[{urn:x}A {urn:x}B]" && fmt.Sprint(got.Ignored) != "[{urn:x}B {urn:x}A]" || got.SubmissionID != "urn:1" || got.Job == nil {
		t.Errorf("the service was told %+v", got)
	}
}

type catcher struct {
	bes.Service
	got **bes.CreateActivityRequest
}

func (c *catcher) CreateActivity(ctx context.Context, r *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	*c.got = r
	return c.Service.CreateActivity(ctx, r)
}

// TestVectorsCostBoundedMemory: declarations that stand once in a request must
// not be copied into thousands of answers.
func TestVectorsCostBoundedMemory(t *testing.T) {
	_, h := newServer(bes.ServerOptions{})
	var decls strings.Builder
	for i := range 100 {
		fmt.Fprintf(&decls, ` xmlns:n%d="urn:%s"`, i, strings.Repeat("x", 4000))
	}
	measure := func(body string) (int, string, uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		status, doc := post(t, h, soap.V11, body)
		runtime.ReadMemStats(&after)
		p := payload(t, doc)
		return status, p.Root().Tag, after.TotalAlloc - before.TotalAlloc
	}
	unused := `<bf:GetActivityStatuses` + ns + decls.String() + `>` + strings.Repeat(id, 5000) + `</bf:GetActivityStatuses>`
	status, tag, cost := measure(unused)
	if status != 200 || tag != "GetActivityStatusesResponse" || cost > 200<<20 {
		t.Errorf("unused declarations: status %d, %s, %d MiB", status, tag, cost>>20)
	}
	used := strings.ReplaceAll(unused, "<a:Address>", `<a:Address x:q="n1:q n2:q n3:q">`)
	status, tag, cost = measure(used)
	if status != 500 || tag != "Fault" || cost > 200<<20 {
		t.Errorf("used declarations: status %d, %s, %d MiB", status, tag, cost>>20)
	}
}

// TestDocumentsAreBounded: what does not fit into one answer is asked for again.
func TestDocumentsAreBounded(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V11)
	big := strings.Replace(job, "a &amp; b", strings.Repeat("x", 1<<20), 1)
	r, err := w.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: []byte(big)})
	if err != nil {
		t.Fatal(err)
	}
	status, doc := post(t, w.wire.h, soap.V11, `<bf:GetActivityDocuments`+ns+`>`+strings.Repeat(strings.Replace(id, "/1<", "/00000001<", 1), 200)+`</bf:GetActivityDocuments>`)
	p := payload(t, doc)
	if n := len(p.Root().FindElements("./Response/JobDefinition")); status != 200 || n != 3 {
		t.Errorf("status %d, %d documents in one answer", status, n)
	}
	if n := len(p.Root().FindElements("./Response/Fault")); n != 197 {
		t.Errorf("%d faults", n)
	}
	list := make([]soap.EPR, 40)
	for i := range list {
		list[i] = r.Activity
	}
	docs, err := w.GetActivityDocuments(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range docs {
		if d.Err != nil || len(d.Document) < 1<<20 {
			t.Fatalf("document %d: %v, %d bytes", i, d.Err, len(d.Document))
		}
	}
}

// TestDocumentsCanBeReadAgain: what a document inherits counts too.
func TestDocumentsCanBeReadAgain(t *testing.T) {
	for _, n := range []int{100, 121} {
		var decls strings.Builder
		for i := range n {
			fmt.Fprintf(&decls, ` xmlns:n%d="urn:%d"`, i, i)
		}
		svc, h := newServer(bes.ServerOptions{})
		body := `<bf:CreateActivity xmlns:bf="` + bes.NSFactory + `"` + decls.String() + `><bf:ActivityDocument>` + jobInside + `</bf:ActivityDocument></bf:CreateActivity>`
		status, doc := post(t, h, soap.V11, body)
		if (status == 200) != (n == 100) {
			t.Errorf("%d declarations: status %d, %.300s", n, status, doc.Raw(doc.Root()))
		}
		if status == 200 {
			if _, err := xmldoc.ReadBytes(svc.Document(bes.NewEPR(address, "00000001")), xmldoc.Limits{}); err != nil {
				t.Errorf("%d declarations: %v", n, err)
			}
		}
	}
}
