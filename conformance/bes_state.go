package conformance

import (
	"context"
	"fmt"

	"github.com/portolan-project/portolan/bes"
)

var stateChecks = []check{
	{"BES-ST-1", "BES 1.0 §4.1", "a short activity ends Finished, by legal steps", func(ctx context.Context, p *probe) (string, error) {
		epr, err := p.createActivity(ctx, job(posix(p.opts.Programs.True)))
		if err != nil {
			return "", err
		}
		seen, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Finished })
		return fmt.Sprint(seen), err
	}},
	{"BES-ST-2", "BES 1.0 §4.1", "a long activity gets Running, by legal steps", func(ctx context.Context, p *probe) (string, error) {
		epr, err := p.sleeper(ctx)
		if err != nil {
			return "", err
		}
		seen, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Running })
		if err != nil {
			return "", err
		}
		if _, _, err := p.end(ctx, epr); err != nil {
			return "", err
		}
		return fmt.Sprint(seen), nil
	}},
	{"BES-ST-3", "BES 1.0 §4.1", "a final state stays", func(ctx context.Context, p *probe) (string, error) {
		epr, err := p.createActivity(ctx, job(posix(p.opts.Programs.True)))
		if err != nil {
			return "", err
		}
		if _, err := p.await(ctx, epr, bes.State.Final); err != nil {
			return "", err
		}
		first, err := p.state(ctx, epr)
		if err != nil {
			return "", err
		}
		for range 5 {
			s, err := p.state(ctx, epr)
			if err != nil {
				return "", err
			}
			if s != first {
				return "", fmt.Errorf("the state went from %s to %s", first, s)
			}
		}
		return fmt.Sprintf("%s, asked 5 times more", first), nil
	}},
	{"BES-ST-4", "BES 1.0 §4.1", "a program that does not exist does not end Finished", func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(job(posix("/no/such/program"))))
		if err != nil {
			return "", err
		}
		if rep.fault != nil {
			return rep.String(), nil // refused at the door
		}
		epr, err := p.created(rep)
		if err != nil {
			return "", err
		}
		seen, err := p.await(ctx, epr, func(s bes.State) bool { return s == bes.Failed || s == bes.Finished })
		if err != nil {
			return "", err
		}
		if seen[len(seen)-1] == bes.Finished {
			return "", fmt.Errorf("an activity whose program does not exist ended Finished (seen: %v)", seen)
		}
		return fmt.Sprint(seen), nil
	}},
	{"BES-ST-5", "BES 1.0 §7; §6.1", "a new activity counts in TotalNumberOfActivities", func(ctx context.Context, p *probe) (string, error) {
		before, err := p.readAttributes(ctx)
		if err != nil {
			return "", err
		}
		if _, err := p.createActivity(ctx, job(posix(p.opts.Programs.True))); err != nil {
			return "", err
		}
		after, err := p.readAttributes(ctx)
		if err != nil {
			return "", err
		}
		if after.total <= before.total {
			return "", fmt.Errorf("TotalNumberOfActivities was %d before and %d after one was made", before.total, after.total)
		}
		return fmt.Sprintf("%d, then %d", before.total, after.total), nil
	}},
}
