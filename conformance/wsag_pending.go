package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	pendingPortType    = "WS-Agreement 1.0, the PendingAgreementFactory port type"
	acceptancePortType = "WS-Agreement 1.0, the AgreementAcceptance port type"
)

var wsagPendingChecks = []check{
	{"WSAG-PEN-1", pendingPortType + "; GFD.107 schema, CreatePendingAgreementResponse", "CreatePendingAgreement is answered at once with a CreatedAgreementEPR", func(ctx context.Context, p *probe) (string, error) {
		_, rep, err := p.pending(ctx, "", "")
		if err != nil {
			return "", err
		}
		return rep.String(), nil
	}},
	{"WSAG-PEN-2", pendingPortType + "; " + stateClause, "the agreement is Pending then, or decided already", pendingState},
	{"WSAG-PEN-3", pendingPortType, "it is decided: Observed or Rejected", pendingDecided},
	{"WSAG-PEN-4", stateClause, "until then it goes through the states of the standard", pendingOrder},
	{"WSAG-PEN-5", ofAgreement, "an agreement that is pending has its id, context and terms", pendingProperties},
	{"WSAG-PEN-6", pendingPortType, "an unknown NoncriticalExtension is ignored", pendingTaken("", `<wsag:NoncriticalExtension><x:Unknown xmlns:x="`+nsOwn+`"/></wsag:NoncriticalExtension>`)},
	{"WSAG-PEN-7", schemaOf("CreatePendingAgreementInputType"), "an AgreementAcceptanceEPR and an InitiatorAgreementEPR before the offer are taken", pendingWithEPRs},
	{"WSAG-PEN-8", schemaOf("CreatePendingAgreementInputType"), "the two in the other order are refused", pendingRefused(func(o string) string { return ownEPR("InitiatorAgreementEPR") + ownEPR("AgreementAcceptanceEPR") + o })},
	{"WSAG-PEN-9", "WS-Addressing 1.0 core §3.1", "an AgreementAcceptanceEPR without an Address is refused", pendingRefused(func(o string) string { return `<wsag:AgreementAcceptanceEPR/>` + o })},
	{"WSAG-PEN-10", schemaOf("CreatePendingAgreementInputType"), "a request without an offer is refused", pendingRefused(func(string) string { return "" })},
	{"WSAG-PEN-11", pendingPortType + ": what is not marked as noncritical is critical", "a critical extension that is not understood is refused", pendingRefused(func(o string) string { return o + `<x:Unknown xmlns:x="` + nsOwn + `"/>` })},
	{"WSAG-PEN-12", terminating + "; " + stateClause, "Terminate of an agreement that is pending leads to its end", pendingEnd},
	{"WSAG-PEN-13", acceptancePortType, "the decision is told to the AgreementAcceptanceEPR, and is the one that the state shows", toldDecision},
	{"WSAG-PEN-14", acceptancePortType + "; WS-Addressing 1.0 SOAP binding §2.3", "the EPR's reference parameters come along as headers", toldParameters},
	{"WSAG-PEN-15", schemaOf("AgreementAcceptanceInputType"), "what is told is what the schema says", toldForm},
}

// pending makes a pending agreement; a skip where there are none.
func (p *probe) pending(ctx context.Context, before, after string) (*deal, *reply, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return nil, nil, err
	}
	d, rep, err := p.makeDeal(ctx, pendingInput, o, before, after)
	if err != nil && rep != nil && rep.fault != nil {
		if none := p.noPending(ctx, rep); none != nil {
			return nil, rep, none
		}
	}
	return d, rep, err
}

// noPending is a skip if the fault of a CreatePendingAgreement is that of an element that
// nobody knows.
func (p *probe) noPending(ctx context.Context, rep *reply) error {
	if rep.fault == nil || rep.fault.detailChild() != nil {
		return nil
	}
	unknown, err := p.ask(ctx, wsagMessage("NoSuchOperationInput", ""))
	if err != nil || unknown.fault == nil || unknown.fault.code != rep.fault.code || unknown.status != rep.status {
		return nil //nolint:nilerr // the check itself says what is wrong
	}
	return skip("the endpoint does not offer CreatePendingAgreement: %s", rep)
}

func decided(s agreement.State) bool {
	return s != agreement.Pending && s != agreement.PendingAndTerminating
}

func pendingState(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.pending(ctx, "", "")
	if err != nil {
		return "", err
	}
	s, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	switch s {
	case agreement.Pending, agreement.Observed, agreement.Rejected, agreement.Complete:
		return string(s), nil
	case agreement.PendingAndTerminating, agreement.ObservedAndTerminating, agreement.Terminated:
	}
	return "", fmt.Errorf("the agreement is %s, and nobody asked for its end", s)
}

