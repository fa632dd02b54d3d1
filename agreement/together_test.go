package agreement_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// gathered is a Coordinator in memory: the domain full.example has no room, and gone.example does not answer.
type gathered struct {
	asked  []agreement.TogetherRequest
	kept   []*agreement.Together
	reason string
}

var _ agreement.Coordinator = (*gathered)(nil)

func (g *gathered) CreateTogether(_ context.Context, q *agreement.TogetherRequest) (*agreement.Together, error) {
	g.asked = append(g.asked, *q)
	t := &agreement.Together{ID: q.ID, State: "committed", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if t.ID == "" {
		t.ID = "its own"
	}
	for i, p := range q.Parts {
		if p.Domain == "full.example" {
			r := agreement.Refuse(agreement.NoCapacity, "full.example refuses: all that there is has been promised")
			r.Earliest = agreementtest.Earliest
			return nil, r
		}
		if p.Domain == "gone.example" {
			return nil, fail.Errorf("test", fail.Unavailable, "", "it goes on")
		}
		x := agreement.TogetherPart{Name: p.Name, Domain: p.Domain, State: "confirmed", Key: fmt.Sprint(i + 1)}
		if i == 0 {
			a := p.Offer.Agreement
			a.ID = x.Key
			x.Agreement = &agreement.Properties{Agreement: a, State: agreement.Observed}
		} else {
			x.Reason, x.Earliest = "how it is now is not known", agreementtest.Earliest
		}
		t.Parts = append(t.Parts, x)
	}
	g.kept = append(g.kept, t)
	return t, nil
}

func (g *gathered) Together(_ context.Context, id string) (*agreement.Together, error) {
	for _, t := range g.kept {
		if t.ID == id {
			return t, nil
		}
	}
	return nil, fail.Errorf("test", fail.NotFound, id, "there is no coordination %q", id)
}

func (g *gathered) ListTogether(_ context.Context, before string, limit int) (ids []string, err error) {
	for _, t := range slices.Backward(g.kept) {
		if (before == "" || t.ID < before) && len(ids) < limit {
			ids = append(ids, t.ID)
		}
	}
	return ids, nil
}

func (g *gathered) TerminateTogether(ctx context.Context, id string, reason *etree.Element) error {
	if reason != nil {
		g.reason = xmldoc.Text(reason)
	}
	_, err := g.Together(ctx, id)
	return err
}

func (g *gathered) TemplatesOf(_ context.Context, domain, vo string) ([]agreement.Template, error) {
	if domain == "gone.example" || vo != "" {
		return nil, fail.Errorf("test", fail.NotFound, domain, "%s is no peer", domain)
	}
	return []agreement.Template{agreementtest.Template()}, nil
}

func TestTogetherOnTheWire(t *testing.T) {
	for _, v := range []soap.Version{soap.V11, soap.V12} {
		g := &gathered{}
		w := &wire{h: agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Coordinator: g})}
		c := agreement.NewClient(&soap.Client{URL: address, Version: v, Addressing: v == soap.V12, Transport: w, Retries: -1})
		ctx := t.Context()
		q := &agreement.TogetherRequest{ID: "a", Deadline: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
		for _, d := range []string{"", "north.example"} {
			q.Parts = append(q.Parts, agreement.TogetherOffer{Name: "at " + d, Domain: d, Offer: agreementtest.Offer(agreementtest.Template())})
		}
		x, err := c.CreateTogether(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.asked[0]; got.ID != q.ID || !got.Deadline.Equal(q.Deadline) || len(got.Parts) != 2 || got.Parts[0].Name != "at" || got.Parts[1].Domain != "north.example" || len(got.Parts[1].Offer.Guarantees()) != 1 {
			t.Errorf("it came as %+v", got)
		}
		if x.ID != "a" || x.State != "committed" || len(x.Parts) != 2 || x.Parts[0].Agreement == nil || x.Parts[0].Agreement.State != agreement.Observed || !x.Parts[1].Earliest.Equal(agreementtest.Earliest) || x.Parts[1].Key != "2" {
			t.Errorf("the answer is %+v", x)
		}
		again, err := c.Together(ctx, "a")
		if err != nil || !reflect.DeepEqual(xmlOf(again), xmlOf(x)) {
			t.Errorf("shown it is %+v, %v", again, err)
		}
		q.ID = ""
		if x, err = c.CreateTogether(ctx, q); err != nil || x.ID != "its own" {
			t.Errorf("%+v %v", x, err)
		}
		if ids, err := c.ListTogether(ctx, "", 1); err != nil || !slices.Equal(ids, []string{"its own"}) {
			t.Errorf("%v %v", ids, err)
		}
		if ids, err := c.ListTogether(ctx, "its own", 5); err != nil || !slices.Equal(ids, []string{"a"}) {
			t.Errorf("%v %v", ids, err)
		}
		if ids, err := c.ListTogether(ctx, "", 0); err != nil || len(ids) != 0 {
			t.Errorf("%v %v", ids, err)
		}
		why := etree.NewElement("why")
		why.SetText("it is  done")
		if err := c.TerminateTogether(ctx, "a", why); err != nil || g.reason != "it is done" {
			t.Errorf("%v, because %q", err, g.reason)
		}
		if list, err := c.TemplatesOf(ctx, "north.example", ""); err != nil || len(list) != 1 || list[0].Name != "batch" {
			t.Errorf("%v %v", list, err)
		}
		q.Parts[1].Domain = "full.example"
		_, err = c.CreateTogether(ctx, q)
		if r, ok := errors.AsType[*agreement.Refusal](err); !ok || r.Code != agreement.NoCapacity || !r.Earliest.Equal(agreementtest.Earliest) || !strings.Contains(fail.Sentence(err), "full.example refuses") {
			t.Errorf("%v", err)
		}
		q.Parts[1].Domain = "gone.example"
		for what, err := range map[string]error{
			"created":    second(c.CreateTogether(ctx, q)),
			"shown":      second(c.Together(ctx, "b")),
			"terminated": c.TerminateTogether(ctx, "b", nil),
			"templates":  second(c.TemplatesOf(ctx, "gone.example", "bio")),
		} {
			want := fail.NotFound
			if what == "created" {
				want = fail.Unavailable
			}
			if !fail.Is(err, want) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// xmlOf gives what became of one, with the agreements as they are written.
func xmlOf(x *agreement.Together) []string {
	out := []string{x.ID, x.State, x.Reason, x.Created.String()}
	for _, p := range x.Parts {
		out = append(out, p.Name, p.Domain, p.State, p.Key, p.Reason, p.Earliest.String())
		if p.Agreement != nil {
			out = append(out, string(xmldoc.Marshal(p.Agreement.Encode())))
		}
	}
	return out
}

// TestTogetherIsBounded: of more agreements than one answer takes the rest is told without.
func TestTogetherIsBounded(t *testing.T) {
	g := &gathered{kept: []*agreement.Together{{ID: "a", State: "committed"}}}
	long := etree.NewElement("x:pad")
	long.CreateAttr("xmlns:x", "urn:example")
	long.SetText(strings.Repeat("x", 3<<20))
	for i := range 8 {
		p := &agreement.Properties{Agreement: agreementtest.Template().Agreement, State: agreement.Observed}
		p.Context.Extensions = []*etree.Element{long.Copy()}
		g.kept[0].Parts = append(g.kept[0].Parts, agreement.TogetherPart{Name: fmt.Sprint(i), Domain: "d", State: "confirmed", Key: "k", Agreement: p})
	}
	w := &wire{h: agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Coordinator: g})}
	x, err := agreement.NewClient(&soap.Client{URL: address, Transport: w, Retries: -1, Limits: xmldoc.Limits{Bytes: 64 << 20}}).Together(t.Context(), "a")
	if err != nil || len(x.Parts) != 8 {
		t.Fatal(x, err)
	}
	for i, p := range x.Parts {
		if there := i < 5; (p.Agreement != nil) != there || strings.Contains(p.Reason, "too long") == there || p.Key != "k" {
			t.Errorf("the part %d: %t, %q", i, p.Agreement != nil, p.Reason)
		}
	}
}

// TestTogetherIsChecked: what is not as the schema has it is refused, and where.
func TestTogetherIsChecked(t *testing.T) {
	g := &gathered{}
	h := agreement.NewServer(&agreementtest.Service{}, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Coordinator: g})
	part := `<p:Part>` + string(xmldoc.Marshal(func() *etree.Element { o := agreementtest.Offer(agreementtest.Template()); return o.Encode() }())) + `</p:Part>`
	for words, body := range map[string]string{
		"Part":                  `<p:CreateTogether xmlns:p="NS"/>`,
		"AgreementOffer":        `<p:CreateTogether xmlns:p="NS"><p:Part><p:Name>a</p:Name></p:Part></p:CreateTogether>`,
		"more than the 32":      `<p:CreateTogether xmlns:p="NS">` + strings.Repeat(part, 33) + `</p:CreateTogether>`,
		"at most 128 are taken": `<p:CreateTogether xmlns:p="NS"><p:ID>` + strings.Repeat("x", 129) + `</p:ID>` + part + `</p:CreateTogether>`,
		"expected a time":       `<p:CreateTogether xmlns:p="NS"><p:Deadline>soon</p:Deadline>` + part + `</p:CreateTogether>`,
		"Site":                  `<p:CreateTogether xmlns:p="NS">` + part + `<p:Site/></p:CreateTogether>`,
		"is empty":              `<p:GetTogether xmlns:p="NS"><p:ID> </p:ID></p:GetTogether>`,
		"ID":                    `<p:TerminateTogether xmlns:p="NS"/>`,
		"VOs":                   `<p:GetTemplatesOf xmlns:p="NS"><p:VOs/></p:GetTemplatesOf>`,
		"Until":                 `<p:ListTogether xmlns:p="NS"><p:Until/></p:ListTogether>`,
	} {
		answer := string(xmldoc.Marshal(post(t, h, "", strings.ReplaceAll(body, "NS", agreement.NSPortolan)).Root()))
		if !strings.Contains(answer, "Fault") || !strings.Contains(answer, words) {
			t.Errorf("%s: %s", words, answer)
		}
	}
	if len(g.asked) > 0 {
		t.Errorf("it came to %+v", g.asked)
	}
	// A service without a coordinator has none of it, nor its WSDL.
	c, _ := onTheWire(&agreementtest.Service{}, soap.V11)
	if _, err := c.Together(t.Context(), "a"); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "no operation here answers") {
		t.Errorf("%v", err)
	}
}
