package bes_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// goldenParts gives the files of that name in the golden messages.
func goldenParts(f *testing.F, name string) []string {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	var parts []string
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, x := range a.Files {
			if x.Name == name {
				parts = append(parts, string(x.Data))
			}
		}
	}
	return parts
}

// FuzzServer: whatever the body, there is an answer, it is well-formed, and
// nothing panicked.
func FuzzServer(f *testing.F) {
	for _, r := range goldenParts(f, "request.xml") {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, body string) {
		svc := &bestest.Service{BaseURL: address}
		var log bytes.Buffer
		h := bes.NewServer(svc, bes.ServerOptions{Verifier: soap.DevVerifier{}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"})
		for range 2 {
			_, _ = svc.CreateActivity(ctx, &bes.CreateActivityRequest{Document: []byte(job)})
		}
		// A wait must not hold the fuzzer up.
		body = strings.ReplaceAll(body, "WaitForChange", "Wait")
		r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(envelope(body)))
		r.Header.Set("Content-Type", "text/xml")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		b, _ := io.ReadAll(rec.Body)
		if _, err := xmldoc.ReadBytes(b, xmldoc.Limits{}); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if strings.Contains(log.String(), "panicked") {
			t.Fatalf("%s", log.String())
		}
	})
}

// FuzzClient: whatever the answer, every call comes back.
func FuzzClient(f *testing.F) {
	for _, r := range goldenParts(f, "answer.xml") {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, message string) {
		c := bes.NewClient(&soap.Client{URL: address, Retries: -1, Transport: answering(200, message)})
		ctx := t.Context()
		one := []soap.EPR{bes.NewEPR(address, "1")}
		two := append(one, one...)
		_, _ = c.CreateActivity(ctx, &bes.CreateActivityRequest{Document: []byte(job)})
		if r, err := c.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: two}); err == nil && len(r) != 2 {
			t.Errorf("%d statuses", len(r))
		}
		if r, err := c.TerminateActivities(ctx, one); err == nil && len(r) != 1 {
			t.Errorf("%d results", len(r))
		}
		r, err := c.GetActivityDocuments(ctx, one)
		if err == nil && r[0].Err == nil {
			if _, err := xmldoc.ReadBytes(r[0].Document, xmldoc.Limits{}); err != nil {
				t.Errorf("a document is not one: %v", err)
			}
		}
		_, _ = c.GetFactoryAttributesDocument(ctx)
		_, _ = c.GetActivityHistory(ctx, one[0])
		_, _ = c.GetActivityOutput(ctx, one[0], bes.Stdout, 0, 10)
		_, _ = c.ResumeActivities(ctx, one)
		_ = c.StartAcceptingNewActivities(ctx)
	})
}