func pendingDecided(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.pending(ctx, "", "")
	if err != nil {
		return "", err
	}
	seen, err := p.awaitDeal(ctx, d, decided)
	return joined(seen), err
}

func pendingOrder(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.pending(ctx, "", "")
	if err != nil {
		return "", err
	}
	seen, err := p.awaitDeal(ctx, d, decided)
	if err != nil {
		return "", err
	}
	for range 3 { // and it stays decided
		s, _, err := p.dealState(ctx, d)
		if err != nil {
			return "", err
		}
		seen = append(seen, s)
	}
	return joined(seen), inOrder(append([]agreement.State{agreement.Pending}, seen...))
}

func pendingProperties(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.pending(ctx, "", "")
	if err != nil {
		return "", err
	}
	for _, l := range []string{"AgreementId", "Context", "Terms"} {
		list, err := p.property(ctx, d, l)
		if err != nil {
			return "", err
		}
		if len(list) != 1 {
			return "", fmt.Errorf("the agreement has %d %s: wanted one", len(list), l)
		}
	}
	return "all there", nil
}

// pendingWithEPRs skips where a provider says that it tells nobody there.
func pendingWithEPRs(ctx context.Context, p *probe) (string, error) {
	_, rep, err := p.pending(ctx, ownEPR("AgreementAcceptanceEPR")+ownEPR("InitiatorAgreementEPR"), "")
	if err == nil {
		return rep.String(), nil
	}
	if rep != nil && rep.fault != nil && xmldoc.Is(rep.fault.detailChild(), agreement.NS, "ContinuingFault") {
		return "", skip("decisions are not told to initiator.invalid: %s", rep)
	}
	return "", err
}

func pendingTaken(before, after string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, rep, err := p.pending(ctx, before, after)
		if err != nil {
			return "", err
		}
		return rep.String(), nil
	}
}

func pendingRefused(change func(offer string) string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, o, err := p.accepted(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.ask(ctx, wsagMessage(pendingInput, change(xmlOf(o))))
		if err != nil {
			return "", err
		}
		_, _ = p.dealOf(rep, pendingInput, o) // one that was made all the same is to be ended
		if none := p.noPending(ctx, rep); none != nil {
			return "", none
		}
		return rep.String(), rep.wantRefusal()
	}
}

func pendingEnd(ctx context.Context, p *probe) (string, error) {
	d, _, err := p.pending(ctx, "", "")
	if err != nil {
		return "", err
	}
	if _, err := p.endDeal(ctx, d, reason); err != nil {
		return "", err
	}
	seen, err := p.awaitDeal(ctx, d, agreement.State.Final)
	if err != nil {
		return "", err
	}
	return joined(seen), inOrder(append([]agreement.State{agreement.PendingAndTerminating}, seen...))
}

// listener is where decisions are told.
type listener struct {
	url string
	srv *http.Server
	end chan struct{}

	mu   sync.Mutex
	told []told
}

// told is a message that came; err says why it can't be read.
type told struct {
	*reply
	err error
}

// maxTold bounds what is kept of what comes.
const maxTold = 1000

func (p *probe) listening() (*listener, error) {
	if p.provider.listener != nil {
		return p.provider.listener, nil
	}
	if p.opts.Listen == "" {
		return nil, skip("the kit is not told where to listen for decisions (--listen)")
	}
	l, err := net.Listen("tcp", p.opts.Listen) //nolint:noctx // it lives as long as the run
	if err != nil {
		return nil, skip("the kit can't listen at %s: %v", p.opts.Listen, err)
	}
	host, port, err := net.SplitHostPort(p.opts.Listen)
	if err != nil {
		return nil, err
	}
	if port == "0" {
		_, port, err = net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, err
		}
	}
	k := &listener{url: "http://" + net.JoinHostPort(host, port) + "/acceptance", end: make(chan struct{})}
	k.srv = &http.Server{Handler: k, ReadTimeout: p.opts.Timeout, WriteTimeout: p.opts.Timeout}
	go func() {
		defer close(k.end)
		_ = k.srv.Serve(l) // it ends with Close
	}()
	p.provider.listener = k
	return k, nil
}

func (k *listener) close() {
	_ = k.srv.Close() // nobody waits for an answer any more
	<-k.end
}

