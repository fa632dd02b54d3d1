package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// federation is the domains with what lies between them: bsc and fiu are peers, bsc is the
// parent of ibm, which can't be reached from outside and opens the session itself. So fiu
// and ibm reach each other over bsc only.
type federation struct {
	hub     *space
	domains []*domain
	phase   time.Duration
	proxies map[string]*proxy // by the domain that is reached through it
}

// port is where gateways take requests of peers, each at its own address.
const port = 8441

// relation is what one domain is to another.
type relation struct {
	to   *domain
	role string
	url  string // "" for one that opens the session
}

// endpoint is where others reach a domain; "" for one that they can't.
func (f *federation) endpoint(d *domain) string {
	if p := f.proxies[d.name]; p != nil {
		return "https://" + p.l.Addr().String() + "/peer"
	}
	return ""
}

// relations gives those of a domain.
func (f *federation) relations(d *domain) []relation {
	bsc, fiu, ibm := f.domains[0], f.domains[1], f.domains[2]
	switch d {
	case bsc:
		return []relation{{fiu, "peer", f.endpoint(fiu)}, {ibm, "child", ""}}
	case fiu:
		return []relation{{bsc, "peer", f.endpoint(bsc)}}
	default:
		return []relation{{bsc, "parent", f.endpoint(bsc)}}
	}
}

// newFederation puts proxies between the domains.
func newFederation(t *testing.T, hub *space, domains []*domain, phase time.Duration) *federation {
	t.Helper()
	f := &federation{hub: hub, domains: domains, phase: phase, proxies: map[string]*proxy{}}
	bsc, fiu, ibm := domains[0], domains[1], domains[2]
	for at, from := range map[*domain][]*domain{bsc: {fiu, ibm}, fiu: {bsc}} {
		l, err := hub.listen(net.JoinHostPort(bridge, "0"))
		if err != nil {
			t.Fatal(err)
		}
		ways := map[string]*way{}
		for _, d := range from {
			ways[d.address] = newWay()
		}
		p := newProxy(l, net.JoinHostPort(at.address, strconv.Itoa(port)), hub.dial, ways)
		t.Cleanup(p.close)
		f.proxies[at.name] = p
	}
	return f
}

// afresh has all ways count from nothing on.
func (f *federation) afresh() {
	for _, p := range f.proxies {
		for _, w := range p.ways {
			w.afresh()
		}
	}
}

// peerState is what GET /api/v1/peers tells of one peer, as far as it is of use here.
type peerState struct {
	Domain  string     `json:"domain"`
	State   string     `json:"state"`
	Reason  string     `json:"reason"`
	Since   *time.Time `json:"since"`
	Session *struct {
		Out struct{ Messages, Bytes, Items uint64 } `json:"out"`
	} `json:"session"`
	Jobs struct {
		Given, Taken struct {
			Live  int
			Total int64
		}
	} `json:"jobs"`
	Ledger struct {
		Did       int64 `json:"didMs"`
		Got       int64 `json:"gotMs"`
		Contested int64 `json:"contestedMs"`
	} `json:"ledger"`
}

// peers asks a gateway for its peers.
func (g *gateway) peers(ctx context.Context) ([]peerState, error) {
	u, err := url.Parse(g.endpoint)
	if err != nil {
		return nil, err
	}
	u.Path = "/api/v1/peers"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := g.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return nil, fmt.Errorf("%s: %s", res.Status, why)
	}
	var out struct {
		Peers []peerState `json:"peers"`
	}
	return out.Peers, json.NewDecoder(res.Body).Decode(&out)
}

// alive waits until each gateway has its sessions.
func (f *federation) alive(ctx context.Context) error {
	return eventually(time.Minute, func() error {
		for _, d := range f.domains {
			list, err := d.gateway.peers(ctx)
			if err != nil {
				return fmt.Errorf("the peers of %s: %w", d.name, err)
			}
			for _, r := range f.relations(d) {
				i := slices.IndexFunc(list, func(p peerState) bool { return p.Domain == r.to.domain() })
				switch {
				case i < 0:
					return fmt.Errorf("%s does not know %s", d.name, r.to.name)
				case list[i].State != "alive":
					return fmt.Errorf("%s has no session with %s: it is %s, %s", d.name, r.to.name, list[i].State, list[i].Reason)
				}
			}
		}
		return nil
	})
}

// said counts what was said in sessions.
type said struct{ messages, bytes, items uint64 }

func (s *said) add(list []peerState) {
	for _, p := range list {
		if p.Session != nil {
			s.messages, s.bytes, s.items = s.messages+p.Session.Out.Messages, s.bytes+p.Session.Out.Bytes, s.items+p.Session.Out.Items
		}
	}
}

// between is what a run says of the way between domains.
type between struct {
	said
	passed    int64         // bytes on the wire, TLS among them
	forwarded int           // jobs that ran elsewhere than where they were submitted
	first     time.Duration // from the first session's opening to the begin of the first of them; 0 where it is not known
	after     time.Duration // of that, after the first submission
	lines     []string
}

// traffic tells what was said, and when the first job was handed over.
func (f *federation) traffic(ctx context.Context, r *run, wrote map[string]*ran) *between {
	out := &between{said: r.said}
	var opened, first time.Time
	for _, d := range f.domains {
		list, err := d.gateway.peers(ctx)
		if err != nil {
			r.t.Errorf("the peers of %s: %v", d.name, err)
			continue
		}
		out.add(list)
		for _, p := range list {
			if p.Since != nil && (opened.IsZero() || p.Since.Add(-d.clock).Before(opened)) {
				opened = p.Since.Add(-d.clock)
			}
			if p.Ledger.Contested != 0 {
				r.t.Errorf("%s: %s and %s contest %d ms", r.name, d.name, p.Domain, p.Ledger.Contested)
			}
			out.lines = append(out.lines, fmt.Sprintf("%s and %s: %s; %d jobs given, %d taken; ran %.1f CPU s for it, had %.1f of it",
				d.name, strings.TrimSuffix(p.Domain, ".example"), p.State, p.Jobs.Given.Total, p.Jobs.Taken.Total, float64(p.Ledger.Did)/1000, float64(p.Ledger.Got)/1000))
		}
	}
	for _, j := range r.jobs {
		w := wrote[j.id]
		if !w.elsewhere(j.origin) {
			continue
		}
		out.forwarded++
		for i, place := range w.places {
			if place != j.origin {
				if first.IsZero() || w.starts[i].Before(first) {
					first = w.starts[i]
				}
				break
			}
		}
	}
	if !first.IsZero() && !opened.IsZero() && first.After(opened) {
		out.first, out.after = first.Sub(opened), first.Sub(r.begin)
	}
	for _, p := range slices.Sorted(maps.Keys(f.proxies)) {
		for from, w := range f.proxies[p].ways {
			there, back, n := w.passed()
			out.passed += there + back
			out.lines = append(out.lines, fmt.Sprintf("the way from %s to %s: %d bytes there, %d back, over %d connections", f.named(from), p, there, back, n))
		}
	}
	return out
}

func (f *federation) named(address string) string {
	for _, d := range f.domains {
		if d.address == address {
			return d.name
		}
	}
	return address
}

// domain is the name that the gateway speaks for.
func (d *domain) domain() string { return d.name + ".example" }
