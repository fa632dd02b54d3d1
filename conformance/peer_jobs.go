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

func runs(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if end.Status != wire.IsEnded {
		return "", fmt.Errorf("the copy was %s: %s", end.Status, end.Reason)
	}
	var last uint64
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About {
			if x.Revision < last {
				return "", fmt.Errorf("a report of revision %d came after one of %d", x.Revision, last)
			}
			last = x.Revision
		}
	}
	if end.Result.Outcome != wire.Finished || end.Result.ExitCode != 0 {
		return "", fmt.Errorf("%s ended as %s with status %d: %s", p.opts.Programs.True, end.Result.Outcome, end.Result.ExitCode, end.Result.Reason)
	}
	return fmt.Sprintf("%s at revision %d, ran as %s", end.Result.Outcome, end.Revision, end.Result.Token), nil
}

func repeats(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if resend := v.opened.Terms.Resend; resend > p.opts.Settle/3 {
		return "", skip("a report is repeated after %v here, which is too long to wait", resend)
	}
	first, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if _, err := v.status(ctx, v.mark(), r.About, "the copy is over, again", final); err != nil {
		return "", fmt.Errorf("nobody settled %s: %w", first.Status, err)
	}
	return "it came again", nil
}

func settled(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	if _, err := v.status(ctx, mark, r.About, "the copy is over", final); err != nil {
		return "", err
	}
	if _, err := v.give(ctx, &wire.Settle{About: r.About, Taken: true}); err != nil {
		return "", err
	}
	if err := v.caughtUp(ctx); err != nil {
		return "", err
	}
	// Whether it is forgotten or known as over: it does not live.
	mark = v.mark()
	if err := v.caughtUp(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	again, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if err := v.caughtUp(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	saw := "its route is refused: " + string(again.Kind)
	if again.Accepted {
		saw = "its route is answered as before"
	}
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About {
			if !final(x) {
				return "", fmt.Errorf("the copy ended and was settled, and is %s again", x.Status)
			}
			saw += ", and it is " + string(x.Status)
		}
	}
	return saw, nil
}

func queriedUnknown(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.True))
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if err := v.caughtUp(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Report); ok && x.About == r.About {
			return "", fmt.Errorf("nobody has the copy, whose route may be on its way, and it is said to be %s: %s", x.Status, x.Reason)
		}
	}
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if !a.Accepted {
		return "", skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
	}
	v.drop(r.About)
	return "not spoken of, and taken", nil
}

func queried(ctx context.Context, p *probe) (string, error) {
	v, r, _, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) {
		return "", fmt.Errorf("the copy was just taken and sleeps for a minute, and it is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status), nil
}

func cancelled(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 3, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if rep.Heeded < 3 {
		return "", fmt.Errorf("the copy is %s, and heeded is %d: wanted 3", rep.Status, rep.Heeded)
	}
	if rep.Status == wire.IsEnded && rep.Result.Outcome != wire.Cancelled {
		return "", fmt.Errorf("the copy was cancelled, and ended as %s: %s", rep.Result.Outcome, rep.Result.Reason)
	}
	return string(rep.Status), nil
}

func staleControl(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 5, Want: wire.Run, RecallBy: r.RecallBy}, &wire.Control{About: r.About, Number: 4, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	if _, err := v.status(ctx, mark, r.About, "Control 5 was heeded", func(x *wire.Report) bool { return x.Heeded == 5 }); err != nil {
		return "", err
	}
	mark = v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) || rep.Heeded != 5 {
		return "", fmt.Errorf("Control 4, which cancels, came after Control 5, which does not, and the copy is %s with heeded %d", rep.Status, rep.Heeded)
	}
	return string(rep.Status), nil
}

func recalled(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Run, Recall: wire.RecallRunning, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "the recalled copy is returned", final)
	if err != nil {
		return "", err
	}
	if rep.Status != wire.IsReturned {
		return "", fmt.Errorf("a copy that sleeps for a minute was recalled, and is %s", rep.Status)
	}
	mark = v.mark()
	again, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	if again.Accepted {
		// It may say what it said before, as long as the copy stays returned.
		if rep, err = v.status(ctx, mark, r.About, "the copy stays returned", func(*wire.Report) bool { return true }); err != nil || rep.Status != wire.IsReturned {
			return "", errors.Join(errors.New("the copy was returned, and its route is accepted again"), err)
		}
	}
	return "returned, and refused afterwards", nil
}

