package agreementtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// NegotiationOffer makes a first offer of a template: its terms as they are, with its
// creation constraints as Required ones.
func NegotiationOffer(t agreement.Template, id string, state agreement.OfferState) agreement.NegotiationOffer {
	o := agreement.NegotiationOffer{Agreement: Offer(t).Agreement, OfferID: id}
	o.OfferContext = agreement.OfferContext{CounterOfferTo: t.TemplateID, Creator: agreement.NegotiationInitiator, State: state}
	for _, i := range t.Constraints.Items {
		o.Constraints.Items = append(o.Constraints.Items, agreement.NegotiationItem{Item: i, Type: agreement.Required})
	}
	return o
}

// RunNegotiator judges an agreement.Negotiator. Each call of open gives one that has a
// negotiable template, by which an offer as it is can be kept; whoever asks is the
// anonymous principal, or nobody is told apart.
func RunNegotiator(t *testing.T, open func() agreement.Negotiator) {
	ctx := soap.WithPrincipal(t.Context(), soap.Principal{Name: "anonymous", Method: "none"})
	begin := func(t *testing.T, n agreement.Negotiator) (string, agreement.Template) {
		t.Helper()
		key, err := n.Initiate(ctx, &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder}})
		if err != nil || key == "" {
			t.Fatalf("the key is %q, %v", key, err)
		}
		p, err := n.Negotiation(ctx, key)
		if err != nil || len(p.Templates) == 0 {
			t.Fatalf("%+v, %v", p, err)
		}
		if p.Context.AgreementResponder != agreement.NegotiationResponder || p.Context.Renegotiation != nil {
			t.Errorf("its context is %+v", p.Context)
		}
		return key, p.Templates[0]
	}
	negotiate := func(t *testing.T, n agreement.Negotiator, key string, offers ...agreement.NegotiationOffer) []agreement.NegotiationOffer {
		t.Helper()
		answers, err := n.Negotiate(ctx, key, offers)
		if err != nil {
			t.Fatal(err)
		}
		to := map[string]agreement.OfferState{}
		for _, o := range offers {
			to[o.OfferID] = o.OfferContext.State
		}
		for _, a := range answers {
			state, ok := to[a.OfferContext.CounterOfferTo]
			if !ok || a.OfferID == "" || a.OfferContext.Creator != agreement.NegotiationResponder {
				t.Errorf("the answer %q of %s is to %q", a.OfferID, a.OfferContext.Creator, a.OfferContext.CounterOfferTo)
			}
			if err := state.Answer(a.OfferContext.State); err != nil {
				t.Error(err)
			}
		}
		return answers
	}

	t.Run("a solicited offer has a firm answer", func(t *testing.T) {
		n := open()
		key, tpl := begin(t, n)
		answers := negotiate(t, n, key, NegotiationOffer(tpl, "a", agreement.Solicited))
		if len(answers) == 0 {
			t.Fatal("there is none")
		}
		for _, a := range answers {
			if s := a.OfferContext.State; s != agreement.Acceptable || a.OfferContext.ExpirationTime.IsZero() {
				t.Errorf("it is %s until %s", s, a.OfferContext.ExpirationTime)
			}
		}
	})

	t.Run("several offers have each an answer", func(t *testing.T) {
		n := open()
		key, tpl := begin(t, n)
		seen := map[string]bool{}
		strange := NegotiationOffer(tpl, "c", agreement.Solicited)
		strange.Context.TemplateName = "no such name"
		for _, a := range negotiate(t, n, key, NegotiationOffer(tpl, "a", agreement.Solicited), NegotiationOffer(tpl, "b", agreement.Advisory), strange) {
			seen[a.OfferContext.CounterOfferTo] = true
			if a.OfferContext.CounterOfferTo == "c" && a.OfferContext.State != agreement.OfferRejected {
				t.Errorf("an offer by a strange template is %s", a.OfferContext.State)
			}
		}
		if len(seen) != 3 {
			t.Errorf("answers to %v", seen)
		}
	})

	t.Run("the offers of both sides make a tree", func(t *testing.T) {
		n := open()
		key, tpl := begin(t, n)
		first := negotiate(t, n, key, NegotiationOffer(tpl, "a", agreement.Advisory))
		if len(first) == 0 {
			t.Fatal("no answer")
		}
		next := first[0]
		next.OfferID = "b"
		next.OfferContext = agreement.OfferContext{CounterOfferTo: first[0].OfferID, Creator: agreement.NegotiationInitiator, State: agreement.Solicited}
		negotiate(t, n, key, next)
		p, err := n.Negotiation(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{tpl.TemplateID: true}
		for _, o := range p.Offers {
			if !known[o.OfferContext.CounterOfferTo] {
				t.Errorf("the offer %q answers %q, which is not there", o.OfferID, o.OfferContext.CounterOfferTo)
			}
			known[o.OfferID] = true
		}
		if !known["a"] || !known["b"] || len(p.Offers) < 4 {
			t.Errorf("the offers are %v", known)
		}
	})

	t.Run("what can't be answered is refused", func(t *testing.T) {
		n := open()
		key, tpl := begin(t, n)
		o := NegotiationOffer(tpl, "a", agreement.Solicited)
		o.OfferContext.CounterOfferTo = "no such offer"
		if _, err := n.Negotiate(ctx, key, []agreement.NegotiationOffer{o}); !refused(err) {
			t.Errorf("to an offer that is not there: %v", err)
		}
		strange := NegotiationOffer(tpl, "r", agreement.Solicited)
		strange.Context.TemplateName = "no such name"
		for _, a := range negotiate(t, n, key, strange) {
			next := strange
			next.OfferID, next.OfferContext.CounterOfferTo = "s", a.OfferID
			if _, err := n.Negotiate(ctx, key, []agreement.NegotiationOffer{next}); err == nil {
				t.Error("a rejected offer is answered")
			}
		}
		if _, err := n.Initiate(ctx, &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder, ExpirationTime: time.Unix(1e9, 0).UTC()}}); !refused(err) {
			t.Errorf("one that is over already: %v", err)
		}
	})

	t.Run("a negotiation that was ended is gone", func(t *testing.T) {
		n := open()
		key, tpl := begin(t, n)
		why := etree.NewElement("x:e")
		why.CreateAttr("xmlns:x", "urn:x")
		if err := n.TerminateNegotiation(ctx, key, []*etree.Element{why}); err != nil {
			t.Fatal(err)
		}
		for name, do := range map[string]func(context.Context, string) error{
			"negotiate": func(ctx context.Context, key string) error {
				_, err := n.Negotiate(ctx, key, []agreement.NegotiationOffer{NegotiationOffer(tpl, "a", agreement.Solicited)})
				return err
			},
			"advertise": func(ctx context.Context, key string) error {
				return n.Advertise(ctx, key, []agreement.NegotiationOffer{NegotiationOffer(tpl, "a", agreement.Advisory)})
			},
			"read":      func(ctx context.Context, key string) error { _, err := n.Negotiation(ctx, key); return err },
			"terminate": func(ctx context.Context, key string) error { return n.TerminateNegotiation(ctx, key, nil) },
		} {
			for _, k := range []string{key, "no-such-key"} {
				if err := do(ctx, k); !fail.Is(err, fail.NotFound) {
					t.Errorf("%s %s: %v", name, k, err)
				}
			}
		}
	})

	t.Run("what is advertised is there, and not answered", func(t *testing.T) {
		n := open()
		key, tpl := begin(t, n)
		if err := n.Advertise(ctx, key, []agreement.NegotiationOffer{NegotiationOffer(tpl, "a", agreement.Advisory)}); err != nil {
			t.Fatal(err)
		}
		p, err := n.Negotiation(ctx, key)
		if err != nil || len(p.Offers) != 1 || p.Offers[0].OfferID != "a" {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// refused reports whether an error says no, and why.
func refused(err error) bool {
	r, ok := errors.AsType[*agreement.Refusal](err)
	return ok && len(r.Sentences) > 0 && r.Sentences[0] != ""
}
