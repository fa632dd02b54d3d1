package bes_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/bes/bestest"
	"github.com/portolan-project/portolan/internal/soap"
)

var update = flag.Bool("update", false, "rewrite the golden messages")

// reference is the random name of a fault.
var reference = regexp.MustCompile(`\[reference [0-9a-f]+\]`)

// TestGolden answers each request of testdata/*.txtar and compares the answer
// with what was reviewed. In the world of every file there are two activities:
// 00000001 ended with exit status 3, 00000002 waits.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			svc := &bestest.Service{BaseURL: address, Now: func() time.Time { clock = clock.Add(time.Second); return clock }}
			o := bes.ServerOptions{Verifier: soap.DevVerifier{}}
			if strings.Contains(string(a.Comment), "dialect 2007") {
				o.Dialect = bes.Dialect2007
			}
			h := bes.NewServer(svc, o)
			ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"})
			for range 2 {
				if _, err := svc.CreateActivity(ctx, &bes.CreateActivityRequest{Document: []byte(job)}); err != nil {
					t.Fatal(err)
				}
			}
			first := bes.NewEPR(address, "00000001")
			svc.Advance(first, bes.Running, "Executing", "started")
			svc.Finish(first, 3, "out\n", "err\n")
			version := soap.V11
			if strings.Contains(string(a.Comment), "SOAP 1.2") {
				version = soap.V12
			}
			var request, answer *txtar.File
			for i := range a.Files {
				switch f := &a.Files[i]; f.Name {
				case "request.xml":
					request = f
				case "answer.xml":
					answer = f
				}
			}
			if request == nil || answer == nil {
				t.Fatal("request.xml and answer.xml are needed")
			}
			_, doc := post(t, h, version, strings.TrimSpace(string(request.Data)))
			got := strings.ReplaceAll(string(doc.Raw(doc.Root())), "><", ">\n<") + "\n"
			got = reference.ReplaceAllString(got, "[reference …]")
			if *update {
				answer.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(answer.Data); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
