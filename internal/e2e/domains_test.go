package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/resourcemodel"
)

// etcdCluster starts an etcd of one member that is nobody's of the gateways', and gives its
// endpoint.
func etcdCluster(t *testing.T) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{any}, nil
	cfg.AdvertiseClientUrls = []url.URL{any}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(2 * time.Minute):
		t.Fatal("etcd does not start")
	}
	return e.Clients[0].Addr().String()
}

// model asks a gateway for the resource model.
func (g *gateway) model(t *testing.T) *console.Resources {
	t.Helper()
	m, err := g.askModel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (g *gateway) askModel(ctx context.Context) (*console.Resources, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.address+console.ResourcesPath, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	m := new(console.Resources)
	if err := json.NewDecoder(res.Body).Decode(m); err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the model: %s, %w", res.Status, err)
	}
	return m, nil
}

// siteIn gives a site of a model; nil when it is not there.
func siteIn(m *console.Resources, domain, site string) *console.Resource {
	for i := range m.Sites {
		if s := &m.Sites[i]; s.Domain == domain && s.Site == site {
			return s
		}
	}
	return nil
}

// slotsIn gives the slots of a site in a model; 0 when it is not there.
func slotsIn(m *console.Resources, domain, site string) int {
	s := siteIn(m, domain, site)
	if s == nil || s.Static == nil || len(s.Static.Shares) == 0 {
		return 0
	}
	return s.Static.Shares[0].Slots
}

// untilModel asks a gateway for its model until it is as wanted.
func (g *gateway) untilModel(t *testing.T, what string, wanted func(*console.Resources) bool) *console.Resources {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for {
		m := g.model(t)
		if wanted(m) {
			return m
		}
		select {
		case <-ctx.Done():
			text, _ := json.MarshalIndent(m, "", " ")
			t.Fatalf("waited in vain for %s; the model is\n%s\nthe log:\n%s", what, text, g.log.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ledger notes what is written to etcd.
type ledger struct {
	mu     sync.Mutex
	events []*clientv3.Event
}

func follow(t *testing.T, cli *clientv3.Client) *ledger {
	l := new(ledger)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	watch := cli.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	<-watch
	wg.Go(func() {
		for r := range watch {
			l.mu.Lock()
			l.events = append(l.events, r.Events...)
			l.mu.Unlock()
		}
	})
	return l
}

// upTo waits until all is noted that was written up to a revision: each has an event.
func (l *ledger) upTo(t *testing.T, revision int64) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); len(l.since(revision-1)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("etcd is at revision %d, of which nothing was heard", revision)
		}
	}
}

// since gives what was written after a revision.
func (l *ledger) since(revision int64) []*clientv3.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.events {
		if e.Kv.ModRevision > revision {
			return append([]*clientv3.Event{}, l.events[i:]...)
		}
	}
	return nil
}

const modelKeys = "/portolan/v1/r/model/"

// realChanges gives the revisions after one in which a part of a site got another value, or
// in which what the jobs of before used, or taught, was written down, and complains of all
// others.
func (l *ledger) realChanges(t *testing.T, after int64) map[int64]string {
	t.Helper()
	real, lines, once := map[int64]string{}, map[int64]bool{}, map[string]bool{}
	for _, e := range l.since(after) {
		key := string(e.Kv.Key)
		switch {
		case strings.HasPrefix(key, modelKeys) && (strings.HasSuffix(key, "/static") || strings.HasSuffix(key, "/dynamic")):
			// A value begins with 16 bytes that name its write.
			if e.Type == clientv3.EventTypePut && e.PrevKv != nil && bytes.Equal(e.Kv.Value[16:], e.PrevKv.Value[16:]) {
				t.Errorf("%s was written again at revision %d, and is what it was", key, e.Kv.ModRevision)
			}
			real[e.Kv.ModRevision] += " " + strings.TrimPrefix(key, modelKeys)
		case strings.HasSuffix(key, "/r/usage/gateway/0000"), strings.HasSuffix(key, "/r/learned/gateway/0000"): // within a minute of the jobs
			if once[key] {
				t.Errorf("%s was written twice for the same jobs, at revision %d again", key, e.Kv.ModRevision)
			}
			once[key] = true
			real[e.Kv.ModRevision] += " " + key
		case strings.Contains(key, "/r/agreements/pool/"): // what of a site that went can't be promised any more, half a minute later
			if once[key] {
				t.Errorf("%s was written twice, at revision %d again", key, e.Kv.ModRevision)
			}
			once[key] = true
			real[e.Kv.ModRevision] += " " + key
		case strings.HasPrefix(key, "/portolan/v1/r/modelhistory/"):
			lines[e.Kv.ModRevision] = true // in the same transaction
		default:
			t.Errorf("revision %d was spent on %q", e.Kv.ModRevision, key)
		}
	}
	for at := range lines {
		if real[at] == "" {
			t.Errorf("revision %d was spent on the history alone", at)
		}
	}
	return real
}

