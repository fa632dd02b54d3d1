package agreement_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// pending makes the request of CreatePendingAgreement.
func pending(inner string) string {
	return `<wsag:CreatePendingAgreementInput ` + wsagNS + `>` + inner + `</wsag:CreatePendingAgreementInput>`
}

func prepare(inner string) string {
	return `<p:Prepare xmlns:p="` + agreement.NSPortolan + `">` + inner + `</p:Prepare>`
}

// TestPrepareIsCritical: who can't hold an offer for its initiator refuses it, and does not
// take it as one that is decided at once.
func TestPrepareIsCritical(t *testing.T) {
	svc := &agreementtest.Service{}
	c, _ := onTheWire(struct{ agreement.Service }{svc}, soap.V11)
	req := &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}
	_, err := c.Prepare(t.Context(), req, agreement.Preparation{Key: "k", Until: time.Now().Add(time.Minute)})
	if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "is critical where it stands and not known here") || len(svc.Requests()) != 0 {
		t.Errorf("prepared: %v, %d offers came", err, len(svc.Requests()))
	}
	if err := c.Confirm(t.Context(), "00000001"); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "no operation here answers") {
		t.Errorf("confirmed: %v", err)
	}
}

// extended understands the extensions of urn:x.
type extended struct{ *agreementtest.Service }

func (extended) Understands(n xmldoc.Name) bool { return n.Space == "urn:x" }

// TestCriticalExtensions: those that the service understands reach it, in any order with
// p:Prepare; with any other the request is refused, and nothing reaches it.
func TestCriticalExtensions(t *testing.T) {
	const known, other = `<x:e xmlns:x="urn:x">1</x:e>`, `<y:e xmlns:y="urn:y"/>`
	const beside = `<wsag:NoncriticalExtension><x:e xmlns:x="urn:x">2</x:e></wsag:NoncriticalExtension>`
	prepared := prepare("<p:Key>k</p:Key><p:Until>2100-01-01T00:00:00Z</p:Until>")
	for name, c := range map[string]struct {
		body, refused string
		reach         int
	}{
		"one":                  {create(offer() + known), "", 1},
		"two":                  {create(offer() + beside + known + known), "", 2},
		"of one that waits":    {pending(offer() + known), "", 1},
		"before it is held":    {pending(offer() + known + prepared), "", 1},
		"after it is held":     {pending(offer() + prepared + known), "", 1},
		"around":               {pending(offer() + known + prepared + known), "", 2},
		"another":              {create(offer() + other), "is critical where it stands", 0},
		"another behind":       {create(offer() + known + other), "is critical where it stands", 0},
		"another after it":     {pending(offer() + prepared + known + other), "is critical where it stands", 0},
		"held at once":         {create(offer() + known + prepared), "is critical where it stands", 0},
		"before the others":    {create(offer() + known + beside), "wrong order", 0},
		"too many":             {create(offer() + strings.Repeat(known, 101)), "more than the 100", 0},
		"as many as there may": {create(offer() + strings.Repeat(known, 100)), "", 100},
	} {
		svc := &agreementtest.Service{}
		h := agreement.NewServer(extended{svc}, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
		p := post(t, h, "", c.body)
		s := string(p.Raw(p.Root()))
		got := svc.Requests()
		switch {
		case c.refused != "":
			if !strings.Contains(s, c.refused) || len(got) != 0 {
				t.Errorf("%s: %d came; %s", name, len(got), s)
			}
		case len(got) != 1 || len(got[0].Critical) != c.reach || got[0].Critical[0].Text() != "1":
			t.Errorf("%s: %+v; %s", name, got, s)
		case strings.Contains(c.body, beside) && len(got[0].Noncritical) != 1:
			t.Errorf("%s: beside them stand %v", name, got[0].Noncritical)
		default: // and a client sends them again
			c, w := onTheWire(extended{svc}, soap.V12)
			if _, err := c.Create(t.Context(), &got[0]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if v := verdicts(t, string(rawPayload(t, w.requests[0]))); v[0] != "" {
				t.Errorf("%s: %s", name, v[0])
			}
			if again := svc.Requests(); len(again[len(again)-1].Critical) != len(got[0].Critical) {
				t.Errorf("%s: %+v", name, again)
			}
		}
	}
}

func TestPreparationIsChecked(t *testing.T) {
	svc := &agreementtest.Service{}
	c, _ := onTheWire(svc, soap.V11)
	req := &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}
	until := time.Now().Add(time.Minute)
	for words, p := range map[string]agreement.Preparation{
		"a name":         {Until: until},
		"spaces":         {Key: " k", Until: until},
		"may have 256":   {Key: strings.Repeat("k", 257), Until: until},
		"give it Until":  {Key: "k"},
		"the Key of Pre": {Key: "two  spaces", Until: until},
	} {
		if _, err := c.Prepare(t.Context(), req, p); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), words) {
			t.Errorf("%+v: %v; want %q", p, err, words)
		}
	}
	if len(svc.Requests()) != 0 {
		t.Error("something was sent")
	}
	if _, err := c.Prepare(t.Context(), req, agreement.Preparation{Key: strings.Repeat("k", 256), Until: until}); err != nil {
		t.Error(err)
	}
	if err := c.Confirm(t.Context(), ""); !fail.Is(err, fail.NotFound) {
		t.Errorf("confirmed nothing: %v", err)
	}
}

// TestPreparedIsLetGo: what nobody confirms is rejected when its time comes, and no sooner.
func TestPreparedIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := onTheWire(&agreementtest.Service{}, soap.V12)
		req := &agreement.CreateRequest{Offer: agreementtest.Offer(agreementtest.Template())}
		p := agreement.Preparation{Key: "k", Until: time.Now().Add(time.Minute)}
		key, err := c.Prepare(t.Context(), req, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []agreement.State{agreement.Pending, agreement.Rejected} {
			if a, err := c.Agreement(t.Context(), key); err != nil || a.State != want {
				t.Errorf("it is %+v, %v; want %s", a, err, want)
			}
			time.Sleep(time.Minute)
		}
		if err := c.Confirm(t.Context(), key); !fail.Is(err, fail.Conflict) {
			t.Errorf("confirmed too late: %v", err)
		}
		if _, err := c.Prepare(t.Context(), req, p); !fail.Is(err, fail.Conflict) {
			t.Errorf("prepared again: %v", err)
		}
	})
}
