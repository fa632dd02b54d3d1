package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

const jobs = "Handing over"

var peerJobChecks = []check{
	{"PEER-JOB-1", chapter(jobs + ": Route; Answer"), "a route is answered, in the answer to the request that had it or soon after", routed},
	{"PEER-JOB-2", chapter(jobs + ": Route; Messages: Idempotence"), "the same route again is answered the same again, and runs once", routedAgain},
	{"PEER-JOB-3", chapter(jobs + ": Route"), "a route of a known key and token with another digest is refused as a conflict", conflicting},
	{"PEER-JOB-4", chapter(jobs + ": path"), "a route that came through the endpoint's domain is refused as invalid", looped},
	{"PEER-JOB-5", chapter(jobs + ": path; Route (Domain)"), "a route whose path does not end with its sender is refused", notOurs},
	{"PEER-JOB-6", chapter(jobs + ": path; Route (Domain)"), "a route whose path does not begin with the key's origin is refused", notOrigin},
	{"PEER-JOB-7", chapter(jobs + ": path; Route (hops)"), "a route with more hops than are left is refused", tooManyHops},
	{"PEER-JOB-8", chapter(jobs + ": key and token"), "who knows a higher token takes no lower one", lowerToken},
	{"PEER-JOB-9", chapter(jobs + ": key and token; Route"), "a higher token of a key that was returned is taken", higherToken},
	{"PEER-JOB-10", chapter(jobs + ": Route"), "a document that is no JSDL is refused, with a sentence", badDocument},
	{"PEER-JOB-11", chapter(jobs + ": recall deadline"), "a route whose recall deadline is over does not run", tooLate},
	{"PEER-JOB-12", chapter(jobs + ": Reports; Report (Result)"), "a job that ends is reported as ended with its result, in revisions that grow", runs},
	{"PEER-JOB-13", chapter(jobs + ": Reports (repeated until they are settled)"), "a final report comes again until it is settled", repeats},
	{"PEER-JOB-14", chapter(jobs + ": Settle; Query"), "a copy that was settled never runs again, whatever is asked of it", settled},
	{"PEER-JOB-15", chapter(jobs + ": Query"), "a Query of a copy that nobody has is not answered, and its route is taken when it comes", queriedUnknown},
	{"PEER-JOB-16", chapter(jobs + ": Query; Report"), "a Query of a copy that runs is answered with how it stands", queried},
	{"PEER-JOB-17", chapter(jobs + ": Control; Report (heeded)"), "cancel ends the copy, and the report has heeded it", cancelled},
	{"PEER-JOB-18", chapter(jobs + ": Control (number)"), "a Control with a lower number than was heard is not heeded", staleControl},
	{"PEER-JOB-19", chapter(jobs + ": Control"), "recall of a copy that runs has it returned, and not run again", recalled},
	{"PEER-JOB-20", chapter(jobs + ": Control"), "suspend is heeded, and run after it", suspended},
	{"PEER-JOB-21", chapter(jobs + ": Control (one for a token that the taker never saw)"), "a Control for a copy that was never seen has its route refused", controlledBefore},
	{"PEER-JOB-22", chapter(jobs + ": recall deadline; Grant"), "a Grant is taken, and an earlier deadline than is had is not heeded", granted},
	{"PEER-JOB-23", chapter(jobs + ": Reports (come in batches)"), "many routes in one frame are answered each, by their own copies", batch},
	{"PEER-JOB-24", chapter(jobs + ": Read; Output"), "output is read in pieces, the last of which says so", outputRead},
	{"PEER-JOB-25", chapter(jobs + ": Read; Output (kind)"), "output of a copy that nobody has can't be had, and is told so", outputUnknown},
	{"PEER-JOB-26", chapter(jobs + ": Read (offset, most)"), "output begins at the offset, and is no more than was wanted", outputPart},
	{"PEER-JOB-27", chapter(jobs + ": used"), "a copy that was started has used a millisecond at least", usedSome},
	{"PEER-JOB-28", chapter(jobs + ": digest"), "a route whose digest is another is refused as invalid", otherDigest},
	{"PEER-JOB-29", chapter(jobs + ": digest (deadline)"), "the job's deadline is in the digest, as it is written", deadlineDigest},
	{"PEER-JOB-30", chapter(jobs + ": Route (answered as before)"), "a route that was refused is refused again, alike", refusedAgain},
	{"PEER-JOB-31", chapter(jobs + ": Query (a copy under a lower token)"), "a Query under a lower token than is known is answered as returned", queriedLower},
	{"PEER-JOB-32", chapter(jobs + ": key and token"), "a Control under a lower token than is known does nothing to the copy", controlledLower},
	{"PEER-JOB-33", chapter(jobs + ": Control (recall: idle)"), "recall of what is idle leaves a copy that runs", recalledIdle},
	{"PEER-JOB-34", chapter(jobs + ": Settle (taken)"), "a copy that is settled without being taken is stopped", settledUnwanted},
	{"PEER-DLN-1", chapter(jobs + ": recall deadline"), "a copy that is granted no later deadline is stopped by its own", lapses},
	{"PEER-DLN-2", chapter(jobs + ": Report (asks for a later deadline)"), "a copy that runs is reported before its deadline, and goes on where a later one is granted", renews},
}

