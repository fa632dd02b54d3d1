package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestAgreements: promises of the real program at a real Slurm, over SOAP.
func TestAgreements(t *testing.T) {
	t.Run("AtSlurm", func(t *testing.T) {
		t.Parallel()
		w := newPromising(t, testbed.SlurmOptions{Nodes: 2, CPUs: 2}, "")
		t.Run("AdvanceReservation", func(t *testing.T) { advanceReservation(t, w) })
		t.Run("FinishBy", func(t *testing.T) { finishBy(t, w) })
	})
	t.Run("SiteKilled", func(t *testing.T) {
		t.Parallel()
		siteKilled(t, newPromising(t, testbed.SlurmOptions{Nodes: 2, CPUs: 2}, "  - {name: spare, type: shell, ahead: 0, settings: {slots: 2}}\n"))
	})
	t.Run("Thousand", func(t *testing.T) {
		t.Parallel()
		t.Run("Replicas", thousandOfReplicas)
		t.Run("Domains", thousandOfDomains)
	})
}

// promising is a gateway with a real Slurm that takes agreements.
type promising struct {
	*gateway
	slurm *testbed.Slurm
	dir   string // that every account can reach
}

// newPromising starts both, with further sites. All of each share is promised.
func newPromising(t *testing.T, o testbed.SlurmOptions, further string) *promising {
	t.Helper()
	w := &promising{slurm: testbed.StartSlurm(t, o), dir: openDir(t)}
	spool := filepath.Join(w.dir, "slurm")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(w.dir, "portolan.yaml")
	text := fmt.Sprintf(`sites:
  - {name: slurm, type: slurm, ahead: 0, settings: {conf: %s, spool: %s, requestsPerSecond: 20, poll: 500ms}}
%sagreements: {promise: 100, grace: 60s, penalty: 7.5}
`, w.slurm.Conf(), spool, further)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.gateway = startOn(t, t.TempDir(), "--config", config)
	mustCLI(t, w.gateway, "policy", "set", "gateway", "scheduling", "edf")
	return w
}

// agreements speaks WS-Agreement to the gateway.
func (g *gateway) agreements() *agreement.Client { return agreementsAt(g.agreement) }

func agreementsAt(url string) *agreement.Client {
	return agreement.NewClient(&soap.Client{URL: url, Addressing: true, Timeout: 2 * time.Minute})
}

// offering is an offer that is being written.
type offering struct{ *agreement.Offer }

