package agreement

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var moment = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// TestEveryKindHasAFault, and comes back as it was.
func TestEveryKindHasAFault(t *testing.T) {
	if len(faults) != len(fail.Kinds()) {
		t.Errorf("%d of %d kinds have a fault", len(faults), len(fail.Kinds()))
	}
	for _, k := range fail.Kinds() {
		if _, ok := faults[k]; !ok {
			t.Errorf("%s has no fault", k)
		}
		for _, about := range []bool{false, true} {
			private := errors.New("a private cause")
			f := faultOf(fail.Errorf("op", k, "", "a sentence").Because(private), about, moment)
			for _, d := range f.Detail {
				if strings.Contains(string(xmldoc.Marshal(d)), "private") {
					t.Errorf("%s: the cause is told: %s", k, xmldoc.Marshal(d))
				}
			}
			err := errorOf("op", f)
			if fail.KindOf(err) != k || fail.Sentence(err) != "a sentence" {
				t.Errorf("%s (about an agreement: %v) came back as %v", k, about, err)
			}
			if !errors.Is(err, f) {
				t.Errorf("%s: the fault is not in the error", k)
			}
		}
	}
}

func TestEveryCodeComesBack(t *testing.T) {
	for code, kind := range codes {
		r := Refuse(code, "one <sentence>", "and another")
		r.Earliest = moment.Add(time.Hour)
		if !fail.Is(r, kind) || !strings.Contains(r.Error(), "and another") {
			t.Errorf("%s is %v", code, r)
		}
		for _, about := range []bool{false, true} {
			f := faultOf(fail.E("op", kind, "", r), about, moment)
			got, ok := errors.AsType[*Refusal](errorOf("op", f))
			if !ok || got.Code != code || !slices.Equal(got.Sentences, r.Sentences) || !got.Earliest.Equal(r.Earliest) || !fail.Is(got, kind) {
				t.Errorf("%s came back as %+v", code, got)
			}
			if n := xmldoc.NameOf(f.Detail[0]); n != continuing {
				t.Errorf("%s is sent as %s", code, n)
			}
		}
	}
	if fail.KindOf(&Refusal{}) != fail.Invalid || fail.Sentence(&Refusal{}) == "" {
		t.Error("an empty refusal")
	}
}

func TestFaultsAreBounded(t *testing.T) {
	r := Refuse(NotCompliant, slices.Repeat([]string{strings.Repeat("é", 5000)}, 1000)...)
	f := faultOf(r, false, moment)
	if n := len(xmldoc.Marshal(f.Detail[0])); n > maxSentences*(maxSentence+100) {
		t.Errorf("the fault has %d bytes", n)
	}
	if len(f.Reason) > maxSentence+10 {
		t.Errorf("the reason has %d bytes", len(f.Reason))
	}
	if got, _ := errors.AsType[*Refusal](errorOf("op", f)); len(got.Sentences) != maxSentences {
		t.Errorf("%d sentences", len(got.Sentences))
	}
}

// TestFaultsOfOtherServices reads what other makes send.
func TestFaultsOfOtherServices(t *testing.T) {
	for name, c := range map[string]struct {
		detail  string
		code    soap.Code
		kind    fail.Kind
		refused bool
		want    string
	}{
		"a continuing fault":      {`<w:ContinuingFault xmlns:w="` + NS + `" xmlns:b="` + nsBaseFaults + `"><b:Timestamp>2026-01-01T00:00:00Z</b:Timestamp><b:Description>no room</b:Description></w:ContinuingFault>`, soap.Receiver, fail.Invalid, true, "no room"},
		"without a description":   {`<w:ContinuingFault xmlns:w="` + NS + `"/>`, soap.Receiver, fail.Invalid, true, "the reason"},
		"a code of another":       {`<w:ContinuingFault xmlns:w="` + NS + `" xmlns:b="` + nsBaseFaults + `"><b:ErrorCode dialect="urn:x">NoCapacity</b:ErrorCode></w:ContinuingFault>`, soap.Sender, fail.Invalid, true, "the reason"},
		"a code that is none":     {`<w:ContinuingFault xmlns:w="` + NS + `" xmlns:b="` + nsBaseFaults + `"><b:ErrorCode dialect="` + Dialect + `">Moon</b:ErrorCode></w:ContinuingFault>`, soap.Sender, fail.Invalid, true, "the reason"},
		"a kind that is none":     {`<w:ContinuingFault xmlns:w="` + NS + `"><p:Refusal xmlns:p="` + NSPortolan + `"><p:Kind>moon</p:Kind></p:Refusal></w:ContinuingFault>`, soap.Sender, fail.Invalid, true, "the reason"},
		"unknown":                 {`<r:ResourceUnknownFault xmlns:r="` + nsResource + `"/>`, soap.Sender, fail.NotFound, false, "the reason"},
		"unavailable":             {`<r:ResourceUnavailableFault xmlns:r="` + nsResource + `"/>`, soap.Receiver, fail.Unavailable, false, "the reason"},
		"no such property":        {`<r:InvalidResourcePropertyQNameFault xmlns:r="` + nsProperties + `"/>`, soap.Sender, fail.Unsupported, false, "the reason"},
		"something else":          {`<x/>`, soap.Receiver, fail.Internal, false, "the reason"},
		"something else, Sender":  {`<x/>`, soap.Sender, fail.Invalid, false, "the reason"},
		"a failure without words": {`<p:Failure xmlns:p="` + NSPortolan + `"/>`, soap.Sender, fail.Invalid, false, "the reason"},
	} {
		doc, err := xmldoc.ReadBytes([]byte(c.detail), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		f := &soap.Fault{Code: c.code, Reason: "the reason"}
		f.Detail = append(f.Detail, doc.Root())
		got := errorOf("op", f)
		if _, refused := errors.AsType[*Refusal](got); refused != c.refused || fail.KindOf(got) != c.kind || fail.Sentence(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for kind, f := range map[fail.Kind]*soap.Fault{
		fail.Unauthenticated: soap.SecurityFault("FailedAuthentication", "who"),
		fail.Unsupported:     {Code: soap.MustUnderstand},
		fail.Unavailable:     {Code: soap.Receiver, RetryAfter: time.Second},
		fail.Internal:        {Code: soap.Receiver},
	} {
		if err := errorOf("op", f); fail.KindOf(err) != kind {
			t.Errorf("%v is %v", f, err)
		}
	}
}
