package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers/status"
)

// patience is how long it is waited for what takes a second or so.
const patience = 2 * time.Minute

// union is domains of gateways that are processes of their own, each with its etcd and its
// key, and the ledger that the jobs of all write.
type union struct {
	t       *testing.T
	dir     string
	ledger  string
	account string // that the users of others have everywhere
	domains []*domain
}

// domain is one of them.
type domain struct {
	*gateway
	u        *union
	name     string
	slots    int
	peers    []*domain
	terms    string
	agreeing bool   // it makes agreements with its peers
	outbound bool   // it has no listener: others can't reach it
	door     string // where it listens for peers; it is its own, so that it has it after a restart too
	front    string // where it listens for users, likewise
	way      *proxy // by which others reach it
	log      *logFile
}

// addresses counts those that the domains of this process have.
var addresses atomic.Uint32

func newUnion(t *testing.T) *union {
	t.Helper()
	dir, err := os.MkdirTemp("", "union") //nolint:usetesting // others must get in
	if err != nil {
		t.Fatal(err)
	}
	u := &union{t: t, dir: dir, ledger: filepath.Join(dir, "ledger")}
	t.Cleanup(func() {
		for _, d := range u.domains {
			if d.gateway != nil {
				d.stop(t)
			}
			if t.Failed() {
				t.Logf("the log of %s:\n%s", d.name, d.log.tail())
			}
		}
		for _, d := range u.domains {
			if d.way != nil {
				d.way.close()
			}
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if u.account = "nobody"; os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		u.account = me.Username
	}
	if err := os.WriteFile(u.ledger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(u.ledger, 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return u
}

// add makes a domain, which is not started.
func (u *union) add(name string, slots int, outbound bool) *domain {
	u.t.Helper()
	d := &domain{u: u, name: name, slots: slots, outbound: outbound, log: new(logFile)}
	pid, n := os.Getpid(), addresses.Add(1)
	ip := fmt.Sprintf("127.%d.%d.%d", 64+pid&0x7f, pid>>7&0xff, n)
	d.door, d.front = net.JoinHostPort(ip, "9443"), net.JoinHostPort(ip, "8700")
	if !outbound {
		d.way = newProxy(u.t, d.door)
	}
	if _, err := identity.Open(identity.Options{Domain: d.domain(), Dir: d.path("keys")}); err != nil {
		u.t.Fatal(err)
	}
	u.domains = append(u.domains, d)
	return d
}

func (d *domain) domain() string { return d.name + ".example" }

func (d *domain) path(what string) string { return filepath.Join(d.u.dir, d.name+"."+what) }

// knows has the domains be each other's peers.
func (u *union) knows(terms string, pairs ...[2]*domain) {
	for _, p := range pairs {
		p[0].terms, p[1].terms = terms, terms
		p[0].peers, p[1].peers = append(p[0].peers, p[1]), append(p[1].peers, p[0])
	}
	for _, d := range u.domains {
		d.configure()
	}
}

// configure writes the configuration, as an editor does.
func (d *domain) configure() {
	d.u.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\nsites:\n  - {name: %s-hosts, type: shell, settings: {slots: %d}}\npeer:\n", d.domain(), d.name, d.slots)
	if d.way != nil {
		fmt.Fprintf(&b, "  listen: %s\n  url: https://%s/peer\n", d.door, d.way.l.Addr())
	}
	fmt.Fprintf(&b, "  tls: {cert: %[1]s/gateway.pem, key: %[1]s/gateway.key}\n  trust:\n", d.path("keys"))
	for _, o := range d.peers {
		fmt.Fprintf(&b, "    %s: {ca: %s/ca.pem}\n", o.domain(), o.path("keys"))
	}
	b.WriteString("  peers:\n")
	for _, o := range d.peers {
		fmt.Fprintf(&b, "    - {domain: %s, shows: full, beat: 1s, lost: 6s, terms: {%s}", o.domain(), d.terms)
		if o.way != nil {
			fmt.Fprintf(&b, ", url: https://%s/peer", o.way.l.Addr())
		}
		if d.agreeing {
			b.WriteString(", agreements: true")
		}
		b.WriteString("}\n")
	}
	fmt.Fprintf(&b, "  routing: {overload: 1s, recover: 500ms, hop: 500ms}\n  mapping: [{account: %s}]\n", d.u.account)
	if d.agreeing {
		b.WriteString("agreements: {promise: 100}\n")
	}
	file := d.path("yaml")
	if err := os.WriteFile(file+".new", []byte(b.String()), 0o600); err != nil {
		d.u.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		d.u.t.Fatal(err)
	}
}

// begin starts gateways, all at once, on what they had if they ran before.
func begin(t *testing.T, ds ...*domain) {
	t.Helper()
	var all sync.WaitGroup
	for _, d := range ds {
		all.Go(func() {
			g, err := launch(t.Context(), d.path("data"), d.log, "--listen", d.front, "--config", d.path("yaml"))
			if err != nil {
				t.Error(err)
				return
			}
			d.gateway = g
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// end kills gateways, all at once.
func end(ds ...*domain) {
	var all sync.WaitGroup
	for _, d := range ds {
		all.Go(d.kill)
	}
	all.Wait()
	for _, d := range ds {
		d.gateway = nil
	}
}

// until waits for something.
func (u *union) until(what string, is func() error) {
	u.t.Helper()
	ctx, stop := context.WithTimeout(u.t.Context(), patience)
	defer stop()
	for {
		err := is()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			u.t.Fatalf("waited in vain for %s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// peer gives how the gateway stands with another.
func (d *domain) peer(o *domain) (*status.Peer, error) {
	ctx, stop := context.WithTimeout(d.u.t.Context(), patience)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.address+console.PeersPath, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var list console.PeerList
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the peers: %s, %w", res.Status, err)
	}
	for i := range list.Peers {
		if list.Peers[i].Domain == o.domain() {
			return &list.Peers[i], nil
		}
	}
	return nil, fmt.Errorf("%s does not know %s", d.name, o.name)
}

// is reports whether the gateway has such a session with another.
func (d *domain) is(state status.State, o *domain) error {
	p, err := d.peer(o)
	if err == nil && p.State != state {
		err = fmt.Errorf("%s is %s: %s", o.name, p.State, p.Reason)
	}
	return err
}

// sees waits until the gateway can give jobs to another.
func (d *domain) sees(o *domain) {
	d.u.t.Helper()
	d.u.until(d.name+" to see "+o.name, func() error {
		if err := d.is(status.Alive, o); err != nil {
			return err
		}
		m, err := d.askModel(d.u.t.Context())
		if err != nil {
			return err
		}
		if s := siteIn(m, o.domain(), o.name+"-hosts"); s == nil || s.Dynamic == nil || !s.Dynamic.Up {
			return errors.New("it does not show its site")
		}
		return nil
	})
}

// errand is a job that only some domains may run.
type errand struct {
	id     string
	at     []*domain
	script string // on one line, as JSDL's arguments are; say WORD writes to the ledger, $at is where it is
	once   bool   // it is not Rerunnable

	activity soap.EPR
}

func (e *errand) document(u *union) []byte {
	hosts, rerun := "", ""
	for _, d := range e.at {
		hosts += "<j:HostName>" + d.domain() + "</j:HostName>"
	}
	if e.once {
		rerun = "<o:Placement><o:Rerunnable>false</o:Rerunnable></o:Placement>"
	}
	// Where it runs it knows by its directory, which is its site's.
	script := "case $PWD in "
	for _, d := range e.at {
		script += d.path("data") + "/*) at=" + d.name + ";; "
	}
	script += fmt.Sprintf("*) at=nowhere;; esac; say() { echo \"$1 %s $at $(date +%%s.%%N)\" >> %s; }; %s", e.id, u.ledger, e.script)
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:p="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix" xmlns:o="http://portolan-project.org/ns/2026/jsdl"><j:JobDescription>`+
		`<j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><p:POSIXApplication><p:Executable>/bin/sh</p:Executable><p:Argument>-c</p:Argument><p:Argument>%s</p:Argument></p:POSIXApplication></j:Application>`+
		`<j:Resources><j:CandidateHosts>%s</j:CandidateHosts>%s</j:Resources></j:JobDescription></j:JobDefinition>`,
		e.id, xmlText(script), hosts, rerun)
}

// submit submits jobs, several at a time, each until there is an answer: the gateway may be
// killed meanwhile.
func (d *domain) submit(errands []*errand) {
	t := d.u.t
	todo := make(chan *errand)
	var all sync.WaitGroup
	c := bes.NewClient(&soap.Client{URL: "http://" + d.front + "/bes", Retries: -1, Timeout: 30 * time.Second, Transport: new(http.Transport)})
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for range 8 {
		all.Go(func() {
			for e := range todo {
				for {
					r, err := c.CreateActivity(ctx, &bes.CreateActivityRequest{Document: e.document(d.u), SubmissionID: "urn:union:" + e.id})
					if err == nil {
						e.activity = r.Activity
						break
					}
					if k := fail.KindOf(err); k != fail.Uncertain && k != fail.Unavailable || ctx.Err() != nil {
						t.Errorf("submitting %s: %v", e.id, err)
						break
					}
					pause(ctx, 20*time.Millisecond)
				}
			}
		})
	}
	for _, e := range errands {
		todo <- e
	}
	close(todo)
	all.Wait()
}

// finals waits until all jobs are final.
func (d *domain) finals(errands []*errand) map[*errand]bes.Status {
	d.u.t.Helper()
	if d.u.t.Failed() {
		d.u.t.FailNow() // not all were submitted
	}
	out := map[*errand]bes.Status{}
	d.u.until("the end of all jobs", func() error {
		var left []*errand
		var eprs []soap.EPR
		for _, e := range errands {
			if _, ok := out[e]; !ok {
				left, eprs = append(left, e), append(eprs, e.activity)
			}
		}
		if len(left) == 0 {
			return nil
		}
		rs, err := d.client().GetActivityStatuses(d.u.t.Context(), &bes.StatusRequest{Activities: eprs})
		if err != nil {
			return err
		}
		for i, r := range rs {
			switch {
			case r.Err != nil:
				d.u.t.Fatalf("%s was acknowledged, and is gone: %v", left[i].id, r.Err)
			case r.Status.State.Final():
				out[left[i]] = r.Status
			default:
				err = fmt.Errorf("%s is %s: %s", left[i].id, r.Status.State, reason(r.Status))
			}
		}
		return err
	})
	return out
}

// line is one of the ledger.
type line struct {
	word, at string
	time     time.Time
}

// lines gives what jobs wrote, by job.
func (u *union) lines() map[string][]line {
	u.t.Helper()
	b, err := os.ReadFile(u.ledger)
	if err != nil {
		u.t.Fatal(err)
	}
	out := map[string][]line{}
	for text := range strings.Lines(string(b)) {
		if !strings.HasSuffix(text, "\n") {
			break // it is being written
		}
		f := strings.Fields(text)
		if len(f) != 4 {
			u.t.Fatalf("the ledger has the line %q", text)
		}
		sec, part, _ := strings.Cut(f[3], ".")
		s, err := strconv.ParseInt(sec, 10, 64)
		n, nerr := strconv.ParseInt(part, 10, 64)
		if err := errors.Join(err, nerr); err != nil {
			u.t.Fatalf("the ledger has the line %q: %v", text, err)
		}
		out[f[1]] = append(out[f[1]], line{f[0], f[2], time.Unix(s, n)})
	}
	return out
}

// count counts the lines with a word, at a place; "" is any.
func count(lines []line, word, at string) (n int) {
	for _, l := range lines {
		if (word == "" || l.word == word) && (at == "" || l.at == at) {
			n++
		}
	}
	return n
}

// written counts the lines with a word of all jobs.
func (u *union) written(word string) (n int) {
	for _, ls := range u.lines() {
		n += count(ls, word, "")
	}
	return n
}

// history gives that of a job, for a message.
func (d *domain) history(e *errand) string {
	h, err := d.client().GetActivityHistory(context.Background(), e.activity)
	var b strings.Builder
	for _, x := range h {
		fmt.Fprintf(&b, "\n  %s %s/%s %s %s attempt %d: %s", x.Time.Format(time.StampMilli), x.State, x.SubState, x.Event, x.Site, x.Attempt, x.Reason)
	}
	if err != nil {
		fmt.Fprintf(&b, "\n  %v", err)
	}
	return b.String()
}

// exactlyOnce wants jobs that all finished, and of which each ran once, from begin to end.
func (d *domain) exactlyOnce(errands []*errand) {
	t := d.u.t
	t.Helper()
	ends := d.finals(errands)
	lines := d.u.lines()
	for _, e := range errands {
		s := ends[e]
		begun, ended := count(lines[e.id], "begin", ""), count(lines[e.id], "end", "")
		if s.State != bes.Finished || s.Details == nil || s.Details.ExitStatus == nil || *s.Details.ExitStatus != 0 || begun != 1 || ended != 1 {
			t.Errorf("%s is %s (%s), began %d times and came to its end %d times%s", e.id, s.State, reason(s), begun, ended, d.history(e))
		}
	}
	a, err := d.client().GetFactoryAttributesDocument(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d jobs, %d ended", d.name, len(errands), len(ends))
	if a.TotalNumberOfActivities < int64(len(errands)) {
		t.Errorf("%s has %d activities, and was given %d", d.name, a.TotalNumberOfActivities, len(errands))
	}
}

// bothWays runs a test with a peer that can be reached, and with one that can't, so that all
// goes over the session that it opened.
func bothWays(t *testing.T, f func(t *testing.T, outbound bool)) {
	for _, outbound := range []bool{true, false} {
		t.Run(map[bool]string{true: "outbound-only", false: "reachable"}[outbound], func(t *testing.T) {
			if testing.Short() && !outbound {
				t.Skip("the one that can't be reached is the harder one")
			}
			t.Parallel()
			f(t, outbound)
		})
	}
}

// TestPeerLost: a peer is killed and stays away. What it ran is ended at the recall deadline
// by its hosts alone; the jobs that it had are placed elsewhere after that and not before,
// each ends once, and when the peer is back it starts none of them.
func TestPeerLost(t *testing.T) {
	bothWays(t, func(t *testing.T, outbound bool) {
		const lease = 12 * time.Second
		u := newUnion(t)
		bsc, fiu, ibm := u.add("bsc", 1, false), u.add("fiu", 4, outbound), u.add("ibm", 8, false)
		u.knows("lease: 12s, skew: 500ms, stopWithin: 2s, resend: 1s, keep: 10m", [2]*domain{bsc, fiu}, [2]*domain{bsc, ibm})
		begin(t, bsc, fiu)
		bsc.sees(fiu)

		// Elsewhere they end at once; at fiu they go on for longer than the test, or until they
		// are let go on.
		word := filepath.Join(u.dir, "word")
		here := []*domain{fiu, ibm}
		long := "say begin; if [ $at = fiu ]; then for i in $(seq 1000); do say lives; sleep 0.1; done; fi; say end"
		done := "say begin; if [ $at = fiu ]; then while [ ! -e " + word + " ]; do say lives; sleep 0.1; done; fi; say end"
		running := []*errand{
			{id: "long", at: here, script: long},
			{id: "deaf", at: here, script: "trap '' TERM; " + long},
			{id: "done", at: here, script: done},
			{id: "once", at: here, script: long, once: true},
		}
		began := time.Now()
		bsc.submit(running)
		u.until("jobs to run at fiu", func() error {
			if n := u.written("begin"); n < len(running) {
				return fmt.Errorf("%d run", n)
			}
			return nil
		})
		var queued []*errand
		for i := range 5 {
			queued = append(queued, &errand{id: fmt.Sprintf("queued%d", i), at: here, script: long, once: i == 0})
		}
		bsc.submit(queued)
		jobs := slices.Concat(running, queued)
		u.until("all jobs to be at fiu", func() error {
			p, err := fiu.peer(bsc)
			if err == nil && p.Jobs.Taken.Live != len(jobs) {
				err = fmt.Errorf("%d are", p.Jobs.Taken.Live)
			}
			return err
		})
		begin(t, ibm)
		bsc.sees(ibm)
		end(fiu)
		killed := time.Now()
		if err := os.WriteFile(word, nil, 0o644); err != nil {
			t.Fatal(err)
		}

		ends := bsc.finals(jobs)
		lines := u.lines()
		for _, e := range jobs {
			bsc.elsewhere(e, ends[e], lines[e.id], began.Add(lease), killed)
		}
		if count(lines["done"], "end", "fiu") != 1 {
			t.Error("no job came to its end at fiu without anybody being told")
		}

		back := time.Now()
		begin(t, fiu)
		bsc.sees(fiu)
		u.until("fiu to have no job of bsc's", func() error {
			p, err := fiu.peer(bsc)
			if err == nil && p.Jobs.Taken.Live != 0 {
				err = fmt.Errorf("it has %d", p.Jobs.Taken.Live)
			}
			return err
		})
		last := &errand{id: "last", at: []*domain{fiu}, script: "say begin; say end"}
		bsc.submit([]*errand{last})
		bsc.exactlyOnce([]*errand{last})
		for id, ls := range u.lines() {
			for _, l := range ls {
				if l.at == "fiu" && l.time.After(back) && id != last.id {
					t.Errorf("%s %ss at fiu, which is back, and had lost it%s", id, l.word, fmt.Sprint(ls))
				}
			}
		}
		for e, s := range bsc.finals(jobs) {
			if s.State != ends[e].State || s.Details.Revision != ends[e].Details.Revision {
				t.Errorf("%s was %s, and is %s since fiu is back%s", e.id, ends[e].State, s.State, bsc.history(e))
			}
		}
	})
}

// elsewhere holds a job that fiu had when it was killed against what must have become of it:
// agreed is the earliest recall deadline that can have been agreed on.
func (d *domain) elsewhere(e *errand, s bes.Status, lines []line, agreed, killed time.Time) {
	t := d.u.t
	bad := func(format string, args ...any) {
		t.Errorf("%s: %s%s", e.id, fmt.Sprintf(format, args...), d.history(e))
	}
	ran := count(lines, "begin", "fiu")
	if ran > 1 {
		bad("fiu began it %d times", ran)
	}
	if e.once {
		// Of one that waited when it was last heard of nobody knows whether it has begun since.
		if s.State != bes.Failed || count(lines, "", "ibm") != 0 {
			bad("it must not be run a second time, ended as %s, and wrote %d times at ibm", s.State, count(lines, "", "ibm"))
		}
	} else if s.State != bes.Finished || count(lines, "begin", "ibm") != 1 || count(lines, "end", "ibm") != 1 {
		bad("ended as %s (%s), and was begun %d times at ibm", s.State, reason(s), count(lines, "begin", "ibm"))
	}
	// When it was placed elsewhere is told, to the second, and was no sooner than agreed.
	h, err := d.client().GetActivityHistory(t.Context(), e.activity)
	if err != nil {
		t.Fatal(err)
	}
	var deadline time.Time
	for _, x := range h {
		_, told, ok := strings.Cut(x.Reason, "was not heard of by the recall deadline, ")
		if !ok {
			continue
		}
		at, err := time.Parse(time.RFC3339, told[:min(len(told), len("2006-01-02T15:04:05Z"))])
		if err != nil || !deadline.IsZero() {
			bad("the history tells of the recall deadline %q, %v", told, err)
			return
		}
		if deadline = at; !x.Time.After(deadline) {
			bad("it is placed elsewhere at %s", x.Time)
		}
	}
	if deadline.Before(agreed.Add(-time.Second)) { // it is told without its fraction
		bad("the recall deadline was %s; %s was agreed", deadline, agreed)
	}
	for _, l := range lines {
		if l.at == "ibm" && !l.time.After(deadline) {
			bad("ibm had it at %s, before the recall deadline %s", l.time, deadline)
		}
		if l.at == "fiu" && l.time.After(deadline.Add(time.Second)) {
			bad("it was at fiu at %s, after the recall deadline %s", l.time, deadline)
		}
		if l.at == "fiu" && l.word == "begin" && l.time.After(killed) {
			bad("fiu began it after it was killed")
		}
	}
	if last := slices.IndexFunc(lines, func(l line) bool { return l.at == "ibm" }); last >= 0 && slices.ContainsFunc(lines[last:], func(l line) bool { return l.at == "fiu" }) {
		bad("it ran at fiu when ibm had it already")
	}
}

// TestPeersCut: the connection is broken and cut while jobs go both ways. All end exactly
// once, and each side knows of the other, to the byte, what that says of itself.
func TestPeersCut(t *testing.T) {
	bothWays(t, func(t *testing.T, outbound bool) {
		u := newUnion(t)
		bsc, fiu := u.add("bsc", 3, false), u.add("fiu", 3, outbound)
		u.knows("lease: 40s, skew: 1s, stopWithin: 3s, resend: 1s, keep: 10m", [2]*domain{bsc, fiu})
		begin(t, bsc, fiu)
		bsc.sees(fiu)
		fiu.sees(bsc)
		cables := func(f func(*proxy)) {
			for _, d := range u.domains {
				if d.way != nil {
					f(d.way)
				}
			}
		}
		jobs := map[*domain][]*errand{}
		load := func(part string, n int) {
			var all sync.WaitGroup
			for from, to := range map[*domain]*domain{bsc: fiu, fiu: bsc} {
				var some []*errand
				for i := range n {
					some = append(some, &errand{id: fmt.Sprintf("%s-%s%d", from.name, part, i), at: []*domain{to}, script: "say begin; sleep 0.2; say end"})
				}
				jobs[from] = append(jobs[from], some...)
				all.Go(func() { from.submit(some) })
			}
			all.Wait()
		}
		ended := func(n int) {
			t.Helper()
			u.until("jobs to end", func() error {
				if is := u.written("end"); is < n {
					return fmt.Errorf("%d did", is)
				}
				return nil
			})
		}
		load("before", 12)
		ended(3)
		cables((*proxy).reset)
		ended(8)
		cables((*proxy).cut)
		load("meanwhile", 6)
		// What each shows becomes another while nobody can be told.
		bsc.slots, fiu.slots = 5, 4
		bsc.configure()
		fiu.configure()
		for _, p := range [][2]*domain{{bsc, fiu}, {fiu, bsc}} {
			u.until(p[1].name+" to be lost", func() error { return p[0].is(status.Lost, p[1]) })
		}
		cables((*proxy).heal)
		load("after", 2)
		bsc.exactlyOnce(jobs[bsc])
		fiu.exactlyOnce(jobs[fiu])
		for _, p := range [][2]*domain{{bsc, fiu}, {fiu, bsc}} {
			u.until(p[1].name+" to be known as it is", func() error { return p[0].agrees(p[1]) })
		}
		if t.Failed() {
			return
		}
		p, err := bsc.peer(fiu)
		if err != nil || p.Session == nil {
			t.Fatalf("%+v, %v", p, err)
		}
		if p.Session.Outbound != outbound {
			t.Errorf("the session is outbound-only: %v", p.Session.Outbound)
		}
	})
}

// agrees reports where what is known here of another is not what that says of itself.
func (d *domain) agrees(o *domain) error {
	ours, err := d.askModel(d.u.t.Context())
	if err != nil {
		return err
	}
	theirs, err := o.askModel(d.u.t.Context())
	if err != nil {
		return err
	}
	sites := 0
	for i := range theirs.Sites {
		s := &theirs.Sites[i]
		if s.Domain != "" {
			continue
		}
		sites++
		known := siteIn(ours, o.domain(), s.Site)
		if known == nil {
			return fmt.Errorf("%s does not know the site %s", d.name, s.Site)
		}
		for _, part := range [][2]any{{s.Static, known.Static}, {s.Dynamic, known.Dynamic}} {
			want, werr := json.Marshal(part[0])
			got, gerr := json.Marshal(part[1])
			if werr != nil || gerr != nil || string(want) != string(got) {
				return fmt.Errorf("%s is\n%s\nand %s has\n%s", s.Site, want, d.name, got)
			}
		}
	}
	if slots := slotsIn(ours, o.domain(), o.name+"-hosts"); slots != o.slots || sites == 0 {
		return fmt.Errorf("%s has %d sites with %d slots; there are %d", d.name, sites, slots, o.slots)
	}
	for _, s := range ours.Sites {
		if s.Domain == o.domain() && siteIn(theirs, "", s.Site) == nil {
			return fmt.Errorf("%s knows a site %s that is not there", d.name, s.Site)
		}
	}
	return nil
}

// TestPeersKilled: both gateways are killed, twice, while they route jobs: none is lost, none
// runs twice.
func TestPeersKilled(t *testing.T) {
	bothWays(t, func(t *testing.T, outbound bool) {
		u := newUnion(t)
		bsc, fiu := u.add("bsc", 1, false), u.add("fiu", 16, outbound)
		u.knows("lease: 2m, skew: 1s, stopWithin: 3s, resend: 1s, keep: 10m", [2]*domain{bsc, fiu})
		begin(t, bsc, fiu)
		bsc.sees(fiu)
		var jobs []*errand
		for i := range 200 {
			jobs = append(jobs, &errand{id: fmt.Sprintf("job%d", i), at: []*domain{fiu}, script: "say begin; say end"})
		}
		var load sync.WaitGroup
		load.Go(func() { bsc.submit(jobs) })
		for _, n := range []int{40, 120} {
			u.until("jobs to begin", func() error {
				if is := u.written("begin"); is < n {
					return fmt.Errorf("%d did", is)
				}
				return nil
			})
			end(bsc, fiu)
			begin(t, bsc, fiu)
		}
		load.Wait()
		if t.Failed() {
			return
		}
		bsc.exactlyOnce(jobs)
	})
}