func revisionOf(t *testing.T, cli *clientv3.Client) int64 {
	t.Helper()
	r, err := cli.Get(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	return r.Header.Revision
}

// writeSites puts a configuration in its file as an editor does: whole.
func writeSites(t *testing.T, file, head string, slots map[string]int) {
	t.Helper()
	text := head + "sites:\n"
	for _, name := range []string{"bow", "stern", "mast"} {
		if n := slots[name]; n > 0 {
			text += fmt.Sprintf("  - {name: %s, type: shell, settings: {slots: %d}}\n", name, n)
		}
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestTwoGateways: two gateways on one etcd cluster, each a process of its own. A change at
// a site of one is in the other's model with the delivery of that very revision; jobs of
// one are nothing to the other, through kill -9 too; and while both only measure their
// sites, etcd's revision does not grow.
func TestTwoGateways(t *testing.T) {
	endpoint := etcdCluster(t)
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	written := follow(t, cli)

	dir := t.TempDir()
	northData, northFile := filepath.Join(dir, "north"), filepath.Join(dir, "north.yaml")
	writeSites(t, northFile, "domain: north\n", map[string]int{"bow": 2})
	northArgs := []string{"--etcd-endpoints", endpoint, "--config", northFile}
	log := new(logFile)
	north, err := launch(t.Context(), northData, log, northArgs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-north.exited:
		default:
			endAll(t, north)
			north.stop(t)
		}
		if t.Failed() {
			t.Logf("the log of north:\n%s", log.tail())
		}
	})
	south := start(t, "--etcd-endpoints", endpoint, "--domain", "south", "--sites", "shell", "--slots", "3")

	both := func(m *console.Resources) bool { return len(m.Sites) == 2 }
	if m := south.untilModel(t, "north's site", both); m.Domain != "south" || slotsIn(m, "north", "bow") != 2 || slotsIn(m, "", "shell") != 3 {
		t.Errorf("south has %+v", m.Sites)
	}
	if m := north.untilModel(t, "south's site", both); m.Domain != "north" || slotsIn(m, "south", "shell") != 3 || slotsIn(m, "", "bow") != 2 {
		t.Errorf("north has %+v", m.Sites)
	}

	t.Run("delivery", func(t *testing.T) { twoDeliver(t, cli, written, north, south, northFile) })
	t.Run("jobs", func(t *testing.T) { twoJobs(t, north, south) })
	t.Run("refused", func(t *testing.T) {
		_, stderr, code := portolan(t, "serve", "--dev", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "third"), "--etcd-endpoints", endpoint, "--domain", "north")
		if code != 3 || !strings.Contains(stderr, "of the domain north") || !strings.Contains(stderr, "with --domain") {
			t.Errorf("a third of the same name: exit %d\n%s", code, stderr)
		}
	})
	t.Run("killed", func(t *testing.T) {
		north = twoKilled(t, north, south, func() *gateway {
			g, err := launch(t.Context(), northData, log, northArgs...)
			if err != nil {
				t.Fatal(err)
			}
			return g
		})
	})
	t.Run("idle", func(t *testing.T) { twoIdle(t, cli, written, north, south) })
}

