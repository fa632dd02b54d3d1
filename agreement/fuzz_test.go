package agreement_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func seeds(f *testing.F) []string {
	list := []string{full, small("<wsag:All>" + sdt(1) + "</wsag:All>"), offer()}
	if shared := os.Getenv("PORTOLAN_SHARED"); shared != "" {
		files, _ := filepath.Glob(filepath.Join(shared, "samples", "soap", "wsag-*.xml"))
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			list = append(list, string(b))
		}
	}
	return list
}

// FuzzDocuments: what is read is the same once it was written and read again.
func FuzzDocuments(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if tpl, err := agreement.ParseTemplate([]byte(s)); err == nil {
			thereAndBack(t, tpl, agreement.DecodeTemplate)
			agreement.Choose(tpl.Terms, tpl.Preferences(), 8)
		}
		if o, err := agreement.ParseOffer([]byte(s)); err == nil {
			thereAndBack(t, o, agreement.DecodeOffer)
		}
		if doc, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{}); err == nil {
			if p, err := agreement.DecodeProperties(doc.Root()); err == nil {
				thereAndBack(t, p, agreement.DecodeProperties)
			}
		}
	})
}

// FuzzServer: whatever the body, there is an answer, it is well-formed, and nothing
// panicked.
func FuzzServer(f *testing.F) {
	f.Add(create(offer()))
	f.Add(strings.ReplaceAll(create(offer()), "CreateAgreement", "CreatePendingAgreement"))
	f.Add(`<wsag:TerminateInput ` + wsagNS + `><a/></wsag:TerminateInput>`)
	f.Add(`<rp:GetResourceProperty ` + rpNS + ` ` + wsagNS + `>wsag:Terms</rp:GetResourceProperty>`)
	f.Add(`<rp:GetResourcePropertyDocument ` + rpNS + `/>`)
	f.Add(`<p:ListAgreements xmlns:p="` + agreement.NSPortolan + `"><p:Limit>3</p:Limit></p:ListAgreements>`)
	f.Add(pending(offer() + prepare("<p:Key>k</p:Key><p:Until>2100-01-01T00:00:00Z</p:Until>")))
	f.Add(`<p:Confirm xmlns:p="` + agreement.NSPortolan + `"/>`)
	f.Fuzz(func(t *testing.T, body string) {
		var log bytes.Buffer
		h := agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		post(t, h, "", create(offer()))
		r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(`<e:Envelope xmlns:e="`+soap.NS11+`"><e:Header>`+keyHeader("00000001")+`</e:Header><e:Body>`+body+`</e:Body></e:Envelope>`))
		r.Header.Set("Content-Type", "text/xml")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if _, err := xmldoc.ReadBytes(rec.Body.Bytes(), xmldoc.Limits{}); err != nil {
			t.Fatalf("%v: %s", err, rec.Body.Bytes())
		}
		if strings.Contains(log.String(), "panicked") {
			t.Fatal(log.String())
		}
	})
}

// FuzzClient: whatever the answer, every call comes back.
func FuzzClient(f *testing.F) {
	f.Add(envelope(`<wsag:CreateAgreementResponse ` + wsagNS + `/>`))
	f.Add(envelope(`<rp:R ` + rpNS + `>` + full + `</rp:R>`))
	f.Fuzz(func(t *testing.T, message string) {
		c := agreement.NewClient(&soap.Client{URL: address, Retries: -1, Transport: answering{200, message}})
		ctx := t.Context()
		if key, err := c.Create(ctx, &agreement.CreateRequest{}); err == nil {
			if _, err := c.EPR(key); err != nil && len(key) < 60_000 {
				t.Errorf("the key %q is none: %v", key, err)
			}
		}
		_, _ = c.Templates(ctx)
		_, _ = c.Agreement(ctx, "k")
		_, _ = c.List(ctx, "", 1)
		_ = c.Terminate(ctx, "k", nil)
	})
}