// ServeHTTP keeps what is told and answers as the standard says.
func (k *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(io.LimitReader(r.Body, replyLimit))
	rep := &reply{status: http.StatusOK, header: r.Header, raw: b}
	if err == nil {
		err = rep.parse()
	}
	if err == nil && rep.payload == nil {
		err = errors.New("the Body is empty")
	}
	k.mu.Lock()
	if len(k.told) < maxTold {
		k.told = append(k.told, told{rep, err})
	}
	k.mu.Unlock()
	if err != nil {
		http.Error(w, "this is no message of the AgreementAcceptance port type", http.StatusBadRequest)
		return
	}
	content := "text/xml; charset=utf-8"
	if rep.version == soap.V12 {
		content = "application/soap+xml; charset=utf-8"
	}
	w.Header().Set("Content-Type", content)
	_, _ = io.WriteString(w, envelope(rep.version, `<s:Body><wsag:`+responseOf(rep.payload.Tag)+declareWSAG+`/></s:Body>`)) // a sender that left loses it
}

// about gives the first message that carries a word in its headers.
func (k *listener) about(word string) (told, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.told {
		if t.err != nil {
			continue
		}
		for _, b := range t.blocks(nsOwn, "Deal") {
			if xmldoc.Text(b) == word {
				return t, true
			}
		}
	}
	return told{}, false
}

// last gives the message that came last.
func (k *listener) last() (told, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.told) == 0 {
		return told{}, false
	}
	return k.told[len(k.told)-1], true
}

// decision makes a pending agreement and waits for the message that tells how it was
// decided.
func (p *probe) decision(ctx context.Context) (t told, word string, state agreement.State, err error) {
	k, err := p.listening()
	if err != nil {
		return t, "", "", err
	}
	word = p.fresh("deal")
	epr := `<wsag:AgreementAcceptanceEPR>` + address(k.url) + `<a:ReferenceParameters xmlns:a="` + soap.NSWSA + `"><k:Deal xmlns:k="` + nsOwn + `">` + word + `</k:Deal></a:ReferenceParameters></wsag:AgreementAcceptanceEPR>`
	d, _, err := p.pending(ctx, epr, "")
	if err != nil {
		return t, word, "", err
	}
	seen, err := p.awaitDeal(ctx, d, decided)
	if err != nil {
		return t, word, "", err
	}
	state = seen[len(seen)-1]
	for until := time.Now().Add(p.opts.Settle); ; {
		if t, ok := k.about(word); ok {
			return t, word, state, nil
		}
		if time.Now().After(until) || ctx.Err() != nil {
			break
		}
		timer := time.NewTimer(20 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	if t, ok := k.last(); ok {
		if t.err != nil {
			return t, word, state, fmt.Errorf("what was told can't be read: %w", t.err)
		}
		return t, word, state, nil // the checks say what it lacks
	}
	return t, word, state, fmt.Errorf("the agreement is %s, and in %v nothing was told to its AgreementAcceptanceEPR", state, p.opts.Settle)
}

func toldDecision(ctx context.Context, p *probe) (string, error) {
	t, _, state, err := p.decision(ctx)
	if err != nil {
		return "", err
	}
	want := "AcceptAgreementInput"
	if state == agreement.Rejected {
		want = "RejectAgreementInput"
	}
	if !xmldoc.Is(t.payload, agreement.NS, want) {
		return "", fmt.Errorf("the agreement is %s, and %s was told: wanted wsag:%s", state, xmldoc.NameOf(t.payload), want)
	}
	return string(state) + ", told by " + want, nil
}

func toldParameters(ctx context.Context, p *probe) (string, error) {
	t, word, _, err := p.decision(ctx)
	if err != nil {
		return "", err
	}
	b := t.blocks(nsOwn, "Deal")
	if len(b) != 1 || xmldoc.Text(b[0]) != word {
		return "", fmt.Errorf("the reference parameter of the AgreementAcceptanceEPR came %d times as a header: wanted once, as it was", len(b))
	}
	return "came along", nil
}

func toldForm(ctx context.Context, p *probe) (string, error) {
	t, _, _, err := p.decision(ctx)
	if err != nil {
		return "", err
	}
	others := false
	for _, c := range t.payload.ChildElements() {
		n := xmldoc.NameOf(c)
		switch {
		case n.Space != agreement.NS && n.Space != "":
			others = true
		case n != xmldoc.Name{Space: agreement.NS, Local: "NoncriticalExtension"} || others:
			return "", fmt.Errorf("%s holds %s where the schema does not", xmldoc.NameOf(t.payload).Local, n)
		case len(c.ChildElements()) != 1 || !foreignElement(c.ChildElements()[0]):
			return "", errors.New("a NoncriticalExtension does not hold one element of another namespace")
		}
	}
	return fmt.Sprintf("%s with %d elements", xmldoc.NameOf(t.payload).Local, len(t.payload.ChildElements())), nil
}