// documentFor gives a JSDL document that runs a program.
func (p *probe) documentFor(program string, arguments ...string) string {
	return job(`<jsdl:JobIdentification><jsdl:JobName>` + escape(p.fresh("conformance")) + `</jsdl:JobName></jsdl:JobIdentification>` + posix(program, arguments...))
}

// route makes a Route of a new key.
func (v *visit) route(document string) (*wire.Route, error) {
	g := &v.p.opts.Guest
	r := &wire.Route{
		About: wire.About{Origin: g.Domain, ID: v.p.fresh("job"), Token: "1"}, RecallBy: time.Now().UTC().Add(v.opened.Terms.Lease * 9 / 10).Truncate(time.Millisecond),
		Hops: 2, VO: g.VO, Path: []string{g.Domain}, Document: document,
	}
	return r, v.vouch(r)
}

// vouch adds what goes with the document: the assertion about its user, and the digest.
func (v *visit) vouch(r *wire.Route) (err error) {
	r.Digest = digestOf(r)
	if vouch := v.p.opts.Guest.Vouch; vouch != nil {
		if r.Assertion, err = vouch(v.opened.Domain, r.ID, r.Document); err != nil {
			return fmt.Errorf("the kit can't vouch for its user: %w", err)
		}
	}
	return nil
}

// digestOf names all that is routed: docs/peer-protocol.md, Handing over.
func digestOf(r *wire.Route) string {
	deadline := ""
	if !r.Deadline.IsZero() {
		deadline = r.Deadline.Format(time.RFC3339Nano)
	}
	sum := sha256.Sum256([]byte(r.Document + "\x00" + r.VO + "\x00" + deadline))
	return "sha-256:" + hex.EncodeToString(sum[:])
}

// place sends a route and gives its answer.
func (v *visit) place(ctx context.Context, r *wire.Route) (*wire.Answer, error) {
	if !v.opened.Provides {
		return nil, skip("the endpoint says that it takes no jobs of the kit's domain")
	}
	mark := v.mark()
	if _, err := v.give(ctx, r); err != nil {
		return nil, err
	}
	return await(ctx, v, mark, "Answer to the route", func(a *wire.Answer) bool { return a.About == r.About })
}

// begun gives a copy that was taken, and a mark from before.
func (p *probe) begun(ctx context.Context, program string, arguments ...string) (*visit, *wire.Route, int, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	r, err := v.route(p.documentFor(program, arguments...))
	if err != nil {
		return nil, nil, 0, err
	}
	mark := v.mark()
	a, err := v.place(ctx, r)
	if err != nil {
		return nil, nil, 0, err
	}
	if !a.Accepted {
		return nil, nil, 0, skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
	}
	return v, r, mark, nil
}