func suspended(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	var saw []string
	for i, want := range []wire.Want{wire.Suspend, wire.Run} {
		n := uint64(i + 1)
		if _, err := v.give(ctx, &wire.Control{About: r.About, Number: n, Want: want, RecallBy: r.RecallBy}); err != nil {
			return "", err
		}
		rep, err := v.status(ctx, mark, r.About, fmt.Sprintf("Control %d was heeded", n), func(x *wire.Report) bool { return x.Heeded >= n })
		if err != nil {
			return "", err
		}
		if final(rep) {
			return "", fmt.Errorf("the copy was to %s, and is %s: %s", want, rep.Status, rep.Reason)
		}
		saw = append(saw, fmt.Sprintf("%s: %s", want, rep.Status))
	}
	return strings.Join(saw, ", "), nil
}

func controlledBefore(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	r, err := v.route(p.documentFor(p.opts.Programs.Sleep, "60"))
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Control", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if rep.Status != wire.IsReturned {
		return "", fmt.Errorf("the copy was never seen, and is %s: wanted %s", rep.Status, wire.IsReturned)
	}
	a, err := v.place(ctx, r)
	if err != nil {
		return "", err
	}
	return refusedWith(a)
}

func granted(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	later, earlier := time.Now().UTC().Add(v.opened.Terms.Lease*95/100).Truncate(time.Millisecond), time.Now().UTC().Add(-time.Hour).Truncate(time.Millisecond)
	if _, err := v.give(ctx, &wire.Grant{About: r.About, RecallBy: later}, &wire.Grant{About: r.About, RecallBy: earlier}); err != nil {
		return "", err
	}
	mark = max(mark, v.mark())
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) {
		return "", fmt.Errorf("after an earlier deadline than it has the copy is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status), nil
}

func batch(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if !v.opened.Provides {
		return "", skip("the endpoint says that it takes no jobs of the kit's domain")
	}
	n := min(20, int(v.theirs.Limit-v.sent))
	var routes []wire.Message
	for range n {
		r, err := v.route(p.documentFor(p.opts.Programs.True))
		if err != nil {
			return "", err
		}
		routes = append(routes, r)
	}
	mark, taken := v.mark(), 0
	if _, err := v.give(ctx, routes...); err != nil {
		return "", err
	}
	for _, m := range routes {
		r := m.(*wire.Route)
		a, err := await(ctx, v, mark, "Answer to each route", func(a *wire.Answer) bool { return a.About == r.About })
		if err != nil {
			return "", err
		}
		if a.Accepted {
			taken++
			v.drop(r.About)
		}
	}
	return fmt.Sprintf("%d of %d accepted", taken, n), nil
}

const greeting = "conformance says hello"

// readable gives a copy that has ended and wrote greeting.
func (p *probe) readable(ctx context.Context) (*visit, *wire.Route, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Contains(v.opened.Features, wire.FeatureOutput) {
		return nil, nil, skip("the endpoint does not know the feature %s", wire.FeatureOutput)
	}
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Echo, greeting)
	if err != nil {
		return nil, nil, err
	}
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err == nil && (end.Status != wire.IsEnded || end.Result.Outcome != wire.Finished) {
		err = fmt.Errorf("%s ended as %s: %s", p.opts.Programs.Echo, end.Status, end.Reason)
	}
	return v, r, err
}

// output reads, and gives what came.
func (v *visit) output(ctx context.Context, q *wire.Read) (string, *wire.Output, error) {
	mark := v.mark()
	if _, err := v.give(ctx, q); err != nil {
		return "", nil, err
	}
	last, err := await(ctx, v, mark, "Output that is the last", func(o *wire.Output) bool { return o.About == q.About && o.Request == q.Request && o.Last })
	if err != nil {
		return "", nil, err
	}
	text, at := "", q.Offset
	for _, m := range v.since(mark) {
		o, ok := m.(*wire.Output)
		if !ok || o.About != q.About || o.Request != q.Request {
			continue
		}
		if len(o.Data) > 0 && o.Offset != at {
			return "", nil, fmt.Errorf("output from %d came where %d was next", o.Offset, at)
		}
		text += string(o.Data)
		at += uint64(len(o.Data))
	}
	return text, last, nil
}

