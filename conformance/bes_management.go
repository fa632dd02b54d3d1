package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

var managementChecks = []check{
	{"BES-MGT-1", "BES 1.0 §5", "StartAcceptingNewActivities on a service that accepts succeeds", func(ctx context.Context, p *probe) (string, error) {
		if err := p.manageable(ctx); err != nil {
			return "", err
		}
		return "StartAcceptingNewActivitiesResponse, still accepting", nil
	}},
	{"BES-MGT-2", "BES 1.0 §5, §7", "after StopAcceptingNewActivities the attribute says so at once", whileStopped(func(ctx context.Context, p *probe) (string, error) {
		a, err := p.readAttributes(ctx)
		if err != nil {
			return "", err
		}
		if a.accepting {
			return "", errors.New("IsAcceptingNewActivities is still true")
		}
		return "IsAcceptingNewActivities is false", nil
	})},
	{"BES-MGT-3", "BES 1.0 §5, §6.1", "a stopped service answers CreateActivity with NotAcceptingNewActivitiesFault", whileStopped(func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, create(job(posix(p.opts.Programs.True))))
		if err != nil {
			return "", err
		}
		if rep.fault == nil {
			_, _ = p.created(rep) // so that the run ends what should not be there
		}
		_, err = rep.wantBESFault(bes.NSFactory, "NotAcceptingNewActivitiesFault")
		return rep.String(), err
	})},
	{"BES-MGT-4", "BES 1.0 §5", "a stopped service still answers for the activities it has", whileStopped(func(ctx context.Context, p *probe) (string, error) {
		if len(p.shared) == 0 {
			return "", skip("no activity could be made before the service was stopped")
		}
		s, err := p.state(ctx, p.shared[0])
		return string(s), err
	})},
	{"BES-MGT-5", "BES 1.0 §5", "stopping a stopped service succeeds", whileStopped(func(ctx context.Context, p *probe) (string, error) {
		return p.manage(ctx, "StopAcceptingNewActivities")
	})},
	{"BES-MGT-6", "BES 1.0 §5", "after StartAcceptingNewActivities activities are taken again", func(ctx context.Context, p *probe) (string, error) {
		if _, err := whileStopped(func(context.Context, *probe) (string, error) { return "", nil })(ctx, p); err != nil {
			return "", err
		}
		a, err := p.readAttributes(ctx)
		if err != nil {
			return "", err
		}
		if !a.accepting {
			return "", errors.New("IsAcceptingNewActivities is still false")
		}
		if _, err := p.createActivity(ctx, job(posix(p.opts.Programs.True))); err != nil {
			return "", err
		}
		return "accepting, and one was made", nil
	}},
}

// manage calls an operation of the Management port type.
func (p *probe) manage(ctx context.Context, operation string) (string, error) {
	rep, err := p.ask(ctx, management(operation))
	if err != nil {
		return "", err
	}
	return rep.String(), rep.wantPayload(bes.NSManagement, operation+"Response")
}

// manageable sees whether the caller may manage the service, by the request that
// changes nothing. It is a skip when the port type is not there or not for us.
func (p *probe) manageable(ctx context.Context) error {
	a, err := p.readAttributes(ctx)
	if err != nil {
		return err
	}
	if !a.accepting {
		return skip("the service accepts no new activities, and that is not ours to change")
	}
	rep, err := p.ask(ctx, management("StartAcceptingNewActivities"))
	if err != nil {
		return err
	}
	if rep.fault == nil {
		return rep.wantPayload(bes.NSManagement, "StartAcceptingNewActivitiesResponse")
	}
	if err := rep.wantFault(soap.Sender); err != nil {
		return err
	}
	if _, err := rep.wantBESFault(bes.NSFactory, "NotAuthorizedFault"); err == nil {
		return skip("the caller may not manage the service: %s", rep)
	}
	return skip("the endpoint does not offer the Management port type: %s", rep)
}

// whileStopped makes a check that runs while the service accepts nothing; it
// accepts again afterwards, whatever happens.
func whileStopped(f probeFunc) probeFunc {
	return func(ctx context.Context, p *probe) (saw string, err error) {
		// What the check looks at is made while the service still takes it.
		if _, _, err := p.two(ctx); err != nil {
			p.opts.Log.DebugContext(ctx, "no activities for the management checks", "error", err)
		}
		if err := p.manageable(ctx); err != nil {
			return "", err
		}
		defer func() {
			if _, again := p.manage(context.WithoutCancel(ctx), "StartAcceptingNewActivities"); again != nil && err == nil {
				saw, err = "", fmt.Errorf("the service could not be started again: %w", again)
			}
		}()
		if _, err := p.manage(ctx, "StopAcceptingNewActivities"); err != nil {
			return "", err
		}
		return f(ctx, p)
	}
}
