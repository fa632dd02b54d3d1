package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/testbed"
)

const (
	manyOffers = 1000
	manyRoom   = 100 // of them have room
)

// answers are what came of many offers.
type answers struct {
	mu       sync.Mutex
	accepted map[string]bool // by key
	refused  int             // as there is no room
	lost     int             // with who was killed
}

// atOnce sends offers to several endpoints, all at once, each by turns, for one window. After as many answers as
// kill says, killed is called; then answers may be lost, and what has none is offered to the next.
func atOnce(t *testing.T, urls []string, template, site, share string, offers int, from time.Time, kill int, killed func()) *answers {
	t.Helper()
	var made []offering
	for _, u := range urls {
		c := agreementsAt(u)
		made = append(made, offerBy(t, c, template).say(t, "capacity", ownTerm("Capacity", fmt.Sprintf(
			"<p:Site>%s</p:Site><p:Share>%s</p:Share><p:CPUs>1</p:CPUs><p:StartTime>%s</p:StartTime><p:EndTime>%s</p:EndTime>", site, share, stampOf(from), stampOf(from.Add(time.Hour))))))
	}
	// One client each, as all go by connections of their own.
	shared := &http.Transport{MaxIdleConnsPerHost: offers}
	defer shared.CloseIdleConnections()
	a := &answers{accepted: map[string]bool{}}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	begin := make(chan struct{})
	var once sync.Once
	var wg sync.WaitGroup
	for i := range offers {
		wg.Go(func() {
			<-begin
			for try := i; ; try++ {
				at := try % len(urls)
				c := agreement.NewClient(&soap.Client{URL: urls[at], Transport: shared, Timeout: 2 * time.Minute, Retries: -1})
				key, err := made[at].send(t.Context(), c)
				a.mu.Lock()
				r, full := errors.AsType[*agreement.Refusal](err)
				switch {
				case err == nil:
					a.accepted[key] = true
				case full && r.Code == agreement.NoCapacity && killed != nil && r.Earliest.IsZero(): // it has just come back, and its site has not answered
					a.lost++
					full = false
				case full && r.Code == agreement.NoCapacity:
					a.refused++
					if r.Earliest.Before(from.Add(time.Hour)) {
						t.Errorf("the refusal says that the earliest begin is %s: %v", r.Earliest, r)
					}
				case killed != nil && (fail.Is(err, fail.Uncertain) || fail.Is(err, fail.Unavailable) || full && r.Code == agreement.NoSuchTemplate):
					a.lost++ // or it has just come back, and does not know its site yet
					full = false
				case fail.Is(err, fail.Unavailable): // it is starting, and nothing was done
				default:
					t.Errorf("an offer is answered with: %v", err)
				}
				n := len(a.accepted) + a.refused
				a.mu.Unlock()
				if killed != nil && n >= kill {
					once.Do(killed)
				}
				if err == nil || full || t.Failed() {
					return
				}
				if ctx.Err() != nil {
					t.Errorf("an offer has no answer yet: %v", err)
					return
				}
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	close(begin)
	wg.Wait()
	return a
}

// held reads anew what is in etcd of a domain, and gives the agreements that hold something in an hour; no
// more may be held than there is.
func held(t *testing.T, endpoint, domain, pool string, from time.Time) map[string]bool {
	t.Helper()
	st, err := etcd.Open(t.Context(), etcd.Options{Endpoints: []string{endpoint}, Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	e, err := engine.New(t.Context(), st, engine.Options{Replica: "auditor"})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, r := range e.Live() {
		if r.State != agreement.Observed || r.Plan == nil || len(r.Plan.Holds) == 0 {
			t.Errorf("the agreement %s is %s", r.ID, r.State)
			continue
		}
		if r.Plan.Holds[0].From.Equal(from) {
			out[r.ID] = true
		}
	}
	for _, s := range e.Steps(pool, from, from.Add(time.Hour)) {
		if s.Over() || s.Held.CPUs != int64(len(out)) {
			t.Errorf("the calendar says %+v, and %d agreements hold something", s, len(out))
		}
	}
	return out
}

func (a *answers) check(t *testing.T, what string, there map[string]bool, room int) {
	t.Helper()
	for key := range a.accepted {
		if !there[key] {
			t.Errorf("%s: %s was accepted and holds nothing", what, key)
		}
	}
	switch {
	case len(there) != room:
		t.Errorf("%s: %d agreements hold something, and %d could", what, len(there), room)
	case a.lost == 0 && len(a.accepted) != room:
		t.Errorf("%s: %d offers were accepted, not %d", what, len(a.accepted), room)
	case len(a.accepted)+a.lost < room:
		t.Errorf("%s: %d offers were accepted and %d answers lost, and %d agreements are there", what, len(a.accepted), a.lost, room)
	}
	t.Logf("%s: %d accepted, %d refused, %d answers lost", what, len(a.accepted), a.refused, a.lost)
}

// capacityOf is a Slurm of so many CPUs, and the configuration of a gateway that promises all of it.
func capacityOf(t *testing.T, dir, name string, cpus int) (config string) {
	t.Helper()
	cluster := testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 1, CPUs: cpus})
	spool := filepath.Join(dir, name+"-spool")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, name+".yaml")
	text := fmt.Sprintf("sites:\n  - {name: slurm, type: slurm, settings: {conf: %s, spool: %s}}\nagreements: {promise: 100}\n", cluster.Conf(), spool)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// thousandOfReplicas: a thousand want at once, of two processes of a domain, what a hundred can have. Exactly a
// hundred are accepted; and so they are when either is killed meanwhile, the one that has the sites or the one
// that has none, and what was accepted is there, whoever is asked.
func thousandOfReplicas(t *testing.T) {
	endpoint := etcdCluster(t)
	args := []string{"--config", capacityOf(t, openDir(t), "north", manyRoom), "--etcd-endpoints", endpoint, "--domain", "north"}
	const template = "capacity@slurm/debug"
	pool := terms.PoolID("slurm", "debug")
	both := []*gateway{startOn(t, t.TempDir(), args...), nil}
	offerBy(t, agreementsAt(both[0].agreement), template) // it knows its site
	begin := func(i int, further ...string) (*gateway, error) {
		if i == 0 {
			return launch(context.Background(), both[0].data, both[0].log, append(slices.Clone(args), further...)...)
		}
		log := new(logFile)
		if both[1] != nil {
			log = both[1].log
		}
		return launch(context.Background(), "", log, append(append(slices.Clone(args), "--replica", "second"), further...)...)
	}
	var err error
	if both[1], err = begin(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, g := range []*gateway{both[1], both[0]} {
			select {
			case <-g.exited:
			default:
				g.stop(t)
			}
			if t.Failed() {
				t.Logf("the log of %s:\n%s", g.agreement, g.log.tail())
			}
		}
	})
	if a, err := both[1].client().GetFactoryAttributesDocument(t.Context()); err != nil || !a.IsAcceptingNewActivities {
		t.Errorf("BES at the process without sites says %+v, %v", a, err)
	}
	urls := []string{both[0].agreement, both[1].agreement}
	from := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	a := atOnce(t, urls, template, "slurm", "debug", manyOffers, from, 0, nil)
	a.check(t, "both live", held(t, endpoint, "north", pool, from), manyRoom)
	if a.refused != manyOffers-manyRoom {
		t.Errorf("%d offers were refused", a.refused)
	}
	for i, what := range []string{"the one with the sites is killed", "the one without is killed"} {
		from = from.Add(2 * time.Hour)
		back := make(chan error, 1)
		a := atOnce(t, urls, template, "slurm", "debug", 3*manyRoom, from, 20+40*i, func() {
			both[i].kill()
			go func() {
				g, err := begin(i, "--listen", both[i].address)
				if err == nil {
					both[i] = g
				}
				back <- err
			}()
		})
		if t.Failed() {
			return // it may not even have been killed
		}
		if err := <-back; err != nil {
			t.Fatal(err)
		}
		a.check(t, what, held(t, endpoint, "north", pool, from), manyRoom)
		for key := range a.accepted {
			for _, u := range urls {
				if p, err := agreementsAt(u).Agreement(t.Context(), key); err != nil || p.State != agreement.Observed {
					t.Errorf("%s: asked at %s for %s: %v, %+v", what, u, key, err, p)
				}
			}
		}
	}
}

// thousandOfDomains: the same with the program itself. Two of it on one etcd are two domains, each with the
// capacity of its own site; a killed one is started again on its data.
func thousandOfDomains(t *testing.T) {
	endpoint := etcdCluster(t)
	dir := openDir(t)
	names := []string{"north", "south"}
	for _, name := range names {
		capacityOf(t, dir, name, manyRoom/2)
	}
	from := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	var gateways []*gateway
	var urls []string
	args := func(name string) []string {
		return []string{"--config", filepath.Join(dir, name+".yaml"), "--etcd-endpoints", endpoint, "--domain", name}
	}
	for _, name := range names {
		g := startOn(t, t.TempDir(), args(name)...)
		gateways, urls = append(gateways, g), append(urls, g.agreement)
	}
	const template = "capacity@slurm/debug"
	pool := terms.PoolID("slurm", "debug")
	all := func() map[string]bool {
		out := map[string]bool{}
		for _, name := range names {
			there := held(t, endpoint, name, pool, from)
			if len(there) != manyRoom/2 {
				t.Errorf("in the domain %s, %d agreements hold something", name, len(there))
			}
			for id := range there {
				out[id] = true
			}
		}
		return out
	}
	a := atOnce(t, urls, template, "slurm", "debug", manyOffers, from, 0, nil)
	a.check(t, "both live", all(), manyRoom)

	from = from.Add(2 * time.Hour)
	back := make(chan struct{})
	a = atOnce(t, urls, template, "slurm", "debug", 600, from, 20, func() {
		gateways[1].kill()
		go func() {
			defer close(back)
			g, err := launch(context.Background(), gateways[1].data, gateways[1].log, append(args("south"), "--listen", gateways[1].address)...)
			if err != nil {
				t.Error(err)
				return
			}
			gateways[1] = g
		}()
	})
	if t.Failed() {
		return // it may not even have been killed
	}
	<-back
	t.Cleanup(func() {
		select {
		case <-gateways[1].exited:
		default:
			gateways[1].stop(t)
		}
	})
	// Those whose turn came while it was down were offered to the other.
	for !t.Failed() {
		more := atOnce(t, urls[1:], template, "slurm", "debug", 30, from, 0, nil)
		for key := range more.accepted {
			a.accepted[key] = true
		}
		if more.refused > 0 {
			break
		}
	}
	a.check(t, "south is killed", all(), manyRoom)
}