func outputRead(ctx context.Context, p *probe) (string, error) {
	v, r, err := p.readable(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	text, last, err := v.output(ctx, &wire.Read{About: r.About, Request: 11, Stream: wire.Stdout, Most: wire.MaxOutput})
	if err != nil {
		return "", err
	}
	if last.Kind != "" || strings.TrimSpace(text) != greeting {
		return "", fmt.Errorf("the output is %q (%s %s): wanted %q", text, last.Kind, last.Reason, greeting)
	}
	return fmt.Sprintf("%q", text), nil
}

func outputUnknown(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if !slices.Contains(v.opened.Features, wire.FeatureOutput) {
		return "", skip("the endpoint does not know the feature %s", wire.FeatureOutput)
	}
	_, last, err := v.output(ctx, &wire.Read{About: p.unknown(), Request: 12, Stream: wire.Stderr, Most: 100})
	if err != nil {
		return "", err
	}
	if last.Kind == "" {
		return "", errors.New("nobody has the copy, and its output was given")
	}
	return string(last.Kind) + ": " + last.Reason, nil
}

func outputPart(ctx context.Context, p *probe) (string, error) {
	v, r, err := p.readable(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	text, last, err := v.output(ctx, &wire.Read{About: r.About, Request: 13, Stream: wire.Stdout, Offset: 12, Most: 4})
	if err != nil {
		return "", err
	}
	if last.Kind != "" || text != greeting[12:16] {
		return "", fmt.Errorf("4 bytes from 12 are %q (%s %s): wanted %q", text, last.Kind, last.Reason, greeting[12:16])
	}
	return fmt.Sprintf("%q", text), nil
}

func usedSome(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", err
	}
	if end.Used < time.Millisecond {
		return "", fmt.Errorf("the copy ran, is %s, and used nothing", end.Status)
	}
	return end.Used.String(), nil
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

// second gives copy 2 of a job, which runs, and copy 1, which was never here.
func (p *probe) second(ctx context.Context) (v *visit, runs *wire.Route, low wire.About, err error) {
	if v, err = p.standing(ctx); err != nil {
		return nil, nil, low, err
	}
	if runs, err = v.route(p.documentFor(p.opts.Programs.Sleep, "60")); err != nil {
		return nil, nil, low, err
	}
	low = runs.About
	runs.Token = "2"
	a, err := v.place(ctx, runs)
	if err == nil && !a.Accepted {
		err = skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
	}
	return v, runs, low, err
}

func queriedLower(ctx context.Context, p *probe) (string, error) {
	v, r, low, err := p.second(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Query{About: low}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, low, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if rep.Status != wire.IsReturned {
		return "", fmt.Errorf("copy 2 is here, and copy 1 is %s: wanted %s", rep.Status, wire.IsReturned)
	}
	return string(rep.Status) + ": " + rep.Reason, nil
}

func controlledLower(ctx context.Context, p *probe) (string, error) {
	v, r, low, err := p.second(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if err := v.caughtUp(ctx, &wire.Control{About: low, Number: 7, Want: wire.Cancel, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true })
	if err != nil {
		return "", err
	}
	if final(rep) || rep.Heeded != 0 {
		return "", fmt.Errorf("copy 1 was cancelled, and copy 2 is %s with heeded %d", rep.Status, rep.Heeded)
	}
	return "copy 2 is " + string(rep.Status), nil
}

// brief gives a copy that sleeps, whose recall deadline is as near as the terms let it be, with
// some time to begin it.
func (p *probe) brief(ctx context.Context, room time.Duration) (*visit, *wire.Route, int, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	t := v.opened.Terms
	for ; ; room *= 2 {
		ahead := 2*t.Skew + t.StopWithin + room
		if ahead > p.opts.Settle {
			return nil, nil, 0, skip("with skew %v and stopWithin %v no copy is taken that is over within %v", t.Skew, t.StopWithin, p.opts.Settle)
		}
		r, err := v.route(p.documentFor(p.opts.Programs.Sleep, "600"))
		if err != nil {
			return nil, nil, 0, err
		}
		r.RecallBy = time.Now().UTC().Add(ahead).Truncate(time.Millisecond)
		mark := v.mark()
		a, err := v.place(ctx, r)
		if err != nil {
			return nil, nil, 0, err
		}
		if a.Accepted {
			return v, r, mark, nil
		}
		if a.Kind != wire.Conflict { // else it came too near to its deadline
			return nil, nil, 0, skip("the endpoint takes no such job of the kit's domain: %s: %s", a.Kind, a.Reason)
		}
	}
}

// briefest is the room with which brief begins.
const briefest = 1500 * time.Millisecond

func lapses(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.brief(ctx, briefest)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", fmt.Errorf("no later deadline was granted: %w", err)
	}
	if rep.Status == wire.IsEnded && rep.Result.Outcome == wire.Finished {
		return "", errors.New("a copy that sleeps for 10 minutes ended well after its deadline of a few seconds")
	}
	if late := rep.At.Sub(r.RecallBy.Add(v.opened.Terms.Skew)); late > 0 {
		return "", fmt.Errorf("the copy is %s since %v after it should have been dead everywhere", rep.Status, late)
	}
	return string(rep.Status) + ": " + rep.Reason, nil
}

func renews(ctx context.Context, p *probe) (string, error) {
	for room := briefest; ; room *= 2 {
		v, r, mark, err := p.brief(ctx, room)
		if err != nil {
			return "", err
		}
		saw, late, err := v.renewed(ctx, r, mark)
		v.drop(r.About)
		if !late {
			return saw, err
		}
	}
}

// renewed grants a copy a later deadline as it asks for one, and looks at it after its first one;
// late says that the Grant may have come when the copy was given up already.
func (v *visit) renewed(ctx context.Context, r *wire.Route, mark int) (saw string, late bool, err error) {
	t := v.opened.Terms
	rep, err := v.status(ctx, mark, r.About, "asks for a later deadline", func(*wire.Report) bool { return true })
	if err == nil {
		_, err = v.give(ctx, &wire.Grant{About: r.About, RecallBy: time.Now().UTC().Add(t.Lease / 2).Truncate(time.Millisecond)})
	}
	if err != nil || time.Now().After(r.RecallBy.Add(-2*t.Skew-t.StopWithin)) {
		return "", err == nil, err
	}
	if final(rep) {
		return "", false, fmt.Errorf("the copy was just taken, and is %s: %s", rep.Status, rep.Reason)
	}
	for dead := r.RecallBy.Add(t.Skew); time.Now().Before(dead); {
		if _, err := v.poll(ctx, min(time.Second, time.Until(dead))); err != nil {
			return "", false, err
		}
	}
	mark = v.mark()
	if _, err := v.give(ctx, &wire.Query{About: r.About}); err != nil {
		return "", false, err
	}
	if rep, err = v.status(ctx, mark, r.About, "answers the Query", func(*wire.Report) bool { return true }); err != nil {
		return "", false, err
	}
	if final(rep) {
		return "", false, fmt.Errorf("the copy was granted a later deadline, and after its first one it is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status) + " after its first deadline", false, nil
}

// running gives a copy that runs.
func (p *probe) running(ctx context.Context) (*visit, *wire.Route, int, error) {
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return nil, nil, 0, err
	}
	rep, err := v.status(ctx, mark, r.About, "the copy runs", func(x *wire.Report) bool { return x.Status == wire.IsRunning || final(x) })
	if err == nil && final(rep) {
		err = fmt.Errorf("the copy was just taken, and is %s: %s", rep.Status, rep.Reason)
	}
	if err != nil {
		v.drop(r.About)
	}
	return v, r, v.mark(), err
}

func recalledIdle(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.running(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Control{About: r.About, Number: 1, Want: wire.Run, Recall: wire.RecallIdle, RecallBy: r.RecallBy}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "Control 1 was heeded", func(x *wire.Report) bool { return x.Heeded >= 1 || final(x) })
	if err != nil {
		return "", err
	}
	if final(rep) {
		return "", fmt.Errorf("the copy runs, was to be given back if idle, and is %s: %s", rep.Status, rep.Reason)
	}
	return string(rep.Status), nil
}

func settledUnwanted(ctx context.Context, p *probe) (string, error) {
	v, r, mark, err := p.running(ctx)
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	if _, err := v.give(ctx, &wire.Settle{About: r.About}); err != nil {
		return "", err
	}
	rep, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return "", fmt.Errorf("the copy does not count any more for the kit: %w", err)
	}
	if rep.Status == wire.IsEnded && rep.Result.Outcome == wire.Finished {
		return "", errors.New("a copy that sleeps for a minute ended well at once")
	}
	return string(rep.Status) + ": " + rep.Reason, nil
}
