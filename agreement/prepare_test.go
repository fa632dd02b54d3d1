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