// twoDeliver changes sites of north, and holds every model that south shows meanwhile
// against what etcd had at that revision.
func twoDeliver(t *testing.T, cli *clientv3.Client, written *ledger, north, south *gateway, file string) {
	type view struct {
		revision int64
		slots    map[string]int
	}
	var mu sync.Mutex
	var views []view
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		for ctx.Err() == nil {
			m, err := south.askModel(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			v := view{m.Revision, map[string]int{}}
			for _, s := range m.Sites {
				if s.Domain == "north" {
					v.slots[s.Site] = slotsIn(m, "north", s.Site)
				}
			}
			mu.Lock()
			if len(views) == 0 || views[len(views)-1].revision != v.revision {
				views = append(views, v)
			}
			mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	})
	began := revisionOf(t, cli)
	steps := []map[string]int{
		{"bow": 2, "stern": 4}, // a new site
		{"bow": 5, "stern": 4}, // other slots
		{"bow": 5, "stern": 1, "mast": 7},
		{"bow": 5, "mast": 7}, // one goes
		{"bow": 2, "mast": 6},
		{"bow": 2},
	}
	for n, slots := range steps {
		writeSites(t, file, "domain: north\n", slots)
		what := fmt.Sprintf("step %d, %v", n, slots)
		north.untilModel(t, what, func(m *console.Resources) bool {
			for _, site := range []string{"bow", "stern", "mast"} {
				if slotsIn(m, "", site) != slots[site] {
					return false
				}
			}
			return true
		})
		south.untilModel(t, what+", at the other", func(m *console.Resources) bool {
			for _, site := range []string{"bow", "stern", "mast"} {
				if slotsIn(m, "north", site) != slots[site] {
					return false
				}
			}
			return true
		})
	}
	stop()
	wg.Wait()
	written.upTo(t, revisionOf(t, cli))
	// What the slots of each site were from each revision on, by etcd itself.
	type turn struct {
		revision int64
		slots    int
	}
	turns := map[string][]turn{"bow": {{0, 2}}, "stern": {{0, 0}}, "mast": {{0, 0}}}
	for _, e := range written.since(began) {
		rest, ok := strings.CutPrefix(string(e.Kv.Key), modelKeys+"north/")
		site, part, _ := strings.Cut(rest, "/")
		if !ok || part != "static" {
			continue
		}
		now := turn{revision: e.Kv.ModRevision}
		if e.Type == clientv3.EventTypePut {
			now.slots = slotsWritten(t, e.Kv.Value)
		}
		if last := turns[site][len(turns[site])-1]; last.slots != now.slots {
			turns[site] = append(turns[site], now)
		}
	}
	for site, want := range map[string]int{"bow": 2, "stern": 3, "mast": 3} {
		if got := len(turns[site]) - 1; got != want {
			t.Errorf("etcd had %d changes of %s; the test made %d: %v", got, site, want, turns[site])
		}
	}
	mu.Lock()
	defer mu.Unlock()
	told := 0
	for i, v := range views {
		if i > 0 && v.revision < views[i-1].revision {
			t.Errorf("the model went back from revision %d to %d", views[i-1].revision, v.revision)
		}
		for site, all := range turns {
			want := 0
			for _, turn := range all {
				if turn.revision <= v.revision {
					want = turn.slots
				}
			}
			if v.slots[site] != want {
				t.Errorf("at revision %d south saw %s with %d slots; it had %d: %v", v.revision, site, v.slots[site], want, all)
			}
			if i > 0 && views[i-1].slots[site] != v.slots[site] {
				told++
			}
		}
	}
	t.Logf("%d revisions of the model were seen in south while north changed its sites; each had what etcd had at it, and %d changes of slots were seen", len(views), told)
	if told < 8 {
		t.Errorf("only %d changes were seen", told)
	}
	// And as people see it.
	out := mustCLI(t, south, "resources", "-o", "wide", "north/bow")
	if !strings.Contains(out, "north/bow/") || !strings.Contains(out, "shell") || strings.Contains(out, "\nshell/") {
		t.Errorf("resources shows\n%s", out)
	}
}

// slotsWritten gives the slots in a record of a site's static part: 16 bytes that name the
// write, how it is packed, and JSON.
func slotsWritten(t *testing.T, value []byte) int {
	t.Helper()
	text := value[17:]
	if value[16] == 's' {
		var err error
		if text, err = s2.Decode(nil, text); err != nil {
			t.Fatal(err)
		}
	}
	var static resourcemodel.Static
	if err := json.Unmarshal(text, &static); err != nil || len(static.Shares) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	return static.Shares[0].Slots
}

