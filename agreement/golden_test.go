package agreement_test

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/soap"
)

var update = flag.Bool("update", false, "rewrite the golden messages")

// reference is the random name of a fault.
var reference = regexp.MustCompile(`\[reference [0-9a-f]+\]`)

// TestGolden answers each request of testdata/{good,fail}_*.txtar and compares the answer with
// what was reviewed. In the world of every file there are two agreements: 00000001
// is observed, its job runs and its promise is kept; 00000002 is pending. There is
// room for a third; where it is to be confirmed, 00000003 is prepared. The negotiation
// n0000001 is open. Made together with full.example, there is nothing.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/[fg][ao]*_*.txtar") // fail_… and good_…
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			now := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
			svc := &agreementtest.Service{Now: now, Capacity: 3}
			negotiator := &agreementtest.Negotiator{Now: now}
			h := agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Now: now, Negotiator: negotiator, Coordinator: &gathered{}})
			ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous"})
			for _, create := range []func() (string, error){
				func() (string, error) {
					return svc.Create(ctx, &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())})
				},
				func() (string, error) {
					return svc.CreatePending(ctx, &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())})
				},
			} {
				if _, err := create(); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasSuffix(file, "good_confirm.txtar") {
				if _, err := svc.Prepare(ctx, &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}, agreement.Preparation{Key: "k", Until: now().Add(time.Minute)}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := negotiator.Initiate(ctx, &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder}}); err != nil {
				t.Fatal(err)
			}
			svc.Set("00000001", agreement.ServiceTermState{State: agreement.Ready, Activity: agreement.Processing}, agreement.GuaranteeTermState{State: agreement.Fulfilled})
			version := soap.V11
			if strings.Contains(string(a.Comment), "SOAP 1.2") {
				version = soap.V12
			}
			var request, answer *txtar.File
			header := ""
			for i := range a.Files {
				switch f := &a.Files[i]; f.Name {
				case "header.xml":
					header = strings.TrimSpace(string(f.Data))
				case "request.xml":
					request = f
				case "answer.xml":
					answer = f
				}
			}
			if request == nil || answer == nil {
				t.Fatal("request.xml and answer.xml are needed")
			}
			msg := `<e:Envelope xmlns:e="` + version.Namespace() + `"><e:Header>` + header + `</e:Header><e:Body>` + strings.TrimSpace(string(request.Data)) + `</e:Body></e:Envelope>`
			r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(msg))
			r.Header.Set("Content-Type", version.ContentType())
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			got := strings.ReplaceAll(rec.Body.String(), "><", ">\n<") + "\n"
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