// drop lets go of a copy: it is cancelled, and its end settled when it comes.
func (v *visit) drop(a wire.About) {
	e := &v.p.errands
	e.mu.Lock()
	if e.dropped == nil {
		e.dropped = map[wire.About]bool{}
	}
	e.dropped[a] = true
	e.mu.Unlock()
	e.add(&wire.Control{About: a, Number: 1000, Want: wire.Cancel, RecallBy: time.Now().UTC().Add(v.opened.Terms.Lease / 2).Truncate(time.Millisecond)})
}

func final(r *wire.Report) bool { return r.Status == wire.IsEnded || r.Status == wire.IsReturned }

// status waits for a report about a copy that is as it should.
func (v *visit) status(ctx context.Context, mark int, a wire.About, what string, is func(*wire.Report) bool) (*wire.Report, error) {
	return await(ctx, v, mark, "Report that "+what, func(r *wire.Report) bool { return r.About == a && is(r) })
}

// turnedDown wants a route that is refused: by an Answer, or, if the message can't be right
// by itself, as BadMessage.
func (p *probe) turnedDown(ctx context.Context, change func(*visit, *wire.Route), kinds ...wire.Refusal) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	change(v, r)
	if err := v.vouch(r); err != nil {
		return "", err
	}
	a, err := v.place(ctx, r)
	if f, ok := errors.AsType[*wire.Fault](err); ok && f.Code == wire.BadMessage {
		p.visit = nil
		return string(f.Code) + ": " + f.Sentence, nil
	}
	if err != nil {
		return "", err
	}
	return refusedWith(a, kinds...)
}

func refusedWith(a *wire.Answer, kinds ...wire.Refusal) (string, error) {
	if a.Accepted {
		return "", errors.New("the route was accepted")
	}
	if len(kinds) > 0 && !slices.Contains(kinds, a.Kind) {
		return "", fmt.Errorf("the route was refused as %s (%s): wanted %q", a.Kind, a.Reason, kinds)
	}
	return fmt.Sprintf("%s: %s", a.Kind, a.Reason), nil
}

func routed(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if !a.Accepted {
		return fmt.Sprintf("refused, %s: %s", a.Kind, a.Reason), nil
	}
	v.drop(r.About)
	return "accepted", nil
}

// answers gives those to a copy's routes after a mark.
func (v *visit) answers(mark int, a wire.About) (out []*wire.Answer) {
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Answer); ok && x.About == a {
			out = append(out, x)
		}
	}
	return out
}

func routedAgain(ctx context.Context, p *probe) (string, error) {
	v, r, _, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	mark := v.mark()
	again, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if !again.Accepted {
		return "", fmt.Errorf("the same route was accepted first, and then refused as %s: %s", again.Kind, again.Reason)
	}
	if n := len(v.answers(mark, r.About)); n != 1 {
		return "", fmt.Errorf("the route that came again got %d answers", n)
	}
	return "accepted both times", nil
}

func conflicting(ctx context.Context, p *probe) (string, error) {
	v, r, _, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	other := *r
	other.Document = p.documentFor(p.opts.Programs.True)
	if err := v.vouch(&other); err != nil {
		return "", err
	}
	a, err := v.place(ctx, &other)
	if err != nil {
		return "", err
	}
	return refusedWith(a, wire.Conflict)
}

func looped(ctx context.Context, p *probe) (string, error) {
	return p.turnedDown(ctx, func(v *visit, r *wire.Route) {
		// The sender is the last: the endpoint's domain, where it began, stands before it.
		r.Origin, r.Path, r.Token = v.opened.Domain, []string{v.opened.Domain, p.opts.Guest.Domain}, "1.1"
	}, wire.Invalid)
}

func notOurs(ctx context.Context, p *probe) (string, error) {
	return p.turnedDown(ctx, func(_ *visit, r *wire.Route) {
		r.Path, r.Token = []string{p.opts.Guest.Domain, "stranger.invalid"}, "1.1"
	}, wire.Invalid, wire.Denied)
}

