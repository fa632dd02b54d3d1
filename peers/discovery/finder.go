package discovery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// Bounds of a query.
const (
	MaxDomains = 16 // that are asked for in the DNS at once
	MaxWait    = 30 * time.Second
	usualWait  = 3 * time.Second
)

// Query says where to look.
type Query struct {
	LAN  bool
	DNS  []string      // domains
	Wait time.Duration // for all of it; 3 s if 0
}

// Validate gives fail.Invalid for what can't be asked.
func (q Query) Validate() error {
	if len(q.DNS) > MaxDomains {
		return fail.Errorf("discovery.Query", fail.Invalid, "", "at most %d domains are asked for at once", MaxDomains)
	}
	if q.Wait < 0 || q.Wait > MaxWait {
		return fail.Errorf("discovery.Query", fail.Invalid, "", "the time to wait must be at most %s", MaxWait)
	}
	for _, d := range q.DNS {
		if err := checkHost(d); err != nil {
			return err
		}
	}
	return nil
}

// Found is what a search brought.
type Found struct {
	Proposals []Proposal `json:"proposals"`
	// Remarks are what could not be asked, and what was found and dropped, each a sentence.
	Remarks []string `json:"remarks,omitempty"`
}

// Browser looks on the LAN.
type Browser interface {
	Browse(context.Context) (*Found, error)
}

// Finder asks all sources. The zero value has none.
type Finder struct {
	// Static gives the proposals of a list, such as the configuration's; nil is an empty one.
	Static func() []Proposal
	// DNS asks for records; nil is a gateway that may not.
	DNS Resolver
	// LAN is nil where nobody may look.
	LAN Browser
	// Own is the domain of this gateway: it is not proposed.
	Own string
	// Now gives the time; nil is the clock's.
	Now func() time.Time
}

// Find looks where the query says, and in the list. A source that fails is a remark, and
// takes nothing from the others.
func (f *Finder) Find(ctx context.Context, q Query) (*Found, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	if q.LAN && f.LAN == nil {
		return nil, fail.Errorf("discovery.Find", fail.Unsupported, "", "this gateway does not look on the LAN: name an interface with lan under peer in its configuration")
	}
	if len(q.DNS) > 0 && f.DNS == nil {
		return nil, fail.Errorf("discovery.Find", fail.Unsupported, "", "this gateway asks no DNS")
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(q.Wait, usualWait))
	defer cancel()
	now := time.Now
	if f.Now != nil {
		now = f.Now
	}
	in := &intake{own: f.Own}
	if f.Static != nil {
		for _, p := range f.Static() {
			p.Sources, p.Found = []Source{Listed}, now()
			in.add(p)
		}
	}
	var wg sync.WaitGroup
	for _, d := range q.DNS {
		wg.Go(func() {
			found, err := lookUp(ctx, f.DNS, d)
			in.take(found, err, InDNS, now())
		})
	}
	if q.LAN {
		wg.Go(func() {
			found, err := f.LAN.Browse(ctx)
			in.take(found, err, OnLAN, now())
		})
	}
	wg.Wait()
	return in.found(), nil
}

// intake gathers what sources bring, within the bounds.
type intake struct {
	mu      sync.Mutex
	own     string
	all     []Proposal
	remarks []string
	dropped int
}

func (in *intake) take(found *Found, err error, s Source, now time.Time) {
	if err != nil {
		in.remark(fail.Sentence(err))
	}
	if found == nil {
		return
	}
	for _, r := range found.Remarks {
		in.remark(r)
	}
	for _, p := range found.Proposals {
		p.Sources, p.Found = []Source{s}, now
		in.add(p)
	}
}

func (in *intake) add(p Proposal) {
	if err := p.Check(); err != nil {
		in.remark("dropped what came from " + string(p.Sources[0]) + ": " + fail.Sentence(err))
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if strings.EqualFold(p.Domain, in.own) {
		return
	}
	if len(in.all) >= 4*MaxProposals { // what is the same becomes one later
		in.dropped++
		return
	}
	in.all = append(in.all, p)
}

func (in *intake) remark(s string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if s = wire.Sentence(s); len(in.remarks) < maxRemarks && !slices.Contains(in.remarks, s) {
		in.remarks = append(in.remarks, s)
	}
}

func (in *intake) found() *Found {
	out := &Found{Proposals: Merge(in.all)}
	if out.Proposals == nil {
		out.Proposals = []Proposal{}
	}
	if n := len(out.Proposals); n > MaxProposals {
		in.dropped += n - MaxProposals
		out.Proposals = out.Proposals[:MaxProposals]
	}
	slices.Sort(in.remarks)
	out.Remarks = in.remarks
	if in.dropped > 0 {
		out.Remarks = append(out.Remarks, fmt.Sprintf("%d more were found; name fewer domains", in.dropped))
	}
	return out
}
