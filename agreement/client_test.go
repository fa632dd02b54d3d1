package agreement_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// answering is a service that always says the same.
type answering struct {
	status int
	body   string
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return &http.Response{
		StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"text/xml"}}, Body: io.NopCloser(strings.NewReader(a.body)),
	}, nil
}

func envelope(body string) string {
	return `<e:Envelope xmlns:e="` + soap.NS11 + `"><e:Body>` + body + `</e:Body></e:Envelope>`
}

func clientOf(body string) *agreement.Client {
	return agreement.NewClient(&soap.Client{URL: address, Retries: -1, Transport: answering{200, envelope(body)}})
}

// TestAnswersThatCantBeUsed: a bad answer to a question is Unavailable; to an offer
// Uncertain, since the agreement may exist.
func TestAnswersThatCantBeUsed(t *testing.T) {
	ctx := t.Context()
	for _, body := range []string{
		`<x/>`, `<wsag:CreateAgreementResponse ` + wsagNS + `/>`,
		`<wsag:CreateAgreementResponse ` + wsagNS + `><wsag:CreatedAgreementEPR/></wsag:CreateAgreementResponse>`,
	} {
		if _, err := clientOf(body).Create(ctx, &agreement.CreateRequest{}); !fail.Is(err, fail.Uncertain) {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{
		`<rp:R ` + rpNS + `><x/></rp:R>`,
		`<rp:R ` + rpNS + `><wsag:Template ` + wsagNS + `/></rp:R>`,
	} {
		if _, err := clientOf(body).Templates(ctx); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: %v", body, err)
		}
		if _, err := clientOf(body).Agreement(ctx, "k"); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: %v", body, err)
		}
		if _, err := clientOf(body).State(ctx, agreement.NewEPR(address, "k")); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: %v", body, err)
		}
		if _, err := clientOf(body).List(ctx, "", 1); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{`<rp:R ` + rpNS + `/>`, `<rp:R ` + rpNS + `><a/><b/></rp:R>`} {
		if _, err := clientOf(body).Agreement(ctx, "k"); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s: %v", body, err)
		}
	}
	if _, err := clientOf("").Templates(ctx); !fail.Is(err, fail.Unavailable) {
		t.Error(err)
	}
}

// TestKeysOfOtherServices: an EPR of another make is a key, and comes back as it
// was, at the address that it names.
func TestKeysOfOtherServices(t *testing.T) {
	const epr = `<wsag:CreatedAgreementEPR xmlns:a="http://www.w3.org/2005/08/addressing" xmlns:m="urn:muse"><a:Address>https://other.example/agreement</a:Address><a:ReferenceParameters><m:ResourceId>Muse-1</m:ResourceId></a:ReferenceParameters></wsag:CreatedAgreementEPR>`
	c := clientOf(`<wsag:CreateAgreementResponse ` + wsagNS + `>` + epr + `</wsag:CreateAgreementResponse>`)
	key, err := c.Create(t.Context(), &agreement.CreateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	back, err := c.EPR(key)
	if err != nil || back.Address != "https://other.example/agreement" || len(back.ReferenceParameters) != 1 || c.Key(back) != key {
		t.Errorf("%s is %+v, %v", key, back, err)
	}
	// A gateway's key is its text, unless that looks like an EPR or leads elsewhere.
	if k := c.Key(agreement.NewEPR("https://elsewhere.example", "k")); k != "k" {
		t.Errorf("the key is %q", k)
	}
	if k := c.Key(agreement.NewEPR(address, "<k")); !strings.HasPrefix(k, "<wsag:CreatedAgreementEPR") {
		t.Errorf("the key is %q", k)
	}
	var asked string
	c.At = func(address string) (*soap.Client, error) {
		asked = address
		return nil, fail.Errorf("test", fail.Denied, "", "not there")
	}
	if k := c.Key(agreement.NewEPR("https://elsewhere.example", "k")); !strings.HasPrefix(k, "<wsag:CreatedAgreementEPR") {
		t.Errorf("the key is %q", k)
	}
	if err := c.Terminate(t.Context(), key, nil); !fail.Is(err, fail.Denied) || asked != back.Address {
		t.Errorf("asked for %q, %v", asked, err)
	}
	for key, kind := range map[string]fail.Kind{"": fail.NotFound, "<a>": fail.Invalid, "<a/>": fail.Invalid, "<" + strings.Repeat("a", 1<<17): fail.Invalid} {
		if _, err := c.Agreement(t.Context(), key); !fail.Is(err, kind) {
			t.Errorf("%.20q: %v", key, err)
		}
	}
}