// rerouted puts a route into a frame with its text changed, as a message that can't be right
// is not written by the encoder.
func (p *probe) rerouted(ctx context.Context, old, text string) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if !v.opened.Provides {
		return "", skip("the endpoint says that it takes no jobs of the kit's domain")
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	f := v.frame()
	v.with(&f, r)
	xml, err := textOf(&wire.Exchange{Frame: f})
	if err != nil {
		return "", err
	}
	changed := strings.Replace(xml, old, text, 1)
	if changed == xml {
		return "", fmt.Errorf("the kit's message has no %s, which is a mistake of the kit", old)
	}
	p.visit = nil // BadMessage closes it
	m, err := p.say(ctx, p.carrying("Exchange", changed))
	return wantCode(m, err, wire.BadMessage)
}

func notOrigin(ctx context.Context, p *probe) (string, error) {
	return p.rerouted(ctx, `<p:Domain>`+escape(p.opts.Guest.Domain)+`</p:Domain>`, `<p:Domain>stranger.invalid</p:Domain><p:Domain>`+escape(p.opts.Guest.Domain)+`</p:Domain>`)
}

func tooManyHops(ctx context.Context, p *probe) (string, error) {
	return p.rerouted(ctx, ` hops="2"`, ` hops="16"`)
}

func lowerToken(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.Sleep, "60"))
	if err != nil {
		return "", err
	}
	r.Token = "2"
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if !a.Accepted {
		return "", skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
	}
	defer v.drop(r.About)
	low := *r
	low.Token = "1"
	if a, err = v.place(ctx, &low); err != nil {
		return "", err
	}
	return refusedWith(a)
}

func higherToken(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Run, Recall: wire.RecallRunning, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	if _, err := v.status(ctx, mark, r.About, "the recalled copy is returned", final); err != nil {
		return "", err
	}
	// A copy that did something is settled before another is taken.
	if _, err := v.give(ctx, &wire.Settle{About: r.About, Taken: true}); err != nil {
		return "", err
	}
	next := *r
	next.Token = "2"
	a, err := v.place(ctx, &next)
	if err != nil {
		return "", err
	}
	if !a.Accepted {
		return "", fmt.Errorf("the copy 1 was returned, and copy 2 is refused as %s: %s", a.Kind, a.Reason)
	}
	v.drop(next.About)
	return "copy 2 after copy 1", nil
}

func badDocument(ctx context.Context, p *probe) (string, error) {
	return p.turnedDown(ctx, func(_ *visit, r *wire.Route) { r.Document = "<nothing/>" }, wire.Invalid, wire.Unsupported)
}

func tooLate(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.Sleep, "60"))
	if err != nil {
		return "", err
	}
	r.RecallBy = time.Now().UTC().Add(-time.Hour).Truncate(time.Millisecond)
	mark := v.mark()
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if !a.Accepted {
		return fmt.Sprintf("%s: %s", a.Kind, a.Reason), nil
	}
	defer v.drop(r.About)
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if rep.Status == wire.IsEnded && rep.Result.Token != "" {
		return "", fmt.Errorf("the copy was dead before it came, and ran as %s", rep.Result.Token)
	}
	return "accepted, and " + string(rep.Status), nil
}

func otherDigest(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	r.Digest = digestOf(&wire.Route{Document: r.Document + " "})
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	return refusedWith(a, wire.Invalid)
}

func deadlineDigest(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	r.Deadline = time.Now().UTC().Add(time.Hour).Truncate(time.Second).Add(120 * time.Millisecond) // which is written as .12
	r.Digest = digestOf(r)
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if a.Accepted {
		v.drop(r.About)
		return "accepted", nil
	}
	if a.Kind == wire.Invalid {
		return "", fmt.Errorf("a route of a job with a deadline is refused as %s: %s", a.Kind, a.Reason)
	}
	return "", skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
}

func refusedAgain(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route("<nothing/>")
	if err != nil {
		return "", err
	}
	first, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if _, err := refusedWith(first); err != nil {
		return "", err
	}
	again, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if again.Accepted || again.Kind != first.Kind {
		return "", fmt.Errorf("the route was refused as %s (%s), and when it came again: accepted %v, %s (%s)", first.Kind, first.Reason, again.Accepted, again.Kind, again.Reason)
	}
	return string(first.Kind) + " both times", nil
}
