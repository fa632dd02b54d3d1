package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/testbed"
)

const (
	manyOffers = 1000
	manyRoom   = 100 // of them have room
)

// manyCPUs is a machine that has them; how many jobs it runs at once bounds what is promised.
var manyCPUs = adapters.Environment{
	ID: "fake", OperatingSystem: "LINUX", OSVersion: "6.1", CPUArchitecture: "x86_64", CPUs: 2 * manyRoom, CPUSpeed: 2e9,
	Memory: 64 << 30, VirtualMemory: 64 << 30, Disk: 1 << 40, HostNames: []string{"fake"}, Nodes: 1, Available: 1,
}

// replicaWord makes this test's binary a replica of a gateway that takes agreements: its arguments are the
// endpoint of etcd, the replica's name and the address that it serves.
const replicaWord = "agreements-replica"

// replicaMain serves agreements about one site of 100 CPUs, which all replicas have, as a gateway
// does: the agreements are in etcd, for all replicas together. Jobs are its own affair, and there are none.
func replicaMain(args []string) int {
	err := func() error {
		if len(args) != 3 {
			return errors.New("an endpoint, a name and an address are wanted")
		}
		ctx := context.Background()
		st, err := etcd.Open(ctx, etcd.Options{Endpoints: []string{args[0]}})
		if err != nil {
			return err
		}
		own, world := mem.New(), fake.NewWorld(manyRoom)
		model, err := modelstore.Open(ctx, own, modelstore.Options{Interval: -1})
		if err != nil {
			return err
		}
		url := "http://" + args[2]
		b, err := broker.New(broker.Config{
			Store: own, Model: model, Replica: args[1], AwaitRoom: true, BaseURL: func() string { return url + "/bes" },
			Sites: []broker.Site{{Name: "here", Adapter: world.Open(fake.Options{Environment: manyCPUs})}},
		})
		if err != nil {
			return err
		}
		e, err := engine.New(ctx, st, engine.Options{Replica: args[1]})
		if err != nil {
			return err
		}
		svc, err := service.New(service.Options{
			Engine: e, Broker: b, Model: model, Settings: terms.Settings{Promise: 100},
			Join: func(ctx context.Context) (store.Session, error) { return st.Join(ctx, args[1]) },
		})
		if err != nil {
			return err
		}
		failed := make(chan error, 4)
		go func() { failed <- model.Run(ctx) }()
		go func() { failed <- b.Run(ctx) }()
		go func() { failed <- svc.Run(ctx) }()
		l, err := net.Listen("tcp", args[2])
		if err != nil {
			return err
		}
		endpoint := agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
		server := &http.Server{Handler: soap.NewRouter(map[string]http.Handler{"/agreement": endpoint}), ReadHeaderTimeout: time.Minute}
		go func() { failed <- server.Serve(l) }()
		fmt.Printf("agreement: %s/agreement\n", url)
		return <-failed
	}()
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// replica is such a process.
type replica struct {
	endpoint, name, address string
	log                     *logFile
	cmd                     *exec.Cmd
	url                     string
}

func startReplica(t *testing.T, endpoint, name string) *replica {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{endpoint: endpoint, name: name, address: l.Addr().String(), log: new(logFile)}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.kill()
		if t.Failed() {
			t.Logf("the log of the replica %s:\n%s", name, r.log.tail())
		}
	})
	r.start(t)
	return r
}

func (r *replica) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command(os.Args[0], replicaWord, r.endpoint, r.name, r.address)
	r.cmd.Stderr = r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the replica %s does not start: %v\n%s", r.name, err, r.log.tail())
	}
	r.url = strings.TrimSpace(strings.TrimPrefix(line, "agreement: "))
}

func (r *replica) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait() // it was killed
}

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

// thousandOfReplicas: a thousand want at once, of two replicas of a gateway, what a hundred can have. Exactly a
// hundred are accepted; and so they are when either is killed meanwhile, and what was accepted is there.
func thousandOfReplicas(t *testing.T) {
	endpoint := etcdCluster(t)
	both := []*replica{startReplica(t, endpoint, "a"), startReplica(t, endpoint, "b")}
	urls := []string{both[0].url, both[1].url}
	from := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	pool := terms.PoolID("here", "fake")
	a := atOnce(t, urls, "capacity@here/fake", "here", "fake", manyOffers, from, 0, nil)
	a.check(t, "both live", held(t, endpoint, "", pool, from), manyRoom)
	if a.refused != manyOffers-manyRoom {
		t.Errorf("%d offers were refused", a.refused)
	}
	for i, r := range both {
		from = from.Add(2 * time.Hour)
		a := atOnce(t, urls, "capacity@here/fake", "here", "fake", 300, from, 20+40*i, r.kill)
		a.check(t, r.name+" is killed", held(t, endpoint, "", pool, from), manyRoom)
		r.start(t)
		for key := range a.accepted { // whoever is asked
			for _, u := range urls {
				if p, err := agreementsAt(u).Agreement(t.Context(), key); err != nil || p.State != agreement.Observed {
					t.Errorf("asked at %s for %s: %v, %+v", u, key, err, p)
				}
			}
			break
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
		cluster := testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 1, CPUs: manyRoom / 2})
		spool := filepath.Join(dir, name+"-spool")
		if err := os.Mkdir(spool, 0o755); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("sites:\n  - {name: slurm, type: slurm, settings: {conf: %s, spool: %s}}\nagreements: {promise: 100}\n", cluster.Conf(), spool)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
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