// offerBy makes an offer of a template, as the template is; it waits for the template, which is there once
// the gateway knows what the site has.
func offerBy(t *testing.T, c *agreement.Client, template string) offering {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var names []string
	for {
		list, err := c.Templates(ctx)
		if err != nil {
			t.Fatalf("there is no template %s, but %s: %v", template, strings.Join(names, ", "), err)
		}
		names = nil
		for i := range list {
			if names = append(names, list[i].Name); list[i].Name != template {
				continue
			}
			o := agreement.Offer{Agreement: list[i].Agreement}
			parsed, err := agreement.ParseOffer(xmldoc.Marshal(o.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			return offering{parsed}
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// say replaces what a term describes.
func (o offering) say(t *testing.T, term string, content []byte) offering {
	t.Helper()
	d, ok := o.Term(term).(*agreement.ServiceDescription)
	if !ok {
		t.Fatalf("the offer has no term %s", term)
	}
	doc, err := xmldoc.ReadBytes(content, xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	d.Description = xmldoc.Detach(doc.Root())
	o.Element = nil
	return o
}

func (o offering) send(ctx context.Context, c *agreement.Client) (string, error) {
	return c.Create(ctx, &agreement.CreateRequest{Offer: *o.Offer})
}

func ownTerm(local, content string) []byte {
	return fmt.Appendf(nil, `<p:%s xmlns:p="%s">%s</p:%[1]s>`, local, agreement.NSPortolan, content)
}

func stampOf(at time.Time) string { return at.UTC().Format(time.RFC3339) }

func windowTerm(from, until time.Time) []byte {
	return ownTerm("Window", "<p:StartTime>"+stampOf(from)+"</p:StartTime><p:EndTime>"+stampOf(until)+"</p:EndTime>")
}

// promised is an agreement as its owner sees it.
type promised struct {
	*agreement.Properties
}

func (p promised) service() agreement.ServiceTermState {
	if len(p.Services) == 0 {
		return agreement.ServiceTermState{}
	}
	return p.Services[0] // the job's; those of the terms beside it follow
}

func (p promised) guarantee(name string) agreement.GuaranteeState {
	for _, g := range p.Guarantees {
		if g.Term == name {
			return g.State
		}
	}
	return ""
}

// job gives the reference of the job, false while there is none.
func (p promised) job() (soap.EPR, bool) {
	d := p.service().Detail
	if d == nil {
		return soap.EPR{}, false
	}
	e := xmldoc.Child(d, "http://www.w3.org/2005/08/addressing", "EndpointReference")
	if e == nil {
		return soap.EPR{}, false
	}
	epr, err := soap.DecodeEPR(e)
	return epr, err == nil
}

// entries are those of the ledger, of a kind.
func (p promised) entries(kind string) (out []*etree.Element) {
	if p.SubState == nil {
		return nil
	}
	for _, e := range p.SubState.ChildElements() {
		if e.Tag == "Entry" && e.SelectAttrValue("kind", "") == kind {
			out = append(out, e)
		}
	}
	return out
}

// story is what happened, a line an event.
func (p promised) story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, service %s/%s, guarantees:", p.State, p.service().State, p.service().Activity)
	for _, g := range p.Guarantees {
		fmt.Fprintf(&b, " %s %s", g.Term, g.State)
	}
	b.WriteString("\n")
	if p.SubState == nil {
		return b.String()
	}
	for _, e := range p.SubState.ChildElements() {
		switch e.Tag {
		case "Event":
			fmt.Fprintf(&b, "%s %s [%s] %s\n", e.SelectAttrValue("at", ""), e.SelectAttrValue("name", ""), e.SelectAttrValue("state", ""), e.Text())
		case "Entry":
			fmt.Fprintf(&b, "entry %s: %s %s, %s\n", e.SelectAttrValue("kind", ""), e.SelectAttrValue("amount", ""), e.SelectAttrValue("unit", ""), e.Text())
		}
	}
	return b.String()
}

// happened reports whether an event of a name is in the history, with these words.
func (p promised) happened(name string, words ...string) bool {
	if p.SubState == nil {
		return false
	}
events:
	for _, e := range p.SubState.ChildElements() {
		if e.Tag != "Event" || e.SelectAttrValue("name", "") != name {
			continue
		}
		for _, w := range words {
			if !strings.Contains(e.Text(), w) {
				continue events
			}
		}
		return true
	}
	return false
}

func (g *gateway) promised(t *testing.T, key string) promised {
	t.Helper()
	p, err := g.agreements().Agreement(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return promised{p}
}

// untilPromised asks for an agreement until it is as wanted.
func (g *gateway) untilPromised(t *testing.T, key, what string, wanted func(promised) bool) promised {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 4*time.Minute)
	defer stop()
	for {
		p := g.promised(t, key)
		if wanted(p) {
			return p
		}
		if ctx.Err() != nil || p.State.Final() {
			t.Fatalf("waited in vain for this: %s\n%s", what, p.story())
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func ended(p promised) bool { return p.State.Final() }

// runs reports whether the site has started the job, which is more than having it.
func runs(p promised) bool { return p.happened("started", "slurm") }

// refusedFor gives what an offer is refused with, on the wire a wsag:ContinuingFault.
func refusedFor(t *testing.T, err error, code agreement.Code) *agreement.Refusal {
	t.Helper()
	r, ok := errors.AsType[*agreement.Refusal](err)
	if !ok || r.Code != code {
		t.Fatalf("%v; wanted a refusal %s", err, code)
	}
	return r
}

// untilSlurm asks Slurm until its answer is as wanted.
func (w *promising) untilSlurm(t *testing.T, what string, wanted func(out string) bool, name string, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for {
		out := w.slurm.MustRun(t, name, args...)
		if wanted(out) {
			return out
		}
		if ctx.Err() != nil {
			t.Fatalf("waited in vain for this: %s; %s says\n%s", what, name, out)
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// foreign submits a job to Slurm, past the gateway, that runs until a file is there.
func (w *promising) foreign(t *testing.T, name, gate, limit string) {
	t.Helper()
	w.slurm.MustRun(t, "sbatch", "-J", name, "-n1", "-t", limit, "-D", w.dir, "-o", "/dev/null", "--wrap", "while [ ! -e "+gate+" ]; do sleep 0.1; done")
}

func lines(out string) int { return len(strings.Fields(out)) }

// advanceReservation: the manager itself reserves what is promised, though all of it is busy when the offer
// comes. The job starts in the reservation, in time, while all the rest is full of others' work and more of it waits; and
// once the job is done the reservation is gone, long before its time is over.
func advanceReservation(t *testing.T, w *promising) {
	gate := func(name string) string { return filepath.Join(w.dir, name) }
	before, after, work := gate("before"), gate("after"), gate("work")
	for range 4 {
		w.foreign(t, "before", before, "1")
	}
	w.untilSlurm(t, "the cluster is full", func(out string) bool { return lines(out) == 4 }, "squeue", "-h", "-t", "R", "-o", "%A")

	// Slurm takes it that these jobs may run for a minute.
	from := time.Now().Add(75 * time.Second).Truncate(time.Second)
	until := from.Add(10 * time.Minute)
	job := schedulable{name: "reserved", cpus: 2, script: "while [ ! -e " + work + " ]; do sleep 0.1; done"}
	c := w.agreements()
	key, err := offerBy(t, c, "advance-reservation@slurm/debug").say(t, "job", job.document()).say(t, "window", windowTerm(from, until)).send(t.Context(), c)
	if err != nil {
		t.Fatalf("the offer is refused: %v", err)
	}
	p := w.promised(t, key)
	if p.State != agreement.Observed || !p.happened("reserved", "slurm") {
		t.Errorf("when it is accepted:\n%s", p.story())
	}
	said := w.slurm.MustRun(t, "scontrol", "show", "reservation", "-o")
	_, name, _ := strings.Cut(strings.Fields(said)[0], "=")
	for _, want := range []string{"ReservationName=portolan.", key, "StartTime=" + from.Local().Format("2006-01-02T15:04:05"), "EndTime=" + until.Local().Format("2006-01-02T15:04:05"), "cpu=2", "State=INACTIVE"} {
		if !strings.Contains(said, want) {
			t.Errorf("the reservation lacks %s: %s", want, said)
		}
	}

	// Others want more than there is, past the gateway and by it, before the window opens.
	t.Cleanup(func() { open(t, after) }) // so that what comes next at this Slurm does not wait for them
	for range 20 {
		w.foreign(t, "after", after, "60")
	}
	var best []soap.EPR
	for i := range 10 {
		best = append(best, schedulable{name: fmt.Sprint("best", i), limit: 120, script: "while [ ! -e " + after + " ]; do sleep 0.1; done"}.submit(t, w.gateway))
	}
	open(t, before)

	p = w.untilPromised(t, key, "the job runs", runs)
	if now := time.Now(); now.Before(from) {
		t.Errorf("it runs at %s, before its window opens at %s", now, from)
	}
	if p.guarantee("start") == agreement.Violated {
		t.Errorf("it did not start in time:\n%s", p.story())
	}
	queue := w.slurm.MustRun(t, "squeue", "-h", "-t", "R", "-o", "%A|%j|%C|%v")
	inside, cpus := 0, 0
	for line := range strings.Lines(queue) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 {
			t.Fatalf("squeue says\n%s", queue)
		}
		cpus += number(f[2])
		if f[3] == name {
			inside++
			continue
		}
		if f[1] == "before" {
			t.Errorf("this still runs: %s", line)
		}
	}
	if inside != 1 || cpus != 4 {
		t.Errorf("of the jobs that run, which have %d CPUs of 4, there are %d in the reservation %s:\n%s", cpus, inside, name, queue)
	}
	if n := lines(w.slurm.MustRun(t, "squeue", "-h", "-t", "PD", "-o", "%A")); n < 10 {
		t.Errorf("only %d jobs wait at Slurm while it runs", n)
	}
	waits := 0
	for _, e := range best {
		s, err := w.client().GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: []soap.EPR{e}})
		if err != nil || s[0].Err != nil {
			t.Fatal(err, s)
		}
		if s[0].Status.Details != nil && s[0].Status.Details.Started.IsZero() {
			waits++
		}
	}
	if waits == 0 {
		t.Error("none of the gateway's own jobs of best effort waits while it runs")
	}

	open(t, work)
	p = w.untilPromised(t, key, "its end", ended)
	if p.State != agreement.Complete || p.guarantee("start") != agreement.Fulfilled {
		t.Errorf("in the end:\n%s", p.story())
	}
	w.untilSlurm(t, "the reservation is gone", func(out string) bool { return !strings.Contains(out, name) }, "scontrol", "show", "reservation", "-o")
	if now := time.Now(); now.After(until) {
		t.Errorf("at %s the window is over, so that it proves nothing that the reservation is gone", now)
	}
	w.untilPromised(t, key, "the release is told", func(p promised) bool { return p.happened("released", "slurm") })
	e, ok := p.job()
	if !ok {
		t.Fatalf("its job is not told of:\n%s", p.story())
	}
	if s := final(t, w.gateway, e); s.Details.Started.Before(from) || s.Details.Started.After(from.Add(time.Minute)) {
		t.Errorf("by Slurm the job started at %s; the window opened at %s", s.Details.Started, from)
	}
	t.Logf("\n%s", w.promised(t, key).story())

	w.slurm.MustRun(t, "scancel", "--name=after")
	open(t, after)
	for _, e := range best {
		siteOf(t, w.gateway, e)
	}
}

// finishBy: what is promised to finish by a time overtakes older jobs of best effort, by its deadline alone;
// what can't be promised is refused with the earliest time that can, and taken for that.
func finishBy(t *testing.T, w *promising) {
	gate, ran := filepath.Join(w.dir, "gate"), filepath.Join(w.dir, "ran")
	all := func(name string, limit int) schedulable {
		return schedulable{name: name, site: "slurm", cpus: 4, limit: limit, script: "echo " + name + " >>" + ran}
	}
	blocker := all("blocker", 3600)
	blocker.script = "while [ ! -e " + gate + " ]; do sleep 0.1; done; " + blocker.script
	first := blocker.submit(t, w.gateway)
	if _, err := waitFor(t.Context(), w.client(), first, func(s bes.Status) bool { return s.Details != nil && !s.Details.Started.IsZero() }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var older []soap.EPR
	for i := range 5 {
		older = append(older, all(fmt.Sprint("older", i), 60).submit(t, w.gateway))
	}

	c := w.agreements()
	by := func(at time.Time) offering {
		return offerBy(t, c, "finish-by@slurm/debug").say(t, "job", all("promised", 600).document()).say(t, "finishBy", ownTerm("FinishBy", stampOf(at)))
	}
	_, err := by(began.Add(30*time.Minute)).send(t.Context(), c)
	r := refusedFor(t, err, agreement.NoCapacity)
	// The one that runs may do so for an hour from its start on, and then the job for ten minutes.
	if d := r.Earliest.Sub(began); d < 50*time.Minute || d > 90*time.Minute || !strings.Contains(r.Error(), stampOf(r.Earliest)) {
		t.Errorf("the earliest end is said to be %s from now: %v", d, r)
	}
	t.Log(r)
	key, err := by(r.Earliest.Add(time.Minute)).send(t.Context(), c)
	if err != nil {
		t.Fatalf("what was said to be possible is refused: %v", err)
	}
	if p := w.promised(t, key); p.State != agreement.Observed || p.service().State != agreement.NotReady {
		t.Errorf("when it is accepted:\n%s", p.story())
	}
	open(t, gate)
	p := w.untilPromised(t, key, "its end", ended)
	if p.State != agreement.Complete || p.guarantee("finish") != agreement.Fulfilled || len(p.entries("penalty")) > 0 {
		t.Errorf("in the end:\n%s", p.story())
	}
	t.Logf("\n%s", p.story())
	for _, e := range append(older, first) {
		siteOf(t, w.gateway, e)
	}
	b, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	order := strings.Fields(string(b))
	if len(order) != 7 || order[0] != "blocker" || order[1] != "promised" {
		t.Errorf("they ran in this order: %v", order)
	}
}

// siteKilled: the controller of a site and its nodes die for good. What was promised there and may be run elsewhere is
// saved; what may not is violated; and each agreement's own history and ledger say which, and why.
func siteKilled(t *testing.T, w *promising) {
	started := filepath.Join(w.dir, "started")
	c := w.agreements()
	offer := func(name, template string, again bool, by time.Time) string {
		t.Helper()
		// At Slurm it would run for ever; elsewhere it is quick.
		j := schedulable{name: name, limit: 20, rerunable: again, script: "echo " + name + " >>" + started + `; [ -z "$SLURM_JOB_ID" ] || exec sleep 600`}
		key, err := offerBy(t, c, template).say(t, "job", j.document()).say(t, "finishBy", ownTerm("FinishBy", stampOf(by))).send(t.Context(), c)
		if err != nil {
			t.Fatalf("the offer of %s is refused: %v", name, err)
		}
		return key
	}
	now := time.Now()
	saved := offer("saved", "finish-by@slurm/debug", true, now.Add(4*time.Minute)) // it is in danger once half of that is over
	broken := offer("broken", "finish-by@slurm/debug", false, now.Add(50*time.Second))
	for _, key := range []string{saved, broken} {
		w.untilPromised(t, key, "it runs at slurm", runs)
	}
	for _, node := range w.slurm.Nodes {
		w.slurm.KillNode(t, node)
	}
	w.slurm.Kill(t, testbed.Slurmctld)

	p := w.untilPromised(t, saved, "it is saved elsewhere", ended)
	if p.State != agreement.Complete || p.guarantee("finish") != agreement.Fulfilled || len(p.entries("penalty")) > 0 {
		t.Errorf("what may run again:\n%s", p.story())
	}
	if !p.happened("danger", "slurm", "spare") || !p.happened("job ended", "spare") {
		t.Errorf("the history does not say how it was saved:\n%s", p.story())
	}
	t.Logf("saved:\n%s", p.story())

	p = w.untilPromised(t, broken, "it is violated", func(p promised) bool { return p.guarantee("finish") == agreement.Violated })
	if !p.happened("danger", "slurm", "Rerunnable") || !p.happened("violated") {
		t.Errorf("the history does not say why it was not kept:\n%s", p.story())
	}
	// What is due is known once it is settled; the site is given up for that.
	mustCLI(t, w.gateway, "fence", "--reason", "burnt down", "slurm")
	p = w.untilPromised(t, broken, "its end", ended)
	due := p.entries("penalty")
	if len(due) != 1 || due[0].SelectAttrValue("amount", "") != "-7.5" || due[0].SelectAttrValue("job", "") == "" || !strings.Contains(due[0].Text(), "finish") {
		t.Errorf("the ledger does not say what is due:\n%s", p.story())
	}
	if p.State != agreement.Complete || p.guarantee("finish") != agreement.Violated {
		t.Errorf("what may not run again:\n%s", p.story())
	}
	t.Logf("violated:\n%s", p.story())

	b, err := os.ReadFile(started)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); strings.Count(s, "broken\n") != 1 || strings.Count(s, "saved\n") != 2 {
		t.Errorf("these were started: %q", s)
	}
}