// twoJobs runs a job at each, and looks for it at the other.
func twoJobs(t *testing.T, north, south *gateway) {
	ids := map[*gateway]string{}
	for g, name := range map[*gateway]string{north: "north", south: "south"} {
		a := schedulable{name: name, script: "echo ran in " + name}.submit(t, g)
		ids[g] = strings.TrimSpace(mustCLI(t, g, "status", "-o", "name"))
		if _, err := waitFinal(t.Context(), g.client(), a); err != nil {
			t.Fatal(err)
		}
		if out := mustCLI(t, g, "output", ids[g]); !strings.Contains(out, "ran in "+name) {
			t.Errorf("the job of %s wrote %q", name, out)
		}
	}
	for g, other := range map[*gateway]*gateway{north: south, south: north} {
		if got := strings.Fields(mustCLI(t, g, "status", "-o", "name")); len(got) != 1 || got[0] == ids[other] {
			t.Errorf("a gateway lists %v; %s is the other's", got, ids[other])
		}
		if out, code := cli(t, g, "status", ids[other]); code == 0 {
			t.Errorf("a gateway knows the other's job:\n%s", out)
		}
		if out, code := cli(t, g, "cancel", ids[other]); code == 0 {
			t.Errorf("a gateway ends the other's job:\n%s", out)
		}
	}
	// A job that only the other's site could run is not sent there; match says why.
	file := filepath.Join(t.TempDir(), "job.jsdl")
	if err := os.WriteFile(file, schedulable{name: "far", site: "bow"}.document(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := cli(t, south, "match", file)
	if code != 1 || !strings.Contains(out, "north/bow/") || !strings.Contains(out, "no session") {
		t.Errorf("match: exit %d\n%s", code, out)
	}
	if _, code := cli(t, south, "submit", file); code == 0 {
		t.Error("a job for the other's site is taken")
	}
}

// twoKilled kills north while a job of it runs, and starts it again.
func twoKilled(t *testing.T, north, south *gateway, again func() *gateway) *gateway {
	mark := filepath.Join(t.TempDir(), "ran")
	a := schedulable{name: "through", script: "echo x >>" + mark + "; sleep 4; echo through"}.submit(t, north)
	if _, err := waitFor(t.Context(), north.client(), a, func(s bes.Status) bool { return s.State == bes.Running }); err != nil {
		t.Fatal(err)
	}
	north.kill()
	died := time.Now()
	m := south.untilModel(t, "north's site to grow old", func(m *console.Resources) bool {
		s := siteIn(m, "north", "bow")
		if s == nil {
			t.Fatal("the sites of a gateway that died are gone from the model")
		}
		return s.Confirmed != nil && time.Since(*s.Confirmed) > 2*time.Second
	})
	t.Logf("%v after kill -9, what north said last is known to be %v old", time.Since(died).Round(time.Millisecond), time.Since(*siteIn(m, "north", "bow").Confirmed).Round(time.Millisecond))
	if s := siteIn(m, "", "shell"); s.Dynamic == nil || !s.Dynamic.Up {
		t.Error("south's own site suffers from the other's death")
	}
	north = again()
	south.untilModel(t, "north to be back", func(m *console.Resources) bool {
		s := siteIn(m, "north", "bow")
		return s != nil && s.Confirmed != nil && time.Since(*s.Confirmed) < time.Second
	})
	id := strings.Fields(mustCLI(t, north, "status", "-o", "name"))[0]
	s, err := waitFinal(t.Context(), north.client(), a)
	if err != nil || s.State != bes.Finished {
		t.Fatalf("%v: the job is %s: %s", err, s.State, reason(s))
	}
	if out := mustCLI(t, north, "output", id); !strings.Contains(out, "through") {
		t.Errorf("it wrote %q", out)
	}
	if b, err := os.ReadFile(mark); err != nil || string(b) != "x\n" {
		t.Errorf("it ran %d times (%v)", bytes.Count(b, []byte("x")), err)
	}
	if got := len(strings.Fields(mustCLI(t, south, "status", "-o", "name"))); got != 1 {
		t.Errorf("south has %d jobs of 1", got)
	}
	return north
}

// twoIdle lets both measure their sites several times, and counts what that costs.
func twoIdle(t *testing.T, cli *clientv3.Client, written *ledger, north, south *gateway) {
	times := 4
	if testing.Short() {
		times = 2
	}
	// What the jobs left to be written is written.
	for last, since := revisionOf(t, cli), time.Now(); time.Since(since) < 3*time.Second; time.Sleep(100 * time.Millisecond) {
		if at := revisionOf(t, cli); at != last {
			last, since = at, time.Now()
		}
	}
	before, began := revisionOf(t, cli), time.Now()
	heard := map[string]map[int64]bool{"north": {}, "south": {}}
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
	defer stop()
	for len(heard["north"]) < times || len(heard["south"]) < times {
		for name, g := range map[string]*gateway{"north": north, "south": south} {
			asked := time.Now()
			m := g.model(t)
			for _, s := range m.Sites {
				if s.Domain == "" && s.Confirmed != nil {
					heard[name][s.Confirmed.Round(100*time.Millisecond).UnixMilli()] = true
				} else if s.Domain != "" && (s.Confirmed == nil || asked.Sub(*s.Confirmed) > time.Second) {
					t.Errorf("%s takes the living %s/%s for old: %v", name, s.Domain, s.Site, s.Confirmed)
				}
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the sites were heard of %d and %d times in %v", len(heard["north"]), len(heard["south"]), time.Since(began))
		case <-time.After(500 * time.Millisecond):
		}
	}
	after := revisionOf(t, cli)
	written.upTo(t, after)
	real := written.realChanges(t, before)
	for at := range real {
		if at > after {
			delete(real, at)
		}
	}
	t.Logf("%v idle: sites were heard of %d and %d times; etcd's revision grew by %d, with %d real changes %v",
		time.Since(began).Round(time.Second), len(heard["north"]), len(heard["south"]), after-before, len(real), real)
	if grown := after - before; grown != int64(len(real)) {
		t.Errorf("the revision grew by %d, with %d real changes", grown, len(real))
	}
	// The usage of each, what each learned, and what else runs on the machine, as far as it was measured.
	if most := 2 + 2 + len(heard["north"]) + len(heard["south"]); len(real) > most {
		t.Errorf("nothing happened, and %d changes were written", len(real))
	}
}
