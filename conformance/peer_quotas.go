package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/portolan-project/portolan/peers/wire"
)

var peerQuotaChecks = []check{
	{"PEER-QUO-1", chapter("Resources 6; Quotas"), "when a session begins the quotas are told, each VO's once", quotas},
	{"PEER-QUO-2", chapter("Resources 6; Quotas"), "jobs of the domain that were taken are counted in them", quotasCount},
}

// hasQuotas gives a session in which quotas were agreed on.
func (p *probe) hasQuotas(ctx context.Context) (*visit, error) {
	v, err := p.standing(ctx)
	if err == nil && !slices.Contains(v.opened.Features, wire.FeatureQuotas) {
		err = skip("the endpoint does not know the feature %s", wire.FeatureQuotas)
	}
	return v, err
}

func quotas(ctx context.Context, p *probe) (string, error) {
	v, err := p.hasQuotas(ctx)
	if err != nil {
		return "", err
	}
	q, err := await(ctx, v, 0, "Quotas", func(*wire.Quotas) bool { return true })
	if err != nil {
		return "", err
	}
	of := map[string]bool{}
	for _, x := range q.List {
		if of[x.VO] {
			return "", fmt.Errorf("the quota of the VO %q is there twice", x.VO)
		}
		of[x.VO] = true
	}
	if v.opened.Provides && len(q.List) == 0 {
		return "", errors.New("the endpoint takes jobs of the kit's domain, and tells no quota, not even one without a bound")
	}
	return fmt.Sprintf("%d quotas", len(q.List)), nil
}

func quotasCount(ctx context.Context, p *probe) (string, error) {
	if _, err := p.hasQuotas(ctx); err != nil {
		return "", err
	}
	v, r, mark, err := p.begun(ctx, p.opts.Programs.Sleep, "60")
	if err != nil {
		return "", err
	}
	defer v.drop(r.About)
	jobs := func(q *wire.Quotas) (n uint64) {
		for _, x := range q.List {
			n = max(n, x.Jobs)
		}
		return n
	}
	q, err := await(ctx, v, mark, "Quotas with a job", func(q *wire.Quotas) bool { return jobs(q) > 0 })
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d jobs", jobs(q)), nil
}
